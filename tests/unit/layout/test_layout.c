/*
 * Random interleavings of a writer, a renamer, readers, others who put and delete objects, settle,
 * gc, import and crashes, in virtual time: the invariants I1 to I5 and I9 of the open layout hold
 * at each step (docs/testing.md). A run is given by its seed:
 *
 *   SLUICE_LAYOUT_SEED=7 SLUICE_LAYOUT_STEPS=5000000 build/tests/unit/layout/unit_layout
 */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "bucket.h"
#include "end.h"
#include "model.h"
#include "sim.h"
#include "test.h"
#include "world.h"

#define CRASH_STEPS 6000

/* What is taken away. */
struct without {
    enum bucket_fault fault;
    enum model_mutant mutant;
    bool syncs;
};

static void run(uint64_t seed, uint64_t steps, const struct without *without)
{
    model_mutate(without->mutant);
    world_begin(seed, without->fault);
    if (without->syncs)
        sim_forget_syncs();
    actors_start();
    uint64_t next = CRASH_STEPS;
    for (uint64_t i = 0; i < steps; i++) {
        if (i == next) {
            next += 1 + sim_below(2 * CRASH_STEPS);
            world_crash();
            world_open();
        }
        sim_step();
    }
    end_check();
    fprintf(stderr,
            "seed %llu: %llu steps, %u commits, %u renames, %u reads, %u objects by others, %u "
            "moves, %u crashes\n",
            (unsigned long long)seed, (unsigned long long)sim_steps(), world.commits, world.renames,
            world.reads, world.puts, world.moves, world.crashes);
    fflush(NULL);
}

static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t fork_child(void)
{
    fflush(NULL);
    pid_t pid = fork();
    if (!pid)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

/* In a process of its own: its exit code. */
static int child(uint64_t seed, uint64_t steps, const struct without *without)
{
    pid_t pid = fork_child();
    if (!pid) {
        run(seed, steps, without);
        _exit(0);
    }
    return wait_for(pid);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

TEST(layout, invariants_hold_at_each_step)
{
    uint64_t seed = number_from("SLUICE_LAYOUT_SEED", 0);
    uint64_t steps = number_from("SLUICE_LAYOUT_STEPS", 40000);
    uint64_t runs = seed ? 1 : number_from("SLUICE_LAYOUT_RUNS", 6);
    for (uint64_t i = 0; i < runs; i++) {
        int code = child(seed ? seed : i + 1, steps, &(struct without){0});
        if (code)
            test_fail("SLUICE_LAYOUT_SEED=%ju SLUICE_LAYOUT_STEPS=%ju ended with %d",
                      (uintmax_t)(seed ? seed : i + 1), (uintmax_t)steps, code);
    }
}

/* One of a few seeds sees that the guard is not there. */
static bool is_noticed(const struct without *without)
{
    for (uint64_t seed = 1; seed <= 8; seed++)
        if (child(seed, 30000, without) == SIM_VIOLATED)
            return true;
    return false;
}

TEST(layout, notices_a_store_that_ignores_if_none_match)
{
    check(is_noticed(&(struct without){.fault = BUCKET_NO_IF_NONE_MATCH}));
}

TEST(layout, notices_another_store_that_ignores_if_none_match)
{
    check(is_noticed(&(struct without){.fault = BUCKET_OTHER_NO_IF_NONE_MATCH}));
}

TEST(layout, notices_reads_without_if_match)
{
    check(is_noticed(&(struct without){.fault = BUCKET_NO_IF_MATCH}));
}

TEST(layout, notices_writes_and_deletes_without_if_match)
{
    check(is_noticed(&(struct without){.fault = BUCKET_NO_IF_MATCH_WRITE}));
}

TEST(layout, notices_what_is_not_synced)
{
    check(is_noticed(&(struct without){.syncs = true}));
}

TEST(layout, notices_what_others_wrote_and_nobody_shows)
{
    check(is_noticed(&(struct without){.mutant = MODEL_NO_CONFLICT}));
}

TEST(layout, notices_a_mode_that_is_not_carried)
{
    check(is_noticed(&(struct without){.mutant = MODEL_NO_ENTRY}));
}

TEST(layout, notices_late_writes_taken_for_others)
{
    check(is_noticed(&(struct without){.mutant = MODEL_NO_LATE}));
}

static void end_world(void)
{
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(world.meta);
    test_dir_remove(world.dir);
}

/* A file "a" that is one object. */
static uint64_t make_file(void)
{
    struct meta_attr attr = {0};
    struct meta_op make = {.kind = META_MKNOD,
                           .parent = META_ROOT_INO,
                           .name = world_name("a"),
                           .attr = {.mode = S_IFREG | 0644}};
    if (world_call(&make, &attr, NULL))
        sim_violation("cannot make a file");
    while (!world.commits)
        actors_write_object(attr.ino, 0, true);
    return attr.ino;
}

static void run_task(void (*start)(struct meta *meta, struct meta_task *task), uint64_t ino)
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = ino, .done = world_noticed, .arg = &done};
    start(world.meta, &task);
    sem_wait(&done);
    if (task.result)
        sim_violation("%s", task.error.message);
}

/* Asked for a file that was just written, HEAD says that there is none. */
static void lag(void)
{
    world_begin(1, BUCKET_HEALTHY);
    bucket_calm(true);
    uint64_t ino = make_file();
    run_task(meta_settle_wait, ino);
    bucket_lag(true);
    run_task(meta_refresh, ino);
    model_check("a refresh");
    if (model_any_file() != ino || !bucket_find("a"))
        sim_violation("the file is gone");
    bucket_lag(false);
    bucket_delete_foreign("a");
    run_task(meta_refresh, ino);
    if (model_any_file())
        sim_violation("what others have deleted stays");
    end_world();
}

static int in_child(void (*run_it)(void))
{
    pid_t pid = fork_child();
    if (!pid) {
        run_it();
        _exit(0);
    }
    return wait_for(pid);
}

TEST(layout, what_head_does_not_show_yet_stays)
{
    check_int(in_child(lag), 0);
}

/* What the store refuses to delete is tried again after 1, 2, 4 … 64 s, then each 64 s. */
static void refuse_deletes(void)
{
    static const unsigned after_s[] = {1, 2, 4, 8, 16, 32, 64, 64};
    world_begin(1, BUCKET_HEALTHY);
    bucket_calm(true);
    uint64_t ino = make_file();
    struct meta_op unlink = {.kind = META_UNLINK, .parent = META_ROOT_INO, .name = world_name("a")};
    bucket_refuse(1u << STORE_DELETE | 1u << STORE_DELETE_MANY);
    if (world_call(&unlink, NULL, NULL))
        sim_violation("cannot remove the file");
    world_drop(ino);
    uint64_t before = 0, now;
    for (unsigned i = 0; i <= ARRAY_LEN(after_s); i++) {
        while (bucket_refused(&now) == i)
            sim_step();
        uint64_t ms = (now - before) / NS_PER_MS, wanted = i ? after_s[i - 1] * 1000 : 0;
        if (i && (ms < wanted || ms > wanted + 100))
            sim_violation("try %u came %llu ms after the one before", i, (unsigned long long)ms);
        before = now;
    }
    bucket_refuse(0);
    end_world();
}

TEST(layout, gc_tries_again_later_and_later)
{
    check_int(in_child(refuse_deletes), 0);
}
