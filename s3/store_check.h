/* Checks of a request's inputs, the same before every backend. For s3/store.c only. */
#ifndef SLUICE_S3_STORE_CHECK_H
#define SLUICE_S3_STORE_CHECK_H

#include "s3/store.h"

/* 0, or -errno with the reason in op->error. */
int store_check(const struct store_caps *caps, struct store_op *op);

#endif
