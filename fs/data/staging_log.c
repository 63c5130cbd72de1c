#include "staging_log.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define FILE_MAGIC 0x3247535345434c53ull

static uint32_t header_crc(const struct staging_header *header)
{
    return hash_crc32c(0, header, offsetof(struct staging_header, crc));
}

void staging_header_fill(struct staging_header *header, const struct staging *staging,
                         const char *boot_id)
{
    memset(header, 0, sizeof(*header));
    header->magic = FILE_MAGIC;
    header->ino = staging->ino;
    header->generation = staging->log_generation;
    header->data_number = staging->data_number;
    memcpy(header->boot_id, boot_id, STAGING_BOOT_ID);
    header->flags = staging->flags;
    header->crc = header_crc(header);
}

bool staging_header_good(const struct staging_header *header)
{
    return header->magic == FILE_MAGIC && header->crc == header_crc(header);
}

static uint32_t record_crc(const struct staging_record *record)
{
    return hash_crc32c(0, &record->kind, sizeof(*record) - offsetof(struct staging_record, kind));
}

void staging_record_fill(struct staging_record *record, const struct staging *staging,
                         enum staging_record_kind kind, uint64_t offset, uint64_t length)
{
    *record = (struct staging_record){.kind = (uint16_t)kind,
                                      .time_dirty = staging->time_dirty,
                                      .generation = staging->log_generation,
                                      .offset = offset,
                                      .length = length,
                                      .size = staging->size,
                                      .mtime_ns = staging->mtime_ns,
                                      .truncated_to = staging->truncated_to,
                                      .base_version = staging->base_version};
    record->crc = record_crc(record);
}

bool staging_record_good(const struct staging_record *record, uint64_t generation)
{
    return record->generation == generation && record->crc == record_crc(record) &&
           record->kind >= LOG_STATE && record->kind <= LOG_SYNC &&
           record->offset + record->length >= record->offset &&
           record->offset + record->length <= INT64_MAX && record->size <= INT64_MAX;
}

int staging_record_replay(struct staging *staging, const struct staging_record *record)
{
    if (record->kind == LOG_SYNC)
        return 0; /* what it carries may be of later */
    staging->size = record->size;
    staging->mtime_ns = record->mtime_ns;
    staging->truncated_to = record->truncated_to;
    staging->time_dirty = record->time_dirty;
    if (record->kind == LOG_STATE)
        return ranges_clear(&staging->ranges, record->size, UINT64_MAX - record->size, UINT64_MAX);
    return ranges_set(&staging->ranges, record->offset, record->length, 0,
                      record->kind == LOG_ZERO);
}

int staging_slot_replay(struct staging *staging, const struct slot_state *state, uint32_t capacity)
{
    staging->size = MIN(state->size, (uint64_t)INT64_MAX);
    staging->mtime_ns = state->mtime_ns;
    staging->truncated_to = state->truncated_to;
    staging->time_dirty = state->time_dirty;
    for (uint32_t i = 0; i < MIN(state->range_count, SLOT_RANGES); i++) {
        uint32_t offset = state->ranges[i].offset, length = state->ranges[i].length;
        if (offset > capacity || length > capacity - offset)
            continue;
        int rc = ranges_set(&staging->ranges, offset, length, 0, false);
        if (rc)
            return rc;
    }
    return 0;
}

bool staging_slot_fill(struct slot_state *state, const struct staging *staging, uint32_t capacity)
{
    const struct ranges *set = &staging->ranges;
    uint32_t count = 0;
    struct slot_state to = {.ino = staging->ino,
                            .size = staging->size,
                            .mtime_ns = staging->mtime_ns,
                            .truncated_to = staging->truncated_to,
                            .time_dirty = staging->time_dirty};
    for (size_t i = 0; i < set->count; i++) {
        const struct staging_range *r = &set->items[i];
        if (r->hole || r->offset + r->length > capacity)
            return false;
        /* Epochs are of this process only: ranges that touch are one. */
        if (count && to.ranges[count - 1].offset + to.ranges[count - 1].length == r->offset) {
            to.ranges[count - 1].length += (uint32_t)r->length;
            continue;
        }
        if (count == SLOT_RANGES)
            return false;
        to.ranges[count].offset = (uint32_t)r->offset;
        to.ranges[count++].length = (uint32_t)r->length;
    }
    to.range_count = count;
    *state = to;
    return true;
}
