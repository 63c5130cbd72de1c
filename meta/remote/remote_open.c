/* A remote volume's URL, its beginning and its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "remote_impl.h"
#include "remote_quota.h"

#define TCP "sluice://"
#define TLS "sluices://"
#define UNIX "sluice+unix://"

bool meta_remote_is_url(const char *text)
{
    return strncmp(text, TCP, strlen(TCP)) == 0 || strncmp(text, TLS, strlen(TLS)) == 0 ||
           strncmp(text, UNIX, strlen(UNIX)) == 0;
}

static bool is_volume_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return len > 0 && len <= WIRE_NAME_MAX && !name[len] && name[0] != '.';
}

/* 1 to 65535. getaddrinfo takes more, and connects to another port. */
static bool is_port(const char *text)
{
    size_t len = strlen(text);
    unsigned long port = strtoul(text, NULL, 10);
    return len > 0 && len <= 5 && strspn(text, "0123456789") == len && port > 0 && port <= 65535;
}

/* HOST:PORT, or [ADDRESS]:PORT */
static bool split_host(char *text, char **host, char **port)
{
    char *colon = strrchr(text, ':');
    if (!colon || !is_port(colon + 1))
        return false;
    *colon = 0;
    size_t len = strlen(text);
    if (text[0] == '[' && text[len - 1] == ']') {
        text[len - 1] = 0;
        text++;
    } else if (strchr(text, ':')) {
        return false;
    }
    *host = strdup(text);
    *port = strdup(colon + 1);
    return *text != 0;
}

/* One '/' between names, none at the ends. False: it has a name that no directory has. */
static bool tidy_path(char *path)
{
    char *out = path, *rest = NULL;
    size_t len = strlen(path);
    if (len > WIRE_PATH_MAX)
        return false;
    for (char *name = strtok_r(path, "/", &rest); name; name = strtok_r(NULL, "/", &rest)) {
        size_t name_len = strlen(name);
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || name_len > META_NAME_MAX)
            return false;
        if (out != path)
            *out++ = '/';
        memmove(out, name, name_len);
        out += name_len;
    }
    *out = 0;
    return true;
}

int meta_remote_url_parse(const char *text, struct meta_remote_url *out, struct error *error)
{
    bool is_unix = strncmp(text, UNIX, strlen(UNIX)) == 0;
    bool is_tls = strncmp(text, TLS, strlen(TLS)) == 0;
    cleanup(free_ptr) char *rest = strdup(text + strlen(is_unix ? UNIX : is_tls ? TLS : TCP));
    *out = (struct meta_remote_url){.tls = is_tls};
    if (!rest)
        return error_set(error, -ENOMEM, "out of memory");
    char *split = strchr(rest, is_unix ? ':' : '/');
    bool good = split != NULL;
    if (good) {
        *split++ = 0;
        char *directory = strchr(split, '/');
        if (directory)
            *directory++ = 0;
        good = is_volume_name(split) && (!directory || tidy_path(directory));
        out->volume = strdup(split);
        out->directory = good && directory && *directory ? strdup(directory) : NULL;
    }
    if (good && is_unix) {
        good = rest[0] == '/';
        out->path = strdup(rest);
    } else if (good) {
        good = split_host(rest, &out->host, &out->port);
    }
    if (good)
        return 0;
    meta_remote_url_done(out);
    return error_set(error, -EINVAL,
                     "%s: a volume of a service is sluice://HOST:PORT/VOLUME[/DIRECTORY], "
                     "sluices:// for TLS, or sluice+unix:///SOCKET:VOLUME[/DIRECTORY]; VOLUME of "
                     "letters, digits, '.', '_' and '-', DIRECTORY without '.' and '..'",
                     text);
}

void meta_remote_url_done(struct meta_remote_url *url)
{
    free(url->host);
    free(url->port);
    free(url->path);
    free(url->volume);
    free(url->directory);
    *url = (struct meta_remote_url){0};
}

void meta_remote_config_init(struct meta_remote_config *config)
{
    *config = (struct meta_remote_config){.connect_timeout_ms = 10000, .patience_ms = 60000};
}

static char *copy(const char *text, int *rc)
{
    char *out = text ? strdup(text) : NULL;
    if (text && !out)
        *rc = -ENOMEM;
    return out;
}

static void free_remote(struct remote *remote)
{
    struct remote_object *object, *next;
    remote_quota_forget(remote);
    HASH_ITER(hh, remote->objects, object, next)
    {
        HASH_DEL(remote->objects, object);
        free(object);
    }
    loop_free(remote->loop);
    remote_names_drop_all(&remote->names);
    locks_free(remote->locks);
    buf_done(&remote->out);
    remote_sender_done(&remote->sender);
    meta_remote_url_done(&remote->url);
    if (remote->config.token)
        explicit_bzero((char *)remote->config.token, strlen(remote->config.token));
    free((char *)remote->config.token);
    free((char *)remote->config.token_file);
    free((char *)remote->config.text);
    free((char *)remote->config.url);
    free((char *)remote->config.tls_name);
    tls_setup_free(remote->tls);
    free(remote->store_url);
    free(remote->store_options);
    sem_destroy(&remote->gone);
    pthread_mutex_destroy(&remote->lock);
    free(remote->meta);
    free(remote);
}

static int make_tls(struct remote *remote, const struct meta_remote_config *config,
                    struct error *error)
{
    struct tls_files files = {
        .cert = config->tls_cert, .key = config->tls_key, .ca = config->tls_ca};
    if (remote->url.tls)
        return tls_setup_new(false, &files, &remote->tls, error);
    if (files.cert || files.key || files.ca || config->tls_name)
        return error_set(error, -EINVAL, "%s: TLS options are for sluices:// URLs", config->url);
    return 0;
}

static int make(const struct meta_remote_config *config, struct remote **out, struct error *error)
{
    struct remote *remote = calloc(1, sizeof(*remote));
    struct meta *meta = calloc(1, sizeof(*meta));
    if (!remote || !meta) {
        free(remote);
        free(meta);
        return error_set(error, -ENOMEM, "out of memory");
    }
    int rc = 0;
    remote->meta = meta;
    meta->remote = remote;
    remote->config = *config;
    remote->config.url = copy(config->url, &rc);
    remote->config.text = copy(config->text, &rc);
    remote->config.token = copy(config->token, &rc);
    remote->config.token_file = copy(config->token_file, &rc);
    remote->config.tls_name = copy(config->tls_name, &rc);
    remote->next_id = remote->next_change = 1;
    atomic_init(&remote->era, 1);
    pthread_mutex_init(&remote->lock, NULL);
    sem_init(&remote->gone, 0, 0);
    buf_init(&remote->out, 0);
    remote_sender_init(&remote->sender);
    hash_random(remote->key, sizeof(remote->key));
    remote->connects = metrics_counter(config->metrics, "sluice_remote_connects_total", "",
                                       "Connections to the metadata service.");
    remote->requests = metrics_counter(config->metrics, "sluice_remote_requests_total", "",
                                       "Requests sent to the metadata service.");
    remote->invalidations =
        metrics_counter(config->metrics, "sluice_remote_invalidations_total", "",
                        "Names, attributes and contents that the service took out of the caches.");
    if (!rc)
        rc = locks_new(SIZE_MAX, &remote->locks);
    if (rc)
        error_set(error, rc, "out of memory");
    else
        rc = meta_remote_url_parse(config->url, &remote->url, error);
    if (!rc)
        rc = make_tls(remote, config, error);
    if (!rc && (rc = loop_new(&remote->loop, "meta-remote")))
        error_set(error, rc, "cannot start: %s", strerror(-rc));
    if (rc)
        free_remote(remote);
    else
        *out = remote;
    return rc;
}

static void start(void *arg)
{
    remote_link_start(arg);
}

static void stop(void *arg)
{
    struct remote *remote = arg;
    remote_end_calls(remote, -ECANCELED, true);
    remote_link_stop(remote);
}

/* The answer may have come at the last moment. */
static void give_up(void *arg)
{
    ((struct remote *)arg)->opened = NULL;
}

void remote_close(struct meta *meta)
{
    struct remote *remote = meta->remote;
    pthread_mutex_lock(&remote->lock);
    remote->closing = true;
    pthread_mutex_unlock(&remote->lock);
    loop_call(remote->loop, stop, remote);
    while (sem_wait(&remote->gone) < 0 && errno == EINTR)
        ;
    remote_stores_free(TAKE_PTR(remote->stores));
    free_remote(remote);
}

int meta_remote_open(const struct meta_remote_config *config, struct meta **out,
                     struct error *error)
{
    struct remote *remote = NULL;
    sem_t opened;
    struct timespec until;
    int rc = make(config, &remote, error);
    if (rc)
        return rc;
    sem_init(&opened, 0, 0);
    remote->opened = &opened;
    loop_call(remote->loop, start, remote);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += config->connect_timeout_ms / 1000 + 1;
    while ((rc = sem_timedwait(&opened, &until)) < 0 && errno == EINTR)
        ;
    if (rc < 0)
        loop_call(remote->loop, give_up, remote);
    sem_destroy(&opened);
    rc = remote->open_error.code;
    if (remote->session)
        rc = 0;
    else if (!rc)
        rc = error_set(&remote->open_error, -ETIMEDOUT, "%s: no answer", config->url);
    if (rc) {
        if (error)
            *error = remote->open_error;
        remote_close(remote->meta);
        return rc;
    }
    *out = remote->meta;
    return 0;
}

uint64_t meta_remote_session(const struct meta *meta)
{
    return meta->remote ? meta->remote->session : 0;
}

const char *meta_remote_store_url(const struct meta *meta)
{
    return meta->remote ? meta->remote->store_url : NULL;
}

const char *meta_remote_store_options(const struct meta *meta)
{
    return meta->remote ? meta->remote->store_options : NULL;
}
