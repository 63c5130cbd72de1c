/* sluice serve: the metadata service. This thread opens and closes volumes and answers the admin
 * socket; connections are served by meta/service/server.c. */
#include "backup_job.h"
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/metrics_http.h"
#include "daemon.h"
#include "meta/server.h"
#include "places.h"
#include "s3/mux.h"
#include "volume_config.h"
#include "volume_tokens.h"

#define DEFAULT_LISTEN "tcp://127.0.0.1:7700"
#define MEMORY_SHARE 5
#define ADMIN_MAX 512
#define ADMIN_WAIT_S 10
#define CERTIFICATES_MS 10000 /* so often their files are looked at */

struct serve_options {
    char *listen, *data_dir, *log_file, *log_level, *metrics_address;
    char *tls_cert, *tls_key, *tls_client_ca;
    char *audit;
    bool no_auth, audit_reads;
    uint32_t lease_ms;
    unsigned max_connections;
};

#define AT(field) offsetof(struct serve_options, field)
static const struct option_spec specs[] = {
    {"listen", 0, OPTION_STRING, AT(listen), "ADDRESS,…",
     "tcp://ADDRESS:PORT (0: any port) and unix:///PATH, separated by commas "
     "(" DEFAULT_LISTEN "; nothing more than the sockets that systemd gives, if it gives any)"},
    {"data-dir", 0, OPTION_STRING, AT(data_dir), "DIR",
     "Where the volumes are (/var/lib/sluice/serve)"},
    {"tls-cert", 0, OPTION_STRING, AT(tls_cert), "FILE",
     "Speak TLS 1.3 on all TCP addresses, with this certificate chain, PEM (no TLS)"},
    {"tls-key", 0, OPTION_STRING, AT(tls_key), "FILE", "Its key, PEM"},
    {"tls-client-ca", 0, OPTION_STRING, AT(tls_client_ca), "FILE",
     "Ask every client for a certificate of one of these, PEM (clients need none)"},
    {"no-auth", 0, OPTION_FLAG, AT(no_auth), NULL,
     "Let everybody who reaches the service use volumes that have no tokens (only clients of this "
     "host, and those with a certificate that --tls-client-ca asks for)"},
    {"audit", 0, OPTION_STRING, AT(audit), "FILE",
     "Append who did what there, as JSON lines: sessions, refusals and changes (nowhere)"},
    {"audit-reads", 0, OPTION_FLAG, AT(audit_reads), NULL,
     "Also reads that reach the service: what a mount has in its cache does not"},
    {"lease", 0, OPTION_DURATION, AT(lease_ms), "TIME",
     "A client that is not heard of for so long has lost its session (10s)", .min = 1000,
     .max = 600000},
    {"max-connections", 0, OPTION_UINT, AT(max_connections), "N", "Clients at once (10000)",
     .min = 1, .max = 1000000},
    {"metrics-address", 0, OPTION_STRING, AT(metrics_address), "ADDRESS",
     "Serve /metrics (Prometheus), /healthz and /readyz there, as 127.0.0.1:9181 (nowhere)"},
    {"log-file", 0, OPTION_STRING, AT(log_file), "FILE", "Append the log there (stderr)"},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), "LEVEL", "error, warn, info or debug (info)",
     .choices = "error|warn|info|debug"},
};

static const struct option_set serve_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "",
    .doc =
        "Serves the namespaces of volumes to many mounts, which stay coherent with each other. "
        "Volumes are made by `sluice volume create`. Stays in the foreground; tells systemd "
        "when it is ready."
        "\vExample:\n"
        "  sluice volume create logs s3://logs/2026 region=eu-central-1\n"
        "  sluice serve --listen tcp://10.0.0.5:7700\n"
        "  sluice mount sluice://10.0.0.5:7700/logs /mnt\n\n"
        "SIGTERM ends it; mounts wait and go on when it is back. Other hosts need a token of the "
        "volume (sluice volume token create), and TLS to keep it to themselves.",
    .args_min = 0,
    .args_max = 0,
    .reads_config = true,
};

struct served {
    char *name;
    struct store *store;
    struct server_volume *volume;
    struct meta *meta;
    struct backup_job *backups; /* NULL: none are made */
    struct served *prev, *next;
};

struct serve {
    struct serve_options options;
    char *data_dir;
    int lock_fd, admin_fd, signal_fd;
    struct metrics *metrics;
    struct metrics_http *http;
    struct loop *loop; /* of all stores */
    struct server *server;
    struct served *volumes;
};

/* Volumes */

static void close_volume(struct serve *s, struct served *v, bool end)
{
    backup_job_free(v->backups);
    if (v->volume)
        meta_server_volume_stop(v->volume, end);
    meta_close(v->meta);
    meta_server_volume_free(v->volume);
    store_free(v->store);
    DL_DELETE(s->volumes, v);
    free(v->name);
    free(v);
}

static int open_store(struct serve *s, struct served *v, const struct volume_config *config,
                      const struct mount_options *options, struct store_url *url,
                      struct error *error)
{
    struct store_options store_options;
    int r = store_url_parse(config->url, url, error);
    mount_options_store(options, &store_options);
    if (r == 0)
        r = store_open(url, &store_options, s->loop, s->metrics, &v->store, error);
    if (r == 0)
        r = store_probe(v->store, url->prefix, NULL, NULL, error);
    if (r < 0)
        return r;
    /* Others may be attached to it. */
    struct store *own = v->store;
    r = store_mux_new(own, &v->store);
    return r < 0 ? error_set(error, r, "out of memory") : 0;
}

static int open_meta(struct serve *s, struct served *v, const struct mount_options *o,
                     const struct store_url *url, struct error *error)
{
    struct meta_config config;
    struct meta_volume format;
    char owner[512], host[256] = "";
    cleanup(free_ptr) char *directory = NULL;
    if (asprintf(&directory, "%s/%s/meta", s->data_dir, v->name) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    meta_config_init(&config);
    int r = mount_options_format(o, &format, error);
    if (r < 0)
        return r;
    gethostname(host, sizeof(host) - 1);
    snprintf(owner, sizeof(owner), "%s: sluice serve, volume %s (process %d)", host, v->name,
             (int)getpid());
    config.directory = directory;
    config.store = v->store;
    config.prefix = url->prefix;
    config.format = &format;
    config.events = meta_server_volume_events(v->volume);
    config.memory_bytes = o->memory / MEMORY_SHARE;
    config.import_ttl_ms = o->import_ttl_ms;
    config.offline_ms = o->offline_ms;
    config.negative_ttl_ms = o->negative_ttl_ms;
    config.sync = o->sync && strcmp(o->sync, "always") == 0 ? META_SYNC_ALWAYS : META_SYNC_INTERVAL;
    config.sync_interval_ms = o->sync_interval_ms;
    config.no_settle = o->no_settle;
    config.settle_requests = o->settle_requests;
    config.settle_bandwidth = o->settle_bandwidth;
    config.keep_sessions = true;
    config.owner_text = owner;
    return meta_open(&config, &v->meta, error);
}

/* Those that the volume's options say; others set by `sluice quota` stay. */
static int set_quota(const struct served *v, const struct volume_config *config,
                     struct error *error)
{
    struct volume_quota quota;
    int r = volume_config_quota(config, &quota, error);
    if (r < 0 || (!quota.has_bytes && !quota.has_inodes))
        return r;
    uint32_t valid =
        (quota.has_bytes ? META_QUOTA_BYTES : 0) | (quota.has_inodes ? META_QUOTA_INODES : 0);
    struct meta_request request = {.op = {.kind = META_QUOTA_SET,
                                          .ino = META_ROOT_INO,
                                          .valid = valid,
                                          .offset = quota.bytes,
                                          .length = quota.inodes},
                                   .durable = true};
    r = meta_call(v->meta, &request);
    meta_reply_done(&request.reply);
    return r < 0 ? error_set(error, r, "setting the quota: %s", strerror(-r)) : 0;
}

/* Tokens that cannot be read close the volume: they say who may not use it. */
static int load_tokens(struct serve *s, struct served *v, struct error *error)
{
    struct token_set tokens = {0};
    int r = volume_tokens_load(s->data_dir, v->name, &tokens, error);
    if (r == 0)
        meta_server_volume_tokens(v->volume, &tokens);
    return r;
}

/* Who signs for mounts without credentials. */
static int make_signers(struct serve *s, const struct volume_config *config,
                        const struct mount_options *options, struct server_volume_config *out,
                        struct error *error)
{
    struct volume_keys keys;
    struct store_options store_options;
    int r = volume_config_keys(config, &keys, error);
    if (r < 0 || !keys.service)
        return r;
    mount_options_store(options, &store_options);
    out->keys_s = keys.lifetime_s;
    r = store_signer_new(&out->signer, meta_server_loop(s->server), &store_options, error);
    if (r == 0 && keys.reader_profile) {
        store_options.profile = keys.reader_profile;
        store_options.region = store_signer_region(out->signer);
        r = store_signer_new(&out->read_signer, meta_server_loop(s->server), &store_options, error);
    }
    return r;
}

/* The signers become the volume's. */
static int new_volume(struct serve *s, struct served *v, const struct volume_config *config,
                      const struct mount_options *options, struct error *error)
{
    struct server_volume_config volume = {.name = config->name, .url = config->url};
    int r = make_signers(s, config, options, &volume, error);
    const char *region = volume.signer ? store_signer_region(volume.signer) : NULL;
    cleanup(free_ptr) char *for_clients = volume_config_for_clients(config, region);
    volume.options = for_clients;
    if (r == 0 && (!for_clients || meta_server_volume_new(s->server, &volume, &v->volume) < 0))
        r = error_set(error, -ENOMEM, "out of memory");
    if (r < 0) {
        store_signer_free(volume.signer);
        store_signer_free(volume.read_signer);
    }
    return r;
}

/* A volume whose backups cannot be made is served all the same. */
static void start_backups(struct serve *s, struct served *v, const struct mount_options *options)
{
    struct error error = {0};
    struct backup_job_config config = {.meta = v->meta,
                                       .store = v->store,
                                       .loop = s->loop,
                                       .options = options,
                                       .metrics = s->metrics,
                                       .volume = v->name};
    if (backup_job_start(&config, &v->backups, &error) < 0)
        log_error("no backups will be made", "volume=%s error=\"%s\"", v->name, error_text(&error));
}

static int open_parts(struct serve *s, struct served *v, const struct volume_config *config,
                      struct error *error)
{
    struct mount_options options;
    struct store_url url = {0};
    mount_options_init(&options);
    int r = volume_config_options(config, &options, error);
    if (r == 0)
        r = open_store(s, v, config, &options, &url, error);
    if (r == 0)
        r = new_volume(s, v, config, &options, error);
    if (r == 0)
        r = open_meta(s, v, &options, &url, error);
    if (r == 0)
        r = set_quota(v, config, error);
    if (r == 0)
        r = load_tokens(s, v, error);
    if (r == 0)
        r = meta_server_volume_start(v->volume, v->meta, error);
    if (r == 0)
        start_backups(s, v, &options);
    store_url_done(&url);
    mount_options_free(&options);
    return r;
}

static int open_volume(struct serve *s, const char *name, struct error *error)
{
    struct volume_config config;
    int r = volume_config_load(s->data_dir, name, &config, error);
    if (r < 0)
        return r;
    struct served *v = calloc(1, sizeof(*v));
    if (v)
        v->name = strdup(name);
    if (!v || !v->name) {
        free(v);
        r = error_set(error, -ENOMEM, "out of memory");
    } else {
        DL_APPEND(s->volumes, v);
        r = open_parts(s, v, &config, error);
        if (r < 0)
            close_volume(s, v, false);
    }
    volume_config_done(&config);
    return r;
}

/* One that cannot be opened does not keep the others from being served. */
static int open_each(void *arg, const char *name)
{
    struct error error = {0};
    if (open_volume(arg, name, &error) < 0)
        log_error("volume not served", "volume=%s error=\"%s\"", name, error_text(&error));
    return 0;
}

static struct served *find(struct serve *s, const char *name)
{
    struct served *v;
    DL_FOREACH(s->volumes, v)
    {
        if (strcmp(v->name, name) == 0)
            return v;
    }
    return NULL;
}

/* The admin socket: one line in, one JSON object out. */

static int delete_volume(struct serve *s, const char *name, bool force, struct error *error)
{
    struct served *v = find(s, name);
    if (v && !force) {
        struct meta_request request = {.op = {.kind = META_DRIFT, .ino = META_ROOT_INO}};
        int r = meta_call(v->meta, &request);
        uint64_t files = request.reply.drift.files;
        meta_reply_done(&request.reply);
        if (r < 0 || files)
            return error_set(error, -EBUSY,
                             "%llu files of '%s' are not in the bucket yet; settle them, or lose "
                             "them with --force",
                             (unsigned long long)files, name);
    }
    if (v)
        close_volume(s, v, true);
    return volume_remove(s->data_dir, name, error);
}

static int run_admin(struct serve *s, char *line, struct buf *out, struct error *error)
{
    char *rest = NULL, *word = strtok_r(line, " \n", &rest), *name = strtok_r(NULL, " \n", &rest);
    char *flag = strtok_r(NULL, " \n", &rest);
    if (word && strcmp(word, "status") == 0) {
        meta_server_status_json(s->server, out);
        return 0;
    }
    if (!word || !name || volume_name_check(name, error) < 0)
        return error_set(error, -EINVAL, "no such request");
    if (strcmp(word, "open") == 0) {
        struct served *v = find(s, name);
        if (v)
            close_volume(s, v, false);
        return open_volume(s, name, error);
    }
    if (strcmp(word, "tokens") == 0) {
        struct served *v = find(s, name);
        int r = v ? load_tokens(s, v, error) : 0;
        if (r == 0)
            log_info("tokens read again", "volume=%s", name);
        return r;
    }
    if (strcmp(word, "delete") == 0)
        return delete_volume(s, name, flag && strcmp(flag, "force") == 0, error);
    return error_set(error, -EINVAL, "no such request");
}

/* The mode of the socket says so too; but a mode can be changed. */
static bool is_own_user(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
        (peer.uid == 0 || peer.uid == geteuid()))
        return true;
    log_warn("admin request refused", "reason=\"not of the service's user\"");
    return false;
}

static void serve_admin(struct serve *s)
{
    struct buf out;
    struct error error = {0};
    char line[ADMIN_MAX + 1];
    struct timeval patience = {.tv_sec = ADMIN_WAIT_S};
    cleanup(close_fd) int fd = accept4(s->admin_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || !is_own_user(fd))
        return;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    ssize_t n = recv(fd, line, ADMIN_MAX, 0);
    if (n <= 0)
        return;
    line[n] = 0;
    buf_init(&out, 0);
    if (run_admin(s, line, &out, &error) < 0) {
        json_t *root = json_pack("{s:s}", "error", error_text(&error));
        cleanup(free_ptr) char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
        json_decref(root);
        buf_reset(&out);
        buf_put(&out, text ? text : "{\"error\":\"?\"}", text ? strlen(text) : 13);
    } else if (!out.len) {
        buf_put(&out, "{}", 2);
    }
    if (send(fd, out.data, out.len, MSG_NOSIGNAL) < 0)
        log_debug("admin answer not taken", "");
    buf_done(&out);
}

static int open_admin(struct serve *s, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int len = snprintf(address.sun_path, sizeof(address.sun_path), "%s/admin.sock", s->data_dir);
    if (len >= (int)sizeof(address.sun_path))
        return error_set(error, -ENAMETOOLONG, "--data-dir %s is too long for a socket in it",
                         s->data_dir);
    s->admin_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(address.sun_path); /* of a process that is gone: the lock is ours */
    if (s->admin_fd < 0 || bind(s->admin_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(address.sun_path, 0600) < 0 || listen(s->admin_fd, 16) < 0)
        return error_set(error, -errno, "%s: %s", address.sun_path, strerror(errno));
    return 0;
}

/* Beginning and end */

static int take_lock(struct serve *s, struct error *error)
{
    cleanup(free_ptr) char *path = NULL;
    if (asprintf(&path, "%s/lock", s->data_dir) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    s->lock_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(error, -EBUSY, "another sluice serves %s", s->data_dir);
    return 0;
}

static int listen_at(struct serve *s, const char *address, struct error *error)
{
    char bound[SERVER_ADDRESS_MAX];
    int r = meta_server_listen(s->server, address, bound, error);
    if (r < 0)
        return r;
    log_info("listening", "address=%s", bound);
    printf("listening on %s\n", bound);
    return 0;
}

static int listen_all(struct serve *s, struct error *error)
{
    char *rest = NULL;
    int inherited = daemon_sockets(error);
    if (inherited < 0)
        return inherited;
    const char *default_list = inherited ? "" : DEFAULT_LISTEN;
    cleanup(free_ptr) char *list = strdup(s->options.listen ? s->options.listen : default_list);
    if (!list)
        return error_set(error, -ENOMEM, "out of memory");
    int r = 0;
    for (int i = 0; r == 0 && i < inherited; i++) {
        char address[32];
        snprintf(address, sizeof(address), "fd://%d", DAEMON_SOCKETS_FROM + i);
        r = listen_at(s, address, error);
    }
    for (char *word = strtok_r(list, ", ", &rest); r == 0 && word;
         word = strtok_r(NULL, ", ", &rest))
        r = listen_at(s, word, error);
    fflush(stdout);
    return r;
}

/* Last: it is ready from the first answer on. */
static int start_metrics(struct serve *s, struct error *error)
{
    struct metrics_http_config config = {.address = s->options.metrics_address,
                                         .metrics = s->metrics};
    if (!config.address)
        return 0;
    int r = metrics_http_start(&config, &s->http, error);
    if (r < 0)
        return error_prefix(error, "--metrics-address");
    log_info("metrics served", "address=%s port=%u", config.address, metrics_http_port(s->http));
    return 0;
}

static int start(struct serve *s, struct error *error)
{
    struct server_config config;
    enum log_level level = LOG_INFO;
    sigset_t mask;
    if (s->options.log_level)
        log_level_parse(s->options.log_level, &level);
    int r = log_init(level, s->options.log_file);
    if (r < 0)
        return error_set(error, r, "log file %s: %s", s->options.log_file, strerror(-r));
    r = places_make(s->data_dir, error);
    if (r == 0)
        r = take_lock(s, error);
    if (r < 0)
        return r;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0)
        return error_set(error, -errno, "cannot start: %s", strerror(errno));
    meta_server_config_init(&config);
    config.lease_ms = s->options.lease_ms;
    config.max_connections = s->options.max_connections;
    config.tls_cert = s->options.tls_cert;
    config.tls_key = s->options.tls_key;
    config.tls_client_ca = s->options.tls_client_ca;
    config.no_auth = s->options.no_auth;
    config.audit_file = s->options.audit;
    config.audit_reads = s->options.audit_reads;
    if (config.tls_client_ca && !config.tls_cert)
        return error_set(error, -EINVAL, "--tls-client-ca needs --tls-cert and --tls-key");
    r = metrics_new(&s->metrics);
    config.metrics = s->metrics;
    if (r == 0)
        r = loop_new(&s->loop, "store");
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    r = meta_server_new(&config, &s->server, error);
    if (r == 0)
        r = volume_config_each(s->data_dir, open_each, s, error);
    if (r == 0)
        r = open_admin(s, error);
    if (r == 0)
        r = listen_all(s, error);
    return r < 0 ? r : start_metrics(s, error);
}

/* On SIGHUP, and now and then: who renews certificates need not know of this process. */
static void reload_certificates(struct serve *s)
{
    struct error error = {0};
    int r = meta_server_reload_tls(s->server, &error);
    if (r > 0)
        log_info("certificates read again", "file=%s", s->options.tls_cert);
    else if (r < 0)
        log_error("new certificates not used", "error=\"%s\" effect=\"the old ones stay\"",
                  error_text(&error));
}

/* SIGHUP: whoever puts token files in place has no need of the admin socket. */
static void reload_tokens(struct serve *s)
{
    struct served *v;
    DL_FOREACH(s->volumes, v)
    {
        struct error error = {0};
        if (load_tokens(s, v, &error) < 0)
            log_error("new tokens not used", "volume=%s error=\"%s\" effect=\"the old ones stay\"",
                      v->name, error_text(&error));
    }
}

/* Until SIGTERM or SIGINT. */
static void run(struct serve *s)
{
    struct pollfd fds[] = {{.fd = s->signal_fd, .events = POLLIN},
                           {.fd = s->admin_fd, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo info;
        int r;
        int ready = poll(fds, ARRAY_LEN(fds), s->options.tls_cert ? CERTIFICATES_MS : -1);
        if (ready < 0 && errno != EINTR)
            return;
        if (ready <= 0) {
            reload_certificates(s);
            continue;
        }
        if (fds[1].revents)
            serve_admin(s);
        if (!fds[0].revents || read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
            continue;
        if (info.ssi_signo != SIGHUP) {
            log_info("asked to stop", "signal=%u", info.ssi_signo);
            return;
        }
        log_reopen();
        if ((r = meta_server_reopen_audit(s->server)) < 0)
            log_error("audit log not opened again", "file=%s error=\"%s\"", s->options.audit,
                      strerror(-r));
        reload_certificates(s);
        reload_tokens(s);
    }
}

static void shut(struct serve *s)
{
    struct served *v, *next;
    metrics_http_stop(s->http);
    DL_FOREACH_SAFE(s->volumes, v, next)
    {
        close_volume(s, v, false);
    }
    meta_server_free(s->server);
    loop_free(s->loop);
    metrics_free(s->metrics);
    const int fds[] = {s->admin_fd, s->signal_fd, s->lock_fd};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close_fd(&fds[i]);
}

int cli_serve(int argc, char **argv)
{
    struct serve s = {.options = {.lease_ms = 10000, .max_connections = 10000},
                      .lock_fd = -1,
                      .admin_fd = -1,
                      .signal_fd = -1};
    struct daemon daemon = {.report = -1};
    struct option_result result;
    struct error error = {0};
    struct rlimit files;
    int r = options_parse(&serve_option_set, "sluice serve", argc, argv, &s.options, &result);
    if (r) {
        options_free(&serve_option_set, &s.options);
        return r - 1;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    mallopt(M_ARENA_MAX, 4);
    s.data_dir = s.options.data_dir ? realpath(s.options.data_dir, NULL) : volume_default_dir();
    if (!s.data_dir && s.options.data_dir)
        s.data_dir = strdup(s.options.data_dir);
    r = s.data_dir ? start(&s, &error) : error_set(&error, -ENOMEM, "out of memory");
    if (r == 0) {
        daemon_ready(&daemon, 1);
        run(&s);
    } else {
        cli_fail("serve", &error);
    }
    shut(&s);
    if (r == 0)
        log_info("ended", "");
    free(s.data_dir);
    options_free(&serve_option_set, &s.options);
    return r < 0;
}
