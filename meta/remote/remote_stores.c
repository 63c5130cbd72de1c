/*
 * What a number of a store means is the service's to say, and it may mean another store later. So
 * whenever the service says that its stores changed, or a connection is new, the mux is held at
 * once, on the thread that takes the service's messages: a key that comes in a later message waits.
 * A thread asks for the list, opens what is new, and releases. A store that cannot be reached is
 * tried again; until then its requests end with the reason.
 */
#include "remote_stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "remote_impl.h"
#include "s3/mux.h"
#include "volume/stores.h"

#define AGAIN_S 10
#define WAIT_S 10 /* the mount waits so long for stores that do not answer */

struct seen {     /* thread only, but for `why` */
    json_t *json; /* as the service described it; NULL: there is none of this number */
    bool connected;
    char why[256]; /* under lock */
};

struct remote_stores {
    struct remote *remote;
    struct store *mux;
    pthread_t thread;

    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t wake;
    /* under lock */
    bool asked, stopping, looked; /* looked: once */
    struct seen seen[META_STORES_MAX + 1];
};

/* Requests */

json_t *remote_ask_json(struct remote *remote, json_t *request, bool once, struct error *error)
{
    struct buf out;
    cleanup(free_ptr) char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (!text) {
        error_set(error, -ENOMEM, "out of memory");
        return NULL;
    }
    if (strlen(text) > WIRE_STORES_MAX) {
        error_set(error, -EINVAL, "the request is too long");
        return NULL;
    }
    buf_init(&out, 0);
    int rc = remote_ask_stores(remote, text, once, &out);
    json_t *reply = rc ? NULL : json_loadb((const char *)out.data, out.len, 0, NULL);
    buf_done(&out);
    if (!reply) {
        error_set(error, rc ? rc : -EIO, "the metadata service: %s",
                  rc == -ECONNRESET ? "the connection was lost; `sluice store list` says what "
                                      "became of it"
                                    : strerror(rc ? -rc : EIO));
        return NULL;
    }
    int code = (int)json_integer_value(json_object_get(reply, "error"));
    if (code == 0)
        return reply;
    const char *why = json_string_value(json_object_get(reply, "text"));
    error_set(error, code < 0 && code > -4096 ? code : -EIO, "%s", why ? why : "refused");
    json_decref(reply);
    return NULL;
}

static int change(struct remote *remote, json_t *request, struct error *error)
{
    json_t *reply = remote_ask_json(remote, request, true, error);
    json_decref(reply);
    return reply ? 0 : error->code;
}

int remote_store_attach(struct remote *remote, const struct meta_store_request *request,
                        struct error *error)
{
    return change(remote,
                  json_pack("{s:s, s:s, s:s*, s:s*, s:b, s:I}", "op", "attach", "url", request->url,
                            "name", request->name, "options", request->options, "read_only",
                            request->read_only, "ino", (json_int_t)request->ino),
                  error);
}

int remote_store_detach(struct remote *remote, const char *name, struct error *error)
{
    return change(remote, json_pack("{s:s, s:s}", "op", "detach", "name", name), error);
}

int remote_migrate(struct remote *remote, uint64_t ino, enum meta_migrate what, const char *to,
                   const char *class, uint64_t after_s, struct error *error)
{
    return change(remote,
                  json_pack("{s:s, s:I, s:i, s:s*, s:s*, s:I}", "op", "migrate", "ino",
                            (json_int_t)ino, "what", (int)what, "name", to, "class", class, "after",
                            (json_int_t)after_s),
                  error);
}

static json_t *list(struct remote *remote, struct error *error)
{
    return remote_ask_json(remote, json_pack("{s:s}", "op", "list"), false, error);
}

json_t *remote_stores_json(struct remote *remote)
{
    struct error error = {0};
    struct remote_stores *stores = remote->stores;
    json_t *reply = list(remote, &error), *one;
    size_t i;
    json_array_foreach(json_object_get(reply, "stores"), i, one)
    {
        json_int_t number = json_integer_value(json_object_get(one, "number"));
        if (!stores || number < 1 || number > META_STORES_MAX)
            continue;
        pthread_mutex_lock(&stores->lock);
        const char *why = stores->seen[number].why;
        if (*why && json_is_true(json_object_get(one, "connected"))) {
            json_object_set_new(one, "connected", json_false());
            json_object_set_new(one, "error", json_sprintf("from this mount: %s", why));
        }
        pthread_mutex_unlock(&stores->lock);
    }
    return reply;
}

/* What the service has, opened here */

static void set_why(struct remote_stores *stores, unsigned number, const char *why)
{
    pthread_mutex_lock(&stores->lock);
    snprintf(stores->seen[number].why, sizeof(stores->seen[number].why), "%s", why);
    pthread_mutex_unlock(&stores->lock);
}

static void unset(struct remote_stores *stores, unsigned number, const char *name, const char *why)
{
    stores->seen[number].connected = false;
    store_mux_set(stores->mux, number, name, NULL, why);
    set_why(stores, number, why);
}

static bool is_stopping(struct remote_stores *stores)
{
    pthread_mutex_lock(&stores->lock);
    bool stopping = stores->stopping;
    pthread_mutex_unlock(&stores->lock);
    return stopping;
}

static int take_text(const json_t *json, const char *key, char *out, size_t cap)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text && strlen(text) < cap ? (strcpy(out, text), 0) : -EBADMSG;
}

static int take_info(const json_t *json, struct meta_store *out, struct error *error)
{
    cleanup(free_ptr) char *options =
        json_dumps(json_object_get(json, "options"), JSON_COMPACT | JSON_ENCODE_ANY);
    memset(out, 0, sizeof(*out));
    out->read_only = json_is_true(json_object_get(json, "read_only"));
    if (take_text(json, "name", out->name, sizeof(out->name)) < 0 ||
        take_text(json, "url", out->url, sizeof(out->url)) < 0 ||
        take_text(json, "prefix", out->prefix, sizeof(out->prefix)) < 0 || !options ||
        strlen(options) >= sizeof(out->options))
        return error_set(error, -EBADMSG, "the service describes it in a way that is not known");
    strcpy(out->options, options);
    return 0;
}

static void connect_one(struct remote_stores *stores, unsigned number)
{
    struct seen *seen = &stores->seen[number];
    struct store *store = NULL;
    struct error error = {0};
    cleanup(free_ptr) struct meta_store *info = calloc(1, sizeof(*info));
    int rc = info ? take_info(seen->json, info, &error) : -ENOMEM;
    if (rc == 0) {
        /* Nothing is to be written by such a mount, not even a probe. */
        info->read_only |= stores->remote->config.read_only;
        rc = store_config_open(info, store_loop(stores->mux), &store, &error);
    }
    if (rc == 0)
        rc = store_mux_set(stores->mux, number, info->name, store, NULL);
    if (rc < 0) {
        const char *why = error.code ? error_text(&error) : strerror(-rc);
        store_free(store);
        log_warn("store not connected", "number=%u error=\"%s\"", number, why);
        unset(stores, number, info ? info->name : "?", why);
        return;
    }
    seen->connected = true;
    set_why(stores, number, "");
    log_info("store connected", "store=%s number=%u url=%s", info->name, number, info->url);
}

static json_t *find_number(json_t *list, unsigned number)
{
    json_t *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        if (json_integer_value(json_object_get(one, "number")) == number)
            return one;
    }
    return NULL;
}

/* The same place, reached in the same way. */
static bool is_same(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"name", "url", "prefix", "options", "read_only"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
            return false;
    return true;
}

static void take_list(struct remote_stores *stores, json_t *list)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        struct seen *seen = &stores->seen[i];
        json_t *now = find_number(list, i);
        if (seen->json && now && seen->connected && is_same(seen->json, now))
            continue;
        if (seen->json)
            unset(stores, i, "?", "it is not attached any more");
        json_decref(seen->json);
        seen->json = json_incref(now);
        set_why(stores, i, "");
        if (now && !is_stopping(stores))
            connect_one(stores, i);
    }
}

/* The list could not be had: no number means anything. The next connection asks again. */
static void forget_all(struct remote_stores *stores, const char *why)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        struct seen *seen = &stores->seen[i];
        if (seen->json)
            unset(stores, i, "?", why);
        json_decref(TAKE_PTR(seen->json));
    }
}

static void look(struct remote_stores *stores)
{
    struct error error = {0};
    json_t *reply = list(stores->remote, &error);
    if (reply)
        take_list(stores, json_object_get(reply, "stores"));
    else
        forget_all(stores, error_text(&error));
    json_decref(reply);
}

static bool some_wait(const struct remote_stores *stores)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (stores->seen[i].json && !stores->seen[i].connected)
            return true;
    return false;
}

/* Under lock: true: the list is wanted; false: those that were not reached are, or the end. */
static bool wait_locked(struct remote_stores *stores, bool again)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += AGAIN_S;
    while (!stores->asked && !stores->stopping)
        if (!again)
            pthread_cond_wait(&stores->wake, &stores->lock);
        else if (pthread_cond_timedwait(&stores->wake, &stores->lock, &until) == ETIMEDOUT)
            break;
    return stores->asked;
}

static void *run(void *arg)
{
    struct remote_stores *stores = arg;
    pthread_mutex_lock(&stores->lock);
    while (!stores->stopping) {
        bool asked = wait_locked(stores, some_wait(stores));
        stores->asked = false;
        pthread_mutex_unlock(&stores->lock);
        if (asked)
            look(stores);
        for (unsigned i = 1; !asked && i <= META_STORES_MAX; i++)
            if (stores->seen[i].json && !stores->seen[i].connected && !is_stopping(stores))
                connect_one(stores, i);
        pthread_mutex_lock(&stores->lock);
        if (!stores->asked)
            store_mux_hold(stores->mux, false);
        stores->looked |= asked;
        pthread_cond_broadcast(&stores->wake);
    }
    pthread_mutex_unlock(&stores->lock);
    store_mux_hold(stores->mux, false);
    return NULL;
}

void remote_stores_changed(struct remote_stores *stores)
{
    if (!stores)
        return;
    pthread_mutex_lock(&stores->lock);
    stores->asked = true;
    store_mux_hold(stores->mux, true);
    pthread_cond_broadcast(&stores->wake);
    pthread_mutex_unlock(&stores->lock);
}

/* Life */

static void publish(void *arg)
{
    struct remote_stores *stores = arg;
    stores->remote->stores = stores;
    remote_stores_changed(stores);
}

int meta_remote_stores(struct meta *meta, struct store *mux, struct error *error)
{
    struct remote *remote = meta->remote;
    struct timespec until;
    struct remote_stores *stores = calloc(1, sizeof(*stores));
    if (!stores)
        return error_set(error, -ENOMEM, "out of memory");
    stores->remote = remote;
    stores->mux = mux;
    pthread_mutex_init(&stores->lock, NULL);
    pthread_cond_init(&stores->wake, NULL);
    int rc = -pthread_create(&stores->thread, NULL, run, stores);
    if (rc < 0) {
        free(stores);
        return error_set(error, rc, "cannot start a thread: %s", strerror(-rc));
    }
    loop_call(remote->loop, publish, stores);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&stores->lock);
    while (!stores->looked &&
           pthread_cond_timedwait(&stores->wake, &stores->lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&stores->lock);
    return 0;
}

void remote_stores_free(struct remote_stores *stores)
{
    if (!stores)
        return;
    pthread_mutex_lock(&stores->lock);
    stores->stopping = true;
    pthread_cond_broadcast(&stores->wake);
    pthread_mutex_unlock(&stores->lock);
    pthread_join(stores->thread, NULL);
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        json_decref(stores->seen[i].json);
    pthread_cond_destroy(&stores->wake);
    pthread_mutex_destroy(&stores->lock);
    free(stores);
}
