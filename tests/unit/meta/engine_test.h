/* What tests of the engine share: a fresh database in a directory of its own, operations in one
 * line, and a check of all invariants at the end. */
#ifndef SLUICE_TESTS_ENGINE_TEST_H
#define SLUICE_TESTS_ENGINE_TEST_H

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/engine.h"
#include "test.h"

#define MS 1000000ull
#define SECOND 1000000000ull

struct world {
    char dir[4096], db[4200];
    struct engine *engine;
    uint64_t now; /* ns */
    struct meta_volume volume;
    struct meta_reply reply; /* of the last operation */
};

/* Formatted, root listed (an empty bucket). */
void world_init(struct world *w);
/* Unformatted, settings to be changed before world_format. */
void world_init_raw(struct world *w);
int world_format(struct world *w);
void world_close(struct world *w);
void world_reopen(struct world *w);
/* Checks all invariants, closes, removes. */
void world_done(struct world *w);

int world_apply(struct world *w, struct meta_op *op);
int world_read(struct world *w, struct meta_op *op);

struct meta_name name_of(const char *text);
/* Each returns 0 (or an inode) or -errno; the reply is in w->reply until the next one. */
int64_t make(struct world *w, uint64_t parent, const char *name, uint32_t mode);
int64_t lookup(struct world *w, uint64_t parent, const char *name);
/* By a path below the root. */
int64_t walk(struct world *w, const char *path);
int unlink_at(struct world *w, uint64_t parent, const char *name, uint32_t flags);
int rename_at(struct world *w, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, uint32_t flags);
int link_at(struct world *w, uint64_t ino, uint64_t parent, const char *name);
int drop(struct world *w, uint64_t ino);
struct meta_attr attr_of(struct world *w, uint64_t ino);
struct meta_usage usage_of(struct world *w, uint64_t ino);
int truncate_to(struct world *w, uint64_t ino, uint64_t size);
/* Inline bytes at an offset. */
int write_inline(struct world *w, uint64_t ino, uint64_t offset, const void *data, size_t len);
/* A new object of `size` as the whole content; its id or -errno. */
int64_t write_object(struct world *w, uint64_t ino, uint64_t size, uint32_t reserve_flags);
/* One object, extents from w->reply of META_EXTENTS. */
int extents(struct world *w, uint64_t ino, uint64_t offset, uint64_t length);
/* The only object of a file. */
struct meta_object object_of(struct world *w, uint64_t ino);

#endif
