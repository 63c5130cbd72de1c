#include "gather.h"

#include "base/cleanup.h"

#define MISSES_MAX 6u /* 2, 4 ... 64 rounds without a wait after misses in a row */

unsigned gather_begin(struct gather *gather, unsigned waiting)
{
    if (gather->users <= waiting)
        return waiting;
    if (gather->skip) {
        gather->skip--;
        return waiting;
    }
    return gather->users;
}

void gather_end(struct gather *gather, bool came)
{
    gather->missed = came ? 0 : MIN(gather->missed + 1, MISSES_MAX);
    gather->skip = came ? 0 : 1u << gather->missed;
}

void gather_synced(struct gather *gather, unsigned answered, unsigned waiting)
{
    gather->users = answered + waiting;
}
