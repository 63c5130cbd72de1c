/*
 * Directories whose names this client knows all: the service told them, and takes that back before
 * a change by others is acknowledged. A name that is not among them needs no question. What this
 * client changes itself is followed here.
 *
 * Names may be counted that are not there (then the service is asked), never the other way round: a
 * name counts from the moment that it is asked for, and until the service has said that it is gone.
 * Whose name it is, is not known while changes of it are under way, nor after several that were
 * under way at once.
 * Bounded: the directory that was not used for the longest time is forgotten first. No clock, no
 * I/O, no lock.
 */
#ifndef SLUICE_META_REMOTE_NAMES_H
#define SLUICE_META_REMOTE_NAMES_H

#include "meta/op.h"

#define REMOTE_NAMES_DIRECTORIES 4096
#define REMOTE_NAMES_MAX 65536 /* of all directories */

struct names_dir;
struct remote_names {
    struct names_dir *dirs, *order; /* by inode; the one used last is last */
    size_t count;                   /* names */
    uint64_t begun;                 /* directories so far */
};

/* Which directories a change was followed in; of what is begun later it says nothing. */
struct names_mark {
    uint64_t parent, new_parent;
};

void remote_names_drop(struct remote_names *names, uint64_t ino);
void remote_names_drop_all(struct remote_names *names);
/* The directory has these names and no others. */
void remote_names_begin(struct remote_names *names, uint64_t ino, const struct meta_entry *entries,
                        size_t count);
/* The name is surely not there. */
bool remote_names_absent(struct remote_names *names, uint64_t ino, const struct meta_name *name);
/* Its inode, or 0: not known. */
uint64_t remote_names_find(const struct remote_names *names, uint64_t ino,
                           const struct meta_name *of);
/* The service has said so, and the directory has not changed since it was asked. */
void remote_names_found(struct remote_names *names, uint64_t ino, const struct meta_name *of,
                        uint64_t found);
/* A change is submitted. */
struct names_mark remote_names_asked(struct remote_names *names, const struct meta_op *op);
/* The service has answered. */
void remote_names_answered(struct remote_names *names, const struct meta_op *op, int result,
                           const struct meta_reply *reply, struct names_mark mark);

#endif
