#include "carry_entry.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine/names.h"

#define FORMAT 1

static const struct {
    const char *name;
    uint32_t type;
} types[] = {
    {"directory", S_IFDIR}, {"file", S_IFREG}, {"link", S_IFLNK},  {"fifo", S_IFIFO},
    {"socket", S_IFSOCK},   {"char", S_IFCHR}, {"block", S_IFBLK},
};

/* Bytes as base64: values may be anything. */
static json_t *encode_bytes(const char *bytes, size_t len)
{
    size_t cap = (len + 2) / 3 * 4 + 1;
    cleanup(free_ptr) char *text = malloc(cap);
    if (!text)
        return NULL;
    EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes, (int)len);
    return json_string(text);
}

static int decode_bytes(const char *text, struct carry_text *out)
{
    size_t len = text ? strlen(text) : 1;
    if (len % 4)
        return -EBADMSG;
    out->bytes = malloc(len / 4 * 3 + 1);
    if (!out->bytes)
        return -ENOMEM;
    int got =
        len ? EVP_DecodeBlock((unsigned char *)out->bytes, (const unsigned char *)text, (int)len)
            : 0;
    if (got < 0)
        return -EBADMSG;
    size_t padding = len ? (text[len - 1] == '=') + (text[len - 2] == '=') : 0;
    out->len = (size_t)got - padding;
    out->bytes[out->len] = '\0';
    return 0;
}

/* A number of JSON here ends with the year 2262. */
static json_int_t time_number(uint64_t ns)
{
    return (json_int_t)MIN(ns, (uint64_t)INT64_MAX);
}

char *carry_entry_print(const struct carry_entry *e)
{
    const char *type = NULL;
    char mode[16];
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].type == (e->mode & S_IFMT))
            type = types[i].name;
    snprintf(mode, sizeof(mode), "%04o", e->mode & 07777u);
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "format", FORMAT, "type",
                             type, "path", e->path, "mode", mode, "uid", (json_int_t)e->uid, "gid",
                             (json_int_t)e->gid, "mtime_ns", time_number(e->mtime_ns), "written_ns",
                             time_number(e->written_ns));
    if (!root)
        return NULL;
    bool good = true;
    if (S_ISLNK(e->mode))
        good = !json_object_set_new(root, "target", encode_bytes(e->target.bytes, e->target.len));
    if (S_ISCHR(e->mode) || S_ISBLK(e->mode))
        json_object_set_new(root, "rdev", json_integer((json_int_t)e->rdev));
    if (S_ISREG(e->mode)) {
        good = !json_object_set_new(root, "etag", json_string(e->etag));
        json_object_set_new(root, "size", json_integer((json_int_t)e->size));
    }
    json_t *links = json_array(), *xattrs = json_object();
    for (size_t i = 0; i < e->link_count; i++)
        json_array_append_new(links, json_string(e->links[i]));
    for (size_t i = 0; i < e->xattr_count; i++)
        json_object_set_new(xattrs, e->xattrs[i].name.bytes,
                            encode_bytes(e->xattrs[i].value.bytes, e->xattrs[i].value.len));
    if (json_array_size(links))
        json_object_set(root, "links", links);
    if (json_object_size(xattrs))
        json_object_set(root, "xattrs", xattrs);
    json_decref(links);
    json_decref(xattrs);
    char *text = good ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    return text;
}

static bool path_is_good(const char *path, bool may_be_root)
{
    if (!path || strlen(path) > CARRY_PATH_MAX)
        return false;
    if (!*path)
        return may_be_root;
    for (const char *at = path;; at++) {
        size_t len = strcspn(at, "/");
        if (names_check(at, len))
            return false;
        at += len;
        if (!*at)
            return true;
    }
}

static bool get_number(json_t *root, const char *name, uint64_t max, uint64_t *out)
{
    json_t *value = json_object_get(root, name);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (uint64_t)number > max)
        return false;
    *out = (uint64_t)number;
    return true;
}

static bool get_mode(json_t *root, uint32_t *out)
{
    const char *type = json_string_value(json_object_get(root, "type"));
    const char *mode = json_string_value(json_object_get(root, "mode"));
    char *end = NULL;
    if (!type || !mode || strlen(mode) != 4 || strspn(mode, "01234567") != 4)
        return false;
    *out = (uint32_t)strtoul(mode, &end, 8);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(types[i].name, type) == 0) {
            *out |= types[i].type;
            return true;
        }
    }
    return false;
}

static int parse_links(json_t *links, struct carry_entry *out)
{
    size_t count = json_array_size(links);
    if (!links)
        return 0;
    if (!json_is_array(links) || count > CARRY_LINKS_MAX)
        return -EBADMSG;
    out->links = calloc(count + 1, sizeof(*out->links));
    for (size_t i = 0; out->links && i < count; i++) {
        const char *path = json_string_value(json_array_get(links, i));
        if (!path_is_good(path, false))
            return -EBADMSG;
        out->links[i] = strdup(path);
        if (!out->links[i])
            return -ENOMEM;
        out->link_count++;
    }
    return out->links ? 0 : -ENOMEM;
}

static int parse_xattrs(json_t *xattrs, struct carry_entry *out)
{
    const char *name;
    json_t *value;
    if (!xattrs)
        return 0;
    if (!json_is_object(xattrs))
        return -EBADMSG;
    out->xattrs = calloc(json_object_size(xattrs) + 1, sizeof(*out->xattrs));
    if (!out->xattrs)
        return -ENOMEM;
    json_object_foreach(xattrs, name, value)
    {
        struct carry_xattr *x = &out->xattrs[out->xattr_count++];
        if (!*name || strlen(name) > META_XATTR_NAME_MAX)
            return -EBADMSG;
        x->name = (struct carry_text){strdup(name), strlen(name)};
        int rc = x->name.bytes ? decode_bytes(json_string_value(value), &x->value) : -ENOMEM;
        if (rc)
            return rc;
        if (x->value.len > META_XATTR_VALUE_MAX)
            return -EBADMSG;
    }
    return 0;
}

static int parse_object(json_t *root, struct carry_entry *out)
{
    uint64_t uid, gid;
    const char *path = json_string_value(json_object_get(root, "path"));
    const char *etag = json_string_value(json_object_get(root, "etag"));
    if (json_integer_value(json_object_get(root, "format")) != FORMAT ||
        !get_mode(root, &out->mode) || !path_is_good(path, S_ISDIR(out->mode)) ||
        !get_number(root, "uid", UINT32_MAX - 1, &uid) ||
        !get_number(root, "gid", UINT32_MAX - 1, &gid) ||
        !get_number(root, "mtime_ns", INT64_MAX, &out->mtime_ns) ||
        !get_number(root, "written_ns", INT64_MAX, &out->written_ns))
        return -EBADMSG;
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    out->path = strdup(path);
    if (!out->path)
        return -ENOMEM;
    if ((S_ISCHR(out->mode) || S_ISBLK(out->mode)) &&
        !get_number(root, "rdev", INT64_MAX, &out->rdev))
        return -EBADMSG;
    if (S_ISREG(out->mode)) {
        if (!etag || strlen(etag) >= sizeof(out->etag) ||
            !get_number(root, "size", INT64_MAX, &out->size))
            return -EBADMSG;
        memcpy(out->etag, etag, strlen(etag) + 1);
    }
    int rc = 0;
    if (S_ISLNK(out->mode)) {
        rc = decode_bytes(json_string_value(json_object_get(root, "target")), &out->target);
        if (!rc && (!out->target.len || out->target.len > META_SYMLINK_MAX ||
                    memchr(out->target.bytes, 0, out->target.len)))
            rc = -EBADMSG;
    }
    if (!rc)
        rc = parse_links(json_object_get(root, "links"), out);
    return rc ? rc : parse_xattrs(json_object_get(root, "xattrs"), out);
}

int carry_entry_parse(const void *data, size_t len, struct carry_entry *out)
{
    memset(out, 0, sizeof(*out));
    if (!len || len > CARRY_ENTRY_MAX)
        return -EBADMSG;
    json_t *root = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    int rc = json_is_object(root) ? parse_object(root, out) : -EBADMSG;
    json_decref(root);
    return rc;
}

void carry_entry_done(struct carry_entry *e)
{
    for (size_t i = 0; i < e->link_count; i++)
        free(e->links[i]);
    for (size_t i = 0; i < e->xattr_count; i++) {
        free(e->xattrs[i].name.bytes);
        free(e->xattrs[i].value.bytes);
    }
    free(e->links);
    free(e->xattrs);
    free(e->path);
    free(e->target.bytes);
    memset(e, 0, sizeof(*e));
}
