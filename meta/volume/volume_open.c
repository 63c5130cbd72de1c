/* Opening and closing a volume. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "pacer.h"
#include "remote/remote_impl.h"
#include "stores.h"
#include "volume.h"

#define SCRATCH "sluice-scratch-"

static const char default_staging[] =
    "_temporary*:.hive-staging*:.spark-staging*:.*.inprogress*:.trash*:.Trash*";

void meta_config_init(struct meta_config *config)
{
    *config = (struct meta_config){
        .prefix = "",
        .import_ttl_ms = 60000,
        .negative_ttl_ms = 1000,
        .sync_interval_ms = 100,
        .settle_parallel = 8,
        .owner_renew_ms = 30000,
    };
}

void meta_format_init(struct meta_volume *format)
{
    *format = (struct meta_volume){
        .inline_max = 32 * 1024,
        .settle_delay_ms = META_SETTLE_DELAY_MS,
        .gc_delay_ms = META_GC_DELAY_MS,
        .root_mode = 0755,
        .root_uid = geteuid(),
        .root_gid = getegid(),
    };
    memcpy(format->staging, default_staging, sizeof(default_staging));
}

/* The scratch directory of a read-only mount */

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Those of processes that were killed. Names: prefix, process id, '-', what mkdtemp chose. */
static void remove_old_scratch(const char *base)
{
    DIR *dir = opendir(base);
    if (!dir)
        return;
    for (struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        char path[PATH_MAX];
        if (strncmp(d->d_name, SCRATCH, strlen(SCRATCH)))
            continue;
        long pid = strtol(d->d_name + strlen(SCRATCH), NULL, 10);
        if (pid <= 0 || !kill((pid_t)pid, 0) || errno != ESRCH)
            continue;
        if (snprintf(path, sizeof(path), "%s/%s", base, d->d_name) < (int)sizeof(path))
            remove_tree(path);
    }
    closedir(dir);
}

static int make_scratch(struct meta *meta, struct error *error)
{
    const char *base = meta->config.directory;
    if (!base)
        base = getenv("TMPDIR");
    if (!base || !*base)
        base = "/tmp";
    if (mkdir(base, 0700) && errno != EEXIST)
        return error_set(error, -errno, "cannot make directory %s: %s", base, strerror(errno));
    remove_old_scratch(base);
    int len = snprintf(meta->directory, sizeof(meta->directory), "%s/" SCRATCH "%d-XXXXXX", base,
                       (int)getpid());
    if (len < 0 || (size_t)len >= sizeof(meta->directory))
        return error_set(error, -ENAMETOOLONG, "the path of the database is too long");
    if (!mkdtemp(meta->directory)) {
        int code = -errno;
        meta->directory[0] = '\0';
        return error_set(error, code, "cannot make a scratch directory in %s: %s", base,
                         strerror(-code));
    }
    return 0;
}

/* Configuration */

static int copy_config(struct meta *meta, const struct meta_config *config, struct error *error)
{
    meta->config = *config;
    struct meta_config *c = &meta->config;
    const char *prefix = config->prefix ? config->prefix : "";
    c->format = NULL;
    c->directory = config->directory ? strdup(config->directory) : NULL;
    c->prefix = strdup(prefix);
    c->owner_text = strdup(config->owner_text ? config->owner_text : "");
    if (!c->prefix || !c->owner_text || (config->directory && !c->directory))
        return -ENOMEM;
    if (!c->settle_parallel)
        c->settle_parallel = 8;
    if (!c->sync_interval_ms)
        c->sync_interval_ms = 100;
    if (!c->owner_renew_ms)
        c->owner_renew_ms = 30000;
    size_t len = strlen(prefix);
    if (len && prefix[len - 1] != '/')
        return error_set(error, -EINVAL, "the prefix \"%s\" does not end in '/'", prefix);
    if (len + sizeof(VOLUME_INTERNAL) + 64 > META_KEY_MAX)
        return error_set(error, -EINVAL, "the prefix is too long (%zu bytes)", len);
    if (!config->read_only && !config->directory)
        return error_set(error, -EINVAL, "no directory is given for the metadata database");
    meta->import_ttl_ns = c->import_ttl_ms * NS_PER_MS;
    meta->negative_ttl_ns = c->negative_ttl_ms * NS_PER_MS;
    snprintf(meta->internal, sizeof(meta->internal), "%s" VOLUME_INTERNAL, prefix);
    if (config->read_only)
        meta->refuse = -EROFS;
    return 0;
}

static int format(struct meta *meta, const struct meta_volume *wanted, struct error *error)
{
    struct meta_volume *f = &meta->format;
    if (wanted)
        *f = *wanted;
    else
        meta_format_init(f);
    const char *name = store_name(meta->store);
    if (strlen(name) >= sizeof(f->store))
        return error_set(error, -EINVAL, "the store's name is too long");
    strcpy(f->store, name);
    strcpy(f->prefix, meta->config.prefix);
    f->file_beside_directory = store_caps(meta->store)->file_beside_directory;
    if (!f->id[0]) {
        uint8_t id[16];
        hash_random(id, sizeof(id));
        hash_hex(id, sizeof(id), f->id);
    }
    struct meta_op op = {.kind = META_FORMAT, .volume = f, .time_ns = meta_time_ns(meta)};
    struct meta_reply reply;
    meta_reply_init(&reply);
    int rc = engine_apply(meta->engine, &op, &reply);
    meta_reply_done(&reply);
    if (!rc)
        rc = engine_sync(meta->engine);
    if (!rc)
        rc = engine_volume(meta->engine, f);
    return rc ? error_set(error, rc, "cannot format the metadata in %s: %s", meta->directory,
                          strerror(-rc))
              : 0;
}

/* The database must be of this bucket and prefix: another one's keys would mean other objects. */
static int check_place(struct meta *meta, struct error *error)
{
    const char *name = store_name(meta->store);
    if (!strcmp(meta->format.store, name) && !strcmp(meta->format.prefix, meta->config.prefix))
        return 0;
    return error_set(error, -EINVAL,
                     "the metadata in %s belongs to %s with prefix \"%s\", not to %s with \"%s\"",
                     meta->directory, meta->format.store, meta->format.prefix, name,
                     meta->config.prefix);
}

static int open_engine(struct meta *meta, const struct meta_config *config, struct error *error)
{
    if (config->read_only) {
        int rc = make_scratch(meta, error);
        if (rc)
            return rc;
    } else if (snprintf(meta->directory, sizeof(meta->directory), "%s", config->directory) >=
               (int)sizeof(meta->directory)) {
        return error_set(error, -ENAMETOOLONG, "the path of the database is too long");
    }
    struct engine_options options = {.path = meta->directory, .memory_bytes = config->memory_bytes};
    if (!config->read_only)
        checkpoint_init(meta);
    int rc = engine_open(&options, &meta->engine, error);
    if (rc)
        return rc;
    rc = engine_volume(meta->engine, &meta->format);
    if (rc == -ENOENT && config->must_exist)
        return error_set(error, rc, "there is no volume's metadata in %s", meta->directory);
    if (rc == -ENOENT) {
        rc = format(meta, config->format, error);
        meta->formatted = rc == 0;
        return rc;
    }
    if (rc)
        return error_set(error, rc, "cannot read the settings in %s: %s", meta->directory,
                         strerror(-rc));
    return check_place(meta, error);
}

/* Open */

static void synced(void *arg)
{
    struct meta *meta = arg;
    if (atomic_load(&meta->started) && atomic_exchange(&meta->changed, false))
        volume_kick(meta);
}

static void add_metrics(struct meta *meta)
{
    for (int kind = META_LOOKUP; kind < META_FORMAT; kind++) {
        const char *name = meta_kind_name((enum meta_kind)kind);
        char labels[64];
        if ((kind > META_QUOTA && kind <= META_LAST_READ) || kind > META_QUOTA_SET || !name)
            continue;
        snprintf(labels, sizeof(labels), "kind=\"%s\"", name);
        meta->requests[kind] = metrics_counter(meta->config.metrics, "sluice_meta_requests_total",
                                               labels, "Metadata requests by kind.");
    }
}

static void start_work(void *arg)
{
    struct meta *meta = arg;
    volume_kick_init(meta);
    if (meta->owner)
        owner_start(meta->owner);
}

static int found(void *arg, uint64_t session, const void *record, size_t len)
{
    return 1;
}

/* The clock was set back since the volume was used: what is due by the time of then would wait for
 * that long. */
static void settle_late_rows(struct meta *meta)
{
    uint64_t now = meta_time_ns(meta), newest = engine_newest_ns(meta->engine);
    if (meta->config.read_only || newest <= now)
        return;
    log_warn("the clock was set back", "by_ms=%llu",
             (unsigned long long)((newest - now) / NS_PER_MS));
    int rc = engine_settle_hurry(meta->engine, META_ROOT_INO, now);
    if (rc)
        log_warn("files may settle late", "error=%s", strerror(-rc));
}

static int start_parts(struct meta *meta, struct error *error)
{
    settle_late_rows(meta);
    int rc = syncer_new(meta->engine, meta->config.sync_interval_ms, meta->config.metrics, synced,
                        meta, &meta->syncer);
    bool kept = meta->config.keep_sessions && engine_sessions(meta->engine, found, NULL);
    if (!rc && !meta->config.read_only && !kept)
        rc = collector_recover(meta, error);
    if (!rc)
        rc = importer_new(meta, &meta->importer);
    if (!rc)
        rc = pacer_new(meta, &meta->pacer);
    if (!rc)
        rc = settler_new(meta, &meta->settler);
    if (!rc)
        rc = collector_new(meta, &meta->collector);
    if (!rc)
        rc = carrier_new(meta, &meta->carrier);
    if (rc)
        return rc;
    loop_call(meta->work, start_work, meta);
    atomic_store(&meta->started, true);
    volume_kick(meta);
    return 0;
}

static void free_meta(struct meta *meta)
{
    stores_free(meta->stores); /* its threads use the work thread */
    loop_free(meta->work);
    syncer_free(meta->syncer);
    importer_free(meta->importer);
    settler_free(meta->settler);
    collector_free(meta->collector);
    carrier_free(meta->carrier);
    pacer_free(meta->pacer);
    owner_free(meta->owner);
    engine_close(meta->engine);
    if (meta->config.read_only && meta->directory[0])
        remove_tree(meta->directory);
    sem_destroy(&meta->idle);
    pthread_mutex_destroy(&meta->write_lock);
    free((char *)meta->config.directory);
    free((char *)meta->config.prefix);
    free((char *)meta->config.owner_text);
    free(meta);
}

/* A database that was made for a prefix which is refused: nothing was recorded in it. Left there,
 * it would look like the only place of something, and keep rebuild and restore from their work. */
static void remove_database(const char *directory)
{
    static const char *const parts[] = {"db", "synced", "reserve"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof(path), "%s/%s", directory, parts[i]) < (int)sizeof(path))
            remove_tree(path);
    }
}

static void stop_stores(void *arg)
{
    struct meta *meta = arg;
    stores_stop(meta->stores);
}

int meta_open(const struct meta_config *config, struct meta **out, struct error *error)
{
    struct meta *meta = calloc(1, sizeof(*meta));
    if (!meta)
        return error_set(error, -ENOMEM, "out of memory");
    pthread_mutex_init(&meta->write_lock, NULL);
    sem_init(&meta->idle, 0, 0);
    meta->store = config->store;
    error_clear(error);
    int rc = copy_config(meta, config, error);
    if (!rc)
        rc = open_engine(meta, config, error);
    if (!rc && !config->read_only)
        rc = owner_take(meta, &meta->owner, error);
    /* (After any other answer the prefix may have been taken.) */
    bool unused = meta->formatted && (rc == -EBUSY || rc == -EACCES);
    if (!rc)
        rc = loop_new(&meta->work, "meta-work");
    if (!rc) {
        add_metrics(meta);
        rc = stores_start(meta, &meta->stores, error);
    }
    if (!rc) {
        rc = start_parts(meta, error);
    }
    if (rc) {
        if (error && !error->code)
            error_set(error, rc, "cannot open the volume: %s", strerror(-rc));
        if (meta->stores)
            loop_call(meta->work, stop_stores, meta);
        if (meta->stores)
            stores_give_back(meta->stores);
        if (meta->owner)
            unused = owner_give_back(meta->owner) == 0 && meta->formatted;
        free_meta(meta);
        if (unused)
            remove_database(config->directory);
        return rc;
    }
    *out = meta;
    return 0;
}

/* Close */

static void stop_work(void *arg)
{
    struct meta *meta = arg;
    work_begin(meta);
    meta->closing = true;
    loop_timer_close(&meta->kick_timer, NULL);
    importer_stop(meta->importer);
    settler_stop(meta->settler);
    collector_stop(meta->collector);
    carrier_stop(meta->carrier);
    pacer_stop(meta->pacer);
    if (meta->owner)
        owner_stop(meta->owner);
    stores_stop(meta->stores);
    work_cancel_all(meta);
    work_end(meta);
}

/* False: the bucket may still name it as the owner. */
static bool end(struct meta *meta)
{
    loop_call(meta->work, stop_work, meta);
    while (sem_wait(&meta->idle) < 0 && errno == EINTR)
        ;
    if (syncer_free(TAKE_PTR(meta->syncer)))
        log_error("metadata was not synced at close", "directory=%s", meta->directory);
    stores_give_back(meta->stores);
    bool given_back = !meta->owner || owner_give_back(meta->owner) == 0;
    free_meta(meta);
    return given_back;
}

void meta_close(struct meta *meta)
{
    if (meta && meta->remote)
        remote_close(meta);
    else if (meta)
        end(meta);
}

void meta_discard(struct meta *meta)
{
    char directory[PATH_MAX] = "";
    if (meta && meta->formatted)
        snprintf(directory, sizeof(directory), "%s", meta->directory);
    if (!directory[0])
        meta_close(meta);
    else if (end(meta))
        remove_database(directory);
}
