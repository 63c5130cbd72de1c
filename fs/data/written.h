/*
 * What was written lands in the cache: the staging file that has become an object becomes the
 * cached file of its content. Where that is on another file system its bytes are copied there, by a
 * thread of their own, after the flush was answered.
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
/* The gift holds the bytes of an object with this content id. Takes it. Blocking: on a thread that
 * may wait for the local disk. Too much to do: they are not cached, and counted. */
void written_put(struct written *written, struct staging_gift *gift, uint64_t cid);

#endif
