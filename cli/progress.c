#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

#define WIDTH 30 /* characters of the bar */
#define LEAST_S 2

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
    if (left > p->most || !p->since_ns) {
        p->most = left > p->most ? left : p->most;
        p->since_ns = clock_monotonic_ns();
    }
    char bar[WIDTH + 1], amount[32], rest[48] = "";
    unsigned filled =
        p->most ? (unsigned)((double)(p->most - left) / (double)p->most * WIDTH) : WIDTH;
    for (unsigned i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = 0;
    if (p->bytes)
        progress_bytes(left, amount);
    else
        snprintf(amount, sizeof(amount), "%llu", (unsigned long long)left);
    /* By the pace so far; of the first moments nothing is said. */
    uint64_t took_s = (clock_monotonic_ns() - p->since_ns) / NS_PER_S;
    if (took_s >= LEAST_S && left < p->most) {
        uint64_t s = (uint64_t)((double)took_s * (double)left / (double)(p->most - left));
        snprintf(rest, sizeof(rest), ", about %llu:%02llu min", (unsigned long long)(s / 60),
                 (unsigned long long)(s % 60));
    }
    fprintf(stderr, "\r%s [%s] %s left%s\033[K", p->what, bar, amount, rest);
    fflush(stderr);
    p->shown = true;
}

void progress_end(struct progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}

const char *progress_time(uint64_t seconds, char *room)
{
    static const struct {
        uint64_t seconds;
        char letter;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    size_t i = 0;
    while (seconds % units[i].seconds)
        i++;
    snprintf(room, 32, "%" PRIu64 "%c", seconds / units[i].seconds, units[i].letter);
    return room;
}
