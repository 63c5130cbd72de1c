/*
 * What errno cannot carry. Functions return 0 or a count, or a negative errno; where a caller can
 * use more (the HTTP status, the store's code, a sentence for a person), it passes a struct error.
 *
 * A struct error is caller-owned, has no pointers and needs no release. A NULL `struct error *` is
 * allowed everywhere.
 */
#ifndef SLUICE_BASE_ERROR_H
#define SLUICE_BASE_ERROR_H

#include <stdarg.h>

struct error {
    int code;            /* negative errno, 0 = no error */
    int http_status;     /* 0 if the error did not come from an HTTP reply */
    char store_code[48]; /* e.g. "NoSuchKey"; empty if none */
    char request_id[72]; /* the server's, for its operator; empty if none */
    char message[512];   /* one line, no newline, says what and where; empty if none */
};

/* Sets code and message (other fields are cleared) and returns `code`, so that `return error_set(e,
 * -EINVAL, …)` works. `code` must be negative. With e == NULL only returns. Control characters in
 * the message are replaced. */
int error_set(struct error *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int error_setv(struct error *e, int code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* Puts "context: " before the message that is there; returns e->code (0 with e == NULL). */
int error_prefix(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void error_clear(struct error *e);

/* The message, or strerror of the code where there is no message. Never NULL; valid while *e is. */
const char *error_text(const struct error *e);

#endif
