#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define WIDTH 30 /* characters of the bar */

void progress_init(struct progress *p, const char *what, bool bytes)
{
    *p = (struct progress){.what = what, .bytes = bytes, .on = isatty(STDERR_FILENO)};
}

const char *progress_bytes(uint64_t bytes, char *room)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit < 5) {
        value /= 1024;
        unit++;
    }
    snprintf(room, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return room;
}

void progress_show(struct progress *p, uint64_t left)
{
    if (!p->on)
        return;
    if (left > p->most)
        p->most = left;
    char bar[WIDTH + 1], amount[32];
    unsigned filled =
        p->most ? (unsigned)((double)(p->most - left) / (double)p->most * WIDTH) : WIDTH;
    for (unsigned i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = 0;
    if (p->bytes)
        progress_bytes(left, amount);
    else
        snprintf(amount, sizeof(amount), "%llu", (unsigned long long)left);
    fprintf(stderr, "\r%s [%s] %s left\033[K", p->what, bar, amount);
    fflush(stderr);
    p->shown = true;
}

void progress_end(struct progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
