/*
 * Entries are read all, and sorted by path, so that a directory comes before what is in it. Of two
 * for one path the later counts: they can be of two volumes, or of an inode that is gone and its
 * successor. An entry about a file counts only for the object that it was written about.
 */
#include "rebuild_entries.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/log.h"
#include "volume/carry_entry.h"
#include "volume/many.h"

struct item {
    struct carry_entry entry;
    uint64_t ino; /* what it is about; 0: nothing */
};

struct restore {
    struct meta *meta;
    unsigned parallel;
    struct item *items; /* owned */
    size_t count, cap;
    char **old; /* keys of other volumes; owned */
    size_t old_count, old_cap;
    struct error *error;
};

/* Reading */

static int add_item(struct restore *r, struct carry_entry *entry)
{
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct item *grown = reallocarray(r->items, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        r->items = grown;
        r->cap = cap;
    }
    r->items[r->count++] = (struct item){.entry = *entry};
    return 0;
}

static int add_old(struct restore *r, const char *key)
{
    if (r->old_count == r->old_cap) {
        size_t cap = r->old_cap ? 2 * r->old_cap : 256;
        char **grown = reallocarray(r->old, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        r->old = grown;
        r->old_cap = cap;
    }
    r->old[r->old_count] = strdup(key);
    return r->old[r->old_count] ? (r->old_count++, 0) : -ENOMEM;
}

static int take_body(struct restore *r, const struct store_op *get)
{
    struct carry_entry entry;
    if (get->result == -ENOENT || get->result == -ERANGE)
        return 0;
    if (get->result) {
        *r->error = get->error;
        return get->result;
    }
    int rc = carry_entry_parse(get->buf, get->got, &entry);
    if (!rc)
        rc = add_item(r, &entry);
    if (rc)
        carry_entry_done(&entry);
    if (rc != -EBADMSG)
        return rc;
    log_warn("entry not understood", "key=%s", get->key);
    return 0;
}

static int read_page(struct restore *r, const struct store_list *list, const char *own)
{
    cleanup(free_ptr) struct store_op *gets = calloc(r->parallel, sizeof(*gets));
    cleanup(free_ptr) uint8_t *room = malloc((size_t)r->parallel * CARRY_ENTRY_MAX);
    int rc = gets && room ? 0 : -ENOMEM;
    for (size_t at = 0; !rc && at < list->count; at += r->parallel) {
        size_t count = MIN(list->count - at, (size_t)r->parallel);
        for (size_t i = 0; i < count; i++)
            gets[i] = (struct store_op){.kind = STORE_GET,
                                        .key = list->entries[at + i].name,
                                        .buf = room + i * CARRY_ENTRY_MAX,
                                        .buf_len = CARRY_ENTRY_MAX,
                                        .length = CARRY_ENTRY_MAX};
        many_run(r->meta->store, gets, count, r->parallel);
        for (size_t i = 0; i < count; i++) {
            rc = rc ? rc : take_body(r, &gets[i]);
            if (!rc && strncmp(gets[i].key, own, strlen(own)) != 0)
                rc = add_old(r, gets[i].key);
            store_op_reset(&gets[i]);
        }
    }
    return rc;
}

static int read_all(struct restore *r)
{
    char prefix[META_KEY_MAX + 16], own[META_KEY_MAX + 32];
    cleanup(free_ptr) char *token = NULL;
    snprintf(prefix, sizeof(prefix), "%s" CARRY_FOLDER, r->meta->internal);
    snprintf(own, sizeof(own), "%s%.8s/", prefix, r->meta->format.id);
    for (bool more = true; more;) {
        struct store_op list = {.kind = STORE_LIST, .prefix = prefix, .token = token};
        int rc = store_wait(r->meta->store, &list);
        if (rc)
            *r->error = list.error;
        else
            rc = read_page(r, &list.out_list, own);
        free(token);
        token = rc || !list.out_list.next_token ? NULL : strdup(list.out_list.next_token);
        store_op_reset(&list);
        if (rc)
            return rc;
        more = token != NULL;
    }
    return 0;
}

/* Paths as directories sort: '/' before all. */
static int compare_paths(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    int x = *a == '/' ? 1 : (unsigned char)*a + (*a != 0);
    int y = *b == '/' ? 1 : (unsigned char)*b + (*b != 0);
    return x - y;
}

static int compare_items(const void *a, const void *b)
{
    const struct carry_entry *x = &((const struct item *)a)->entry;
    const struct carry_entry *y = &((const struct item *)b)->entry;
    int order = compare_paths(x->path, y->path);
    return order ? order : (x->written_ns > y->written_ns) - (x->written_ns < y->written_ns);
}

/* Applying */

static int apply(struct restore *r, struct meta_op *op, uint64_t *ino)
{
    struct meta_reply reply;
    int rc = volume_apply(r->meta, op, &reply);
    if (!rc && ino)
        *ino = reply.attr.ino;
    meta_reply_done(&reply);
    return rc;
}

static int look(struct restore *r, uint64_t parent, const char *name, size_t len,
                struct meta_attr *attr)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = parent, .name = {name, len}};
    struct meta_reply reply;
    int rc = volume_read(r->meta, &op, &reply);
    *attr = reply.attr;
    meta_reply_done(&reply);
    if (rc == -EAGAIN)
        rc = attr->ino ? 0 : -ENOENT;
    return rc;
}

/* The directory that a path's last name is in, made where it is missing. */
static int open_parent(struct restore *r, const char *path, uint64_t *parent, const char **name)
{
    *parent = META_ROOT_INO;
    for (const char *slash; (slash = strchr(path, '/')); path = slash + 1) {
        struct meta_attr attr;
        size_t len = (size_t)(slash - path);
        int rc = look(r, *parent, path, len, &attr);
        if (rc == -ENOENT) {
            struct meta_op op = {.kind = META_MKNOD,
                                 .parent = *parent,
                                 .name = {path, len},
                                 .attr = {.mode = S_IFDIR | 0755,
                                          .uid = r->meta->format.root_uid,
                                          .gid = r->meta->format.root_gid}};
            rc = apply(r, &op, &attr.ino);
            attr.mode = S_IFDIR;
        }
        if (rc)
            return rc;
        if (!S_ISDIR(attr.mode))
            return -ENOTDIR;
        *parent = attr.ino;
    }
    *name = path;
    return 0;
}

/* The object that a file is, if it is one whole object. */
static bool is_object(struct restore *r, uint64_t ino, const struct carry_entry *e)
{
    struct meta_op op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX};
    struct meta_reply reply;
    bool same = !volume_read(r->meta, &op, &reply) && reply.object_count == 1 &&
                reply.attr.size == e->size && !strcmp(reply.objects[0].etag, e->etag);
    meta_reply_done(&reply);
    return same;
}

static int find_or_make(struct restore *r, struct item *item)
{
    const struct carry_entry *e = &item->entry;
    uint64_t parent;
    const char *name;
    struct meta_attr attr;
    if (!*e->path) {
        item->ino = META_ROOT_INO;
        return 0;
    }
    int rc = open_parent(r, e->path, &parent, &name);
    if (!rc)
        rc = look(r, parent, name, strlen(name), &attr);
    if (!rc) {
        bool same = (attr.mode & S_IFMT) == (e->mode & S_IFMT);
        if (same && (!S_ISREG(e->mode) || is_object(r, attr.ino, e)))
            item->ino = attr.ino;
        return 0;
    }
    if (rc == -ENOTDIR)
        return 0; /* the bucket has a file there */
    if (rc != -ENOENT || S_ISREG(e->mode))
        return rc == -ENOENT ? 0 : rc;
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = parent,
                         .name = {name, strlen(name)},
                         .attr = {.mode = e->mode, .uid = e->uid, .gid = e->gid, .rdev = e->rdev},
                         .data = e->target.bytes,
                         .data_len = e->target.len};
    return apply(r, &op, &item->ino);
}

static int add_links(struct restore *r, const struct item *item)
{
    for (size_t i = 0; i < item->entry.link_count; i++) {
        uint64_t parent;
        const char *name;
        int rc = open_parent(r, item->entry.links[i], &parent, &name);
        if (rc == -ENOTDIR)
            continue;
        struct meta_op op = {.kind = META_LINK,
                             .ino = item->ino,
                             .parent = parent,
                             .name = {name, rc ? 0 : strlen(name)}};
        rc = rc ? rc : apply(r, &op, NULL);
        if (rc && rc != -EEXIST)
            return rc;
    }
    return 0;
}

static int set_attributes(struct restore *r, const struct item *item)
{
    const struct carry_entry *e = &item->entry;
    int rc = 0;
    for (size_t i = 0; !rc && i < e->xattr_count; i++) {
        struct meta_op op = {.kind = META_SETXATTR,
                             .ino = item->ino,
                             .name = {e->xattrs[i].name.bytes, e->xattrs[i].name.len},
                             .data = e->xattrs[i].value.bytes,
                             .data_len = e->xattrs[i].value.len};
        rc = apply(r, &op, NULL);
    }
    struct meta_op op = {
        .kind = META_SETATTR,
        .ino = item->ino,
        .valid = META_SET_MODE | META_SET_UID | META_SET_GID | META_SET_MTIME,
        .attr = {.mode = e->mode, .uid = e->uid, .gid = e->gid, .mtime_ns = e->mtime_ns}};
    return rc ? rc : apply(r, &op, NULL);
}

static int apply_all(struct restore *r, uint64_t *applied)
{
    int rc = 0;
    if (r->count)
        qsort(r->items, r->count, sizeof(*r->items), compare_items);
    for (size_t i = 0; !rc && i < r->count; i++) {
        struct item *item = &r->items[i];
        bool superseded = i + 1 < r->count && !strcmp(item->entry.path, r->items[i + 1].entry.path);
        if (!superseded)
            rc = find_or_make(r, item);
        if (!rc && item->ino)
            rc = add_links(r, item);
    }
    /* Attributes last, and from below: making a name changes the time of its directory. */
    *applied = 0;
    for (size_t i = r->count; !rc && i-- > 0;) {
        if (!r->items[i].ino)
            continue;
        rc = set_attributes(r, &r->items[i]);
        ++*applied;
    }
    return rc ? error_set(r->error, rc, "cannot record what an entry says: %s", strerror(-rc)) : 0;
}

/* The new volume's own entries */

static void carried(struct meta_task *task)
{
    sem_post(task->arg);
}

static int write_anew(struct restore *r)
{
    sem_t done;
    struct meta_task task = {.ino = META_ROOT_INO, .done = carried, .arg = &done};
    sem_init(&done, 0, 0);
    meta_settle_wait(r->meta, &task);
    while (sem_wait(&done) < 0 && errno == EINTR)
        ;
    sem_destroy(&done);
    if (task.result)
        *r->error = task.error;
    return task.result;
}

static int remove_old(struct restore *r)
{
    uint64_t failed = 0;
    crash_point("rebuild.carried");
    int rc = engine_sync(r->meta->engine);
    if (!rc)
        rc = many_delete(r->meta->store, (const char *const *)r->old, r->old_count, &failed,
                         r->error);
    if (!rc && failed)
        log_warn("entries of the lost volume could not be removed", "count=%llu",
                 (unsigned long long)failed);
    return rc;
}

int rebuild_entries(struct meta *meta, unsigned parallel, uint64_t *applied, struct error *error)
{
    struct restore r = {.meta = meta, .parallel = parallel, .error = error};
    int rc = read_all(&r);
    if (!rc)
        rc = apply_all(&r, applied);
    crash_point("rebuild.entries");
    if (!rc)
        rc = write_anew(&r);
    if (!rc && r.old_count)
        rc = remove_old(&r);
    for (size_t i = 0; i < r.count; i++)
        carry_entry_done(&r.items[i].entry);
    for (size_t i = 0; i < r.old_count; i++)
        free(r.old[i]);
    free(r.items);
    free(r.old);
    return rc;
}
