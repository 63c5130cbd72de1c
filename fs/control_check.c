/* The control requests that hold the volume's tables against its bucket while it is in use: fsck
 * and gc of a mount (docs/fsck.md). They end early when the handle is closed. */
#include <errno.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "front_control.h"
#include "meta/check.h"

#define LISTED_MAX 1000

struct look {
    struct control_handle *h;
    json_t *list; /* owned */
};

static bool is_canceled(void *arg)
{
    struct look *look = arg;
    pthread_mutex_lock(&look->h->lock);
    bool canceled = look->h->cancel;
    pthread_mutex_unlock(&look->h->lock);
    return canceled;
}

static void append(struct look *look, json_t *item)
{
    if (item && json_array_size(look->list) < LISTED_MAX)
        json_array_append(look->list, item);
    json_decref(item);
}

static void take_finding(void *arg, const struct check_finding *finding)
{
    append(arg, check_finding_json(finding));
}

static void take_orphan(void *arg, const struct orphan *orphan)
{
    append(arg, orphan_json(orphan));
}

static int find_orphans(struct look *look, json_t **out, struct error *error)
{
    struct meta *meta = look->h->fs->meta;
    const struct control_request *request = &look->h->request;
    struct orphan_counts counts;
    struct orphan_config config = {.engine = meta_engine(meta),
                                   .store = meta_store(meta),
                                   .older_than_ns = request->older_than_ms * NS_PER_MS,
                                   .now_ns = clock_wall_ns(),
                                   .remove = request->remove,
                                   .strays = request->strays,
                                   .living = true,
                                   .report = take_orphan,
                                   .stop = is_canceled,
                                   .arg = look};
    int rc = meta_find_orphans(&config, &counts, error);
    if (rc == 0)
        *out = orphan_counts_json(&counts, TAKE_PTR(look->list));
    return rc;
}

static int check_bucket(struct look *look, json_t **out, struct error *error)
{
    struct meta *meta = look->h->fs->meta;
    struct check_counts counts;
    struct check_config config = {.engine = meta_engine(meta),
                                  .store = meta_store(meta),
                                  .deep = look->h->request.deep,
                                  .report = take_finding,
                                  .stop = is_canceled,
                                  .arg = look};
    int rc = meta_check_bucket(&config, &counts, error);
    if (rc == 0)
        *out = check_counts_json(&counts, TAKE_PTR(look->list));
    return rc;
}

void control_run_check(struct control_handle *h)
{
    struct look look = {.h = h, .list = json_array()};
    struct error error = {0};
    json_t *reply = NULL;
    int rc = 0;
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner)
        rc = error_set(&error, -EPERM, "only root and who mounted may check the bucket");
    else if (!meta_engine(h->fs->meta))
        rc = error_set(&error, -EOPNOTSUPP, "its metadata is at a service; check it there");
    else if (h->request.remove && h->fs->config.read_only)
        rc = error_set(&error, -EROFS, "the mount is read-only");
    else if (h->request.op == CONTROL_GC)
        rc = find_orphans(&look, &reply, &error);
    else
        rc = check_bucket(&look, &reply, &error);
    json_decref(look.list);
    if (rc < 0) {
        control_fail(h, rc, error.code ? error_text(&error) : NULL);
        return;
    }
    json_object_set_new(reply, "ok", json_true());
    control_put_json(&h->reply, reply);
}
