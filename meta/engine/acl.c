#include "meta/acl.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define VERSION 2u
#define HEADER 4u
#define ENTRY 8u

/* Which entries may follow which, and that what must be there is there. */
int acl_check(const struct acl *acl)
{
    if (acl->count == 0)
        return 0;
    unsigned seen = 0;
    uint16_t last = 0;
    for (size_t i = 0; i < acl->count; i++) {
        const struct acl_entry *e = &acl->entries[i];
        bool named = e->tag == ACL_USER || e->tag == ACL_NAMED_GROUP;
        if (e->perm > 7 || e->tag < last || (e->tag == last && !named) ||
            (named && e->id == UINT32_MAX))
            return -EINVAL;
        switch (e->tag) {
        case ACL_OWNER:
        case ACL_USER:
        case ACL_GROUP:
        case ACL_NAMED_GROUP:
        case ACL_MASK:
        case ACL_OTHER:
            break;
        default:
            return -EINVAL;
        }
        seen |= e->tag;
        last = e->tag;
    }
    unsigned needed = ACL_OWNER | ACL_GROUP | ACL_OTHER;
    if (seen & (ACL_USER | ACL_NAMED_GROUP))
        needed |= ACL_MASK;
    return (seen & needed) == needed ? 0 : -EINVAL;
}

int acl_parse(const void *value, size_t len, struct acl *out)
{
    const uint8_t *bytes = value;
    uint32_t version;
    out->count = 0;
    if (len < HEADER || (len - HEADER) % ENTRY || (len - HEADER) / ENTRY > ACL_ENTRIES_MAX)
        return -EINVAL;
    memcpy(&version, bytes, sizeof(version));
    if (le32toh(version) != VERSION)
        return -EINVAL;
    size_t count = (len - HEADER) / ENTRY;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = bytes + HEADER + i * ENTRY;
        struct acl_entry *e = &out->entries[i];
        memcpy(&e->tag, at, 2);
        memcpy(&e->perm, at + 2, 2);
        memcpy(&e->id, at + 4, 4);
        e->tag = le16toh(e->tag);
        e->perm = le16toh(e->perm);
        e->id = le32toh(e->id);
    }
    out->count = count;
    return acl_check(out);
}

size_t acl_size(const struct acl *acl)
{
    return HEADER + acl->count * ENTRY;
}

void acl_write(const struct acl *acl, uint8_t *room)
{
    uint32_t version = htole32(VERSION);
    memcpy(room, &version, sizeof(version));
    for (size_t i = 0; i < acl->count; i++) {
        const struct acl_entry *e = &acl->entries[i];
        uint8_t *at = room + HEADER + i * ENTRY;
        uint16_t tag = htole16(e->tag), perm = htole16(e->perm);
        uint32_t id = htole32(e->id);
        memcpy(at, &tag, 2);
        memcpy(at + 2, &perm, 2);
        memcpy(at + 4, &id, 4);
    }
}

static struct acl_entry *find(struct acl *acl, enum acl_tag tag)
{
    for (size_t i = 0; i < acl->count; i++)
        if (acl->entries[i].tag == tag)
            return &acl->entries[i];
    return NULL;
}

/* The entry that the bits of the group stand for. */
static struct acl_entry *group_class(struct acl *acl)
{
    struct acl_entry *mask = find(acl, ACL_MASK);
    return mask ? mask : find(acl, ACL_GROUP);
}

uint32_t acl_mode(const struct acl *acl, bool *same)
{
    struct acl *a = (struct acl *)acl; /* only looked at */
    *same = acl->count == 3;
    return (uint32_t)find(a, ACL_OWNER)->perm << 6 | (uint32_t)group_class(a)->perm << 3 |
           find(a, ACL_OTHER)->perm;
}

void acl_chmod(struct acl *acl, uint32_t mode)
{
    find(acl, ACL_OWNER)->perm = mode >> 6 & 7;
    group_class(acl)->perm = mode >> 3 & 7;
    find(acl, ACL_OTHER)->perm = mode & 7;
}

uint32_t acl_inherit(struct acl *acl, uint32_t mode)
{
    bool same;
    acl_chmod(acl, mode & acl_mode(acl, &same));
    return (mode & ~0777u) | acl_mode(acl, &same);
}
