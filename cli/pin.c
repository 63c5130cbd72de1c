/* sluice pin, sluice unpin: what the cache must keep. */
#include <inttypes.h>
#include <stdio.h>

#include "cache_files.h"
#include "cli.h"

static int pin(const char *path, struct cache_file_state *state, struct error *error)
{
    return cache_files_ask(path, "pin", state, error);
}

static int unpin(const char *path, struct cache_file_state *state, struct error *error)
{
    return cache_files_ask(path, "unpin", state, error);
}

static void print_pinned(uint64_t files, uint64_t bytes, uint64_t cached_bytes)
{
    printf("%" PRIu64 " files pinned, %" PRIu64 " of %" PRIu64 " bytes are in the cache\n", files,
           cached_bytes, bytes);
}

static void print_unpinned(uint64_t files, uint64_t bytes, uint64_t cached_bytes)
{
    (void)bytes;
    (void)cached_bytes;
    printf("%" PRIu64 " files unpinned\n", files);
}

int cli_pin(int argc, char **argv)
{
    static const struct cache_files_command command = {
        .name = "pin",
        .doc = "What of these files is in the mount's cache, or comes into it, is not evicted. It "
               "fetches nothing: `sluice warm` does. A file that is changed is another content, "
               "and has to be pinned again.",
        .progress = "pinning",
        .run = pin,
        .print = print_pinned,
    };
    return cache_files_run(&command, argc, argv);
}

int cli_unpin(int argc, char **argv)
{
    static const struct cache_files_command command = {
        .name = "unpin",
        .doc = "The cache may evict these files again.",
        .progress = "unpinning",
        .run = unpin,
        .print = print_unpinned,
    };
    return cache_files_run(&command, argc, argv);
}
