/* The control file's `list`: a directory's entries with their attributes, as objects or as rows.
 * Written as text at once: a tree of JSON values for each entry cost more than finding it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "front_control.h"

/* Whether it stands in JSON as it is. */
static bool is_plain(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c < ' ' || c > '~' || c == '"' || c == '\\')
            return false;
    }
    return true;
}

/* A name that is not plain, as a JSON token; NULL: it is not UTF-8. */
static char *coded_text(const struct meta_entry *entry)
{
    json_t *text = json_stringn(entry->name, entry->name_len);
    char *token = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    json_decref(text);
    return token;
}

/* Text after `text`, or base64 after `base64` and before `end`. */
static void put_name(struct buf *out, const struct meta_entry *entry, const char *text,
                     const char *base64, const char *end)
{
    char coded[4 * ((META_NAME_MAX + 2) / 3) + 1];
    if (is_plain(entry->name, entry->name_len)) {
        buf_printf(out, "%s\"%.*s\"", text, (int)entry->name_len, entry->name);
        return;
    }
    char *token = coded_text(entry);
    if (token) {
        buf_printf(out, "%s%s", text, token);
    } else {
        hash_base64(entry->name, entry->name_len, coded);
        buf_printf(out, "%s\"%s\"%s", base64, coded, end);
    }
    free(token);
}

#define U64(x) ((unsigned long long)(x))

static void put_object(struct buf *out, const struct meta_entry *entry, const struct meta_attr *a)
{
    buf_printf(out,
               "{\"ino\":%llu,\"mode\":%u,\"uid\":%u,\"gid\":%u,\"nlink\":%u,\"size\":%llu,"
               "\"mtime_ns\":%llu,\"ctime_ns\":%llu,\"atime_ns\":%llu",
               U64(a->ino), a->mode, a->uid, a->gid, a->nlink, U64(a->size), U64(a->mtime_ns),
               U64(a->ctime_ns), U64(a->atime_ns));
    put_name(out, entry, ",\"name\":", ",\"name64\":", "");
}

static void put_row(struct buf *out, const struct meta_entry *entry, const struct meta_attr *a)
{
    put_name(out, entry, "[", "[{\"name64\":", "}");
    buf_printf(out, ",%u,%u,%u,%llu,%llu,%llu", a->mode, a->uid, a->gid, U64(a->size),
               U64(a->mtime_ns), U64(a->atime_ns));
}

static void put_entry(struct control_handle *h, const struct meta_entry *entry)
{
    struct fs *fs = h->fs;
    bool rows = h->request.rows;
    struct meta_attr attr = entry->attr;
    struct data_cached cached;
    if (S_ISREG(attr.mode))
        data_overlay(fs->data, &attr);
    (rows ? put_row : put_object)(&h->reply, entry, &attr);
    if (h->request.cached && S_ISREG(attr.mode) &&
        data_cached(fs->data, attr.ino, DATA_CACHED_LOOK, &cached) == 0)
        buf_printf(&h->reply, rows ? ",%llu" : ",\"cached_bytes\":%llu", U64(cached.cached_bytes));
    buf_printf(&h->reply, rows ? "]" : "}");
}

void control_run_list(struct control_handle *h)
{
    struct meta_attr attr;
    int result = control_walk_readable(h, &attr);
    if (result == 0 && !S_ISDIR(attr.mode))
        result = -ENOTDIR;
    if (result < 0) {
        control_fail(h, result, NULL);
        return;
    }
    struct meta_request request = {
        .op = {.kind = META_READDIR,
               .ino = attr.ino,
               .name = {.bytes = h->request.after, .len = h->request.after_len},
               .count = h->request.limit,
               .plus = true},
    };
    result = meta_call(h->fs->meta, &request);
    if (result == 0) {
        buf_printf(&h->reply, "{\"ok\":true,\"end\":%s,\"entries\":[",
                   request.reply.end ? "true" : "false");
        for (size_t i = 0; i < request.reply.entry_count; i++) {
            buf_printf(&h->reply, i ? "," : "");
            put_entry(h, &request.reply.entries[i]);
        }
        buf_printf(&h->reply, "]}\n");
    } else {
        control_fail(h, result, NULL);
    }
    meta_reply_done(&request.reply);
}
