/*
 * The object that says who owns a prefix: JSON, docs/open-layout.md.
 */
#ifndef SLUICE_META_OWNER_RECORD_H
#define SLUICE_META_OWNER_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OWNER_RECORD_MAX (16 * 1024) /* bytes that are read of it */

struct owner_record {
    char volume[33], instance[17], host[128], owner[512];
    uint64_t epoch, renewed_ns;
    bool held;
};

/* Any bytes: 0, or -EBADMSG for what is not such a record. Longer texts than there is room for are
 * cut. */
int owner_record_parse(const void *data, size_t len, struct owner_record *out);
/* Owned by the caller; NULL without memory, or if a text is not UTF-8. */
char *owner_record_print(const struct owner_record *record);

#endif
