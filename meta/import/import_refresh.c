/*
 * Asked-for looks at the bucket: `sluice refresh`, and what to make of an object that a reader
 * found changed or gone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "import.h"

/* Refresh */

struct refresh_dir {
    uint64_t ino;
    struct refresh_dir *next;
};

struct refresh {
    struct loop_task start;
    struct meta *meta;
    struct meta_task *task;
    struct import_wait wait;
    struct refresh_dir *todo; /* directories whose turn is to come */
    uint64_t dir;             /* the one that is being listed, or whose name is asked for */
    bool is_file;
};

static void refresh_next(struct refresh *r);

static void refresh_end(struct refresh *r, int rc, const struct error *error)
{
    struct meta *meta = r->meta;
    struct meta_task *task = r->task;
    while (r->todo) {
        struct refresh_dir *d = r->todo;
        r->todo = d->next;
        free(d);
    }
    free(r);
    task->result = rc;
    if (rc && error && error->code)
        task->error = *error;
    else if (rc)
        error_set(&task->error, rc, "refresh: %s", strerror(-rc));
    task->done(task);
    work_end(meta);
}

static int push_dir(struct refresh *r, uint64_t ino)
{
    struct refresh_dir *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->ino = ino;
    LL_PREPEND(r->todo, d);
    r->task->remaining++;
    return 0;
}

/* Something below is known, by a listing or by names that were looked up. */
static bool holds_anything(struct meta *meta, uint64_t ino)
{
    struct meta_op op = {.kind = META_USAGE, .ino = ino};
    struct meta_reply reply;
    bool any = !volume_read(meta, &op, &reply) && (reply.usage.files || reply.usage.directories);
    meta_reply_done(&reply);
    return any;
}

/* Directories below of which something is known. Sets *empty. */
static int push_children(struct refresh *r, uint64_t ino, bool *empty)
{
    char after[META_NAME_MAX + 1], prefix[META_KEY_MAX + 1];
    size_t after_len = 0;
    bool end = false;
    *empty = true;
    while (!end) {
        struct meta_op op = {
            .kind = META_READDIR, .ino = ino, .name = {after, after_len}, .count = 1000};
        struct meta_reply reply;
        int rc = volume_read(r->meta, &op, &reply);
        if (rc == -EAGAIN)
            rc = 0;
        end = reply.end || !reply.entry_count;
        for (size_t i = 0; !rc && i < reply.entry_count; i++) {
            const struct meta_entry *e = &reply.entries[i];
            uint64_t listed_ns = 0;
            *empty = false;
            after_len = MIN(e->name_len, (size_t)META_NAME_MAX);
            memcpy(after, e->name, after_len);
            if (!S_ISDIR(e->attr.mode))
                continue;
            int origin = engine_origin(r->meta->engine, e->ino, prefix, &listed_ns);
            if (origin == -ENODATA || (!origin && (listed_ns || holds_anything(r->meta, e->ino))))
                rc = push_dir(r, e->ino);
        }
        meta_reply_done(&reply);
        if (rc)
            return rc;
    }
    return 0;
}

/* The directory and name of an inode's first link. 0 or -errno. */
static int find_link(struct meta *meta, uint64_t ino, uint64_t *parent,
                     char name[META_NAME_MAX + 1])
{
    struct meta_op op = {.kind = META_PATH, .ino = ino};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    cleanup(free_ptr) char *path = rc ? NULL : strndup(reply.data, reply.data_len);
    meta_reply_done(&reply);
    if (rc || !path)
        return rc ? rc : -ENOMEM;
    *parent = META_ROOT_INO;
    char *rest = path;
    for (char *slash = strchr(rest, '/'); slash; slash = strchr(rest, '/')) {
        struct meta_op look = {
            .kind = META_LOOKUP, .parent = *parent, .name = {rest, (size_t)(slash - rest)}};
        rc = volume_read(meta, &look, &reply);
        *parent = reply.attr.ino;
        meta_reply_done(&reply);
        if (rc)
            return rc;
        rest = slash + 1;
    }
    snprintf(name, META_NAME_MAX + 1, "%s", rest);
    return 0;
}

static void refresh_asked(struct import_wait *wait, int rc, const struct error *error)
{
    struct refresh *r = container_of(wait, struct refresh, wait);
    if (rc)
        refresh_end(r, rc, error);
    else
        refresh_next(r);
}

static bool has_origin(struct meta *meta, uint64_t dir)
{
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns;
    return !engine_origin(meta->engine, dir, prefix, &listed_ns);
}

/* Asks for the name of `ino` in its directory, if that was imported: true, and `wait` comes. */
static bool ask_for(struct refresh *r, uint64_t ino)
{
    struct meta *meta = r->meta;
    char name[META_NAME_MAX + 1];
    uint64_t parent;
    if (find_link(meta, ino, &parent, name) || !has_origin(meta, parent))
        return false;
    struct meta_name asked = {name, strlen(name)};
    import_ask(meta->importer, parent, &asked, &r->wait);
    return true;
}

static void refresh_listed(struct import_wait *wait, int rc, const struct error *error)
{
    struct refresh *r = container_of(wait, struct refresh, wait);
    bool empty = false;
    if (!rc)
        rc = push_children(r, r->dir, &empty);
    r->wait.done = refresh_asked;
    if (rc)
        refresh_end(r, rc, error);
    else if (!empty || r->dir == META_ROOT_INO || !ask_for(r, r->dir))
        refresh_next(r); /* an empty one may have gone itself */
}

static void refresh_next(struct refresh *r)
{
    while (r->todo && !r->task->cancel) {
        struct refresh_dir *d = r->todo;
        char prefix[META_KEY_MAX + 1];
        uint64_t listed_ns;
        r->todo = d->next;
        r->dir = d->ino;
        r->task->remaining--;
        free(d);
        if (engine_origin(r->meta->engine, r->dir, prefix, &listed_ns)) {
            bool empty;
            int rc = push_children(r, r->dir, &empty);
            if (!rc || rc == -ENOENT)
                continue;
            refresh_end(r, rc, NULL);
            return;
        }
        r->wait.done = refresh_listed;
        listing_again(r->meta->importer, r->dir, &r->wait);
        return;
    }
    refresh_end(r, r->task->cancel ? -ECANCELED : 0, NULL);
}

static void refresh_file_done(struct import_wait *wait, int rc, const struct error *error)
{
    refresh_end(container_of(wait, struct refresh, wait), rc, error);
}

static void refresh_found(struct refresh *r)
{
    int rc = 0;
    if (r->is_file) {
        r->wait.done = refresh_file_done;
        if (ask_for(r, r->task->ino))
            return;
    } else {
        rc = push_dir(r, r->task->ino);
        if (!rc) {
            refresh_next(r);
            return;
        }
    }
    refresh_end(r, rc, NULL);
}

static void refresh_way(struct refresh *r);

static void refresh_way_asked(struct import_wait *wait, int rc, const struct error *error)
{
    struct refresh *r = container_of(wait, struct refresh, wait);
    if (rc || r->task->cancel)
        refresh_end(r, rc ? rc : -ECANCELED, error);
    else if (has_origin(r->meta, r->dir))
        refresh_way(r);
    else
        refresh_found(r); /* the bucket has nothing there */
}

/* Directories that were made here have no origin. On the way from one that has down to what is to
 * be refreshed each name is asked for: if the bucket has keys below it, it gets one. */
static void refresh_way(struct refresh *r)
{
    struct meta *meta = r->meta;
    char name[META_NAME_MAX + 1];
    uint64_t ino = r->task->ino, parent;
    r->dir = 0;
    while (ino != META_ROOT_INO && !find_link(meta, ino, &parent, name) && !has_origin(meta, ino)) {
        if (ino != r->task->ino || !r->is_file)
            r->dir = ino;
        ino = parent;
    }
    r->wait.done = refresh_way_asked;
    if (!r->dir || !ask_for(r, r->dir))
        refresh_found(r);
}

static void refresh_start(struct loop_task *start)
{
    struct refresh *r = container_of(start, struct refresh, start);
    struct meta *meta = r->meta;
    work_begin(meta);
    struct meta_op op = {.kind = META_GETATTR, .ino = r->task->ino};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    r->is_file = !S_ISDIR(reply.attr.mode);
    meta_reply_done(&reply);
    if (rc)
        refresh_end(r, rc, NULL);
    else
        refresh_way(r);
}

void importer_refresh(struct meta *meta, struct meta_task *task)
{
    struct refresh *r = calloc(1, sizeof(*r));
    if (!r) {
        task->result = error_set(&task->error, -ENOMEM, "refresh: out of memory");
        syncer_task(meta->syncer, task);
        return;
    }
    r->meta = meta;
    r->task = task;
    r->start.run = refresh_start;
    loop_post(meta->work, &r->start);
}

/* An object that is not what it was */

struct probe {
    struct loop_task start;
    struct meta *meta;
    struct meta_task *task;
    struct work_op head, list;
    struct meta_object object;
};

static void probe_end(struct probe *p, int rc, const struct error *error)
{
    struct meta *meta = p->meta;
    struct meta_task *task = p->task;
    task->result = rc;
    if (error && error->code)
        task->error = *error;
    else if (rc)
        error_set(&task->error, rc, "%s: %s", p->object.key,
                  rc == -ESTALE ? "was changed from outside" : strerror(-rc));
    store_op_reset(&p->head.op);
    store_op_reset(&p->list.op);
    free(p);
    task->done(task);
    work_end(meta);
}

bool volume_class_changed(struct meta *meta, const struct meta_object *object,
                          const struct store_op *head)
{
    uint64_t change = object->changing ? tags_change(head, &meta->format, object->id) : 0;
    if (!change || store_etag_fits(&head->info, object->etag))
        return false;
    struct meta_entry entry = {.size = head->info.size};
    memcpy(entry.etag, head->info.etag, sizeof(entry.etag));
    struct meta_op op = {.kind = META_CLASS_DONE,
                         .object = object->id,
                         .new_ino = change,
                         .entries = &entry,
                         .entry_count = 1};
    struct meta_reply reply;
    bool done = !volume_apply(meta, &op, &reply) && reply.end;
    meta_reply_done(&reply);
    return done;
}

/* The object as the database knows it now. -ESRCH: nobody reads it any more. */
static int read_object(struct meta *meta, uint64_t id, struct meta_object *out)
{
    struct meta_op op = {.kind = META_OBJECT, .object = id};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    if (!rc && reply.object_count)
        *out = reply.objects[0];
    meta_reply_done(&reply);
    if (rc == -ENOENT || (!rc && out->state != META_OBJECT_LIVE))
        return -ESRCH;
    return rc;
}

static int record_outside(struct probe *p, const struct store_op *head)
{
    bool there = !head->result && !import_is_late(p->meta, head);
    const char *slash = strrchr(p->object.key, '/');
    const char *name = slash ? slash + 1 : p->object.key;
    struct meta_entry entry = {.name = name, .name_len = strlen(name)};
    struct meta_op op = {.kind = META_OUTSIDE, .object = p->object.id, .ino = p->task->ino};
    if (there) {
        entry.size = head->info.size;
        entry.mtime_ns = head->info.mtime_ns;
        memcpy(entry.etag, head->info.etag, sizeof(entry.etag));
        entry.attr.size = head->info.size;
        entry.has_attr = tags_parse(head, &entry.attr);
        op.entries = &entry;
        op.entry_count = 1;
    }
    char link[META_NAME_MAX + 1];
    uint64_t parent = 0;
    bool has_link = !find_link(p->meta, p->task->ino, &parent, link);
    struct meta_reply reply;
    int rc = volume_apply(p->meta, &op, &reply);
    uint64_t ino = reply.attr.ino;
    bool both = !rc && reply.replaced.ino;
    if (both)
        settler_conflict(p->meta->settler, p->object.key, &reply);
    else if (!rc)
        volume_names_gone(p->meta, &reply);
    /* The kernel keeps names for as long as a listing is believed. */
    for (size_t i = 0; !rc && !both && has_link && i < reply.entry_count; i++)
        if (reply.entries[i].ino == p->task->ino)
            volume_entry_changed(p->meta, parent, link, strlen(link));
    meta_reply_done(&reply);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    volume_inode_changed(p->meta, ino ? ino : p->task->ino, true);
    return -ESTALE;
}

static void probe_listed(struct work_op *work)
{
    struct probe *p = work->arg;
    struct store_op *op = &work->op;
    struct error error = op->error;
    if (op->result && op->result != -ENOENT)
        probe_end(p, op->result, &error);
    else
        probe_end(p, import_shows(op, &p->object) ? 0 : record_outside(p, &p->head.op), NULL);
}

static void probe_answered(struct work_op *work)
{
    struct probe *p = work->arg;
    struct store_op *op = &work->op;
    struct error error = op->error;
    if (op->result && op->result != -ENOENT && op->result != -ENOTDIR && op->result != -EISDIR) {
        probe_end(p, op->result, &error);
        return;
    }
    uint64_t id = p->object.id;
    int rc = read_object(p->meta, id, &p->object);
    if (rc == -ESRCH)
        rc = 0; /* settled elsewhere meanwhile */
    else if (!rc && !op->result && volume_class_changed(p->meta, &p->object, op))
        rc = 0; /* it is its own copy in another class */
    else if (!rc && !p->object.foreign && import_speaks_against(op, &p->object)) {
        p->list.op = (struct store_op){.kind = STORE_LIST, .prefix = p->object.key, .max_keys = 1};
        p->list.done = probe_listed;
        p->list.arg = p;
        work_op_submit(p->meta, &p->list);
        return;
    } else if (!rc && (op->result || !store_etag_fits(&op->info, p->object.etag)))
        rc = record_outside(p, op);
    probe_end(p, rc, NULL);
}

static void probe_start(struct loop_task *start)
{
    struct probe *p = container_of(start, struct probe, start);
    work_begin(p->meta);
    int rc = read_object(p->meta, p->object.id, &p->object);
    if (rc) {
        probe_end(p, rc == -ESRCH ? 0 : rc, NULL);
        return;
    }
    p->head.op = (struct store_op){.kind = STORE_HEAD, .key = p->object.key};
    p->head.done = probe_answered;
    p->head.arg = p;
    work_op_submit(p->meta, &p->head);
}

void importer_object_changed(struct meta *meta, struct meta_task *task, uint64_t object)
{
    struct probe *p = calloc(1, sizeof(*p));
    if (!p) {
        task->result = error_set(&task->error, -ENOMEM, "out of memory");
        syncer_task(meta->syncer, task);
        return;
    }
    p->meta = meta;
    p->task = task;
    p->object.id = object;
    p->start.run = probe_start;
    loop_post(meta->work, &p->start);
}
