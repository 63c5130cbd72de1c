/* sluice evict: frees the cache of files. */
#include <inttypes.h>
#include <stdio.h>

#include "cache_files.h"
#include "cli.h"

static int evict(const char *path, struct cache_file_state *state, struct error *error)
{
    return cache_files_ask(path, "evict", state, error);
}

static void print(uint64_t files, uint64_t bytes, uint64_t cached_bytes)
{
    (void)bytes;
    (void)cached_bytes;
    printf("%" PRIu64 " files evicted\n", files);
}

int cli_evict(int argc, char **argv)
{
    static const struct cache_files_command command = {
        .name = "evict",
        .doc = "Drops files from the mount's cache; nothing is lost, they are fetched again when "
               "they are read. What the kernel reads by itself at that time stays.",
        .progress = "evicting",
        .run = evict,
        .print = print,
    };
    return cache_files_run(&command, argc, argv);
}
