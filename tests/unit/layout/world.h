/*
 * The volume that the actors use, over the bucket of bucket.h, and the calls that all of them make.
 */
#ifndef SLUICE_TESTS_WORLD_H
#define SLUICE_TESTS_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "bucket.h"
#include "meta/meta.h"

#define WORLD_DIRS 2

extern struct world {
    char dir[4096], database[4200];
    struct meta_config config;
    struct meta_volume format;
    struct meta *meta;
    bool down, stop; /* the process is dead; the actors are to end */
    unsigned foreign;
    unsigned commits, renames, reads, crashes, puts, moves;
} world;

/* The names of directories, at the root. */
extern const char *const world_dirs[WORLD_DIRS];

/* A new volume, opened. */
void world_begin(uint64_t seed, enum bucket_fault fault);
void world_open(void);
/* The process dies. What it did is done; its memory is gone. */
void world_crash(void);

/* Waits while the process is dead. -ESHUTDOWN: it was the end meanwhile. */
int world_ask(struct meta_request *request);
/* The same, of which only these are wanted (may be NULL). */
int world_call(const struct meta_op *op, struct meta_attr *attr, struct meta_attr *replaced);
struct meta_name world_name(const char *text);
/* Drawn. */
const char *world_any_file(void);
uint64_t world_any_dir(bool make);
/* Nobody uses the inode, which has no name, any more. */
void world_drop(uint64_t ino);
/* Posts the semaphore that is the task's arg. */
void world_noticed(struct meta_task *task);

#endif
