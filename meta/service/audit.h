/*
 * The audit log of the service: who did what, and when, as JSON lines (docs/security.md). Records
 * are put into a queue of fixed size, and a thread of its own writes them: whoever puts one never
 * waits. What the queue has no room for is counted, and said in the log when there is room again.
 */
#ifndef SLUICE_META_AUDIT_H
#define SLUICE_META_AUDIT_H

#include <stdint.h>

#include "base/error.h"
#include "base/metrics.h"
#include "meta/op.h"

struct audit;

struct audit_config {
    const char *path; /* appended to; made with mode 0600 */
    unsigned slots;   /* records that wait at most; 0: 8,192 */
    struct metrics *metrics;
};

/* Texts may be NULL, and are cut where they are too long. */
struct audit_record {
    const char *event; /* "op", "begin", "resume", "end", "refused", … */
    const char *peer, *token, *volume, *client;
    const char *op, *reason;
    uint64_t session, request; /* 0: none */
    uint64_t ino, parent, new_parent;
    struct meta_name name, new_name;
    int result; /* 0 or -errno */
};

int audit_open(const struct audit_config *config, struct audit **out, struct error *error);
/* Any thread; takes a lock that is never held for long. `audit` NULL: nothing. */
void audit_put(struct audit *audit, const struct audit_record *record);
/* Goes on in a new file of that name. 0 or -errno: then in the old one. */
int audit_reopen(struct audit *audit);
/* Writes what waits. */
void audit_free(struct audit *audit);

#endif
