/*
 * Where two states of a file's content differ, as far as their extents tell: the same bytes of the
 * same content (by its content id) are the same, inline bytes are compared.
 */
#ifndef SLUICE_FS_EXTENTS_DIFF_H
#define SLUICE_FS_EXTENTS_DIFF_H

#include "file.h"

/* Calls back for each range of `is`, in order, that may not have the bytes of `was`. Beyond the end
 * of `was` there are zeros. 0, -ENOMEM, or what the callback returned that is not 0. */
int extents_diff(const struct data_reads *reads, const struct file_extents *was,
                 const struct file_extents *is,
                 int (*differs)(void *arg, uint64_t offset, uint64_t length), void *arg);

#endif
