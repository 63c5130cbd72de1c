#include "stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/log.h"
#include "engine/owner_record.h"
#include "engine/records.h"
#include "remote/remote_stores.h"
#include "s3/mux.h"
#include "stores_link.h"
#include "volume.h"

#define WAIT_S 10      /* an open waits so long for stores that do not answer */
#define AGAIN_S 10     /* until the next try */
#define DROP_TRIES 300 /* times DROP_PAUSE_MS: for gc */
#define DROP_PAUSE_MS 100

/* Connecting */

static bool nests(const char *a, const char *b)
{
    size_t len = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
    return memcmp(a, b, len) == 0;
}

/* Is what is taken below `prefix` of a bucket of the same name in this store? */
static int is_same_place(struct store *store, const char *prefix, const char *instance)
{
    char key[META_KEY_MAX + 32];
    struct owner_record found;
    cleanup(free_ptr) char *data = malloc(OWNER_RECORD_MAX);
    if (!data)
        return -ENOMEM;
    snprintf(key, sizeof(key), "%s" VOLUME_INTERNAL "volume", prefix);
    struct store_op op = {.kind = STORE_GET,
                          .key = key,
                          .buf = data,
                          .buf_len = OWNER_RECORD_MAX,
                          .length = OWNER_RECORD_MAX,
                          .timeout_ms = STORE_LOOK_MS};
    int rc = store_wait(store, &op);
    int same = rc == 0 && owner_record_parse((uint8_t *)data, op.got, &found) == 0 &&
               strcmp(found.instance, instance) == 0;
    store_op_reset(&op);
    return rc && rc != -ENOENT && rc != -ERANGE ? rc : same;
}

/* Two writers of this volume must not share a place: their keys would be two names of one object.
 */
static int check_place(struct link *l, struct store *store, struct error *error)
{
    struct meta *meta = l->stores->meta;
    const char *name = store_name(store);
    int rc = 0;
    if (l->info.read_only)
        return 0;
    if (meta->owner && strcmp(name, store_name(meta->store)) == 0 &&
        nests(l->info.prefix, meta->config.prefix))
        rc = is_same_place(store, meta->config.prefix, owner_instance(meta->owner));
    for (unsigned i = 1; rc == 0 && i <= META_STORES_MAX; i++) {
        char prefix[META_KEY_MAX + 1], instance[32] = "";
        pthread_mutex_lock(&l->stores->lock);
        const struct link *other = l->stores->links[i];
        if (other && other != l && other->owner && nests(l->info.prefix, other->info.prefix)) {
            snprintf(instance, sizeof(instance), "%s", owner_instance(other->owner));
            memcpy(prefix, other->info.prefix, sizeof(prefix));
        }
        pthread_mutex_unlock(&l->stores->lock);
        if (instance[0])
            rc = is_same_place(store, prefix, instance);
    }
    return rc > 0 ? error_set(error, -EBUSY,
                              "%s%s%s lies in a place of this volume already, or around one", name,
                              *l->info.prefix ? "/" : "", l->info.prefix)
                  : rc;
}

/* Work thread, as stores_stop. */
static void start_owner(void *arg)
{
    struct link *l = arg;
    pthread_mutex_lock(&l->stores->lock);
    bool stopping = l->stores->stopping;
    pthread_mutex_unlock(&l->stores->lock);
    if (l->owner && !stopping)
        owner_start(l->owner);
}

/* Opens, looks, takes the prefix, and lets requests through. */
static int link_connect(struct link *l, struct error *error)
{
    struct meta *meta = l->stores->meta;
    struct store *store = NULL;
    struct owner *owner = NULL;
    char base[META_KEY_MAX + 32];
    size_t len = store_route_print(l->info.number, base);
    snprintf(base + len, sizeof(base) - len, "%s" VOLUME_INTERNAL, l->info.prefix);
    int rc = store_config_open(&l->info, store_loop(meta->store), &store, error);
    if (rc == 0)
        rc = check_place(l, store, error);
    if (rc == 0 && !l->info.read_only)
        rc = owner_take_at(meta, store, base, &owner, error);
    bool beside = rc == 0 && store_caps(store)->file_beside_directory;
    if (rc == 0)
        rc = store_mux_set(meta->store, l->info.number, l->info.name, store, NULL);
    if (rc < 0) {
        if (owner)
            owner_give_back(owner);
        owner_free(owner);
        store_free(store);
        return error && error->code ? rc : error_set(error, rc, "%s", strerror(-rc));
    }
    pthread_mutex_lock(&l->stores->lock);
    l->owner = owner;
    l->connected = true;
    l->why[0] = '\0';
    if (!l->has_thread)
        l->info.file_beside_directory = beside; /* as the volume, what it was at first */
    pthread_mutex_unlock(&l->stores->lock);
    loop_call(meta->work, start_owner, l);
    return 0;
}

/* True: no more tries. */
static bool pause_s(struct link *l, unsigned seconds)
{
    struct stores *stores = l->stores;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&stores->lock);
    while (!stores->stopping && !l->stop &&
           pthread_cond_timedwait(&stores->wake, &stores->lock, &until) != ETIMEDOUT)
        ;
    bool stopping = stores->stopping || l->stop;
    pthread_mutex_unlock(&stores->lock);
    return stopping;
}

static void *run_connect(void *arg)
{
    struct link *l = arg;
    struct stores *stores = l->stores;
    bool stopping = false;
    while (!stopping) {
        struct error error = {0};
        int rc = link_connect(l, &error);
        if (rc < 0) {
            log_warn("store not connected", "store=%s url=%s error=\"%s\"", l->info.name,
                     l->info.url, error_text(&error));
            store_mux_set(stores->meta->store, l->info.number, l->info.name, NULL,
                          error_text(&error));
        }
        pthread_mutex_lock(&stores->lock);
        l->ended = true;
        if (rc < 0)
            snprintf(l->why, sizeof(l->why), "%s", error_text(&error));
        stopping = stores->stopping || l->stop || rc == 0;
        pthread_cond_broadcast(&stores->wake);
        pthread_mutex_unlock(&stores->lock);
        stopping = stopping || pause_s(l, AGAIN_S);
    }
    return NULL;
}

static struct link *link_new(struct stores *stores, const struct meta_store *info)
{
    struct link *l = calloc(1, sizeof(*l));
    if (l) {
        l->stores = stores;
        l->info = *info;
    }
    return l;
}

/* Life */

static bool all_ended_locked(const struct stores *stores)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (stores->links[i] && stores->links[i]->has_thread && !stores->links[i]->ended)
            return false;
    return true;
}

static int start_known(struct stores *stores, struct error *error)
{
    cleanup(free_ptr) struct meta_store *known = calloc(META_STORES_MAX, sizeof(*known));
    if (!known)
        return -ENOMEM;
    int count = engine_stores(stores->meta->engine, known, META_STORES_MAX);
    if (count && !store_is_mux(stores->meta->store))
        return error_set(error, -EOPNOTSUPP,
                         "the volume has %d other store%s attached (%s…): only `sluice mount` of "
                         "its bucket can use it",
                         count, count > 1 ? "s" : "", known[0].name);
    for (int i = 0; i < count; i++) {
        struct link *l = link_new(stores, &known[i]);
        if (!l)
            return -ENOMEM;
        stores->links[l->info.number] = l;
        store_mux_set(stores->meta->store, l->info.number, l->info.name, NULL, "not yet");
    }
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        struct link *l = stores->links[i];
        if (!l)
            continue;
        l->has_thread = pthread_create(&l->thread, NULL, run_connect, l) == 0;
        if (!l->has_thread)
            return -EAGAIN;
    }
    return 0;
}

int stores_start(struct meta *meta, struct stores **out, struct error *error)
{
    struct stores *stores = calloc(1, sizeof(*stores));
    struct timespec until;
    if (!stores)
        return -ENOMEM;
    stores->meta = meta;
    pthread_mutex_init(&stores->lock, NULL);
    pthread_cond_init(&stores->wake, NULL);
    *out = stores;
    int rc = start_known(stores, error);
    if (rc < 0)
        return rc;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&stores->lock);
    while (!all_ended_locked(stores) &&
           pthread_cond_timedwait(&stores->wake, &stores->lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&stores->lock);
    return 0;
}

void stores_stop(struct stores *stores)
{
    pthread_mutex_lock(&stores->lock);
    stores->stopping = true;
    pthread_cond_broadcast(&stores->wake);
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (stores->links[i] && stores->links[i]->owner)
            owner_stop(stores->links[i]->owner);
    pthread_mutex_unlock(&stores->lock);
}

static void link_free(struct link *l)
{
    if (!l)
        return;
    owner_free(l->owner);
    free(l);
}

static void join_threads(struct stores *stores)
{
    pthread_mutex_lock(&stores->lock);
    stores->stopping = true;
    pthread_cond_broadcast(&stores->wake);
    pthread_mutex_unlock(&stores->lock);
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        struct link *l = stores->links[i];
        if (l && l->has_thread)
            pthread_join(l->thread, NULL);
        if (l)
            l->has_thread = false;
    }
}

void stores_give_back(struct stores *stores)
{
    join_threads(stores);
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (stores->links[i] && stores->links[i]->owner)
            owner_give_back(stores->links[i]->owner);
}

void stores_free(struct stores *stores)
{
    if (!stores)
        return;
    join_threads(stores);
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        link_free(stores->links[i]);
    pthread_cond_destroy(&stores->wake);
    pthread_mutex_destroy(&stores->lock);
    free(stores);
}

/* Changing */

/* `others`: it is about other stores than the volume's own. */
static int may_change(struct meta *meta, bool others, struct error *error)
{
    if (meta->config.read_only || atomic_load(&meta->refuse))
        return error_set(error, -EROFS, "this mount changes nothing");
    if (others && !store_is_mux(meta->store))
        return error_set(error, -EOPNOTSUPP, "no other store can be attached here");
    struct stores *stores = meta->stores;
    pthread_mutex_lock(&stores->lock);
    bool busy = stores->changing || stores->stopping;
    if (!busy)
        stores->changing = true;
    pthread_mutex_unlock(&stores->lock);
    return busy ? error_set(error, -EBUSY, "another change of the stores is under way") : 0;
}

static void change_ends(struct stores *stores)
{
    pthread_mutex_lock(&stores->lock);
    stores->changing = false;
    pthread_mutex_unlock(&stores->lock);
}

/* Applied, and in the log on the disk. */
static int apply_synced(struct meta *meta, struct meta_op *op)
{
    struct meta_reply reply;
    int rc = volume_apply(meta, op, &reply);
    meta_reply_done(&reply);
    return rc ? rc : engine_sync(meta->engine);
}

static struct link *find_link(struct stores *stores, const char *name)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (stores->links[i] && strcmp(stores->links[i]->info.name, name) == 0)
            return stores->links[i];
    return NULL;
}

/* Fills what the record says. */
static int describe(struct stores *stores, const struct meta_store_request *request,
                    struct meta_store *out, struct error *error)
{
    const char *options = request->options ? request->options : "{}";
    struct store_url url;
    json_t *json;
    memset(out, 0, sizeof(*out));
    int rc = store_config_parse(options, &json, error);
    if (rc < 0)
        return rc;
    bool class = json_object_get(json, "storage-class");
    json_decref(json);
    rc = store_url_parse(request->url, &url, error);
    if (rc < 0)
        return rc;
    if (class && strcmp(url.scheme, "file") == 0) {
        store_url_done(&url);
        return error_set(error, -EINVAL, "storage-class: a directory (file://) has no classes");
    }
    const char *slash = strrchr(url.bucket, '/');
    const char *name = request->name ? request->name : slash ? slash + 1 : url.bucket;
    rc = store_config_name(name, error);
    if (rc == 0 && strlen(request->url) > META_STORE_TEXT_MAX)
        rc = error_set(error, -EINVAL, "the URL is too long");
    if (rc == 0 && strlen(url.prefix) + 128 > META_KEY_MAX)
        rc = error_set(error, -EINVAL, "the prefix is too long");
    if (rc == 0) {
        snprintf(out->name, sizeof(out->name), "%s", name);
        snprintf(out->url, sizeof(out->url), "%s", request->url);
        snprintf(out->options, sizeof(out->options), "%s", options);
        snprintf(out->prefix, sizeof(out->prefix), "%s", url.prefix);
        out->read_only = request->read_only;
        out->root = request->ino;
        if (find_link(stores, name))
            rc = error_set(error, -EEXIST, "there is a store %s already", name);
    }
    store_url_done(&url);
    for (unsigned i = 1; rc == 0 && i <= META_STORES_MAX && !out->number; i++)
        if (!stores->links[i])
            out->number = i;
    if (rc == 0 && !out->number)
        rc = error_set(error, -ENOSPC, "a volume has at most %d other stores", META_STORES_MAX);
    return rc;
}

static int check_directory(struct meta *meta, uint64_t ino, struct error *error)
{
    struct meta_request request = {.op = {.kind = META_READDIR, .ino = ino, .count = 1}};
    if (!ino)
        return 0;
    int rc = meta_call(meta, &request);
    size_t count = request.reply.entry_count;
    meta_reply_done(&request.reply);
    if (rc == -ENOTDIR)
        return error_set(error, rc, "a store is attached at a directory");
    if (rc < 0)
        return error_set(error, rc, "%s", strerror(-rc));
    return count ? error_set(error, -ENOTEMPTY,
                             "the directory is not empty: a store is attached at an empty one")
                 : 0;
}

static void link_disconnect(struct link *l, const char *why)
{
    store_mux_set(l->stores->meta->store, l->info.number, l->info.name, NULL, why);
}

static void stop_owner(void *arg)
{
    owner_stop(arg);
}

/* The prefix is given back while the store can still be reached. */
static void link_drop_owner(struct link *l)
{
    pthread_mutex_lock(&l->stores->lock);
    struct owner *owner = TAKE_PTR(l->owner);
    pthread_mutex_unlock(&l->stores->lock);
    if (!owner)
        return;
    loop_call(l->stores->meta->work, stop_owner, owner);
    owner_drain(owner);
    owner_give_back(owner);
    owner_free(owner);
}

static int record(struct link *l, uint64_t ino)
{
    struct meta_op op = {
        .kind = META_STORE_SET, .ino = ino, .length = l->info.number, .store = &l->info};
    return apply_synced(l->stores->meta, &op);
}

/* Mounts of a service are told of it before they can see a key of it. */
static void set_link(struct stores *stores, unsigned number, struct link *l)
{
    const struct meta_events *events = &stores->meta->config.events;
    pthread_mutex_lock(&stores->lock);
    struct link *former = stores->links[number];
    stores->links[number] = l;
    if (former && !l) {
        former->stop = true;
        pthread_cond_broadcast(&stores->wake);
    }
    pthread_mutex_unlock(&stores->lock);
    if (events->stores_changed)
        events->stores_changed(events->arg);
}

static int attach(struct stores *stores, const struct meta_store_request *request,
                  struct error *error)
{
    struct meta *meta = stores->meta;
    struct meta_store info;
    int rc = check_directory(meta, request->ino, error);
    if (rc == 0)
        rc = describe(stores, request, &info, error);
    if (rc < 0)
        return rc;
    struct link *l = link_new(stores, &info);
    if (!l)
        return -ENOMEM;
    rc = link_connect(l, error);
    if (rc == 0) {
        set_link(stores, info.number, l);
        rc = record(l, request->ino);
        if (rc == -EBUSY)
            error_set(error, rc,
                      "a store is attached at this directory, or files below it have a "
                      "store of their own");
        crash_point("store.attached");
        if (rc < 0) {
            set_link(stores, info.number, NULL);
            link_drop_owner(l);
            link_disconnect(l, "it is not attached");
        }
    }
    if (rc < 0) {
        link_free(l);
        return rc;
    }
    log_info("store attached", "store=%s number=%u url=%s", info.name, info.number, info.url);
    if (request->ino)
        volume_inode_changed(meta, request->ino, true);
    return 0;
}

int meta_store_attach(struct meta *meta, const struct meta_store_request *request,
                      struct error *error)
{
    if (meta->remote)
        return remote_store_attach(meta->remote, request, error);
    int rc = may_change(meta, true, error);
    if (rc < 0)
        return rc;
    rc = attach(meta->stores, request, error);
    change_ends(meta->stores);
    return rc < 0 && error && !error->code ? error_set(error, rc, "%s", strerror(-rc)) : rc;
}

/* Detaching */

static int empty_directory(struct link *l, struct error *error)
{
    struct meta *meta = l->stores->meta;
    bool end = false;
    int rc = 0;
    while (rc == 0 && !end) {
        struct meta_op op = {.kind = META_STORE_EMPTY, .length = l->info.number};
        struct meta_reply reply;
        rc = volume_apply(meta, &op, &reply);
        end = reply.end;
        for (size_t i = 0; rc == 0 && i < reply.entry_count; i++)
            volume_entry_changed(meta, reply.attr.ino, reply.entries[i].name,
                                 reply.entries[i].name_len);
        if (rc == 0)
            volume_names_gone(meta, &reply);
        meta_reply_done(&reply);
        crash_point("store.emptied");
    }
    return rc == -EBUSY ? error_set(error, rc,
                                    "something below its directory is in the store %s only in "
                                    "part, or not at all: settle it, or move it away, first",
                                    l->info.name)
                        : rc;
}

static int drop(struct link *l, struct error *error)
{
    struct meta *meta = l->stores->meta;
    struct meta_op op = {.kind = META_STORE_DROP, .length = l->info.number};
    const struct timespec pause = {.tv_nsec = DROP_PAUSE_MS * 1000000L};
    int rc = apply_synced(meta, &op);
    for (int i = 0; i < DROP_TRIES && rc == -EBUSY; i++) {
        volume_kick(meta);
        nanosleep(&pause, NULL);
        rc = apply_synced(meta, &op);
    }
    return rc == -EBUSY
               ? error_set(error, rc,
                           "store %s is in use: files elsewhere have their bytes in it, objects "
                           "wait to be deleted, or a directory migrates to it",
                           l->info.name)
               : rc;
}

static void set_detaching(struct link *l, bool detaching)
{
    pthread_mutex_lock(&l->stores->lock);
    l->info.detaching = detaching;
    pthread_mutex_unlock(&l->stores->lock);
}

static int detach(struct link *l, struct error *error)
{
    struct meta *meta = l->stores->meta;
    uint64_t root = l->info.root;
    int rc = 0;
    uint64_t unsettled = root ? engine_unsettled_below(meta->engine, root) : 0;
    if (unsettled)
        return error_set(error, -EBUSY,
                         "there are files below the directory of store %s that are not settled: "
                         "`sluice settle --wait` first",
                         l->info.name);
    if (root) {
        set_detaching(l, true);
        rc = record(l, 0);
        if (rc == 0)
            rc = empty_directory(l, error);
    }
    if (rc == 0)
        rc = drop(l, error);
    if (rc < 0 && l->info.detaching) {
        set_detaching(l, false);
        record(l, 0);
    }
    if (rc < 0)
        return rc;
    crash_point("store.dropped");
    if (root)
        volume_inode_changed(meta, root, true);
    return 0;
}

int meta_store_detach(struct meta *meta, const char *name, struct error *error)
{
    if (meta->remote)
        return remote_store_detach(meta->remote, name, error);
    int rc = may_change(meta, true, error);
    if (rc < 0)
        return rc;
    struct stores *stores = meta->stores;
    struct link *l = find_link(stores, name);
    if (strcmp(name, META_STORE_OWN) == 0)
        rc = error_set(error, -EINVAL, "%s is the volume's own store", name);
    else
        rc = l ? detach(l, error) : error_set(error, -ENOENT, "there is no store %s", name);
    if (rc == 0) {
        set_link(stores, l->info.number, NULL);
        if (l->has_thread)
            pthread_join(l->thread, NULL);
        link_drop_owner(l);
        link_disconnect(l, "it was detached");
        log_info("store detached", "store=%s number=%u", l->info.name, l->info.number);
        link_free(l);
    }
    change_ends(stores);
    return rc < 0 && error && !error->code ? error_set(error, rc, "%s", strerror(-rc)) : rc;
}

/* Migrating */

static int number_of(struct stores *stores, const char *name, unsigned *out, struct error *error)
{
    const struct link *l = strcmp(name, META_STORE_OWN) ? find_link(stores, name) : NULL;
    *out = l ? l->info.number : 0;
    if (!l && strcmp(name, META_STORE_OWN) != 0)
        return error_set(error, -ENOENT, "there is no store %s", name);
    return 0;
}

static int find_place(struct meta *meta, uint64_t ino, struct engine_place *out)
{
    cleanup(free_ptr) struct engine_place *places = NULL;
    int count = engine_places(meta->engine, &places);
    for (int i = 0; i < count; i++) {
        if (places[i].ino == ino && !places[i].attached) {
            *out = places[i];
            return 1;
        }
    }
    return count < 0 ? count : 0;
}

static int check_class(struct meta *meta, const char *class, struct error *error)
{
    size_t len = strlen(class);
    if (!len || len > META_CLASS_MAX ||
        strspn(class, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != len)
        return error_set(error, -EINVAL,
                         "a storage class is a name like STANDARD_IA (capitals, digits, '_', '-')");
    if (!strncmp(meta->format.store, "file:", 5))
        return error_set(error, -EINVAL, "a directory (file://) has no storage classes");
    return 0;
}

static int migrate(struct stores *stores, uint64_t ino, enum meta_migrate what, const char *to,
                   const char *class, uint64_t after_s, struct error *error)
{
    struct meta *meta = stores->meta;
    struct engine_place place = {0};
    struct meta_op op = {.kind = META_STORE_PLACE, .ino = ino};
    unsigned number = 0;
    int rc = what != META_MIGRATE_TO ? find_place(meta, ino, &place)
             : class                 ? check_class(meta, class, error)
                                     : number_of(stores, to, &number, error);
    if (rc < 0)
        return rc;
    if (after_s > RECORD_AFTER_MAX)
        return error_set(error, -EINVAL, "an age of at most 1000 years");
    if (what != META_MIGRATE_TO && rc == 0)
        return error_set(error, -ENODATA, "this directory was not migrated");
    op.length = what == META_MIGRATE_TO ? number : place.store;
    op.offset = what == META_MIGRATE_TO ? after_s : place.after_s;
    op.data = what == META_MIGRATE_TO ? class : place.class;
    op.data_len = op.data ? strlen(op.data) : 0;
    if (what == META_MIGRATE_PAUSE)
        op.flags = META_PLACE_PAUSED;
    if (what == META_MIGRATE_CANCEL)
        op.flags = META_PLACE_NONE;
    rc = apply_synced(meta, &op);
    crash_point("migrate.begun");
    if (rc == -ENOTDIR)
        error_set(error, rc, "a migration is of a directory with all below it");
    else if (rc == -EXDEV)
        error_set(error, rc,
                  "store %s is attached at a directory: its keys are the paths there. Add the "
                  "place to move to with `sluice store add`",
                  to);
    else if (rc == -EROFS)
        error_set(error, rc, "store %s is read-only", to);
    if (rc == 0) {
        settler_places_changed(meta->settler);
        volume_kick(meta);
    }
    return rc;
}

int meta_migrate(struct meta *meta, uint64_t ino, enum meta_migrate what, const char *to,
                 const char *class, uint64_t after_s, struct error *error)
{
    if (meta->remote)
        return remote_migrate(meta->remote, ino, what, to, class, after_s, error);
    int rc = may_change(meta, to != NULL, error);
    if (rc < 0)
        return rc;
    rc = migrate(meta->stores, ino, what, to, class, after_s, error);
    change_ends(meta->stores);
    return rc < 0 && error && !error->code ? error_set(error, rc, "%s", strerror(-rc)) : rc;
}
