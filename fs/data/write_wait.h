/* Writes that wait for room in the staging area, in order. */
#ifndef SLUICE_FS_WRITE_WAIT_H
#define SLUICE_FS_WRITE_WAIT_H

#include "file.h"

/* Applies a write to the staging. Bytes taken (all), or -errno; then `in` stands where it stood.
 * No locks held. */
int64_t write_apply(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                    bool append);
/* The staging area is full, or others wait in front. */
bool write_must_wait(struct data *data);
/* -EINPROGRESS or -ENOMEM. */
int write_wait_add(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset, bool append,
                   struct data_request *request);
/* Lets those go on that can; with nothing left that could make room, they fail. `begun`: flushes
 * were begun just before, so there is hope. On a pool thread, one at a time. */
void write_wait_run(struct data *data, bool begun);

#endif
