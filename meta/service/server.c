/* The service's sockets: frames in, frames out, and the limits of a connection. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_locks.h"
#include "server_subtree.h"

#define TICK_MS 250
#define OUT_PAUSE (8u << 20) /* bytes that a client has not taken: nothing more is read from it */
#define OUT_MAX (256u << 20) /* it is cut off */
#define JOBS_MAX 262144      /* requests of all connections */
#define LINGER_MS 2000       /* for a client to take what was said last */

struct write {
    uv_write_t uv;
    struct buf bytes;
};

/* Connections */

static void on_conn_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    struct server *server = conn->server;
    DL_DELETE(server->conns, conn);
    server->conn_count--;
    tls_free(conn->tls);
    grant_done(&conn->grant);
    wire_input_done(&conn->in);
    buf_done(&conn->out);
    free(conn);
}

/* Nothing comes from it and goes to it any more. */
static void detach(struct conn *conn)
{
    conn->closing = true;
    if (conn->dirty)
        DL_DELETE2(conn->server->dirty, conn, dirty_prev, dirty_next);
    conn->dirty = false;
    if (conn->session)
        session_lost(conn->session);
    conn->session = NULL;
    if (conn->walk)
        subtree_walk_lost(TAKE_PTR(conn->walk));
    guard_leave(conn);
}

void conn_close(struct conn *conn)
{
    if (conn->closing && !conn->lingering)
        return;
    if (!conn->closing)
        detach(conn);
    conn->lingering = false;
    uv_close(&conn->u.handle, on_conn_closed);
}

struct buf *conn_out(struct conn *conn)
{
    if (!conn->dirty && !conn->closing) {
        conn->dirty = true;
        DL_APPEND2(conn->server->dirty, conn, dirty_prev, dirty_next);
    }
    return &conn->out;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct conn *conn = handle->data;
    size_t len = CIPHER_ROOM;
    bool raw = conn->tls || conn->lingering;
    uint8_t *room = raw ? conn->server->cipher : wire_input_room(&conn->in, &len);
    *out = uv_buf_init((char *)room, room ? (unsigned)len : 0);
}

static void take_frames(struct conn *conn);

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *uv)
{
    struct conn *conn = stream->data;
    if (n < 0) {
        conn_close(conn);
        return;
    }
    if (conn->lingering)
        return;
    if (!conn->tls)
        wire_input_add(&conn->in, (size_t)n);
    else if (!guard_receive(conn, (size_t)n))
        return;
    take_frames(conn);
}

static bool is_full(const struct conn *conn)
{
    return conn->busy >= conn->server->config.max_requests || conn->server->jobs >= JOBS_MAX ||
           uv_stream_get_write_queue_size(&conn->u.stream) + conn->out.len > OUT_PAUSE;
}

static void pause_reading(struct conn *conn)
{
    if (!conn->paused)
        uv_read_stop(&conn->u.stream);
    conn->paused = true;
}

static void go_on(struct conn *conn)
{
    if (!conn->paused || conn->closing || conn->reading || is_full(conn))
        return;
    conn->paused = false;
    if (uv_read_start(&conn->u.stream, on_alloc, on_read) < 0)
        conn_close(conn);
    else
        take_frames(conn);
}

void conn_request_done(struct conn *conn)
{
    conn->busy--;
    go_on(conn);
}

static void free_write(struct write *w)
{
    if (w)
        buf_done(&w->bytes);
    free(w);
}

static void on_written(uv_write_t *uv, int status)
{
    struct write *w = container_of(uv, struct write, uv);
    struct conn *conn = uv->handle->data;
    free_write(w);
    if (status < 0)
        conn_close(conn);
    else
        go_on(conn);
}

/* What is to be said, as it goes over the wire. NULL: the connection is closed. */
static struct write *take_output(struct conn *conn)
{
    struct write *w = calloc(1, sizeof(*w));
    if (w)
        buf_init(&w->bytes, 0);
    if (w && guard_seal(conn, &w->bytes) == 0)
        return w;
    free_write(w);
    conn_close(conn);
    return NULL;
}

static void flush(struct conn *conn)
{
    struct write *w = take_output(conn);
    if (!w)
        return;
    if (w->bytes.len == 0) {
        free_write(w);
        return;
    }
    uv_buf_t uv = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
    if (uv_write(&w->uv, &conn->u.stream, &uv, 1, on_written) < 0) {
        free_write(w);
        conn_close(conn);
    } else if (uv_stream_get_write_queue_size(&conn->u.stream) > OUT_MAX) {
        log_warn("client takes no answers", "session=%" PRIu64,
                 conn->session ? conn->session->id : 0);
        conn_close(conn);
    }
}

static void flush_all(struct server *server)
{
    sessions_flush(server);
    while (server->dirty) {
        struct conn *conn = server->dirty;
        DL_DELETE2(server->dirty, conn, dirty_prev, dirty_next);
        conn->dirty = false;
        flush(conn);
    }
}

/* Before the loop waits: what this turn has made goes out. */
static void on_prepare(uv_prepare_t *prepare)
{
    flush_all(prepare->data);
}

void conn_refuse(struct conn *conn, int code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (conn->closing)
        return;
    metric_add(conn->server->refused, 1);
    audit_refused(conn, code, text);
    log_info("client refused", "error=%d peer=%s reason=\"%s\"", -code, conn->peer, text);
    conn->failed |= code != -EAGAIN;
    wire_put_refused(&conn->out, code, text);
    conn_last_word(conn);
}

static void on_shut(uv_shutdown_t *shutdown, int status)
{
    /* Now it ends its side, or on_tick ends it. */
}

/* Closing at once would throw away what was said, if something that it sent is still unread. */
void conn_last_word(struct conn *conn)
{
    struct write *w = take_output(conn);
    if (!w)
        return;
    detach(conn);
    uv_buf_t uv = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
    conn->lingering = true;
    conn->since_ms = clock_monotonic_ms();
    if (uv_write(&w->uv, &conn->u.stream, &uv, 1, on_written) < 0) {
        free_write(w);
        conn_close(conn);
        return;
    }
    if (uv_shutdown(&conn->shutdown, &conn->u.stream, on_shut) < 0)
        conn_close(conn);
    else if (conn->paused && uv_read_start(&conn->u.stream, on_alloc, on_read) < 0)
        conn_close(conn);
}

/* Messages */

static void each_claim(void *arg, uint64_t object)
{
    struct session *session = arg;
    if (subtree_may_claim(session, object))
        volume_claim(session->volume, session, object);
}

static int take_claim(struct session *session, const uint8_t *data, size_t len)
{
    int rc = wire_get_claim(data, len, each_claim, session);
    if (rc == 0 && session->claiming) {
        session->claiming = false;
        volume_recovered(session->volume);
    }
    return rc;
}

static int take_request(struct session *session, const uint8_t *data, size_t len)
{
    struct wire_request request;
    int rc = wire_get_request(data, len, &request);
    if (rc == 0)
        request_take(session, &request);
    return rc;
}

static int take_task(struct session *session, const uint8_t *data, size_t len)
{
    struct wire_task task;
    int rc = wire_get_task(data, len, &task);
    if (rc == 0)
        task_take(session, &task);
    return rc;
}

static int take_lock(struct session *session, const uint8_t *data, size_t len)
{
    struct wire_lock lock;
    int rc = wire_get_lock(data, len, &lock);
    if (rc == 0)
        lock_take(session, &lock);
    return rc;
}

static int take_status(struct session *session, uint64_t id)
{
    struct buf text;
    buf_init(&text, 0);
    meta_status_json(session->volume->meta, &text);
    if (session->root)
        subtree_hide_names(&text);
    wire_put_text(conn_out(session->conn), WIRE_STATUS_REPLY, id, text.data, text.len);
    buf_done(&text);
    return 0;
}

static int take_number(struct conn *conn, enum wire_type type, const uint8_t *data, size_t len)
{
    uint64_t number;
    struct session *session = conn->session;
    if (wire_get_number(data, len, &number) < 0)
        return -EBADMSG;
    switch (type) {
    case WIRE_TASK_CANCEL:
        task_cancel(session, number);
        return 0;
    case WIRE_STATUS:
        return take_status(session, number);
    case WIRE_KEYS:
        keys_take(session, number);
        return 0;
    case WIRE_LOCK_CANCEL:
        lock_cancel(session, number);
        return 0;
    case WIRE_CONFIRM:
        if (number > session->sent)
            return -EBADMSG;
        session_confirm(session, number);
        return 0;
    case WIRE_PING:
        wire_put_number(conn_out(conn), WIRE_PONG, number);
        return 0;
    case WIRE_BYE:
        session_end(session, NULL);
        return 0;
    default:
        return -EBADMSG;
    }
}

static int take_stores(struct session *session, const uint8_t *data, size_t len)
{
    uint64_t id;
    struct wire_text text;
    return wire_get_text(data, len, &id, &text) < 0 ? -EBADMSG : stores_take(session, id, &text);
}

static int take(struct conn *conn, enum wire_type type, const uint8_t *data, size_t len)
{
    struct session *session = conn->session;
    if (!session) {
        struct wire_hello hello;
        if (type != WIRE_HELLO || conn->walk || wire_get_hello(data, len, &hello) < 0)
            return -EBADMSG;
        session_hello(conn, &hello);
        return 0;
    }
    session->heard_ms = clock_monotonic_ms();
    switch (type) {
    case WIRE_REQUEST:
        return take_request(session, data, len);
    case WIRE_TASK:
        return take_task(session, data, len);
    case WIRE_CLAIM:
        return take_claim(session, data, len);
    case WIRE_LOCK:
        return take_lock(session, data, len);
    case WIRE_LOCK_CLAIM:
        return lock_claims_take(session, data, len);
    case WIRE_STORES:
        return take_stores(session, data, len);
    default:
        return take_number(conn, type, data, len);
    }
}

static void take_frames(struct conn *conn)
{
    enum wire_type type;
    const uint8_t *data;
    size_t len;
    int rc = 0;
    conn->reading = true;
    while (!conn->closing) {
        if (is_full(conn)) {
            pause_reading(conn);
            break;
        }
        rc = wire_input_next(&conn->in, &type, &data, &len);
        if (rc > 0)
            rc = take(conn, type, data, len);
        else
            break;
        if (rc < 0)
            break;
    }
    conn->reading = false;
    if (rc < 0 && !conn->closing)
        conn_refuse(conn, -EPROTO, "%s",
                    !conn->tls && guard_is_tls(conn)
                        ? "this port does not speak TLS: sluice:// is needed, not sluices://"
                        : "this is not what a Sluice client sends");
    else
        go_on(conn);
}

void server_on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = stream->data;
    struct server *server = listener->server;
    struct conn *conn = status < 0 ? NULL : calloc(1, sizeof(*conn));
    if (!conn)
        return;
    conn->server = server;
    conn->since_ms = clock_monotonic_ms();
    buf_init(&conn->out, 0);
    wire_input_init(&conn->in, WIRE_HELLO_MAX);
    if (listener->path)
        uv_pipe_init(loop_uv(server->loop), &conn->u.pipe, 0);
    else
        uv_tcp_init(loop_uv(server->loop), &conn->u.tcp);
    conn->u.handle.data = conn;
    DL_APPEND(server->conns, conn);
    server->conn_count++;
    metric_add(server->accepted, 1);
    if (uv_accept(stream, &conn->u.stream) < 0) {
        conn_close(conn);
        return;
    }
    if (!listener->path)
        uv_tcp_nodelay(&conn->u.tcp, 1);
    if (!guard_enter(conn, listener->path != NULL))
        conn_close(conn);
    else if (uv_read_start(&conn->u.stream, on_alloc, on_read) < 0)
        conn_close(conn);
    else if (server->stopping || server->conn_count > server->config.max_connections)
        conn_refuse(conn, -EAGAIN, "too many connections");
}

/* Time */

static void on_tick(struct loop_timer *timer)
{
    struct server *server = container_of(timer, struct server, timer);
    uint64_t now = clock_monotonic_ms();
    struct conn *conn, *next;
    DL_FOREACH_SAFE(server->conns, conn, next)
    {
        if (conn->lingering && now - conn->since_ms > LINGER_MS)
            conn_close(conn);
        else if (!conn->closing && !conn->session && !conn->walk &&
                 now - conn->since_ms > server->config.hello_ms)
            conn_refuse(conn, -ETIMEDOUT, "no hello in time");
        else
            go_on(conn);
    }
    /* A service that was stopped for a while has not heard its clients, who may have spoken. */
    uint64_t late = now - server->ticked_ms;
    late = late > 4 * TICK_MS ? late : 0;
    for (struct server_volume *v = server->volumes; v; v = v->hh.next) {
        struct session *session, *next_session;
        HASH_ITER(hh, v->sessions, session, next_session)
        {
            session->heard_ms += late;
        }
        sessions_tick(v, now);
        auth_tick(v);
        volume_tick(v);
    }
    server->ticked_ms = now;
    loop_timer_start(timer, TICK_MS);
}

/* Beginning and end */

void meta_server_config_init(struct server_config *config)
{
    *config = (struct server_config){
        .lease_ms = 10000,
        .max_connections = 10000,
        .max_requests = 1024,
        .hello_ms = 5000,
        .lease_entries = 1u << 20,
    };
}

static int64_t read_conns(void *arg)
{
    return __atomic_load_n(&((struct server *)arg)->conn_count, __ATOMIC_RELAXED);
}

static void start_on_loop(void *arg)
{
    struct server *server = arg;
    uv_prepare_init(loop_uv(server->loop), &server->prepare);
    server->prepare.data = server;
    uv_prepare_start(&server->prepare, on_prepare);
    server->ticked_ms = clock_monotonic_ms();
    loop_timer_init(server->loop, &server->reading_timer, reads_let_go);
    loop_timer_init(server->loop, &server->timer, on_tick);
    loop_timer_start(&server->timer, TICK_MS);
}

int meta_server_new(const struct server_config *config, struct server **out, struct error *error)
{
    struct server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(error, -ENOMEM, "out of memory");
    struct metrics *m = config->metrics;
    server->config = *config;
    server->accepted =
        metrics_counter(m, "sluice_serve_connections_total", "", "Connections that were accepted.");
    server->refused =
        metrics_counter(m, "sluice_serve_refused_total", "",
                        "Connections refused: garbage, wrong volume or token, too many, too slow.");
    server->requests =
        metrics_counter(m, "sluice_serve_requests_total", "", "Requests of clients.");
    server->pushed = metrics_counter(m, "sluice_serve_invalidations_total", "",
                                     "Things that clients were told to drop from their caches.");
    server->held = metrics_counter(m, "sluice_serve_held_total", "",
                                   "Waits of an answer for the confirmation of another client.");
    server->ended = metrics_counter(m, "sluice_serve_sessions_expired_total", "",
                                    "Sessions that were not heard of for a lease.");
    metrics_callback(m, "sluice_serve_connections", "", "Connections now.", read_conns, server);
    int rc = guard_new(server, error);
    if (rc == 0 && (rc = loop_new(&server->loop, "serve")))
        error_set(error, rc, "cannot start: %s", strerror(-rc));
    if (rc < 0) {
        guard_free(server);
        free(server);
        return rc;
    }
    loop_call(server->loop, start_on_loop, server);
    *out = server;
    return 0;
}

static void stop_on_loop(void *arg)
{
    struct server *server = arg;
    struct conn *conn, *next;
    server->stopping = true;
    flush_all(server);
    server_listen_end(server);
    DL_FOREACH_SAFE(server->conns, conn, next)
    {
        conn_close(conn);
    }
    uv_close((uv_handle_t *)&server->prepare, NULL);
    loop_timer_close(&server->timer, NULL);
    loop_timer_close(&server->reading_timer, NULL);
}

void meta_server_free(struct server *server)
{
    if (!server)
        return;
    assert(!server->volumes);
    loop_call(server->loop, stop_on_loop, server);
    loop_free(server->loop);
    guard_free(server);
    free(server);
}

struct loop *meta_server_loop(struct server *server)
{
    return server->loop;
}

static void status_on_loop(void *arg)
{
    void **args = arg;
    struct server *server = args[0];
    json_t *root = args[1], *volumes = json_object();
    json_object_set_new(root, "connections", json_integer(server->conn_count));
    json_object_set_new(root, "requests", json_integer(server->jobs));
    json_object_set_new(root, "requests_total", json_integer(metric_value(server->requests)));
    json_object_set_new(root, "invalidations_total", json_integer(metric_value(server->pushed)));
    json_object_set_new(root, "refused", json_integer(metric_value(server->refused)));
    for (struct server_volume *v = server->volumes; v; v = v->hh.next) {
        json_t *list = json_array();
        for (struct session *s = v->sessions; s; s = s->hh.next)
            json_array_append_new(list,
                                  json_pack("{s:I, s:s, s:b, s:I}", "session", (json_int_t)s->id,
                                            "client", s->text, "connected", s->conn != NULL,
                                            "remembered", (json_int_t)s->lease.used));
        json_object_set_new(volumes, v->name,
                            json_pack("{s:o, s:I, s:I}", "sessions", list, "locks",
                                      (json_int_t)locks_count(v->locks), "lock_waits",
                                      (json_int_t)locks_waiting(v->locks)));
    }
    json_object_set_new(root, "volumes", volumes);
}

void meta_server_status_json(struct server *server, struct buf *out)
{
    json_t *root = json_object();
    void *args[] = {server, root};
    loop_call(server->loop, status_on_loop, args);
    cleanup(free_ptr) char *text = json_dumps(root, JSON_COMPACT);
    buf_put(out, text ? text : "{}", text ? strlen(text) : 2);
    json_decref(root);
}
