/*
 * POSIX access control lists as the kernel keeps them in extended attributes
 * (linux/posix_acl_xattr.h): a u32 version (2), then for each entry u16 tag, u16 permissions, u32
 * id, all little-endian. Entries stand in the order of their tags: owner, named users, group, named
 * groups, mask, others. What they mean: acl(5); POSIX 1003.1e. Pure functions of bytes.
 */
#ifndef SLUICE_META_ACL_H
#define SLUICE_META_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define ACL_ENTRIES_MAX 1024

/* Tags of entries; a list has them in this order. */
enum acl_tag {
    ACL_OWNER = 0x01,
    ACL_USER = 0x02,
    ACL_GROUP = 0x04,
    ACL_NAMED_GROUP = 0x08,
    ACL_MASK = 0x10,
    ACL_OTHER = 0x20,
};

struct acl_entry {
    uint16_t tag, perm; /* perm: rwx as 4, 2, 1 */
    uint32_t id;        /* of named users and groups */
};
struct acl {
    size_t count; /* 0: none */
    struct acl_entry entries[ACL_ENTRIES_MAX];
};

/* -EINVAL: not a list that the kernel would take. An attribute without entries is valid. */
int acl_parse(const void *value, size_t len, struct acl *out);
/* Bytes of the attribute; `room` has acl_size of them. */
size_t acl_size(const struct acl *acl);
/* -EINVAL: not a whole list. None at all is one. */
int acl_check(const struct acl *acl);
void acl_write(const struct acl *acl, uint8_t *room);

/* The permission bits that say the same, or the most of it: the group's are the mask's. *same: they
 * say all, the list is not needed. */
uint32_t acl_mode(const struct acl *acl, bool *same);
/* chmod of a file with a list. */
void acl_chmod(struct acl *acl, uint32_t mode);
/* A directory's default list becomes the access list of what is made in it with `mode`; returns the
 * bits of the new file. */
uint32_t acl_inherit(struct acl *acl, uint32_t mode);

#endif
