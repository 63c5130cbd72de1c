/* Is the object at a key the one that a request of ours, whose reply was lost, put there? Pure. For
 * s3/retry.c. */
#ifndef SLUICE_S3_RETRY_VERIFY_H
#define SLUICE_S3_RETRY_VERIFY_H

#include "s3/store.h"

enum verify_result {
    VERIFY_FOREIGN,
    VERIFY_OURS,
    VERIFY_COMPARE, /* it may be: read it and compare (retry_verify_bytes) */
};

/* `op`: the PUT or COMPLETE; `head`: what HEAD says of its key. Ours are those with the size and
 * all the metadata that were sent. An object of at most `compare_max` bytes is compared byte for
 * byte; without metadata a larger one must have the ETag that our bytes give. */
enum verify_result retry_verify(const struct store_op *op, const struct store_op *head,
                                uint64_t compare_max);
bool retry_verify_bytes(const struct store_op *put, const void *data, size_t len);

#endif
