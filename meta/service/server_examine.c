#include "server_examine.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/check.h"

enum examine_state { EXAMINE_IDLE, EXAMINE_RUNNING, EXAMINE_DONE };

struct examine {
    _Atomic int state; /* RUNNING: the fields below are its thread's, else the requests' */
    _Atomic uint64_t session;
    atomic_bool stop;
    struct meta *meta;
    struct meta_examine what;
    json_t *texts; /* of `what` */
    json_t *reply; /* NULL: `error` */
    struct error error;
    struct pool *pool; /* NULL: never used */
    struct pool_task task;
};

static bool is_stopped(void *arg)
{
    return atomic_load(&((struct examine *)arg)->stop);
}

static void run(struct pool_task *task)
{
    struct examine *examine = container_of(task, struct examine, task);
    error_clear(&examine->error);
    examine->reply = NULL;
    meta_examine(examine->meta, &examine->what, &examine->reply, &examine->error);
    atomic_store(&examine->state, EXAMINE_DONE);
}

static int need(struct server_volume *volume, struct error *error)
{
    struct examine *examine = volume->examine;
    int rc = 0;
    if (!examine)
        examine = calloc(1, sizeof(*examine));
    if (!examine)
        return error_set(error, -ENOMEM, "out of memory");
    if (!examine->pool)
        rc = pool_new(&examine->pool, "examine", 1);
    __atomic_store_n(&volume->examine, examine, __ATOMIC_RELEASE); /* the loop thread looks */
    return rc < 0 ? error_set(error, rc, "cannot start a thread: %s", strerror(-rc)) : 0;
}

static int start(struct server_volume *volume, struct meta *meta, uint64_t session,
                 const json_t *request, struct error *error)
{
    int gc = 0, deep = 0, remove = 0, strays = 0;
    json_int_t older_than_ms = 0;
    const char *inventory = NULL, *filter = NULL, *options = NULL;
    struct examine *examine = volume->examine;
    if (json_unpack((json_t *)request, "{s:b, s:b, s:b, s:b, s:I, s?s, s?s, s?s}", "gc", &gc,
                    "deep", &deep, "delete", &remove, "strays", &strays, "older_than_ms",
                    &older_than_ms, "inventory", &inventory, "filter", &filter, "options",
                    &options) < 0 ||
        older_than_ms < 0)
        return error_set(error, -EINVAL, "no such request");
    if (inventory && inventory[0] == '/')
        return error_set(error, -EINVAL,
                         "a service reads an inventory from a bucket (s3://BUCKET/KEY), not from "
                         "a file");
    if (examine && atomic_load(&examine->state) == EXAMINE_RUNNING) {
        if (atomic_load(&examine->session) == session && !atomic_load(&examine->stop))
            return 0; /* asked again over another connection */
        return error_set(error, -EBUSY, "the service is examining this volume for somebody else");
    }
    int rc = need(volume, error);
    if (rc < 0)
        return rc;
    examine = volume->examine;
    json_decref(examine->reply); /* that nobody took */
    examine->reply = NULL;
    json_decref(examine->texts);
    examine->texts = json_incref((json_t *)request);
    examine->meta = meta;
    examine->what = (struct meta_examine){.inventory = inventory,
                                          .filter = filter,
                                          .options = options,
                                          .gc = gc,
                                          .deep = deep,
                                          .remove = remove,
                                          .strays = strays,
                                          .older_than_ms = (uint64_t)older_than_ms,
                                          .stop = is_stopped,
                                          .arg = examine};
    atomic_store(&examine->session, session);
    atomic_store(&examine->stop, false);
    atomic_store(&examine->state, EXAMINE_RUNNING);
    examine->task.run = run;
    pool_submit(examine->pool, &examine->task);
    return 0;
}

/* NULL with the error: there is none of this session, or it failed. */
static json_t *take(struct examine *examine, uint64_t session, struct error *error)
{
    int state = examine ? atomic_load(&examine->state) : EXAMINE_IDLE;
    if (state == EXAMINE_IDLE || atomic_load(&examine->session) != session) {
        error_set(error, -ECANCELED, "the service was restarted, and examines nothing");
        return NULL;
    }
    if (state == EXAMINE_RUNNING)
        return json_pack("{s:b}", "running", 1);
    atomic_store(&examine->state, EXAMINE_IDLE);
    if (!examine->reply)
        *error = examine->error;
    return TAKE_PTR(examine->reply);
}

json_t *examine_take(struct server_volume *volume, struct meta *meta, uint64_t session,
                     const json_t *request, struct error *error)
{
    const char *op = json_string_value(json_object_get(request, "op"));
    if (strcmp(op, "examined") == 0)
        return take(volume->examine, session, error);
    if (strcmp(op, "examine-stop") == 0) {
        examine_session_over(volume, session);
        return json_object();
    }
    return start(volume, meta, session, request, error) < 0 ? NULL : json_object();
}

void examine_session_over(struct server_volume *volume, uint64_t session)
{
    struct examine *examine = __atomic_load_n(&volume->examine, __ATOMIC_ACQUIRE);
    if (examine && atomic_load(&examine->session) == session)
        atomic_store(&examine->stop, true);
}

void examine_end(struct server_volume *volume)
{
    struct examine *examine = volume->examine;
    if (!examine)
        return;
    atomic_store(&examine->stop, true);
    pool_free(examine->pool);
    json_decref(examine->reply);
    json_decref(examine->texts);
    free(examine);
    volume->examine = NULL;
}
