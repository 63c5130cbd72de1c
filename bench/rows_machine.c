/* Rows that ask no filesystem for anything: what the machine itself does in each round. A virtual
 * machine's host gives it more at one time and less at another, and that is in all other rows, too.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench_impl.h"

#define STEPS 100000u /* an operation takes some 0.2 ms */
#define CALLS 1000u
#define COUNT 1000u /* some 0.2 s for each row: one interruption is not all that it sees */

static uint64_t limit(const struct worker *w)
{
    (void)w;
    return COUNT;
}

static int op_processor(struct worker *w, uint64_t i)
{
    uint64_t mixed = i;
    for (unsigned step = 0; step < STEPS; step++)
        mixed += bench_random(w);
    memcpy(w->buf, &mixed, sizeof(mixed)); /* the compiler must not see it as unused */
    return 0;
}

/* From one half of the buffer into the other: 512 KiB, more than the first caches hold. */
static int op_memory(struct worker *w, uint64_t i)
{
    char *half = w->buf + BENCH_BLOCK / 2;
    memcpy(i % 2 ? half : w->buf, i % 2 ? w->buf : half, BENCH_BLOCK / 2);
    w->bytes += BENCH_BLOCK / 2;
    return 0;
}

static uint64_t limit_memory(const struct worker *w)
{
    (void)w;
    return 15 * COUNT;
}

static int op_calls(struct worker *w, uint64_t i)
{
    (void)w, (void)i;
    for (unsigned call = 0; call < CALLS; call++)
        syscall(SYS_getppid);
    return 0;
}

static const struct row_spec machine_rows[] = {
    {"machine_processor", "the machine: 100,000 steps of arithmetic", .limit = limit,
     .op = op_processor},
    {"machine_memory", "the machine: copy 512 KiB in memory", .per_byte = true,
     .limit = limit_memory, .op = op_memory},
    {"machine_calls", "the machine: 1,000 system calls", .limit = limit, .op = op_calls},
};

const struct group_spec bench_machine_group = {.name = "machine",
                                               .rows = machine_rows,
                                               .row_count = ARRAY_LEN(machine_rows),
                                               .one_thread = true,
                                               .always = true};
