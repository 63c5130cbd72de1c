/*
 * An entry: one JSON object below `.sluice/e/` that says of an inode what its object (if it has
 * one) cannot say. Format: docs/rebuild.md.
 */
#ifndef SLUICE_META_CARRY_ENTRY_H
#define SLUICE_META_CARRY_ENTRY_H

#include <jansson.h>

#include "meta/op.h"

#define CARRY_ENTRY_MAX 262144 /* bytes of text */
#define CARRY_XATTRS_MAX 65536 /* bytes of names and values; more are left out */
#define CARRY_LINKS_MAX 100
#define CARRY_PATH_MAX META_KEY_MAX
#define CARRY_FOLDER "e/" /* below VOLUME_INTERNAL */

struct carry_text {
    char *bytes; /* owned, with a NUL behind */
    size_t len;
};

struct carry_xattr {
    struct carry_text name, value;
};

struct carry_entry {
    char *path;              /* below the prefix, without leading '/'; "" is the root; owned */
    uint32_t mode, uid, gid; /* mode with its type */
    uint64_t mtime_ns, rdev;
    uint64_t written_ns;      /* when it was written: of two for one path the later counts */
    struct carry_text target; /* of a symbolic link */
    char etag[META_ETAG_MAX]; /* file: of the object it is about; with its size */
    uint64_t size;
    char **links; /* further names of a file, as paths; owned */
    size_t link_count;
    struct carry_xattr *xattrs; /* owned */
    size_t xattr_count;
};

/* Text, owned by the caller; NULL without memory, or if a name is not UTF-8. */
char *carry_entry_print(const struct carry_entry *entry);
/* Any bytes: 0, -EBADMSG or -ENOMEM. *out is to be released in every case. */
int carry_entry_parse(const void *data, size_t len, struct carry_entry *out);
void carry_entry_done(struct carry_entry *entry);

#endif
