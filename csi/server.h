/*
 * A gRPC server for unary calls on unix sockets, over the C core library. One thread serves the
 * completion queue, a fixed number of others run the handlers; at most `calls` calls are in work,
 * what comes beyond waits in the library. Messages are bounded (WIRE_MESSAGE_MAX), compressed ones
 * are refused, every request is decoded by wire_decode before its handler sees it.
 */
#ifndef SLUICE_CSI_SERVER_H
#define SLUICE_CSI_SERVER_H

#include "base/error.h"
#include "call.h"

struct server;
struct scrape;

struct server_config {
    const char *const *sockets; /* absolute paths; a stale socket there is replaced */
    unsigned socket_count;
    const struct csi_method *methods; /* until server_free */
    unsigned method_count;
    struct csi *csi;             /* given to the handlers */
    struct scrape *scrape;       /* told of each call; NULL: nobody is */
    unsigned threads, calls;     /* 1.. */
    unsigned default_timeout_ms; /* of a call that names no deadline; longer ones are cut to it */
};

/* Listens and serves. 0, or -errno with a sentence. */
int server_start(const struct server_config *config, struct server **out, struct error *error);
/* Takes no new calls, cancels those in work, waits for their handlers, removes the sockets. NULL is
 * allowed. */
void server_free(struct server *server);

#endif
