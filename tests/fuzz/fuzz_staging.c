/*
 * What a killed process left in a staging: records behind a right checksum, or not, and the state
 * of a slot. What is taken of them must be a good set of ranges, and survive being written and read
 * again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "data/staging_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ranges(const struct ranges *set)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct staging_range *r = &set->items[i];
        assert(r->length > 0 && r->offset + r->length > r->offset);
        if (i) {
            const struct staging_range *before = r - 1;
            assert(before->offset + before->length <= r->offset);
            assert(before->offset + before->length < r->offset || before->hole != r->hole);
        }
        bytes += r->hole ? 0 : r->length;
    }
    assert(bytes == set->bytes);
}

static void check_equal(const struct staging *a, const struct staging *b)
{
    assert(a->size == b->size && a->mtime_ns == b->mtime_ns && a->truncated_to == b->truncated_to &&
           a->time_dirty == b->time_dirty && a->ranges.count == b->ranges.count);
    for (size_t i = 0; i < a->ranges.count; i++) {
        const struct staging_range *r = &a->ranges.items[i], *s = &b->ranges.items[i];
        assert(r->offset == s->offset && r->length == s->length && r->hole == s->hole);
    }
}

/* As the log is written anew: the state, then the ranges, of which none lies beyond the size. */
static void write_again(const struct staging *staging)
{
    struct staging again = {.log_generation = staging->log_generation};
    struct staging_record record;
    staging_record_fill(&record, staging, LOG_STATE, 0, 0);
    assert(staging_record_good(&record, staging->log_generation));
    if (staging_record_replay(&again, &record))
        abort();
    for (size_t i = 0; i < staging->ranges.count; i++) {
        const struct staging_range *r = &staging->ranges.items[i];
        staging_record_fill(&record, staging, r->hole ? LOG_ZERO : LOG_WRITE, r->offset, r->length);
        assert(staging_record_good(&record, staging->log_generation));
        if (staging_record_replay(&again, &record))
            abort();
    }
    check_ranges(&again.ranges);
    check_equal(staging, &again);
    ranges_done(&again.ranges);
}

static void try_log(const uint8_t *data, size_t size)
{
    struct staging staging = {.log_generation = 7, .truncated_to = UINT64_MAX};
    struct staging_record record;
    for (; size >= sizeof(record); data += sizeof(record), size -= sizeof(record)) {
        memcpy(&record, data, sizeof(record));
        /* Most inputs would end at the first checksum. */
        if (record.crc & 1) {
            record.generation = 7;
            record.kind = record.kind % 5;
            record.crc = hash_crc32c(0, (const uint8_t *)&record + sizeof(record.crc),
                                     sizeof(record) - sizeof(record.crc));
        }
        if (!staging_record_good(&record, 7))
            break;
        if (staging_record_replay(&staging, &record))
            abort();
        check_ranges(&staging.ranges);
    }
    write_again(&staging);
    ranges_done(&staging.ranges);
}

static void try_slot(const uint8_t *data, size_t size)
{
    const uint32_t capacity = 4096;
    struct slot_state state, again_state;
    struct staging staging = {0}, again = {0};
    if (size < sizeof(state))
        return;
    memcpy(&state, data, sizeof(state));
    if (staging_slot_replay(&staging, &state, capacity))
        abort();
    check_ranges(&staging.ranges);
    for (size_t i = 0; i < staging.ranges.count; i++)
        assert(staging.ranges.items[i].offset + staging.ranges.items[i].length <= capacity);
    if (!staging_slot_fill(&again_state, &staging, capacity) ||
        staging_slot_replay(&again, &again_state, capacity))
        abort();
    check_equal(&staging, &again);
    ranges_done(&staging.ranges);
    ranges_done(&again.ranges);
}

static void try_header(const uint8_t *data, size_t size)
{
    struct staging_header header;
    if (size < sizeof(header))
        return;
    memcpy(&header, data, sizeof(header));
    const struct staging staging = {.ino = header.ino,
                                    .log_generation = header.generation,
                                    .data_number = header.data_number,
                                    .flags = header.flags};
    char boot_id[STAGING_BOOT_ID];
    memcpy(boot_id, header.boot_id, sizeof(boot_id));
    if (staging_header_good(&header) && header.spare == 0) {
        struct staging_header again;
        staging_header_fill(&again, &staging, boot_id);
        assert(memcmp(&again, &header, sizeof(header)) == 0);
    }
    staging_header_fill(&header, &staging, boot_id);
    assert(staging_header_good(&header));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 16384)
        return 0;
    if (data[0] % 4 == 0)
        try_slot(data + 1, size - 1);
    else if (data[0] % 4 == 1)
        try_header(data + 1, size - 1);
    else
        try_log(data + 1, size - 1);
    return 0;
}
