/*
 * What stands between a socket and its first message: how many may wait there, TLS, and who the
 * peer is. In order: guard_enter, ciphertext by guard_receive until the handshake is over, the
 * hello (server_session.c), guard_known.
 *
 * A client without TLS at a port with it is told so in the clear. All else that fails before the
 * handshake is over is answered by TLS's own alert; the reason is in the log and in a metric.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "server_impl.h"

#define TLS_HANDSHAKE 22 /* the first byte of a TLS connection */

static int64_t read_pending(void *arg)
{
    return gate_pending(((struct server *)arg)->gate);
}

/* A name has one help, whatever its labels. */
static const char refused_help[] = "Connections closed unread: too many that are not known, or an "
                                   "address that failed too often.";
static const char reloads_help[] = "Certificates that were read again.";

int guard_new(struct server *server, struct error *error)
{
    const struct server_config *c = &server->config;
    struct metrics *m = c->metrics;
    struct gate_limits limits;
    struct tls_files files = {.cert = c->tls_cert, .key = c->tls_key, .ca = c->tls_client_ca};
    gate_limits_init(&limits);
    limits.pending_max = MIN(limits.pending_max, c->max_connections);
    server->gate = gate_new(&limits);
    server->cipher = malloc(CIPHER_ROOM);
    if (!server->gate || !server->cipher)
        return error_set(error, -ENOMEM, "out of memory");
    server->denied = metrics_counter(m, "sluice_serve_denied_total", "",
                                     "Connections without a token that is good for what they ask.");
    server->handshakes = metrics_counter(m, "sluice_serve_tls_handshakes_total", "",
                                         "TLS handshakes that were finished.");
    server->gate_full =
        metrics_counter(m, "sluice_serve_gate_refused_total", "reason=\"pending\"", refused_help);
    server->gate_bad =
        metrics_counter(m, "sluice_serve_gate_refused_total", "reason=\"failures\"", refused_help);
    server->reloads =
        metrics_counter(m, "sluice_serve_tls_reloads_total", "result=\"ok\"", reloads_help);
    server->reload_errors =
        metrics_counter(m, "sluice_serve_tls_reloads_total", "result=\"refused\"", reloads_help);
    metrics_callback(m, "sluice_serve_connections_pending", "",
                     "Connections that are not known yet.", read_pending, server);
    int rc =
        files.cert || files.key || files.ca ? tls_setup_new(true, &files, &server->tls, error) : 0;
    struct audit_config audit = {.path = c->audit_file, .metrics = m};
    return rc == 0 && audit.path ? audit_open(&audit, &server->audit, error) : rc;
}

void guard_free(struct server *server)
{
    tls_setup_free(server->tls);
    audit_free(server->audit);
    gate_free(server->gate);
    free(server->cipher);
}

int meta_server_reload_tls(struct server *server, struct error *error)
{
    int rc = server->tls ? tls_setup_reload(server->tls, error) : 0;
    if (rc)
        metric_add(rc > 0 ? server->reloads : server->reload_errors, 1);
    return rc;
}

int meta_server_reopen_audit(struct server *server)
{
    return server->audit ? audit_reopen(server->audit) : 0;
}

/* Coming and going */

static void name_local_peer(struct conn *conn)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    int fd;
    snprintf(conn->peer, sizeof(conn->peer), "unix");
    if (uv_fileno(&conn->u.handle, &fd) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
        snprintf(conn->peer, sizeof(conn->peer), "unix:uid=%u,pid=%d", peer.uid, peer.pid);
    else
        return;
    conn->owner = peer.uid == 0 || peer.uid == geteuid();
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 ==
               IN_LOOPBACKNET;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) ||
           (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
}

static bool pass_gate(struct conn *conn, const struct sockaddr *address)
{
    struct server *server = conn->server;
    gate_key(address, conn->gate_key);
    enum gate_answer answer = gate_enter(server->gate, conn->gate_key, clock_monotonic_ms());
    conn->gated = answer == GATE_OPEN;
    if (!conn->gated) {
        static struct log_limit limit = LOG_LIMIT(3, 10000);
        bool bad = answer == GATE_ADDRESS_BAD;
        metric_add(bad ? server->gate_bad : server->gate_full, 1);
        log_limited(&limit, LOG_WARN, "connection closed unread", "peer=%s reason=\"%s\"",
                    conn->peer, bad ? "failed too often" : "too many that are not known yet");
    }
    return conn->gated;
}

bool guard_enter(struct conn *conn, bool is_unix)
{
    struct sockaddr_storage address;
    int len = sizeof(address);
    char host[64] = "?";
    if (is_unix) {
        conn->local = true;
        name_local_peer(conn);
        return true;
    }
    if (uv_tcp_getpeername(&conn->u.tcp, (struct sockaddr *)&address, &len) < 0)
        return false; /* it is gone already */
    uv_ip_name((struct sockaddr *)&address, host, sizeof(host));
    bool v6 = address.ss_family == AF_INET6;
    unsigned port = ntohs(v6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                             : ((struct sockaddr_in *)&address)->sin_port);
    snprintf(conn->peer, sizeof(conn->peer), v6 ? "[%s]:%u" : "%s:%u", host, port);
    conn->local = is_loopback((struct sockaddr *)&address);
    if (!pass_gate(conn, (struct sockaddr *)&address))
        return false;
    return !conn->server->tls || tls_new(conn->server->tls, NULL, &conn->tls) == 0;
}

void guard_known(struct conn *conn)
{
    if (conn->gated)
        gate_leave(conn->server->gate, conn->gate_key, false, clock_monotonic_ms());
    conn->gated = false;
}

void guard_leave(struct conn *conn)
{
    if (conn->gated)
        gate_leave(conn->server->gate, conn->gate_key, conn->failed, clock_monotonic_ms());
    conn->gated = false;
}

/* TLS */

bool guard_is_tls(const struct conn *conn)
{
    const struct wire_input *in = &conn->in;
    return in->pos == 0 && in->bytes.len > 1 && in->bytes.data[0] == TLS_HANDSHAKE &&
           in->bytes.data[1] == 3;
}

static void count_failure(const struct conn *conn, const char *why)
{
    char label[64];
    snprintf(label, sizeof(label), "reason=\"%s\"", why);
    metric_add(metrics_counter(conn->server->config.metrics, "sluice_serve_tls_failures_total",
                               label, "TLS handshakes and connections that failed."),
               1);
}

/* The alert that says why is on its way out. */
static bool refuse_tls(struct conn *conn, const char *why, const char *text)
{
    metric_add(conn->server->refused, 1);
    count_failure(conn, why);
    audit_refused(conn, -EPROTO, text);
    log_info("client refused", "error=%d peer=%s reason=\"%s\"", EPROTO, conn->peer, text);
    conn->failed = true;
    buf_reset(&conn->out);
    conn_last_word(conn);
    return false;
}

/* What it sent is a frame in the clear. */
static bool refuse_plain(struct conn *conn)
{
    tls_free(conn->tls);
    conn->tls = NULL;
    count_failure(conn, "plain");
    conn_refuse(conn, -EPROTO, "this port speaks TLS only: sluices:// is needed, not sluice://");
    return false;
}

bool guard_receive(struct conn *conn, size_t len)
{
    const uint8_t *data = conn->server->cipher;
    bool was_ready = tls_is_ready(conn->tls);
    struct error error = {0};
    const char *why = "other";
    if (!conn->met) {
        conn->met = true;
        if (data[0] == 0)
            return refuse_plain(conn);
    }
    int rc = tls_arrived(conn->tls, data, len);
    if (rc < 0)
        return refuse_tls(conn, "size", "more than a TLS handshake may have");
    do {
        size_t room_len = 0;
        uint8_t *room = wire_input_room(&conn->in, &room_len);
        rc = room ? tls_receive(conn->tls, room, room_len, &why, &error) : -ENOMEM;
        if (rc > 0)
            wire_input_add(&conn->in, (size_t)rc);
    } while (rc > 0);
    if (!was_ready && tls_is_ready(conn->tls))
        metric_add(conn->server->handshakes, 1);
    conn_out(conn); /* the handshake's own messages */
    if (rc == 0)
        return true;
    if (rc == -EPROTO)
        return refuse_tls(conn, why, error_text(&error));
    conn_close(conn);
    return false;
}

int guard_seal(struct conn *conn, struct buf *out)
{
    int rc = buf_error(&conn->out);
    if (rc == 0 && !conn->tls) {
        *out = conn->out;
        buf_init(&conn->out, 0);
        return 0;
    }
    /* Nothing can be said before the handshake is over. */
    if (rc == 0 && tls_is_ready(conn->tls))
        rc = tls_send(conn->tls, conn->out.data, conn->out.len);
    if (conn->tls)
        tls_take_output(conn->tls, out);
    buf_done(&conn->out);
    return rc < 0 ? rc : buf_error(out);
}
