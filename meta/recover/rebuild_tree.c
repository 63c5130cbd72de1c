#include "rebuild_tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine/names.h"
#include "volume/volume.h"

#define FLUSH_ENTRIES 1000 /* of one directory */

/* Files of one directory that are not applied yet; the names are owned. */
struct batch {
    struct meta_entry *entries;
    size_t count, cap;
};

struct rebuild_level {
    uint64_t ino;   /* 0: not to be shown, keys below are left out */
    size_t key_len; /* of the prefix, with its '/' */
    bool known;     /* with asked_ns: it was listed before, and somebody may have its names */
    struct batch files, held;
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

static void hide(struct rebuild_tree *t, const char *key, enum names_problem problem)
{
    names_hidden_add(t->hidden, 0, key, problem);
    t->counts->hidden++;
}

/* A file that stands where a directory of the same name is. */
static void hide_twin(struct rebuild_tree *t, const struct rebuild_level *level,
                      const struct meta_entry *e)
{
    char key[META_KEY_MAX + 1];
    snprintf(key, sizeof(key), "%.*s%s", (int)level->key_len, t->path, e->name);
    hide(t, key, NAMES_BESIDE);
    t->counts->files--;
    t->counts->bytes -= e->size;
}

/* Levels */

static int level_push(struct rebuild_tree *t, uint64_t ino, size_t key_len)
{
    if (t->depth == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        struct rebuild_level *grown = reallocarray(t->levels, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        t->levels = grown;
        t->cap = cap;
    }
    t->levels[t->depth++] = (struct rebuild_level){.ino = ino, .key_len = key_len};
    return 0;
}

static int entry_order(const void *a, const void *b)
{
    const struct meta_entry *x = a, *y = b;
    return compare(x->name, x->name_len, y->name, y->name_len);
}

/* An inventory may name a key twice. */
static void drop_doubles(struct batch *b)
{
    size_t kept = 0;
    qsort(b->entries, b->count, sizeof(*b->entries), entry_order);
    for (size_t i = 0; i < b->count; i++) {
        if (kept && !entry_order(&b->entries[kept - 1], &b->entries[i]))
            entry_free(&b->entries[i]);
        else
            b->entries[kept++] = b->entries[i];
    }
    b->count = kept;
}

/* The directory went away, or moved, while its names came: they are not wanted any more. */
static bool is_left(const struct rebuild_tree *t, int rc)
{
    return t->asked_ns && (rc == -ENOENT || rc == -ENODATA || rc == -ESTALE || rc == -ENOTDIR);
}

static void tell_names(struct rebuild_tree *t, const struct rebuild_level *level)
{
    const struct batch *b = &level->files;
    for (size_t i = 0; level->known && i < b->count; i++)
        volume_entry_changed(t->meta, level->ino, b->entries[i].name, b->entries[i].name_len);
}

/* Applies the files of a level. `last`: nothing more will come of this directory. */
static int level_flush(struct rebuild_tree *t, struct rebuild_level *level, bool last)
{
    struct batch *b = &level->files;
    last = last && !t->asked_ns;
    if (t->asked_ns && b->count)
        drop_doubles(b);
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
                         .data = t->asked_ns ? t->path : NULL,
                         .data_len = t->asked_ns ? level->key_len : 0,
                         .attr.mtime_ns = t->asked_ns,
                         .flags =
                             (last ? META_IMPORT_LAST : 0) | (t->asked_ns ? META_IMPORT_OLD : 0)};
    struct meta_reply reply;
    int rc = volume_apply(t->meta, &op, &reply);
    meta_reply_done(&reply);
    if (!rc)
        tell_names(t, level);
    batch_clear(b);
    rc = is_left(t, rc) ? 0 : rc;
    return rc ? error_set(t->error, rc, "cannot record the names below \"%.*s\": %s",
                          (int)level->key_len, t->path, strerror(-rc))
              : 0;
}

/* Decides about held files by the next key of the directory (NULL: there is none). */
static int level_release(struct rebuild_tree *t, struct rebuild_level *level, const char *rest)
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
            hide_twin(t, level, &e);
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

static int level_pop(struct rebuild_tree *t, bool whole)
{
    struct rebuild_level *level = &t->levels[--t->depth];
    int rc = whole ? level_release(t, level, NULL) : 0;
    if (!rc && whole)
        rc = level_flush(t, level, true);
    batch_clear(&level->files);
    batch_clear(&level->held);
    free(level->files.entries);
    free(level->held.entries);
    return rc;
}

static bool was_listed(const struct rebuild_tree *t, uint64_t ino)
{
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns = 0;
    return engine_origin(t->meta->engine, ino, prefix, &listed_ns) == 0 && listed_ns > 0;
}

static int open_directory(struct rebuild_tree *t, const char *name, size_t len, size_t key_len)
{
    uint64_t parent = t->levels[t->depth - 1].ino, ino = 0;
    if (parent) {
        struct meta_entry entry = {.name = name, .name_len = len, .is_dir = true};
        struct meta_op op = {.kind = META_IMPORT_ONE,
                             .flags = t->asked_ns ? META_IMPORT_OLD : 0,
                             .attr.mtime_ns = t->asked_ns,
                             .data = t->asked_ns ? t->path : NULL,
                             .data_len = t->asked_ns ? t->levels[t->depth - 1].key_len : 0,
                             .parent = parent,
                             .name = {name, len},
                             .entries = &entry,
                             .entry_count = 1};
        struct meta_reply reply;
        int rc = volume_apply(t->meta, &op, &reply);
        if (!rc && S_ISDIR(reply.attr.mode))
            ino = reply.attr.ino;
        if (!rc && t->asked_ns) {
            volume_names_gone(t->meta, &reply); /* a file made way for it */
            if (reply.entry_count || t->levels[t->depth - 1].known)
                volume_entry_changed(t->meta, parent, name, len);
        }
        meta_reply_done(&reply);
        if (rc && !is_left(t, rc))
            return error_set(t->error, rc, "cannot record the directory \"%.*s\": %s", (int)key_len,
                             t->path, strerror(-rc));
    }
    t->counts->directories += ino != 0;
    int rc = level_push(t, ino, key_len);
    if (!rc && ino && t->asked_ns)
        t->levels[t->depth - 1].known = was_listed(t, ino);
    return rc;
}

/* Keys */

static int add_file(struct rebuild_tree *t, const char *name, const struct meta_entry *file)
{
    struct rebuild_level *level = &t->levels[t->depth - 1];
    struct meta_entry e = *file;
    if (!level->ino)
        return 0;
    e.attr.size = e.size;
    e.name_len = strlen(name);
    e.name = strdup(name);
    if (!e.name)
        return -ENOMEM;
    int rc = batch_add(t->asked_ns ? &level->files : &level->held, &e);
    if (rc) {
        entry_free(&e);
        return rc;
    }
    t->counts->files++;
    t->counts->bytes += e.size;
    t->counts->with_attributes += e.has_attr;
    return level->files.count >= FLUSH_ENTRIES ? level_flush(t, level, false) : 0;
}

/* Leaves the directories that the key is not in. */
static int leave(struct rebuild_tree *t, const char *key)
{
    int rc = 0;
    while (!rc && t->depth > 1 && strncmp(key, t->path, t->levels[t->depth - 1].key_len) != 0)
        rc = level_pop(t, true);
    return rc;
}

static int add_marker(struct rebuild_tree *t, const struct rebuild_level *level,
                      const struct meta_entry *file)
{
    struct meta_object marker = {.size = file->size, .mtime_ns = file->mtime_ns};
    memcpy(marker.etag, file->etag, sizeof(marker.etag));
    struct meta_name end = {"\xff", 1};
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = level->ino,
                         .name = end,
                         .new_name = end,
                         .objects = &marker,
                         .object_count = 1,
                         .data = t->asked_ns ? t->path : NULL,
                         .data_len = t->asked_ns ? level->key_len : 0,
                         .attr.mtime_ns = t->asked_ns,
                         .flags = t->asked_ns ? META_IMPORT_OLD : 0};
    struct meta_reply reply;
    int rc = level->ino ? volume_apply(t->meta, &op, &reply) : 0;
    if (level->ino)
        meta_reply_done(&reply);
    return !rc || is_left(t, rc) ? 0
                                 : error_set(t->error, rc, "cannot record the marker \"%s\": %s",
                                             t->path, strerror(-rc));
}

int rebuild_tree_add(struct rebuild_tree *t, const char *key, const struct meta_entry *file)
{
    int rc = leave(t, key);
    if (rc)
        return rc;
    snprintf(t->path, sizeof(t->path), "%s", key);
    t->counts->keys++;
    for (;;) {
        struct rebuild_level *level = &t->levels[t->depth - 1];
        const char *rest = t->path + level->key_len, *slash = strchr(rest, '/');
        size_t len = slash ? (size_t)(slash - rest) : strlen(rest);
        if (!*rest) {
            if (!file->size)
                return add_marker(t, level, file);
            hide(t, key, NAMES_SLASH_DATA);
            return 0;
        }
        enum names_problem problem = names_check(rest, len);
        if (problem) {
            hide(t, key, problem);
            return 0;
        }
        rc = level_release(t, level, rest);
        if (rc || !slash)
            return rc ? rc : add_file(t, rest, file);
        rc = open_directory(t, rest, len, (size_t)(slash - t->path) + 1);
        if (rc)
            return rc;
    }
}

int rebuild_tree_begin(struct rebuild_tree *t, struct meta *meta, struct rebuild_counts *counts,
                       struct error *error)
{
    *t = (struct rebuild_tree){.meta = meta, .counts = counts, .error = error};
    t->prefix_len = strlen(meta->format.prefix);
    snprintf(t->path, sizeof(t->path), "%s", meta->format.prefix);
    int rc = names_hidden_new(&t->hidden);
    if (!rc)
        rc = level_push(t, META_ROOT_INO, t->prefix_len);
    if (!rc)
        t->levels[0].known = was_listed(t, META_ROOT_INO);
    return rc;
}

int rebuild_tree_flush(struct rebuild_tree *t)
{
    for (size_t i = 0; i < t->depth; i++)
        if (t->levels[i].held.count)
            return 1;
    int rc = 0;
    for (size_t i = 0; !rc && i < t->depth; i++)
        rc = level_flush(t, &t->levels[i], false);
    return rc;
}

int rebuild_tree_end(struct rebuild_tree *t, bool whole)
{
    int rc = 0;
    while (t->depth) {
        int end = level_pop(t, whole && !rc);
        rc = rc ? rc : end;
    }
    free(TAKE_PTR(t->levels));
    return rc;
}
