/* sluice mount: opens the store, the volume and the data path, and serves the kernel until it is
 * unmounted. */
#include "backup_job.h"
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "cache/cache.h"
#include "daemon.h"
#include "fs/fs.h"
#include "meta/remote.h"
#include "mount_keys.h"
#include "mount_metrics.h"
#include "mount_options.h"
#include "mount_point.h"
#include "mount_wait.h"
#include "mount_watch.h"
#include "places.h"
#include "s3/mux.h"
#include "volume_config.h"

#define META_MEMORY_SHARE 5 /* one part of --memory for the database… */
#define DATA_MEMORY_SHARE 2 /* …and this one for read-ahead and upload buffers */
#define CACHE_SIZE (16ull << 30)
#define TOKEN_TEXT_MAX 256

struct mount {
    struct mount_options options;
    struct store_url url; /* of the bucket; for a volume of a service known when it is connected */
    char *url_text;
    bool remote;                             /* a volume of a service */
    char *mountpoint;                        /* absolute */
    char *meta_dir;                          /* absolute */
    char *staging_dir;                       /* absolute */
    char *cache_dirs[CACHE_DIRECTORIES_MAX]; /* absolute; none: no cache */
    unsigned cache_dir_count;
    char owner[512];
    char client[128]; /* remote: volume and session, for the access log of the store */
    struct daemon daemon;
    struct mount_watch watch;
    struct mount_wait wait;
    struct places_made made;
    char *made_log;   /* ours, and was not there before */
    atomic_bool runs; /* fs_run ends it, not the signal */
    bool was_ready;
    struct metrics *metrics;
    struct mount_metrics *gauges;
    struct mount_keys keys;
    struct loop *loop;
    struct store *store;
    struct meta *meta;
    struct backup_job *backups;
    struct cache *cache;
    struct data *data;
    struct fs *fs;
    pthread_t signals;
    bool signals_started;
    sigset_t mask;
};

static char *absolute(const char *path)
{
    if (path[0] == '/')
        return strdup(path);
    cleanup(free_ptr) char *here = getcwd(NULL, 0);
    char *out = NULL;
    if (!here || asprintf(&out, "%s/%s", here, path) < 0)
        return NULL;
    return out;
}

static int check_places(const struct mount *m, struct error *error)
{
    const char *places[3 + CACHE_DIRECTORIES_MAX] = {m->mountpoint, m->meta_dir, m->staging_dir};
    memcpy(&places[3], m->cache_dirs, sizeof(m->cache_dirs));
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(places); i++)
        if (places[i])
            r = places_outside_bucket(&m->url, places[i], error);
    return r;
}

/* The directories of --cache-dir, "A:B", or one beside the metadata. */
static int list_cache_dirs(struct mount *m, struct error *error)
{
    const struct mount_options *o = &m->options;
    cleanup(free_ptr) char *list = o->cache_dir ? strdup(o->cache_dir) : NULL;
    char *rest = NULL;
    for (char *dir = list ? strtok_r(list, ":", &rest) : NULL; dir;
         dir = strtok_r(NULL, ":", &rest)) {
        if (m->cache_dir_count == CACHE_DIRECTORIES_MAX)
            return error_set(error, -EINVAL, "--cache-dir names more than %d directories",
                             CACHE_DIRECTORIES_MAX);
        if (!(m->cache_dirs[m->cache_dir_count++] = absolute(dir)))
            return error_set(error, -ENOMEM, "out of memory");
    }
    if (o->cache_dir && m->cache_dir_count == 0)
        return error_set(error, -EINVAL, "--cache-dir names no directory");
    if (!o->cache_dir && (strcmp(m->url.scheme, "file") != 0 || o->cache_size) &&
        asprintf(&m->cache_dirs[m->cache_dir_count++], "%s/cache", m->meta_dir) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    return 0;
}

/* Places that depend on which bucket it is. */
static int prepare_places(struct mount *m, struct error *error)
{
    int r = list_cache_dirs(m, error);
    if (r < 0)
        return r;
    const char *above = m->options.cache_dir ? m->cache_dirs[0] : m->meta_dir;
    if (asprintf(&m->staging_dir, "%s/staging", above) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    r = check_places(m, error);
    if (r < 0 || m->options.read_only)
        return r;
    r = places_make_noted(m->meta_dir, &m->made, error);
    return r < 0 ? r : places_make_noted(m->staging_dir, &m->made, error);
}

/* Of a volume of a service: written data of one mount. Several mounts of it may be on this host. */
static char *remote_place(const struct mount *m)
{
    struct store_url url = {.scheme = "sluice", .bucket = m->url_text, .prefix = m->mountpoint};
    return places_default(&url, NULL);
}

static int prepare_remote(struct mount *m, struct error *error)
{
    struct meta_remote_url url;
    int r = meta_remote_url_parse(m->url_text, &url, error);
    if (r < 0)
        return r;
    meta_remote_url_done(&url);
    m->meta_dir = m->options.meta_dir ? absolute(m->options.meta_dir) : remote_place(m);
    if (!m->meta_dir)
        return error_set(error, -ENOMEM, "out of memory");
    return m->options.read_only ? 0 : places_make_noted(m->meta_dir, &m->made, error);
}

static int check_writes(const struct mount *m, struct error *error)
{
    const struct mount_options *o = &m->options;
    bool other = (o->durability && strcmp(o->durability, "store") != 0) || o->durability_for;
    if (m->remote && other)
        return error_set(error, -EINVAL,
                         "--durability: on a volume of a service only store: other mounts see what "
                         "was closed");
    if (m->remote && o->writeback)
        return error_set(error, -EINVAL,
                         "--writeback: not on a volume of a service: the kernel would not see the "
                         "sizes that other mounts give its files");
    return o->durability_for ? data_durability_check(o->durability_for, error) : 0;
}

static int prepare(struct mount *m, char **args, struct error *error)
{
    m->url_text = strdup(args[0]);
    m->remote = meta_remote_is_url(args[0]);
    if (m->remote && m->options.backup_interval_ms)
        return error_set(error, -EINVAL, "--backup-interval: the metadata is with the service");
    int r = check_writes(m, error);
    if (r == 0 && !m->url_text)
        r = error_set(error, -ENOMEM, "out of memory");
    if (r == 0 && !m->remote)
        r = store_url_parse(args[0], &m->url, error);
    if (r == 0)
        r = mount_point_find(args[1], &m->mountpoint, error);
    if (r < 0)
        return r;
    if (m->remote)
        return prepare_remote(m, error);
    m->meta_dir = m->options.meta_dir ? absolute(m->options.meta_dir)
                                      : places_default(&m->url, m->options.endpoint);
    if (!m->meta_dir)
        return error_set(error, -ENOMEM, "out of memory");
    return prepare_places(m, error);
}

static int start_log(struct mount *m, struct error *error)
{
    enum log_level level = LOG_INFO;
    if (m->options.log_level)
        log_level_parse(m->options.log_level, &level);
    const char *path = m->options.log_file;
    cleanup(free_ptr) char *own = NULL;
    /* In the background stderr gets the one line of a failure, and the journal. */
    bool silent = !m->options.foreground && !getenv("JOURNAL_STREAM");
    if (silent)
        log_init(level, "/dev/null");
    if (silent && !path && m->options.read_only)
        return 0;
    if (!path && !m->options.foreground && !m->options.read_only &&
        asprintf(&own, "%s/log", m->meta_dir) >= 0)
        path = own;
    bool made = own && access(own, F_OK) < 0;
    int r = log_init(level, path);
    if (r == 0 && made)
        m->made_log = TAKE_PTR(own);
    return r < 0 ? error_set(error, r, "log file %s: %s", path ? path : "stderr", strerror(-r)) : 0;
}

static void raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    /* Many threads allocate a little each: without a bound every one keeps an arena of its own. */
    mallopt(M_ARENA_MAX, 4);
    /* Large buffers go back to the system; fixed values keep malloc from raising them. Those of a
     * request to the store (256 KiB each) stay: mapped anew each time they cost a page fault for
     * every 4 KiB. */
    mallopt(M_MMAP_THRESHOLD, 512 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

static void note_probe(void *arg, const char *what, bool good, const char *text)
{
    if (!good)
        log_warn("store lacks something", "what=%s text=\"%s\"", what, text);
}

/* Who reads a volume of a service may have rights for its objects only: the service lists. */
static int look(const struct mount *m, struct error *error)
{
    int r = store_look(m->store, m->url.prefix, error);
    return m->remote && r == -EACCES && strcmp(error->store_code, "AccessDenied") == 0 ? 0 : r;
}

static int open_store(struct mount *m, struct error *error)
{
    struct store_options options;
    mount_options_store(&m->options, &options);
    options.client = m->client[0] ? m->client : NULL;
    /* What is said on the command line wins, what happens to be in the environment does not. */
    if (m->remote && m->options.keys_of_service && !options.access_key && !options.profile) {
        mount_keys_init(&m->keys, m->meta);
        options.keys = &m->keys.source;
    }
    int r = loop_new(&m->loop, "store");
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    mount_wait_start(&m->wait, m->loop, m->url_text, &options);
    r = store_open(&m->url, &options, m->loop, m->metrics, &m->store, error);
    if (r == 0)
        r = m->options.read_only ? look(m, error)
                                 : store_probe(m->store, m->url.prefix, note_probe, m, error);
    if (r < 0)
        return r;
    /* Others may be attached to it. */
    struct store *own = m->store;
    r = store_mux_new(own, &m->store);
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    return m->remote ? meta_remote_stores(m->meta, m->store, error) : 0;
}

static void name_owner(struct mount *m)
{
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    snprintf(m->owner, sizeof(m->owner), "%s:%.200s (process %d)", host, m->mountpoint,
             (int)getpid());
}

/* The service says where the bucket is. */
static int connect_meta(struct mount *m, struct error *error)
{
    struct meta_remote_config config;
    meta_remote_config_init(&config);
    name_owner(m);
    config.url = m->url_text;
    config.text = m->owner;
    config.events = fs_events(m->fs);
    config.metrics = m->metrics;
    config.read_only = m->options.read_only;
    config.token_file = m->options.token_file;
    config.token = config.token_file ? NULL : getenv("SLUICE_TOKEN");
    if (config.token && strlen(config.token) > TOKEN_TEXT_MAX)
        return error_set(error, -EINVAL, "SLUICE_TOKEN is longer than a token");
    config.tls_ca = m->options.tls_ca;
    config.tls_cert = m->options.tls_cert;
    config.tls_key = m->options.tls_key;
    config.tls_name = m->options.tls_server_name;
    int r = meta_remote_open(&config, &m->meta, error);
    if (r == 0)
        snprintf(m->client, sizeof(m->client), "session %" PRIu64, meta_remote_session(m->meta));
    if (r == 0)
        r = store_url_parse(meta_remote_store_url(m->meta), &m->url, error);
    if (r == 0)
        r = volume_options_adopt(&m->options, meta_remote_store_options(m->meta), error);
    return r < 0 ? r : prepare_places(m, error);
}

static int open_meta(struct mount *m, struct error *error)
{
    struct meta_config config;
    struct meta_volume format;
    const struct mount_options *o = &m->options;
    int r = mount_options_format(o, &format, error);
    if (r < 0)
        return r;
    meta_config_init(&config);
    config.directory = o->read_only ? NULL : m->meta_dir;
    config.store = m->store;
    config.prefix = m->url.prefix;
    config.format = &format;
    config.events = fs_events(m->fs);
    config.metrics = m->metrics;
    config.memory_bytes = o->memory / META_MEMORY_SHARE;
    config.import_ttl_ms = o->import_ttl_ms;
    config.offline_ms = o->offline_ms;
    config.negative_ttl_ms = o->negative_ttl_ms;
    config.sync = o->sync && strcmp(o->sync, "always") == 0 ? META_SYNC_ALWAYS : META_SYNC_INTERVAL;
    config.sync_interval_ms = o->sync_interval_ms;
    config.read_only = o->read_only;
    config.take_over = o->take_over;
    config.no_settle = o->no_settle;
    config.settle_requests = o->settle_requests;
    config.settle_bandwidth = o->settle_bandwidth;
    name_owner(m);
    config.owner_text = m->owner;
    return meta_open(&config, &m->meta, error);
}

/* The part of the cache that belongs to this volume. What a read-only mount caches has names of its
 * own, since its metadata does not last. */
static void cache_volume(const struct mount *m, char out[64])
{
    struct meta_contents contents;
    meta_contents(m->meta, &contents);
    if (m->options.read_only) {
        uint64_t hash = hash_bytes64(m->url_text, strlen(m->url_text), 0);
        const char *endpoint = m->options.endpoint ? m->options.endpoint : "";
        snprintf(out, 64, "read-only-%016" PRIx64, hash_bytes64(endpoint, strlen(endpoint), hash));
    } else {
        snprintf(out, 64, "%s-%s", meta_volume(m->meta)->id, contents.database);
    }
}

/* A mount works without it as well, only slower. */
static void open_cache(struct mount *m)
{
    struct cache_config config;
    struct meta_contents contents;
    struct error error = {0};
    char volume[64];
    if (m->cache_dir_count == 0 || m->options.no_cache)
        return;
    /* One that cannot be made is left out, and said, by cache_open. */
    for (unsigned i = 0; i < m->cache_dir_count; i++)
        places_make_noted(m->cache_dirs[i], &m->made, NULL);
    cache_volume(m, volume);
    cache_config_init(&config);
    config.directories = (const char *const *)m->cache_dirs;
    config.directory_count = m->cache_dir_count;
    config.volume = volume;
    config.capacity_bytes =
        (m->options.cache_size ? m->options.cache_size : CACHE_SIZE) / m->cache_dir_count;
    config.free_low_percent = m->options.cache_free;
    config.free_high_percent = m->options.cache_free + 2;
    config.ttl_s = (m->options.cache_ttl_ms + 999) / 1000;
    config.metrics = m->metrics;
    if (cache_open(&config, &m->cache, &error) < 0) {
        log_warn("no cache", "reason=\"%s\"", error_text(&error));
        return;
    }
    meta_contents(m->meta, &contents);
    if (!m->options.read_only)
        cache_forget_from(m->cache, contents.next);
}

static int open_data(struct mount *m, struct error *error)
{
    struct data_config config;
    open_cache(m);
    data_config_init(&config);
    config.meta = m->meta;
    config.store = m->store;
    config.loop = m->loop;
    config.metrics = m->metrics;
    config.staging_dir = m->options.read_only ? NULL : m->staging_dir;
    config.buffer_bytes = m->options.memory / DATA_MEMORY_SHARE;
    config.staging_max = m->options.staging_max;
    if (m->options.durability)
        data_durability_parse(m->options.durability, &config.durability);
    config.durability_for = m->options.durability_for;
    config.upload_delay_ms = m->options.upload_delay_ms;
    config.backlog_age_ms = m->options.backlog_age_ms;
    config.part_bytes = (uint32_t)m->options.part_size;
    config.upload_parallel = m->options.upload_parallel;
    config.readahead_bytes = (uint32_t)m->options.readahead;
    config.read_only = m->options.read_only;
    config.whole_pages = m->options.writeback;
    config.cache = m->cache;
    config.cache_by_name = m->options.read_only;
    config.changed = fs_data_changed;
    config.arg = m->fs;
    return data_open(&config, &m->data, error);
}

static void ready(void *arg)
{
    struct mount *m = arg;
    m->was_ready = true;
    mount_wait_end(&m->wait);
    mount_metrics_ready(m->gauges);
    mount_watch_mounted(&m->watch, m->mountpoint);
    log_info("mounted", "url=%s mountpoint=%s", m->url_text, m->mountpoint);
    daemon_ready(&m->daemon, getenv("JOURNAL_STREAM") != NULL);
}

static int open_front(struct mount *m, struct error *error)
{
    struct fs_config config;
    int r = metrics_new(&m->metrics);
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    fs_config_init(&config);
    config.mountpoint = m->mountpoint;
    config.volume_name = m->url_text;
    config.allow_other = m->options.allow_other || geteuid() == 0;
    config.selinux_context = m->options.selinux_context;
    config.read_only = m->options.read_only;
    config.writeback = m->options.writeback;
    config.posix_acl = m->options.posix_acl;
    config.no_passthrough = m->options.no_passthrough;
    if (m->options.transport && strcmp(m->options.transport, "classic") == 0)
        config.transport = FS_TRANSPORT_CLASSIC;
    if (m->options.transport && strcmp(m->options.transport, "uring") == 0)
        config.transport = FS_TRANSPORT_URING;
    config.busy_poll_us = m->options.busy_poll_us;
    config.max_threads = m->options.max_threads;
    config.import_ttl_ms = m->options.import_ttl_ms;
    config.negative_ttl_ms = m->options.negative_ttl_ms;
    config.shared = m->remote;
    if (m->remote)
        config.import_ttl_ms = 0; /* the service looks at the bucket */
    config.metrics = m->metrics;
    config.ready = ready;
    config.arg = m;
    return fs_new(&config, &m->fs, error);
}

/* The area of another mount stays; who wants to open it now is refused as long as this process is.
 */
static void remove_staging(const char *path)
{
    cleanup(free_ptr) char *lock = NULL;
    int fd = asprintf(&lock, "%s/lock", path) < 0 ? -1 : open(lock, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        places_remove(path);
}

/* What this process made, and nobody has used: a mount that fails leaves nothing of itself. */
static void undo(const struct mount *m, bool had_data)
{
    for (unsigned i = 0; had_data && i < m->cache_dir_count; i++)
        if (places_made_it(&m->made, m->cache_dirs[i]))
            places_remove(m->cache_dirs[i]);
    if (had_data && m->staging_dir && places_made_it(&m->made, m->staging_dir))
        remove_staging(m->staging_dir);
    places_undo(&m->made);
    /* The last thing there. (What is left of a database or of staged data needs its log, too.) */
    if (m->made_log && places_count(m->meta_dir) == 1)
        unlink(m->made_log);
    places_undo(&m->made);
}

/* Nothing is served yet, and what is waited for may take long: as good as a kill. */
static void __attribute__((noreturn)) stop_early(struct mount *m, int number)
{
    struct error error = {0};
    error_set(&error, -EINTR, "stopped by signal %d (%s) before it was ready", number,
              strsignal(number));
    log_error("mount failed", "url=%s error=\"%s\"", m->url_text, error_text(&error));
    undo(m, false);
    daemon_failed(&m->daemon, "sluice mount", &error);
    _exit(1);
}

/* SIGTERM and SIGINT end the mount cleanly, a second one at once; SIGHUP opens the log file again.
 */
static void *serve_signals(void *arg)
{
    struct mount *m = arg;
    for (;;) {
        int number = 0;
        if (sigwait(&m->mask, &number) != 0 || number == SIGUSR2)
            return NULL;
        if (number == SIGHUP) {
            log_reopen();
            continue;
        }
        if (!atomic_load(&m->runs))
            stop_early(m, number);
        log_info("asked to stop", "signal=%d", number);
        fs_stop(m->fs);
    }
}

static int start_signals(struct mount *m, struct error *error)
{
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&m->mask);
    sigaddset(&m->mask, SIGTERM);
    sigaddset(&m->mask, SIGINT);
    sigaddset(&m->mask, SIGHUP);
    sigaddset(&m->mask, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &m->mask, NULL);
    int r = open_front(m, error);
    if (r < 0)
        return r;
    r = -pthread_create(&m->signals, NULL, serve_signals, m);
    if (r < 0)
        return error_set(error, r, "cannot start a thread: %s", strerror(-r));
    m->signals_started = true;
    return 0;
}

/* The other way round, whatever was opened. Returns the first error. */
static int shut(struct mount *m, bool unused)
{
    int r = 0;
    mount_wait_end(&m->wait);
    mount_metrics_close(m->gauges);
    if (m->data)
        r = data_close(m->data);
    cache_close(m->cache);
    backup_job_free(m->backups);
    mount_keys_end(&m->keys);
    unused ? meta_discard(m->meta) : meta_close(m->meta);
    if (m->signals_started) {
        pthread_kill(m->signals, SIGUSR2);
        pthread_join(m->signals, NULL);
    }
    mount_metrics_stop(m->gauges);
    fs_free(m->fs);
    store_free(m->store);
    loop_free(m->loop);
    mount_metrics_free(m->gauges);
    metrics_free(m->metrics);
    return r;
}

static int start_backups(struct mount *m, struct error *error)
{
    struct backup_job_config config = {.meta = m->meta,
                                       .store = m->store,
                                       .loop = m->loop,
                                       .options = &m->options,
                                       .metrics = m->metrics};
    return backup_job_start(&config, &m->backups, error);
}

static int serve(struct mount *m)
{
    struct error error = {0};
    enum fs_exit how = FS_EXIT_ERROR;
    bool unused = false;
    int r = daemon_start(&m->daemon, "sluice mount", m->options.foreground, &error);
    if (r < 0)
        return cli_fail("mount", &error);
    int watched = mount_watch_start(&m->watch);
    raise_limits();
    r = start_log(m, &error);
    if (r == 0 && watched < 0)
        log_warn("nobody watches over this process", "error=%s", strerrorname_np(-watched));
    if (r == 0)
        r = start_signals(m, &error);
    if (r == 0 && m->remote)
        r = connect_meta(m, &error);
    if (r == 0)
        r = mount_metrics_start(m->metrics, m->options.metrics_address, &m->gauges, &error);
    if (r == 0)
        r = open_store(m, &error);
    if (r == 0 && !m->remote)
        r = open_meta(m, &error);
    if (r == 0)
        r = open_data(m, &error);
    if (r == 0)
        mount_metrics_open(m->gauges, m->meta, m->data, m->options.staging_max);
    if (r == 0)
        r = start_backups(m, &error);
    if (r == 0) {
        atomic_store(&m->runs, true);
        r = fs_run(m->fs, m->meta, m->data, &how, &error);
    }
    mount_watch_stop(&m->watch);
    if (r < 0)
        log_error("mount failed", "url=%s error=\"%s\"", m->url_text, error_text(&error));
    /* Who called shall find nothing of it; but where data was left before, closing may take long.
     */
    unused = r < 0 && !m->was_ready && (m->made_log || m->made.count);
    if (r < 0 && !unused)
        daemon_failed(&m->daemon, "sluice mount", &error);
    bool had_data = m->data != NULL;
    int closed = shut(m, unused);
    log_info("ended", "url=%s mountpoint=%s staged_left=%s", m->url_text, m->mountpoint,
             closed < 0 ? "yes" : "no");
    if (unused) {
        undo(m, had_data);
        daemon_failed(&m->daemon, "sluice mount", &error);
    }
    return r < 0 || closed < 0;
}

static int refuse(const struct mount *m, const struct error *error)
{
    places_undo(&m->made);
    return cli_fail("mount", error);
}

int cli_mount(int argc, char **argv)
{
    struct mount m = {.daemon = {.report = -1}};
    struct option_result result;
    struct error error = {0};
    mount_options_init(&m.options);
    int r = options_parse(&mount_option_set, "sluice mount", argc, argv, &m.options, &result);
    if (r) {
        mount_options_free(&m.options);
        return r - 1;
    }
    if (prepare(&m, result.args, &error) < 0)
        r = refuse(&m, &error);
    else
        r = serve(&m);
    places_made_done(&m.made);
    free(m.made_log);
    store_url_done(&m.url);
    free(m.url_text);
    free(m.mountpoint);
    free(m.meta_dir);
    free(m.staging_dir);
    for (unsigned i = 0; i < m.cache_dir_count; i++)
        free(m.cache_dirs[i]);
    mount_options_free(&m.options);
    return r;
}
