/*
 * TLS 1.3 of a connection, without a socket: ciphertext in, text out, and the other way round
 * (docs/security.md). OpenSSL between two memory buffers.
 *
 * A struct tls_setup has the certificates of one side; any thread may use it, and its files are
 * read again while connections go on. A struct tls is one connection and belongs to one thread.
 */
#ifndef SLUICE_META_TLS_H
#define SLUICE_META_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct tls_setup;
struct tls;

struct tls_files {
    const char *cert, *key; /* PEM: the chain, and its key; a client may have none */
    const char *ca;         /* PEM: whom to trust. Server: NULL asks clients for no certificate;
                               client: NULL trusts those of the system */
};

/* Reads the files; names are copied. -EINVAL and others with a sentence. */
int tls_setup_new(bool server, const struct tls_files *files, struct tls_setup **out,
                  struct error *error);
/* Reads the files again if one of them is another than before: 1 taken over, 0 nothing new, -errno
 * with a sentence: something is wrong with them, and the old ones stay. */
int tls_setup_reload(struct tls_setup *setup, struct error *error);
void tls_setup_free(struct tls_setup *setup);

/* Client: `name` is who the server must prove to be, a host name or an address. Server: NULL. */
int tls_new(struct tls_setup *setup, const char *name, struct tls **out);
void tls_free(struct tls *tls);

/* The handshake is over on this side. */
bool tls_is_ready(const struct tls *tls);
/* Of the certificate that the other side proved; "" if it has shown none. */
const char *tls_peer_name(const struct tls *tls);

/* Ciphertext that has arrived. -ENOMEM, -EMSGSIZE: more than a handshake may have. */
int tls_arrived(struct tls *tls, const void *data, size_t len);
/* Text of it, at most `len` bytes: 0 if there is no more now, -ECONNRESET at its proper end,
 * -EPROTO with a sentence: `why` is one word for counting ("version", "certificate", "plain",
 * "other"). Drives the handshake; afterwards take what is to be sent. */
int tls_receive(struct tls *tls, void *room, size_t len, const char **why, struct error *error);
/* Text to be sent; only when ready. 0 or -EPROTO. */
int tls_send(struct tls *tls, const void *data, size_t len);
/* Appends the ciphertext that is to be sent now to `out`. */
void tls_take_output(struct tls *tls, struct buf *out);

#endif
