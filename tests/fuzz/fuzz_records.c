/* The records of the metadata database. The first byte says which; what is accepted must be
 * accepted again after it was written again. */
#include <stdlib.h>
#include <string.h>

#include "engine/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define AGAIN(type, decode, encode)                                                                \
    do {                                                                                           \
        struct type one, two;                                                                      \
        if (decode(data, size, &one) == 0) {                                                       \
            encode(&b, &one);                                                                      \
            if (buf_error(&b) < 0 || decode(b.data, b.len, &two) < 0)                              \
                abort();                                                                           \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf b;
    if (size == 0)
        return 0;
    uint8_t kind = *data++;
    size--;
    buf_init(&b, 0);
    switch (kind % 14) {
    case 0:
        AGAIN(record_inode, record_inode_decode, record_inode_encode);
        break;
    case 1: {
        struct record_dentry dentry;
        record_dentry_decode(data, size, &dentry);
        break;
    }
    case 2:
        AGAIN(meta_extent, record_extent_decode, record_extent_encode);
        break;
    case 3:
        AGAIN(record_object, record_object_decode, record_object_encode);
        break;
    case 4:
        AGAIN(record_origin, record_origin_decode, record_origin_encode);
        break;
    case 5:
        AGAIN(record_queue, record_queue_decode, record_queue_encode);
        break;
    case 6:
        AGAIN(record_step, record_step_decode, record_step_encode);
        break;
    case 7:
        AGAIN(record_counters, record_counters_decode, record_counters_encode);
        break;
    case 8:
        AGAIN(meta_volume, record_volume_decode, record_volume_encode);
        break;
    case 9:
        AGAIN(record_quota, record_quota_decode, record_quota_encode);
        break;
    case 10:
        AGAIN(meta_store, record_store_decode, record_store_encode);
        break;
    case 11:
        AGAIN(record_place, record_place_decode, record_place_encode);
        break;
    case 12:
        AGAIN(record_late, record_late_decode, record_late_encode);
        break;
    case 13:
        AGAIN(record_carry, record_carry_decode, record_carry_encode);
        break;
    }
    buf_done(&b);
    return 0;
}
