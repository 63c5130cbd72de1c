/*
 * What was written lands in the cache: the bytes of a staging file that has become an object are
 * put into it, by a thread of their own, after the flush was answered.
 */
#ifndef SLUICE_FS_WRITTEN_H
#define SLUICE_FS_WRITTEN_H

#include "file.h"
#include "staging.h"

struct written;

/* For data->config.cache. 0 or -errno. */
int written_open(struct data *data);
/* Gives up what waits. NULL is allowed. */
void written_close(struct written *written);
/* The first `size` bytes of the view are those of an object with this content id, and nobody
 * changes them any more. Takes the view. Too much to do: they are not cached, and counted. */
void written_put(struct written *written, struct staging_view *view, uint64_t cid, uint64_t size);

#endif
