/*
 * The metadata service: many volumes, many clients, in one process (docs/service.md). The caller
 * opens stores and volumes; this side has the connections, the sessions and what they may cache.
 *
 * One thread ("serve") owns all of it; the calls below may come from any other thread, one at a
 * time, and block until that thread has done them.
 */
#ifndef SLUICE_META_SERVER_H
#define SLUICE_META_SERVER_H

#include "base/error.h"
#include "base/metrics.h"
#include "meta/meta.h"
#include "meta/token.h"
#include "s3/keys.h"

struct server;
struct server_volume;

struct server_config {
    uint32_t lease_ms;        /* default 10,000; at least 1,000 */
    unsigned max_connections; /* default 10,000 */
    unsigned max_requests;    /* at once, of one connection; default 1,024 */
    uint32_t hello_ms;        /* a connection that has not said who it is; default 5,000 */
    size_t lease_entries;     /* remembered for one session; default 1 Mi */
    struct metrics *metrics;
    /* TLS of all TCP addresses (docs/security.md): PEM files, copied. cert NULL: no TLS. client_ca
     * NULL: clients need no certificate. */
    const char *tls_cert, *tls_key, *tls_client_ca;
    /* A volume without tokens is open to everybody who reaches the service; else to clients of this
     * host, and to those with a certificate. */
    bool no_auth;
    /* Audit log, JSON lines (copied; NULL: none): sessions and changes; `audit_reads`: also reads
     * that reach the service. */
    const char *audit_file;
    bool audit_reads;
};
void meta_server_config_init(struct server_config *config);

int meta_server_new(const struct server_config *config, struct server **out, struct error *error);
/* Closes all connections. Volumes were freed before. Sessions are kept in their volumes: clients go
 * on when the service is back. */
void meta_server_free(struct server *server);
/* Of its thread, for store_signer_new. */
struct loop *meta_server_loop(struct server *server);

/* Reads the certificates again if their files have changed. 1: taken over, 0: nothing new, -errno
 * with a sentence: they are wrong, and those from before stay. Any thread; reads files. */
int meta_server_reload_tls(struct server *server, struct error *error);

/* Goes on in a new audit file of the same name. 0 or -errno. */
int meta_server_reopen_audit(struct server *server);

/* tcp://ADDRESS:PORT, unix:///PATH (made with mode 0660; a socket that nobody serves is replaced),
 * or fd://N: a stream socket that listens already; it becomes the server's. `bound` (may be NULL,
 * SERVER_ADDRESS_MAX bytes): what it became, with the port that was chosen for 0. */
#define SERVER_ADDRESS_MAX 128
int meta_server_listen(struct server *server, const char *address, char *bound,
                       struct error *error);

/* A volume, in this order: new, meta_open with its events, start; … stop, meta_close, free. `url`
 * and `options` (a JSON object) tell clients how they reach the bucket. Copied. */
struct server_volume_config {
    const char *name, *url, *options;
    /* Who signs for clients without credentials, and for those that may only read (NULL: nobody);
     * the keys that they get are used for keys_s. The signers become the volume's. */
    struct store_signer *signer, *read_signer;
    uint32_t keys_s;
};
int meta_server_volume_new(struct server *server, const struct server_volume_config *config,
                           struct server_volume **out);
struct meta_events meta_server_volume_events(struct server_volume *volume);
int meta_server_volume_start(struct server_volume *volume, struct meta *meta, struct error *error);
/* Takes what `tokens` has. Connections whose token is not among them any more are closed. */
void meta_server_volume_tokens(struct server_volume *volume, struct token_set *tokens);
/* Its connections are closed, and nothing of it uses `meta` any more. `end`: its sessions are ended
 * for good (the volume is being deleted). */
void meta_server_volume_stop(struct server_volume *volume, bool end);
void meta_server_volume_free(struct server_volume *volume);

/* Appends one JSON object: connections, sessions by volume, refusals. */
void meta_server_status_json(struct server *server, struct buf *out);

#endif
