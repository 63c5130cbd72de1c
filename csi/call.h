/* One call of a method: what a handler sees of it, and how it answers. */
#ifndef SLUICE_CSI_CALL_H
#define SLUICE_CSI_CALL_H

#include <protobuf-c/protobuf-c.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* The status codes of gRPC. */
enum csi_code {
    CSI_OK = 0,
    CSI_CANCELLED = 1,
    CSI_INVALID_ARGUMENT = 3,
    CSI_DEADLINE_EXCEEDED = 4,
    CSI_NOT_FOUND = 5,
    CSI_ALREADY_EXISTS = 6,
    CSI_PERMISSION_DENIED = 7,
    CSI_RESOURCE_EXHAUSTED = 8,
    CSI_FAILED_PRECONDITION = 9,
    CSI_ABORTED = 10,
    CSI_OUT_OF_RANGE = 11,
    CSI_UNIMPLEMENTED = 12,
    CSI_INTERNAL = 13,
    CSI_UNAVAILABLE = 14,
    CSI_UNAUTHENTICATED = 16,
};
const char *csi_code_name(int code); /* "INVALID_ARGUMENT", … */

struct csi_call {
    uint64_t deadline_ms;   /* clock_monotonic_ms */
    _Atomic bool cancelled; /* the client has gone; set by the server's thread */
    struct buf reply;       /* packed; the handler's */
    char message[512];      /* of a failure */
};

void csi_call_init(struct csi_call *call, uint64_t deadline_ms);
void csi_call_done(struct csi_call *call);
/* Sets the sentence and returns the code, so that `return csi_fail(call, CSI_…, …)` works. */
int csi_fail(struct csi_call *call, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Packs the answer now: the message need not live longer. CSI_OK or CSI_INTERNAL. */
int csi_reply(struct csi_call *call, const ProtobufCMessage *message);
/* ms until the deadline, at most INT_MAX; 0 when it has passed or the client has gone. */
int csi_time_left_ms(const struct csi_call *call);
/* The failure for a call whose time has run out: DEADLINE_EXCEEDED or CANCELLED, "what" was not
 * done yet. */
int csi_fail_late(struct csi_call *call, const char *what);

/* A handler runs on a thread of its own and may block until the deadline. Returns a code. */
struct csi;
typedef int (*csi_handler)(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request);
struct csi_method {
    const ProtobufCServiceDescriptor *service;
    const char *name;
    csi_handler run;
};

#endif
