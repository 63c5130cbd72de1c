/*
 * Rebuild from one flat listing. Keys come in bytewise order, so that all keys below one prefix
 * stand together: a stack of the directories above the current key is all that is remembered.
 *
 * A file `a` waits (held) as long as keys like `a-b` come after it, because `a/c` may still follow:
 * then the directory is shown and the file is not, as a listing by directory has it.
 */
#include "meta/rebuild.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "bucket_list.h"
#include "many.h"
#include "names.h"
#include "rebuild_entries.h"
#include "rebuild_state.h"
#include "volume.h"

#define PARALLEL_DEFAULT 64
#define FLUSH_ENTRIES 1000 /* of one directory */
#define SAVE_NS (5 * NS_PER_S)

/* Files of one directory that are not applied yet; the names are owned. */
struct batch {
    struct meta_entry *entries;
    size_t count, cap;
};

struct level {
    uint64_t ino;   /* 0: not to be shown, keys below are left out */
    size_t key_len; /* of the prefix, with its '/' */
    struct batch files, held;
};

struct rebuild {
    const struct rebuild_config *config;
    struct meta *meta;
    size_t prefix_len;
    unsigned parallel;
    struct level *levels; /* owned; [0] is the root */
    size_t depth, cap;
    char path[META_KEY_MAX + 1]; /* the key whose directories the levels are */
    struct names_hidden *hidden;
    struct rebuild_state state;
    uint64_t saved_ns;
    struct error *error;
};

/* Entries */

static void entry_free(struct meta_entry *e)
{
    free((char *)e->name);
}

static void batch_clear(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        entry_free(&b->entries[i]);
    b->count = 0;
}

static int batch_add(struct batch *b, const struct meta_entry *e)
{
    if (b->count == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 16;
        struct meta_entry *grown = reallocarray(b->entries, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        b->entries = grown;
        b->cap = cap;
    }
    b->entries[b->count++] = *e;
    return 0;
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, MIN(a_len, b_len));
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static void hide(struct rebuild *r, const char *key, enum names_problem problem)
{
    names_hidden_add(r->hidden, 0, key, problem);
    r->state.counts.hidden++;
}

/* A file that stands where a directory of the same name is. */
static void hide_twin(struct rebuild *r, const struct level *level, const struct meta_entry *e)
{
    char key[META_KEY_MAX + 1];
    snprintf(key, sizeof(key), "%.*s%s", (int)level->key_len, r->path, e->name);
    hide(r, key, NAMES_BESIDE);
    r->state.counts.files--;
    r->state.counts.bytes -= e->size;
}

/* Levels */

static int level_push(struct rebuild *r, uint64_t ino, size_t key_len)
{
    if (r->depth == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        struct level *grown = reallocarray(r->levels, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        r->levels = grown;
        r->cap = cap;
    }
    r->levels[r->depth++] = (struct level){.ino = ino, .key_len = key_len};
    return 0;
}

/* Applies the files of a level. `last`: nothing more will come of this directory. */
static int level_flush(struct rebuild *r, struct level *level, bool last)
{
    struct batch *b = &level->files;
    if (!level->ino || (!b->count && !last)) {
        batch_clear(b);
        return 0;
    }
    /* An empty range: what the page does not show is not gone. */
    struct meta_name end = {"\xff", 1};
    for (size_t i = 0; i < b->count; i++) {
        const struct meta_entry *e = &b->entries[i];
        if (!i || compare(e->name, e->name_len, end.bytes, end.len) > 0)
            end = (struct meta_name){e->name, e->name_len};
    }
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = level->ino,
                         .name = end,
                         .new_name = end,
                         .entries = b->entries,
                         .entry_count = b->count,
                         .flags = last ? META_IMPORT_LAST : 0};
    struct meta_reply reply;
    int rc = volume_apply(r->meta, &op, &reply);
    meta_reply_done(&reply);
    batch_clear(b);
    return rc ? error_set(r->error, rc, "cannot record the names below \"%.*s\": %s",
                          (int)level->key_len, r->path, strerror(-rc))
              : 0;
}

/* Decides about held files by the next key of the directory (NULL: there is none). */
static int level_release(struct rebuild *r, struct level *level, const char *rest)
{
    struct batch *held = &level->held;
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < held->count; i++) {
        struct meta_entry e = held->entries[i];
        unsigned char next = 0;
        if (!rc && rest && !strncmp(rest, e.name, e.name_len))
            next = (unsigned char)rest[e.name_len];
        if (next == '/') {
            hide_twin(r, level, &e);
            entry_free(&e);
        } else if (next && next < '/') {
            held->entries[kept++] = e;
        } else {
            rc = rc ? rc : batch_add(&level->files, &e);
            if (rc)
                entry_free(&e);
        }
    }
    held->count = kept;
    return rc;
}

static int level_pop(struct rebuild *r, bool whole)
{
    struct level *level = &r->levels[--r->depth];
    int rc = whole ? level_release(r, level, NULL) : 0;
    if (!rc && whole)
        rc = level_flush(r, level, true);
    batch_clear(&level->files);
    batch_clear(&level->held);
    free(level->files.entries);
    free(level->held.entries);
    return rc;
}

static int open_directory(struct rebuild *r, const char *name, size_t len, size_t key_len)
{
    uint64_t parent = r->levels[r->depth - 1].ino, ino = 0;
    if (parent) {
        struct meta_entry entry = {.name = name, .name_len = len, .is_dir = true};
        struct meta_op op = {.kind = META_IMPORT_ONE,
                             .parent = parent,
                             .name = {name, len},
                             .entries = &entry,
                             .entry_count = 1};
        struct meta_reply reply;
        int rc = volume_apply(r->meta, &op, &reply);
        if (!rc && S_ISDIR(reply.attr.mode))
            ino = reply.attr.ino;
        meta_reply_done(&reply);
        if (rc)
            return error_set(r->error, rc, "cannot record the directory \"%.*s\": %s", (int)key_len,
                             r->path, strerror(-rc));
    }
    r->state.counts.directories += ino != 0;
    return level_push(r, ino, key_len);
}

/* Keys */

static int add_file(struct rebuild *r, const char *name, const struct store_entry *from,
                    const struct store_op *head)
{
    struct level *level = &r->levels[r->depth - 1];
    struct meta_entry e = {
        .name_len = strlen(name), .mtime_ns = from->mtime_ns, .size = from->size};
    if (!level->ino)
        return 0;
    memcpy(e.etag, from->etag, sizeof(e.etag));
    if (head) {
        e.size = head->info.size;
        e.mtime_ns = head->info.mtime_ns;
        memcpy(e.etag, head->info.etag, sizeof(e.etag));
        e.has_attr = tags_parse(head, &e.attr);
        r->state.counts.with_attributes += e.has_attr;
    }
    e.attr.size = e.size;
    e.name = strdup(name);
    if (!e.name)
        return -ENOMEM;
    int rc = batch_add(&level->held, &e);
    if (rc) {
        entry_free(&e);
        return rc;
    }
    r->state.counts.files++;
    r->state.counts.bytes += e.size;
    return level->files.count >= FLUSH_ENTRIES ? level_flush(r, level, false) : 0;
}

static bool is_internal(const struct rebuild *r, const char *key)
{
    return !strncmp(key, r->meta->internal, strlen(r->meta->internal));
}

/* Leaves the directories that the key is not in. */
static int leave(struct rebuild *r, const char *key)
{
    int rc = 0;
    while (!rc && r->depth > 1 && strncmp(key, r->path, r->levels[r->depth - 1].key_len) != 0)
        rc = level_pop(r, true);
    return rc;
}

static int take_key(struct rebuild *r, const struct store_entry *e, const struct store_op *head)
{
    const char *key = e->name;
    int rc = leave(r, key);
    if (rc)
        return rc;
    snprintf(r->path, sizeof(r->path), "%s", key);
    r->state.counts.keys++;
    for (;;) {
        struct level *level = &r->levels[r->depth - 1];
        const char *rest = r->path + level->key_len, *slash = strchr(rest, '/');
        size_t len = slash ? (size_t)(slash - rest) : strlen(rest);
        if (!*rest) {
            if (e->size)
                hide(r, key, NAMES_SLASH_DATA);
            return 0; /* the marker of a directory */
        }
        enum names_problem problem = names_check(rest, len);
        if (problem) {
            hide(r, key, problem);
            return 0;
        }
        rc = level_release(r, level, rest);
        if (rc || !slash)
            return rc ? rc : add_file(r, rest, e, head);
        rc = open_directory(r, rest, len, (size_t)(slash - r->path) + 1);
        if (rc)
            return rc;
    }
}

static bool is_absence(int result)
{
    return result == -ENOENT || result == -ENOTDIR || result == -EISDIR;
}

static int apply_looked(struct rebuild *r, const struct store_entry *e, struct store_op *op)
{
    if (!op->key)
        return take_key(r, e, NULL);
    if (is_absence(op->result))
        return 0; /* deleted since it was listed */
    if (op->result) {
        *r->error = op->error;
        error_prefix(r->error, "cannot read the attributes of %s", e->name);
        return op->result;
    }
    return take_key(r, e, op);
}

static int apply_page(struct rebuild *r, const struct store_list *list)
{
    cleanup(free_ptr) struct store_op *heads = calloc(list->count + 1, sizeof(*heads));
    if (!heads)
        return -ENOMEM;
    for (size_t i = 0; i < list->count; i++) {
        const char *key = list->entries[i].name;
        size_t len = strlen(key);
        if (!is_internal(r, key) && len && key[len - 1] != '/')
            heads[i] =
                (struct store_op){.kind = STORE_HEAD, .key = r->config->no_attributes ? NULL : key};
    }
    if (!r->config->no_attributes)
        many_run(r->meta->store, heads, list->count, r->parallel);
    int rc = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct store_entry *e = &list->entries[i];
        if (!rc && strlen(e->name) >= r->prefix_len && !is_internal(r, e->name))
            rc = apply_looked(r, e, &heads[i]);
        store_op_reset(&heads[i]);
    }
    return rc;
}

/* Saving how far it came */

static int save(struct rebuild *r, const char *after)
{
    for (size_t i = 0; i < r->depth; i++)
        if (r->levels[i].held.count)
            return 0; /* not to be decided yet: later */
    int rc = 0;
    for (size_t i = 0; !rc && i < r->depth; i++)
        rc = level_flush(r, &r->levels[i], false);
    if (!rc)
        rc = engine_sync(r->meta->engine);
    crash_point("rebuild.synced");
    if (rc)
        return rc;
    snprintf(r->state.after, sizeof(r->state.after), "%s", after);
    rc = rebuild_state_save(r->meta->directory, &r->state, r->error);
    crash_point("rebuild.saved");
    return rc;
}

static int list_all(struct rebuild *r)
{
    struct bucket_list list;
    const struct store_list *page;
    /* The volume's own keys may be many: they are jumped over. */
    char after[META_KEY_MAX + 1];
    struct list_range range = {
        .prefix = r->meta->format.prefix, .after = after, .skip = r->meta->internal};
    int rc;
    snprintf(after, sizeof(after), "%s", r->state.after);
    bucket_list_init(&list, r->meta->store, STORE_LIST, &range);
    while ((rc = bucket_list_next(&list, &page, r->error)) > 0) {
        rc = apply_page(r, page);
        crash_point("rebuild.page");
        if (!rc && page->count && clock_monotonic_ns() > r->saved_ns + SAVE_NS) {
            rc = save(r, page->entries[page->count - 1].name);
            r->saved_ns = clock_monotonic_ns();
        }
        if (r->config->progress)
            r->config->progress(r->config->arg, &r->state.counts);
        if (rc)
            break;
    }
    bucket_list_done(&list);
    while (r->depth) {
        int end = level_pop(r, !rc);
        rc = rc ? rc : end;
    }
    return rc;
}

static int run(struct rebuild *r)
{
    snprintf(r->path, sizeof(r->path), "%s", r->meta->format.prefix);
    r->saved_ns = clock_monotonic_ns();
    int rc = names_hidden_new(&r->hidden);
    if (!rc)
        rc = level_push(r, META_ROOT_INO, r->prefix_len);
    if (!rc)
        rc = list_all(r);
    if (!rc)
        rc = rebuild_entries(r->meta, r->parallel, &r->state.counts.entries, r->error);
    if (!rc)
        rc = engine_sync(r->meta->engine);
    free(r->levels);
    return rc;
}

int meta_rebuild(const struct rebuild_config *config, struct rebuild_counts *counts, json_t *hidden,
                 struct error *error)
{
    struct error own = {0};
    struct rebuild r = {.config = config, .error = error ? error : &own};
    struct meta_config volume = config->volume;
    volume.no_settle = true;
    error_clear(r.error);
    int rc = rebuild_state_begin(volume.directory, &r.state, r.error);
    if (!rc)
        rc = meta_open(&volume, &r.meta, r.error);
    if (rc)
        return rc;
    r.prefix_len = strlen(r.meta->format.prefix);
    r.parallel = config->parallel ? config->parallel : PARALLEL_DEFAULT;
    rc = run(&r);
    *counts = r.state.counts;
    if (hidden && r.hidden)
        names_hidden_status(r.hidden, hidden);
    names_hidden_free(r.hidden);
    meta_close(r.meta);
    crash_point("rebuild.closed");
    if (!rc)
        rc = rebuild_state_end(volume.directory, r.error);
    if (rc && !r.error->code)
        error_set(r.error, rc, "rebuild: %s", strerror(-rc));
    return rc;
}
