/* Access control lists: what is taken can be changed, and is a list again. */
#include <stdlib.h>
#include <string.h>

#include "meta/acl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct acl acl, again;
    static uint8_t room[8 * (ACL_ENTRIES_MAX + 1)];
    bool same;
    if (size < 2 || acl_parse(data + 2, size - 2, &acl) || acl.count == 0)
        return 0;
    uint32_t mode = (uint32_t)(data[0] << 8 | data[1]) & 07777;
    if (acl_size(&acl) != size - 2)
        abort();
    acl_write(&acl, room);
    if (memcmp(room, data + 2, size - 2))
        abort();
    acl_chmod(&acl, mode);
    if (acl_mode(&acl, &same) != (mode & 0777))
        abort();
    if (acl_inherit(&acl, 0666) != (0666 & (mode | ~0777u)))
        abort();
    acl_write(&acl, room);
    if (acl_parse(room, acl_size(&acl), &again))
        abort();
    return 0;
}
