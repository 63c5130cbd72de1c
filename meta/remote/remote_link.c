/*
 * The connection of a remote volume: resolve, connect, HELLO, WELCOME, then frames both ways; after
 * any failure again, with growing pauses. Pings renew the lease when nothing else does.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "remote_impl.h"
#include "remote_pace.h"
#include "remote_quota.h"

#define GREET_MS 5000 /* for the answer to HELLO */
#define DOUBT_MS 100
#define CIPHER_ROOM (64u << 10)

struct remote_link {
    struct remote *remote;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    bool resolving, has_handle, closing;
    bool doubted; /* silent for too long, or this process was stopped: read once more */
    int fd; /* other threads may send, when the loop has nothing to send; -1: not, or not yet */
    struct tls *tls; /* NULL: no TLS */
    uint8_t *cipher; /* TLS: CIPHER_ROOM bytes that have just arrived */
    bool greeted;    /* HELLO is sent */
    struct wire_input in;
};

struct write {
    uv_write_t uv;
    struct buf bytes;
};

static void retry_later(struct remote *remote);

/* Ends of a connection */

static void free_link(struct remote_link *link)
{
    wire_input_done(&link->in);
    tls_free(link->tls);
    free(link->cipher);
    free(link);
}

static void check_gone(struct remote *remote)
{
    if (remote->state == REMOTE_CLOSED && !remote->link && remote->ended)
        sem_post(&remote->gone);
}

static void link_gone(struct remote_link *link)
{
    struct remote *remote = link->remote;
    if (remote->link == link)
        remote->link = NULL;
    free_link(link);
    if (remote->state == REMOTE_CLOSED)
        check_gone(remote);
    else
        retry_later(remote);
}

static void on_closed(uv_handle_t *handle)
{
    link_gone(handle->data);
}

static void close_link(struct remote_link *link)
{
    if (link->closing)
        return;
    link->closing = true;
    link->fd = -1;
    remote_offline(link->remote);
    remote_sender_stop(link->remote);
    if (link->remote->state != REMOTE_CLOSED)
        link->remote->state = REMOTE_WAIT;
    if (link->resolving)
        uv_cancel((uv_req_t *)&link->resolve); /* on_resolved frees it */
    else if (link->has_handle)
        uv_close(&link->u.handle, on_closed);
}

static void fail_text(struct remote_link *link, const char *what, int code, const char *text)
{
    static struct log_limit limit = LOG_LIMIT(3, 10000);
    struct remote *remote = link->remote;
    log_limited(&limit, LOG_WARN, "metadata service not reached", "url=%s step=\"%s\" error=\"%s\"",
                remote->config.url, what, text);
    if (remote->opened)
        error_set(&remote->open_error, code, "%s: %s: %s", remote->config.url, what, text);
    close_link(link);
}

static void fail(struct remote_link *link, const char *what, int uv_error)
{
    fail_text(link, what, uv_error, uv_strerror(uv_error));
}

/* The session of now is over, and nothing is in the caches. */
static void begin_again(struct loop_task *task)
{
    struct remote *remote = container_of(task, struct remote, begin_task);
    pthread_mutex_lock(&remote->lock);
    atomic_fetch_add(&remote->era, 1);
    atomic_store(&remote->fenced, 0);
    pthread_mutex_unlock(&remote->lock);
    if (remote->state == REMOTE_WAIT && !remote->link)
        loop_timer_start(&remote->timer, REMOTE_PAUSE_FIRST_MS);
}

static void dropped_all(struct meta_told *told)
{
    struct remote *remote = container_of(told, struct remote, lost_told);
    remote->begin_task.run = begin_again;
    loop_post(remote->loop, &remote->begin_task);
}

/* The service does not know the session any more: it may have given to others what was ours. All
 * that was begun in it ends, then another one begins; or with `final` none. */
static void fence(struct remote *remote, const char *why, bool final)
{
    const struct meta_events *events = &remote->config.events;
    int expected = 0;
    if (!atomic_compare_exchange_strong(&remote->fenced, &expected, -ESTALE))
        return;
    log_error("session ended by the metadata service",
              "url=%s session=%" PRIu64 " reason=\"%s\" effect=\"%s\"", remote->config.url,
              remote->session, why,
              final ? "every call ends with ESTALE; unmount, and mount again"
                    : "files that are open and locks are lost; a new session begins");
    remote_end_calls(remote, -ESTALE, true);
    if (final)
        return;
    remote->session = 0;
    hash_random(remote->key, sizeof(remote->key));
    remote_forget(remote);
    remote_quota_forget(remote);
    if (events->session_lost)
        events->session_lost(events->arg);
    remote->lost_told.done = dropped_all;
    if (events->when_dropped)
        events->when_dropped(events->arg, &remote->lost_told);
    else
        dropped_all(&remote->lost_told);
}

/* Sending */

/* The socket for other threads; -1 while the loop's own bytes wait to go. */
static int free_fd(const struct remote_link *link)
{
    return !link->closing && uv_stream_get_write_queue_size(&link->u.stream) == 0 ? link->fd : -1;
}

static void on_written(uv_write_t *uv, int status)
{
    struct write *w = container_of(uv, struct write, uv);
    struct remote_link *link = uv->handle->data;
    buf_done(&w->bytes);
    free(w);
    if (status < 0 && !link->closing)
        fail(link, "send", status);
    else if (!link->closing)
        remote_sender_ready(link->remote, free_fd(link));
}

/* Frames as what goes over the wire, behind what is in `out`. */
static int seal(struct remote_link *link, struct buf *b, struct buf *out)
{
    int rc = buf_error(b);
    if (rc == 0 && !link->tls && out->len == 0) {
        buf_done(out);
        *out = *b;
        buf_init(b, 0);
        return 0;
    }
    if (rc == 0 && !link->tls)
        buf_put(out, b->data, b->len);
    else if (rc == 0)
        rc = tls_send(link->tls, b->data, b->len);
    if (link->tls)
        tls_take_output(link->tls, out);
    buf_reset(b);
    return rc < 0 ? rc : buf_error(out);
}

static int begin_write(struct remote_link *link, struct write *w)
{
    uv_buf_t uv = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
    return uv_write(&w->uv, &link->u.stream, &uv, 1, on_written);
}

static void send_bytes(struct remote_link *link, struct buf *b)
{
    struct write *w = calloc(1, sizeof(*w));
    if (!w) {
        fail(link, "send", UV_ENOMEM);
        return;
    }
    buf_init(&w->bytes, 0);
    remote_sender_take(link->remote, &w->bytes);
    int rc = buf_error(&w->bytes);
    if (rc == 0)
        rc = seal(link, b, &w->bytes);
    rc = rc < 0 ? UV_ENOMEM : w->bytes.len ? begin_write(link, w) : 1;
    remote_sender_give(link->remote, rc < 0 ? -1 : free_fd(link));
    if (rc == 0)
        return;
    buf_done(&w->bytes);
    free(w);
    if (rc < 0)
        fail(link, "send", rc);
}

void remote_link_send(struct remote *remote, struct buf *b)
{
    struct remote_link *link = remote->link;
    if (link && !link->closing && remote->state == REMOTE_ONLINE)
        send_bytes(link, b);
}

static void send_number(struct remote_link *link, enum wire_type type, uint64_t number)
{
    struct buf b;
    buf_init(&b, 0);
    wire_put_number(&b, type, number);
    send_bytes(link, &b);
    buf_done(&b);
}

/* Lease */

static void ping(struct remote *remote)
{
    if (remote->ping_sent_ns)
        return;
    remote->ping_sent_ns = clock_monotonic_ns();
    send_number(remote->link, WIRE_PING, ++remote->pings);
}

/* The service counts from when it received the ping, so from its sending on is never too long. */
static void renewed(struct remote *remote)
{
    atomic_store(&remote->lease_end_ns,
                 remote->ping_sent_ns + remote->lease_ms * (uint64_t)NS_PER_MS);
    remote->ping_sent_ns = 0;
}

/* Messages */

static char *text_copy(const struct wire_text *text)
{
    return strndup(text->len ? text->bytes : "", text->len);
}

static int first_welcome(struct remote *remote, const struct wire_welcome *m)
{
    struct meta *meta = remote->meta;
    meta->format = m->volume;
    remote->contents = m->contents;
    meta->clock_offset_ns = (int64_t)(m->time_ns - clock_wall_ns());
    remote->store_url = text_copy(&m->url);
    remote->store_options = text_copy(&m->options);
    return remote->store_url && remote->store_options ? 0 : -ENOMEM;
}

/* Why the mount cannot go on with what the service has now, or NULL. */
static const char *not_the_same(struct remote *remote, const struct wire_welcome *m)
{
    const struct meta_volume *was = &remote->meta->format;
    if (strcmp(m->contents.database, remote->contents.database) != 0 ||
        strcmp(m->volume.id, was->id) != 0 || strcmp(m->volume.prefix, was->prefix) != 0 ||
        strlen(remote->store_url) != m->url.len ||
        memcmp(remote->store_url, m->url.bytes, m->url.len) != 0)
        return "the volume is another one now";
    /* It would give the same numbers to other objects. */
    if (m->contents.next != remote->opened_next && m->contents.next <= remote_newest_object(remote))
        return "the service lost what it had acknowledged, by a power loss";
    return NULL;
}

static void tell_opened(struct remote *remote)
{
    sem_t *opened = TAKE_PTR(remote->opened);
    if (opened)
        sem_post(opened);
}

static int on_welcome(struct remote_link *link, const uint8_t *data, size_t len)
{
    struct remote *remote = link->remote;
    struct wire_welcome m;
    if (remote->state != REMOTE_GREET || wire_get_welcome(data, len, &m) < 0 ||
        m.version < WIRE_VERSION_MIN || m.version > WIRE_VERSION)
        return -EBADMSG;
    bool first = !remote->store_url, again = remote->session != 0;
    if (again && m.session != remote->session)
        return -EBADMSG;
    const char *why = first ? NULL : not_the_same(remote, &m);
    int rc = first ? first_welcome(remote, &m) : 0;
    if (rc < 0)
        return rc;
    if (why) {
        fence(remote, why, true);
        close_link(link);
        return 0;
    }
    remote->opened_next = m.contents.next;
    remote->session = m.session;
    remote->lease_ms = m.lease_ms;
    remote->tries = 0;
    remote->refused = false;
    remote->links++;
    remote->state = REMOTE_ONLINE;
    remote->config.patience_ms = MAX(remote->config.patience_ms, m.lease_ms);
    renewed(remote);
    pthread_mutex_lock(&remote->lock);
    remote->window = MIN(m.window, (uint32_t)META_SESSION_WINDOW);
    pthread_mutex_unlock(&remote->lock);
    metric_add(remote->connects, 1);
    if (m.restarted) {
        struct buf b;
        buf_init(&b, 0);
        remote_lock_claims(remote, &b);
        remote_put_objects(remote, &b);
        send_bytes(link, &b);
        buf_done(&b);
    }
    log_info("metadata service connected", "url=%s session=%" PRIu64 " again=%d restarted=%d",
             remote->config.url, m.session, again, m.restarted);
    remote_stores_changed(remote->stores); /* perhaps, while it was away */
    remote_resume(remote);
    if (!link->tls && uv_fileno(&link->u.handle, &link->fd) < 0)
        link->fd = -1;
    remote_sender_ready(remote, free_fd(link));
    tell_opened(remote);
    loop_timer_start(&remote->timer, remote->lease_ms / REMOTE_PINGS_PER_LEASE);
    return 0;
}

static int on_refused(struct remote_link *link, const uint8_t *data, size_t len)
{
    static struct log_limit limit = LOG_LIMIT(3, 10000);
    struct remote *remote = link->remote;
    struct wire_refused m;
    if (wire_get_refused(data, len, &m) < 0)
        return -EBADMSG;
    char text[WIRE_TEXT_MAX + 1];
    memcpy(text, m.text.bytes, m.text.len);
    text[m.text.len] = 0;
    if (remote->opened) {
        error_set(&remote->open_error, m.code, "%s: %s", remote->config.url, text);
        tell_opened(remote);
    } else {
        log_limited(&limit, LOG_WARN, "refused by the metadata service", "url=%s reason=\"%s\"",
                    remote->config.url, text);
    }
    remote->refused = m.code == -EACCES;
    close_link(link);
    if (m.code == -ESTALE && remote->session)
        fence(remote, text, false);
    return 0;
}

static int on_message(struct remote_link *link, enum wire_type type, const uint8_t *data,
                      size_t len)
{
    struct remote *remote = link->remote;
    uint64_t number;
    if (type == WIRE_WELCOME)
        return on_welcome(link, data, len);
    if (type == WIRE_REFUSED)
        return on_refused(link, data, len);
    if (remote->state != REMOTE_ONLINE)
        return -EBADMSG;
    if (type == WIRE_INVALIDATE)
        return remote_pushed(remote, data, len);
    if (type == WIRE_STORES_NEW) {
        remote_forget_names(remote); /* a directory may get names from there */
        remote_stores_changed(remote->stores);
        return 0;
    }
    if (type == WIRE_QUOTA && wire_get_number(data, len, &number) == 0) {
        remote_quota_round(remote, number);
        return 0;
    }
    if (type != WIRE_PONG)
        return remote_answer(remote, type, data, len);
    if (wire_get_number(data, len, &number) < 0)
        return -EBADMSG;
    if (number == remote->pings && remote->ping_sent_ns)
        renewed(remote);
    return 0;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct remote_link *link = handle->data;
    size_t len = CIPHER_ROOM;
    uint8_t *room = link->tls ? link->cipher : wire_input_room(&link->in, &len);
    *out = uv_buf_init((char *)room, room ? (unsigned)len : 0);
}

static void greet(struct remote_link *link);

/* What does not become right by another try ends the mount that is being made. */
static void fail_tls(struct remote_link *link, const char *why, const struct error *error)
{
    const char *hint = strcmp(why, "plain") == 0 ? " there: sluice:// is needed" : "";
    struct error text;
    error_set(&text, -EPROTO, "%s%s", error_text(error), hint);
    struct remote *remote = link->remote;
    fail_text(link, "TLS", -EPROTO, error_text(&text));
    tell_opened(remote);
}

/* Drives the handshake, takes out text. False: the connection has failed. */
static bool unseal(struct remote_link *link, size_t n)
{
    struct error error = {0};
    const char *why = "other";
    int rc = tls_arrived(link->tls, link->cipher, n);
    while (rc == 0) {
        size_t len = 0;
        uint8_t *room = wire_input_room(&link->in, &len);
        rc = room ? tls_receive(link->tls, room, len, &why, &error) : -ENOMEM;
        if (rc <= 0)
            break;
        wire_input_add(&link->in, (size_t)rc);
        rc = 0;
    }
    struct buf none;
    buf_init(&none, 0);
    send_bytes(link, &none); /* the handshake's own, or the alert */
    if (rc == -EPROTO)
        fail_tls(link, why, &error);
    else if (rc < 0)
        fail(link, "receive", rc == -ECONNRESET ? UV_EOF : rc);
    if (link->closing)
        return false;
    if (!link->greeted && tls_is_ready(link->tls))
        greet(link);
    return !link->closing;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *uv)
{
    struct remote_link *link = stream->data;
    enum wire_type type;
    const uint8_t *data;
    size_t len;
    if (n < 0) {
        fail(link, "receive", (int)n);
        return;
    }
    link->remote->heard_ns = clock_monotonic_ns();
    if (!link->tls)
        wire_input_add(&link->in, (size_t)n);
    else if (!unseal(link, (size_t)n))
        return;
    int rc = 0;
    while (!link->closing && (rc = wire_input_next(&link->in, &type, &data, &len)) > 0) {
        rc = on_message(link, type, data, len);
        if (rc < 0)
            break;
    }
    if (rc < 0 && !link->closing)
        fail(link, "a message that makes no sense", rc);
}

/* Connecting */

/* The token as it stands in its file now: it may have been replaced. 0 or -errno. */
static int read_token(const char *path, char *room, size_t *len)
{
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, room, WIRE_TOKEN_MAX);
    if (n < 0)
        return -errno;
    while (n > 0 && strchr(" \t\r\n", room[n - 1]))
        n--;
    *len = (size_t)n;
    return n == 0 || memchr(room, 0, (size_t)n) ? -EINVAL : 0;
}

static void put_hello(struct buf *b, struct wire_hello *hello, struct remote_link *link)
{
    const struct meta_remote_config *c = &link->remote->config;
    char room[WIRE_TOKEN_MAX];
    size_t len = 0;
    int rc = c->token_file ? read_token(c->token_file, room, &len) : 0;
    if (c->token_file && rc == 0)
        hello->token = (struct wire_text){room, len};
    if (rc < 0)
        fail_text(link, c->token_file, rc, rc == -EINVAL ? "has no token" : strerror(-rc));
    else
        wire_put_hello(b, hello);
    hello->token = (struct wire_text){0};
    explicit_bzero(room, sizeof(room));
}

static void greet(struct remote_link *link)
{
    struct remote *remote = link->remote;
    const struct meta_remote_config *c = &remote->config;
    const struct meta_remote_url *url = &remote->url;
    char volume[WIRE_VOLUME_MAX + 1];
    int volume_len = snprintf(volume, sizeof(volume), "%s%s%s", url->volume,
                              url->directory ? "/" : "", url->directory ? url->directory : "");
    struct wire_hello hello = {
        .version_min = WIRE_VERSION_MIN,
        .version_max = WIRE_VERSION,
        .volume = {volume, (size_t)volume_len},
        .token = {c->token, c->token ? strlen(c->token) : 0},
        .text = {c->text, c->text ? strnlen(c->text, WIRE_TEXT_MAX) : 0},
        .session = remote->session,
        .read_only = c->read_only,
    };
    struct buf b;
    memcpy(hello.key, remote->key, sizeof(hello.key));
    buf_init(&b, 0);
    put_hello(&b, &hello, link);
    if (!link->closing) {
        remote->state = REMOTE_GREET;
        remote->ping_sent_ns = remote->heard_ns = clock_monotonic_ns();
        link->greeted = true;
        send_bytes(link, &b);
    }
    if (b.data)
        explicit_bzero(b.data, b.len);
    buf_done(&b);
}

static void begin_tls(struct remote_link *link)
{
    struct remote *remote = link->remote;
    struct error error = {0};
    const char *name = remote->config.tls_name ? remote->config.tls_name : remote->url.host;
    /* This side's certificate may have been renewed. */
    if (tls_setup_reload(remote->tls, &error) < 0)
        log_warn("new certificates not used", "url=%s error=\"%s\"", remote->config.url,
                 error_text(&error));
    link->cipher = malloc(CIPHER_ROOM);
    if (!link->cipher || tls_new(remote->tls, name, &link->tls) < 0)
        fail(link, "TLS", UV_ENOMEM);
    else
        unseal(link, 0);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct remote_link *link = connect->handle->data;
    if (link->closing)
        return;
    if (status < 0) {
        fail(link, "connect", status);
        return;
    }
    if (link->remote->tls)
        begin_tls(link);
    else
        greet(link);
    int rc = link->closing ? 0 : uv_read_start(&link->u.stream, on_alloc, on_read);
    if (rc < 0)
        fail(link, "receive", rc);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
    struct remote_link *link = container_of(resolve, struct remote_link, resolve);
    struct remote *remote = link->remote;
    link->resolving = false;
    if (!link->closing && status == 0) {
        uv_tcp_init(loop_uv(remote->loop), &link->u.tcp);
        link->u.handle.data = link;
        link->has_handle = true;
        uv_tcp_nodelay(&link->u.tcp, 1);
        status = uv_tcp_connect(&link->connect, &link->u.tcp, found->ai_addr, on_connected);
    }
    uv_freeaddrinfo(found);
    if (status < 0 && !link->closing)
        fail(link, "connect", status);
    if (link->closing && !link->has_handle)
        link_gone(link);
}

static void connect_now(struct remote *remote)
{
    struct remote_link *link = calloc(1, sizeof(*link));
    if (!link) {
        retry_later(remote);
        return;
    }
    const struct meta_remote_url *url = &remote->url;
    link->remote = remote;
    link->fd = -1;
    wire_input_init(&link->in, WIRE_FRAME_MAX);
    remote->link = link;
    remote->state = REMOTE_CONNECT;
    remote->ping_sent_ns = 0;
    remote->heard_ns = clock_monotonic_ns();
    loop_timer_start(&remote->timer, remote_pace_connect_ms(remote->lease_ms));
    if (url->path) {
        uv_pipe_init(loop_uv(remote->loop), &link->u.pipe, 0);
        link->u.handle.data = link;
        link->has_handle = true;
        uv_pipe_connect(&link->connect, &link->u.pipe, url->path, on_connected);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    link->resolving = true;
    int rc = uv_getaddrinfo(loop_uv(remote->loop), &link->resolve, on_resolved, url->host,
                            url->port, &hints);
    if (rc < 0) {
        remote->link = NULL;
        free_link(link);
        retry_later(remote);
    }
}

static void retry_later(struct remote *remote)
{
    uint8_t spread;
    remote->state = REMOTE_WAIT;
    hash_random(&spread, sizeof(spread));
    loop_timer_start(&remote->timer, remote_pace_retry_ms(remote->tries++, spread));
}

/* A ping waits for its answer, and nothing else has come either. */
static bool is_silent(const struct remote *remote, uint64_t now_ns)
{
    uint64_t limit_ns = remote_pace_silence_ms(remote->lease_ms) * NS_PER_MS;
    return remote->ping_sent_ns && now_ns - remote->ping_sent_ns > limit_ns &&
           now_ns - remote->heard_ns > limit_ns;
}

static void on_timer(struct loop_timer *timer)
{
    struct remote *remote = container_of(timer, struct remote, timer);
    uint64_t now = clock_monotonic_ns(), limit;
    switch (remote->state) {
    case REMOTE_WAIT:
        if (remote->link)
            break; /* its end begins the next try */
        remote_end_calls(remote, -EIO, false);
        if (!atomic_load(&remote->fenced))
            connect_now(remote);
        break;
    case REMOTE_CONNECT:
    case REMOTE_GREET:
        remote_end_calls(remote, -EIO, false);
        limit = remote->state == REMOTE_GREET ? GREET_MS : remote_pace_connect_ms(remote->lease_ms);
        if (now - remote->heard_ns >= limit * NS_PER_MS)
            fail(remote->link, "connect", UV_ETIMEDOUT);
        else
            loop_timer_start(&remote->timer, limit);
        break;
    case REMOTE_ONLINE:
        if (is_silent(remote, now)) {
            if (remote->link->doubted) {
                fail(remote->link, "no answer", UV_ETIMEDOUT);
            } else {
                remote->link->doubted = true;
                loop_timer_start(&remote->timer, DOUBT_MS);
            }
            break;
        }
        remote->link->doubted = false;
        ping(remote);
        if (remote->state == REMOTE_ONLINE)
            loop_timer_start(&remote->timer, remote->lease_ms / REMOTE_PINGS_PER_LEASE);
        break;
    case REMOTE_CLOSED:
        break;
    }
}

void remote_link_start(struct remote *remote)
{
    loop_timer_init(remote->loop, &remote->timer, on_timer);
    connect_now(remote);
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct remote *remote = container_of(timer, struct remote, timer);
    remote->ended = true;
    check_gone(remote);
}

void remote_link_stop(struct remote *remote)
{
    if (remote->state == REMOTE_ONLINE) {
        struct buf b, out;
        uv_buf_t uv;
        buf_init(&b, 0);
        buf_init(&out, 0);
        wire_put_number(&b, WIRE_BYE, 0);
        if (seal(remote->link, &b, &out) == 0) {
            uv = uv_buf_init((char *)out.data, (unsigned)out.len);
            uv_try_write(&remote->link->u.stream, &uv, 1);
        }
        buf_done(&b);
        buf_done(&out);
    }
    remote->state = REMOTE_CLOSED;
    if (remote->link)
        close_link(remote->link);
    loop_timer_close(&remote->timer, on_timer_closed);
}
