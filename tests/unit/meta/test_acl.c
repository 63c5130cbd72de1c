#include <string.h>

#include "meta/acl.h"
#include "test.h"

static void make(struct acl *acl, size_t count, const struct acl_entry *entries)
{
    acl->count = count;
    memcpy(acl->entries, entries, count * sizeof(*entries));
}

static const struct acl_entry named[] = {{0x01, 7, UINT32_MAX}, {0x02, 5, 1000},
                                         {0x04, 4, UINT32_MAX}, {0x08, 6, 100},
                                         {0x10, 7, UINT32_MAX}, {0x20, 0, UINT32_MAX}};
static const struct acl_entry plain[] = {
    {0x01, 6, UINT32_MAX}, {0x04, 4, UINT32_MAX}, {0x20, 4, UINT32_MAX}};

TEST(acl, bytes_and_back)
{
    static struct acl acl, again;
    uint8_t bytes[64];
    make(&acl, 6, named);
    check_uint(acl_size(&acl), 52);
    acl_write(&acl, bytes);
    check_int(acl_parse(bytes, 52, &again), 0);
    check(again.count == 6 && memcmp(again.entries, named, sizeof(named)) == 0);
    check_int(acl_parse(bytes, 4, &again), 0);
    check_uint(again.count, 0);
}

TEST(acl, what_the_kernel_would_refuse)
{
    static struct acl acl, out;
    uint8_t bytes[64];
    make(&acl, 6, named);
    acl_write(&acl, bytes);
    for (size_t len = 0; len < 52; len++)
        check(len == 4 || acl_parse(bytes, len, &out) < 0);
    bytes[0] = 3;
    check(acl_parse(bytes, 52, &out) < 0);
    static const struct acl_entry bad[][4] = {
        {{0x01, 8, 0}, {0x04, 4, 0}, {0x20, 0, 0}, {0}},
        {{0x04, 4, 0}, {0x01, 7, 0}, {0x20, 0, 0}, {0}},
        {{0x01, 7, 0}, {0x02, 7, 5}, {0x04, 4, 0}, {0x20, 0, 0}}, /* no mask */
        {{0x01, 7, 0}, {0x01, 7, 0}, {0x04, 4, 0}, {0x20, 0, 0}},
        {{0x01, 7, 0}, {0x04, 4, 0}, {0x20, 0, 0}, {0x40, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        make(&acl, bad[i][3].tag ? 4 : 3, bad[i]);
        acl_write(&acl, bytes);
        check(acl_parse(bytes, acl_size(&acl), &out) < 0);
    }
}

TEST(acl, modes)
{
    static struct acl acl;
    bool same;
    make(&acl, 6, named);
    check_uint(acl_mode(&acl, &same), 0770);
    check(!same);
    acl_chmod(&acl, 0640);
    check_uint(acl_mode(&acl, &same), 0640);
    check_uint(acl.entries[2].perm, 4); /* the group's own entry stays */
    check_uint(acl.entries[4].perm, 4);
    make(&acl, 6, named);
    check_uint(acl_inherit(&acl, 02666), 02660);
    make(&acl, 3, plain);
    check_uint(acl_mode(&acl, &same), 0644);
    check(same);
    check_uint(acl_inherit(&acl, 0700), 0600);
}
