/* A volume in use against its bucket, for the control file and for mounts of a service. */
#include <errno.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "import/inventory_live.h"
#include "remote/remote_stores.h"
#include "volume/volume.h"

#define LISTED_MAX 1000
#define LOOK_MS 250 /* how often the service is asked whether it is done */

struct look {
    const struct meta_examine *what;
    json_t *list; /* owned */
};

static bool is_stopped(void *arg)
{
    const struct look *look = arg;
    return look->what->stop && look->what->stop(look->what->arg);
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

static int find_orphans(struct meta *meta, struct look *look, json_t **out, struct error *error)
{
    struct orphan_counts counts;
    struct orphan_config config = {.engine = meta->engine,
                                   .store = meta->config.store,
                                   .older_than_ns = look->what->older_than_ms * NS_PER_MS,
                                   .now_ns = clock_wall_ns(),
                                   .remove = look->what->remove,
                                   .strays = look->what->strays,
                                   .living = true,
                                   .report = take_orphan,
                                   .stop = is_stopped,
                                   .arg = look};
    int rc = meta_find_orphans(&config, &counts, error);
    if (rc == 0)
        *out = orphan_counts_json(&counts, TAKE_PTR(look->list));
    return rc;
}

static int check_bucket(struct meta *meta, struct look *look, json_t **out, struct error *error)
{
    struct check_counts counts;
    struct check_config config = {.engine = meta->engine,
                                  .store = meta->config.store,
                                  .deep = look->what->deep,
                                  .report = take_finding,
                                  .stop = is_stopped,
                                  .arg = look};
    int rc = meta_check_bucket(&config, &counts, error);
    if (rc == 0)
        *out = check_counts_json(&counts, TAKE_PTR(look->list));
    return rc;
}

/* The service does it on a thread of its own; this side looks whether it is done, so that it can be
 * stopped, and goes on over a lost connection. */
static int ask_service(struct remote *remote, const struct meta_examine *what, json_t **out,
                       struct error *error)
{
    json_t *request = json_pack("{s:s, s:b, s:b, s:b, s:b, s:I}", "op", "examine", "gc", what->gc,
                                "deep", what->deep, "delete", what->remove, "strays", what->strays,
                                "older_than_ms", (json_int_t)what->older_than_ms);
    if (what->inventory)
        json_object_set_new(request, "inventory", json_string(what->inventory));
    if (what->filter)
        json_object_set_new(request, "filter", json_string(what->filter));
    if (what->options)
        json_object_set_new(request, "options", json_string(what->options));
    json_t *reply = remote_ask_json(remote, request, false, error);
    while (reply) {
        json_decref(reply);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * NS_PER_MS}, NULL);
        bool stop = what->stop && what->stop(what->arg);
        reply = remote_ask_json(
            remote, json_pack("{s:s}", "op", stop ? "examine-stop" : "examined"), false, error);
        if (stop) {
            json_decref(reply);
            return error_set(error, -ECANCELED, "stopped");
        }
        if (reply && !json_is_true(json_object_get(reply, "running"))) {
            *out = reply;
            return 0;
        }
    }
    return error->code;
}

int meta_examine(struct meta *meta, const struct meta_examine *what, json_t **out,
                 struct error *error)
{
    if (meta->remote)
        return ask_service(meta->remote, what, out, error);
    if (what->inventory)
        return inventory_import_live(meta, what, out, error);
    struct look look = {.what = what, .list = json_array()};
    int rc =
        what->gc ? find_orphans(meta, &look, out, error) : check_bucket(meta, &look, out, error);
    json_decref(look.list);
    return rc < 0 || *out ? rc : error_set(error, -ENOMEM, "out of memory");
}
