/* The event notifications of buckets: S3's JSON, as it comes to a queue, a topic or an HTTP
 * endpoint (docs/notify.md). Pure, bounded for any input (tests/fuzz/fuzz_notify.c). */
#ifndef SLUICE_CLI_NOTIFY_EVENT_H
#define SLUICE_CLI_NOTIFY_EVENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define NOTIFY_TEXT_MAX (1u << 20) /* bytes of one document */
#define NOTIFY_KEY_MAX 1024
#define NOTIFY_RECORDS_MAX 10000

struct notify_event {
    const char *bucket;
    const char *key; /* decoded */
};

/* Calls `take` for each record of one document that names an object; a negative result of it ends
 * the rest. The number of records, or -EINVAL with a sentence (then nothing was taken), or what
 * `take` returned. *more is set if the text is the beginning of a document. */
int notify_events_parse(const char *text, size_t len,
                        int (*take)(void *arg, const struct notify_event *event), void *arg,
                        bool *more, struct error *error);

#endif
