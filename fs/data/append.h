/*
 * O_APPEND in a volume of a service. The kernel asks for nothing when it appends to a file that is
 * open, and says where the end was when it last looked: another mount may have appended since. So
 * such writes go to the end as it is known here; and if another mount has written the file since
 * that was learned, the service is asked first.
 */
#ifndef SLUICE_FS_APPEND_H
#define SLUICE_FS_APPEND_H

#include "file.h"

/* Where the bytes go that the kernel has at `offset`. */
uint64_t append_at_locked(struct data_handle *handle, uint64_t offset);
/* A write that got -EAGAIN goes on when the service has answered: -EINPROGRESS (request->done
 * comes), or what data_write gives. No locks held. */
int append_wait_or_quota(struct data_handle *handle, struct fuse_bufvec *in, uint64_t offset,
                         bool append, struct data_request *request);

#endif
