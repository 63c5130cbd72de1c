#include "base/error.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static void one_line(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
}

int error_setv(struct error *e, int code, const char *fmt, va_list ap)
{
    assert(code < 0);
    if (!e)
        return code;
    /* By way of a local buffer: an argument may point into *e. */
    char message[sizeof(e->message)];
    if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
        message[0] = '\0';
    one_line(message);
    error_clear(e);
    e->code = code;
    memcpy(e->message, message, sizeof(message));
    return code;
}

int error_set(struct error *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_setv(e, code, fmt, ap);
    va_end(ap);
    return code;
}

int error_prefix(struct error *e, const char *fmt, ...)
{
    if (!e)
        return 0;
    char message[sizeof(e->message)];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    if (n < 0)
        return e->code;
    size_t used = MIN((size_t)n, sizeof(message) - 1);
    snprintf(message + used, sizeof(message) - used, ": %s", error_text(e));
    one_line(message);
    memcpy(e->message, message, sizeof(message));
    return e->code;
}

void error_clear(struct error *e)
{
    if (e)
        memset(e, 0, sizeof(*e));
}

const char *error_text(const struct error *e)
{
    if (!e)
        return "";
    if (e->message[0])
        return e->message;
    const char *text = strerrordesc_np(-e->code);
    return text ? text : "Unknown error";
}
