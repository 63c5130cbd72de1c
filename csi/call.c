#include "call.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "wire.h"

const char *csi_code_name(int code)
{
    static const char *const names[] = {
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    };
    return code >= 0 && (size_t)code < ARRAY_LEN(names) ? names[code] : "UNKNOWN";
}

void csi_call_init(struct csi_call *call, uint64_t deadline_ms)
{
    call->deadline_ms = deadline_ms;
    atomic_init(&call->cancelled, false);
    buf_init(&call->reply, WIRE_MEMORY_MAX);
    call->message[0] = 0;
}

void csi_call_done(struct csi_call *call)
{
    buf_done(&call->reply);
}

int csi_fail(struct csi_call *call, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(call->message, sizeof(call->message), fmt, ap);
    va_end(ap);
    return code;
}

int csi_reply(struct csi_call *call, const ProtobufCMessage *message)
{
    if (wire_encode(message, &call->reply) < 0)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    return CSI_OK;
}

int csi_time_left_ms(const struct csi_call *call)
{
    uint64_t now = clock_monotonic_ms();
    if (atomic_load(&call->cancelled) || now >= call->deadline_ms)
        return 0;
    return (int)MIN(call->deadline_ms - now, (uint64_t)INT_MAX);
}

int csi_fail_late(struct csi_call *call, const char *what)
{
    if (atomic_load(&call->cancelled))
        return csi_fail(call, CSI_CANCELLED, "the call was cancelled: %s", what);
    return csi_fail(call, CSI_DEADLINE_EXCEEDED, "the call's time has run out: %s; call again",
                    what);
}
