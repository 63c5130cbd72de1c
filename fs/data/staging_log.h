/*
 * What a staging leaves on the disk for the next process, as bytes: header and records of a staging
 * file, and the state of a slot of the small-file area (docs/data-path.md). Host byte order. Pure
 * memory, and without libfuse: fuzzed (tests/fuzz/fuzz_staging.c).
 */
#ifndef SLUICE_FS_STAGING_LOG_H
#define SLUICE_FS_STAGING_LOG_H

#include "staging_impl.h"

struct staging_header {
    uint64_t magic, ino, generation; /* the log is in half generation & 1 */
    uint64_t data_number;            /* names the file of the bytes */
    char boot_id[STAGING_BOOT_ID];
    uint32_t flags;
    uint32_t spare;
    uint32_t crc; /* of what stands before */
};

void staging_header_fill(struct staging_header *header, const struct staging *staging,
                         const char *boot_id);
bool staging_header_good(const struct staging_header *header);

/* LOG_SYNC: the first `offset` records and their bytes were on the disk before it was written;
 * base_version is the content's below them. */
enum staging_record_kind { LOG_STATE = 1, LOG_WRITE, LOG_ZERO, LOG_SYNC };

struct staging_record {
    uint32_t crc; /* of what follows */
    uint16_t kind;
    uint16_t time_dirty;
    uint64_t generation, offset, length, size, mtime_ns, truncated_to, base_version;
};
_Static_assert(sizeof(struct staging_record) == 64, "format");

/* With the present size and times of the staging. */
void staging_record_fill(struct staging_record *record, const struct staging *staging,
                         enum staging_record_kind kind, uint64_t offset, uint64_t length);
/* Whole, of this log, and with values that a staging can have. */
bool staging_record_good(const struct staging_record *record, uint64_t generation);
/* A good record becomes the state of the staging. 0 or -ENOMEM. */
int staging_record_replay(struct staging *staging, const struct staging_record *record);

#define SLOT_RANGES 3

struct slot_state {
    _Atomic uint64_t sequence; /* 0: not valid */
    uint64_t ino, size, mtime_ns, truncated_to;
    uint32_t time_dirty, range_count;
    struct {
        uint32_t offset, length;
    } ranges[SLOT_RANGES];
    uint64_t spare[7];
};
_Static_assert(sizeof(struct slot_state) == 128, "format");

/* Takes size, times and ranges out of a slot of `capacity` bytes; what lies outside of it is left
 * out. 0 or -ENOMEM. */
int staging_slot_replay(struct staging *staging, const struct slot_state *state, uint32_t capacity);
/* The state with the ranges of the staging; false: they do not fit. */
bool staging_slot_fill(struct slot_state *state, const struct staging *staging, uint32_t capacity);

#endif
