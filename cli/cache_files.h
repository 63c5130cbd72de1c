/* What the commands share that do something about the cached bytes of many files: which files, in
 * parallel, with a progress bar. */
#ifndef SLUICE_CLI_CACHE_FILES_H
#define SLUICE_CLI_CACHE_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct cache_file_state {
    uint64_t size, cached_bytes;
    bool pinned;
};

struct cache_files_command {
    const char *name, *doc, *progress;
    /* One file: 0 or -errno; on threads of the command's own. *state: as it is then. */
    int (*run)(const char *path, struct cache_file_state *state, struct error *error);
    /* One line about what was done; `failed` files are not in it. */
    void (*print)(uint64_t files, uint64_t bytes, uint64_t cached_bytes);
};

/* The whole sub-command; the exit code. */
int cache_files_run(const struct cache_files_command *command, int argc, char **argv);
/* Asks the mount: op "cached", "evict", "pin", "unpin". */
int cache_files_ask(const char *path, const char *op, struct cache_file_state *state,
                    struct error *error);

#endif
