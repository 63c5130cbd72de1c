/*
 * Inventories in Parquet or ORC are turned to CSV by a program of the user's: `duckdb`, or
 * `python3` with pyarrow, whichever is on PATH. It runs as a child without a shell and writes to a
 * pipe.
 */
#ifndef SLUICE_META_INVENTORY_CONVERT_H
#define SLUICE_META_INVENTORY_CONVERT_H

#include <limits.h>
#include <sys/types.h>

#include "inventory_format.h"

struct inventory_converter {
    char program[PATH_MAX];
    bool duckdb; /* else python3 */
};

struct inventory_child {
    pid_t pid;
    int words; /* what it says */
};

/* Looks for one that can read the format: 0, or -EOPNOTSUPP with the line that installs one. */
int inventory_converter_find(enum inventory_format format, struct inventory_converter *out,
                             struct error *error);
/* Starts it on a file. *fd: its rows, with the columns of the manifest; the caller closes it before
 * the end. */
int inventory_convert_begin(const struct inventory_converter *converter,
                            const struct inventory_manifest *manifest, const char *path,
                            struct inventory_child *child, int *fd, struct error *error);
/* Waits for its end. `whole`: all rows were read, and it must have succeeded: else -EIO with its
 * last words. */
int inventory_convert_end(struct inventory_child *child, bool whole, struct error *error);

#endif
