/*
 * A key of the bucket was put or deleted by others, says a notification: this one is looked at. The
 * names on the way to it are walked; the first that is not known is asked for, and so is a
 * directory that was made here, as it now may have keys of others below it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "import.h"

struct notice {
    struct loop_task start;
    struct meta *meta;
    struct meta_task *task;
    struct import_wait wait;
    size_t asked; /* length of the path up to the name that was asked for last */
    char path[META_KEY_MAX + 1];
};

static void notice_end(struct notice *n, int rc, const struct error *error)
{
    struct meta *meta = n->meta;
    struct meta_task *task = n->task;
    task->result = rc;
    if (rc && error && error->code)
        task->error = *error;
    else if (rc)
        error_set(&task->error, rc, "%s: %s", n->path, strerror(-rc));
    free(n);
    task->done(task);
    work_end(meta);
}

/* The directory at a name: its inode, or 0. */
static uint64_t directory_at(struct meta *meta, uint64_t parent, const struct meta_name *name)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = parent, .name = *name};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    uint64_t ino = (!rc || rc == -EAGAIN) && S_ISDIR(reply.attr.mode) ? reply.attr.ino : 0;
    meta_reply_done(&reply);
    return ino;
}

/* Whether names of the directory come from where the path says. */
static bool has_origin(const struct notice *n, uint64_t dir, size_t len)
{
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns;
    size_t top = strlen(n->meta->format.prefix);
    return !engine_origin(n->meta->engine, dir, prefix, &listed_ns) &&
           !strncmp(prefix, n->meta->format.prefix, top) && strlen(prefix + top) == len &&
           !memcmp(prefix + top, n->path, len);
}

static void walk(struct notice *n)
{
    uint64_t parent = META_ROOT_INO;
    size_t at = 0;
    for (;;) {
        size_t len = strcspn(n->path + at, "/"), end = at + len;
        struct meta_name name = {n->path + at, len};
        bool last = !n->path[end] || !n->path[end + 1];
        uint64_t dir = last ? 0 : directory_at(n->meta, parent, &name);
        bool ask = !dir || !has_origin(n, dir, end + 1);
        if (ask && end > n->asked && has_origin(n, parent, at)) {
            n->asked = end;
            import_ask(n->meta->importer, parent, &name, &n->wait);
            return;
        }
        if (!dir)
            break; /* all is known that there is of it; or it was moved, and its listing tells */
        parent = dir;
        at = end + 1;
    }
    notice_end(n, 0, NULL);
}

static void asked(struct import_wait *wait, int rc, const struct error *error)
{
    struct notice *n = container_of(wait, struct notice, wait);
    if (rc || n->task->cancel)
        notice_end(n, rc ? rc : -ECANCELED, error);
    else
        walk(n);
}

static void start(struct loop_task *task)
{
    struct notice *n = container_of(task, struct notice, start);
    work_begin(n->meta);
    walk(n);
}

void importer_notice(struct meta *meta, struct meta_task *task, const char *path)
{
    struct notice *n = strlen(path) > META_KEY_MAX || !*path ? NULL : calloc(1, sizeof(*n));
    if (!n) {
        int rc = *path && strlen(path) <= META_KEY_MAX ? -ENOMEM : -EINVAL;
        task->result = error_set(&task->error, rc, "notify: %s", strerror(-rc));
        syncer_task(meta->syncer, task);
        return;
    }
    n->meta = meta;
    n->task = task;
    n->wait.done = asked;
    n->start.run = start;
    strcpy(n->path, path);
    loop_post(meta->work, &n->start);
}
