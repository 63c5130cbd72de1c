/* A progress bar on stderr, only on a terminal. */
#ifndef SLUICE_CLI_PROGRESS_H
#define SLUICE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "settling", "uploading" */
    bool bytes;       /* amounts are bytes, else a count */
    bool shown, on;
    uint64_t most;     /* the largest amount left that was seen: the whole */
    uint64_t since_ns; /* that was seen then */
};

void progress_init(struct progress *p, const char *what, bool bytes);
/* `left`: what is still to do. */
void progress_show(struct progress *p, uint64_t left);
void progress_end(struct progress *p);
/* "1.5 MiB"; room has 32 bytes. Returns it. */
const char *progress_bytes(uint64_t bytes, char *room);
/* "30d", as options take it, by the largest unit without a rest; room has 32 bytes. Returns it. */
const char *progress_time(uint64_t seconds, char *room);

#endif
