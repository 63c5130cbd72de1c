/*
 * A volume of the metadata service (`sluice serve`) behind the calls of meta/meta.h. The service
 * has the namespace, settles and collects garbage; this side reads and writes objects itself.
 * docs/service.md, docs/protocol.md.
 *
 * A lost connection is made again, and what was not answered is sent again; nothing is applied
 * twice. When the session has ended (the service did not hear of this client for a lease), every
 * call of it ends with -ESTALE, and another one begins by itself (events.session_lost).
 */
#ifndef SLUICE_META_REMOTE_H
#define SLUICE_META_REMOTE_H

#include <semaphore.h>

#include "meta/meta.h"
#include "s3/keys.h"

/* Where the service is: sluice://HOST:PORT/VOLUME[/DIRECTORY], the same with sluices:// for TLS, or
 * sluice+unix:///PATH/OF/SOCKET:VOLUME[/DIRECTORY]. */
struct meta_remote_url {
    char *host, *port; /* TCP; host without the brackets of an IPv6 address */
    char *path;        /* unix socket; else NULL */
    bool tls;
    char *volume;
    char *directory; /* names joined by '/': the root of the mount; NULL: the volume's */
};
bool meta_remote_is_url(const char *text);
/* 0 or -EINVAL with a sentence. */
int meta_remote_url_parse(const char *text, struct meta_remote_url *out, struct error *error);
void meta_remote_url_done(struct meta_remote_url *url);

struct meta_remote_config {
    const char *url;
    const char *text;       /* host and mount point: shown by the service */
    const char *token;      /* NULL: none */
    const char *token_file; /* has the token, and is read again for each connection; NULL: none */
    /* sluices://: PEM files, read again with each connection if they changed. tls_ca NULL: whom the
     * system trusts. tls_cert and tls_key NULL: this side shows no certificate. tls_name NULL: the
     * service must prove to be the host of the URL. */
    const char *tls_ca, *tls_cert, *tls_key, *tls_name;
    struct meta_events events;
    struct metrics *metrics;
    bool read_only;
    uint32_t connect_timeout_ms; /* of meta_remote_open; default 10,000 */
    uint32_t patience_ms; /* a call that cannot be sent for so long ends with -EIO; default 60,000,
                             at least the lease */
};
void meta_remote_config_init(struct meta_remote_config *config);

/* Connects and begins a session; blocking. All strings are copied. -EACCES, -ENOENT (no such
 * volume) and others with the service's own words. meta_close ends it. */
int meta_remote_open(const struct meta_remote_config *config, struct meta **out,
                     struct error *error);

/* Blocking: connects the other stores that the service has (docs/stores.md) in `mux`, which stays
 * until meta_close, and keeps them as the service has them from now on. One that cannot be reached
 * is no error. */
struct store;
int meta_remote_stores(struct meta *meta, struct store *mux, struct error *error);

/* The number that the service's logs have for this mount. */
uint64_t meta_remote_session(const struct meta *meta);

/* How the bucket is reached: its URL, and options of `sluice mount` as a JSON object. Valid until
 * meta_close; NULL for a volume that is not remote. */
const char *meta_remote_store_url(const struct meta *meta);
const char *meta_remote_store_options(const struct meta *meta);

/* Keys of the bucket, of a service that gives them (store option credentials=service). `ask` sends
 * the question and does not wait: 0, or -errno. After 0 `wait` does, and needs `meta` no more:
 * meta_close ends it, too. 0 and `keys`, which are the caller's; or -errno and `error`. */
struct meta_remote_keys {
    int result;
    struct store_keys keys;
    struct error error;
    sem_t answered;
};
int meta_remote_keys_ask(struct meta *meta, struct meta_remote_keys *ask);
int meta_remote_keys_wait(struct meta_remote_keys *ask);

#endif
