/* sluice warm: reads files through their mount until its cache has them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cache_files.h"
#include "cli.h"
#include "progress.h"

#define CHUNK (1u << 20)
#define TRIES 3
#define LOOK_MS 20
#define STILL_LOOKS 100 /* without change: the fills are over */

static int read_all(const char *path)
{
    void *chunk;
    /* Past the page cache, if that can be: only the mount's cache is to be filled. */
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 && errno == EINVAL)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (posix_memalign(&chunk, 4096, CHUNK) != 0)
        return -ENOMEM;
    ssize_t n;
    do
        n = read(fd, chunk, CHUNK);
    while (n > 0 || (n < 0 && errno == EINTR));
    int r = n < 0 ? -errno : 0;
    free(chunk);
    return r;
}

/* Fills go on behind the reads. */
static int wait_filled(const char *path, struct cache_file_state *state, struct error *error)
{
    uint64_t last = 0;
    int r = 0;
    for (unsigned still = 0; r == 0 && state->cached_bytes < state->size && still < STILL_LOOKS;) {
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
        r = cache_files_ask(path, "cached", state, error);
        still = state->cached_bytes == last ? still + 1 : 0;
        last = state->cached_bytes;
    }
    return r;
}

static int warm(const char *path, struct cache_file_state *state, struct error *error)
{
    int r = cache_files_ask(path, "cached", state, error);
    for (unsigned i = 0; r == 0 && state->cached_bytes < state->size && i < TRIES; i++) {
        r = read_all(path);
        if (r == 0)
            r = wait_filled(path, state, error);
    }
    if (r == 0 && state->cached_bytes < state->size)
        r = error_set(error, -ENOSPC,
                      "the cache keeps only %" PRIu64 " of %" PRIu64
                      " bytes: is it large enough (--cache-size), and its disk well?",
                      state->cached_bytes, state->size);
    return r;
}

static void print(uint64_t files, uint64_t bytes, uint64_t cached_bytes)
{
    char room[32];
    (void)cached_bytes;
    printf("%" PRIu64 " files, %s, are in the cache\n", files, progress_bytes(bytes, room));
}

int cli_warm(int argc, char **argv)
{
    static const struct cache_files_command command = {
        .name = "warm",
        .doc =
            "Brings files into the mount's cache, so that they are read at the speed of the "
            "local disk. PATH is a file, a directory (all below it) or a quoted pattern. What is "
            "cached already is passed over, so it can be broken off and called again."
            "\vExamples:\n"
            "  sluice warm /mnt/tables/orders\n"
            "  sluice warm '/mnt/logs/2026-11-*'\n"
            "  sluice warm --from-list files.txt --parallel 16\n\n"
            "Ends with 0 if all is cached, 1 if something is not.",
        .progress = "warming",
        .run = warm,
        .print = print,
    };
    return cache_files_run(&command, argc, argv);
}
