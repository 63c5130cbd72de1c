/*
 * The index of one directory on its disk: `index-<generation>.ckpt` holds all of it at one time,
 * `index-<generation>.log` the changes since (docs/cache.md). What a crash tears off is forgotten:
 * the checksums of the pages find what the index then says wrongly.
 */
#ifndef SLUICE_CACHE_JOURNAL_H
#define SLUICE_CACHE_JOURNAL_H

#include "index.h"

struct journal {
    int dir_fd; /* borrowed */
    int fd;     /* of the log that is written; -1: none */
    uint64_t generation;
    uint64_t bytes, checkpoint_bytes;
    bool
        failed; /* a write did not go through: nothing more is appended until the next checkpoint */
};

/* Reads what is there into an empty index, and begins a new log. Damaged parts are left out. 0 or
 * -errno (then the directory cannot be used). Blocking, like all here. */
int journal_open(struct journal *journal, int dir_fd, struct index *index, uint32_t now_s);
void journal_close(struct journal *journal);
/* Seals and appends a batch (with room for its header), empties it. */
int journal_append(struct journal *journal, struct buf *batch);
/* It is time for a checkpoint. */
bool journal_wants_checkpoint(const struct journal *journal);

/* A checkpoint: begin rotates the log, so that it holds all changes from then on; then every
 * content is put, in any order, as it is at some time after; end makes it the one that counts and
 * removes the older files. A failure leaves the older files in force. */
struct journal_checkpoint {
    struct journal *journal;
    int fd;
    uint64_t bytes;
};
int journal_checkpoint_begin(struct journal *journal, struct journal_checkpoint *checkpoint);
int journal_checkpoint_put(struct journal_checkpoint *checkpoint, struct buf *batch);
int journal_checkpoint_end(struct journal_checkpoint *checkpoint);
void journal_checkpoint_abandon(struct journal_checkpoint *checkpoint);
/* Readies a buffer for a batch. */
void journal_batch_init(struct buf *batch);

#endif
