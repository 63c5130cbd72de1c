/*
 * Which inodes the kernel knows, and how many lookups it was given of each: it gives them back by
 * FORGET. An inode whose last name is gone lives on until then ("sustained").
 *
 * As large as the kernel's own cache of this mount, 16 to 32 bytes for each. Any thread; in shards,
 * each with its lock.
 */
#ifndef SLUICE_FS_FRONT_INODES_H
#define SLUICE_FS_FRONT_INODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inodes;

int inodes_new(struct inodes **out);
void inodes_free(struct inodes *t);
/* The kernel is given `count` lookups more. -ENOMEM. ino is not 0. */
int inodes_add(struct inodes *t, uint64_t ino, uint64_t count);
/* The kernel gives some back. True: it knows the inode no longer, and the inode has no name: it is
 * to be dropped. */
bool inodes_forget(struct inodes *t, uint64_t ino, uint64_t count);
/* The last name went. True: the kernel does not know it, drop it now. */
bool inodes_unlinked(struct inodes *t, uint64_t ino);
/* It has a name again. */
void inodes_linked(struct inodes *t, uint64_t ino);
bool inodes_known(struct inodes *t, uint64_t ino);
uint64_t inodes_count(struct inodes *t);
/* Calls fn for each inode that was there during the whole call; without locks. */
void inodes_each(struct inodes *t, void (*fn)(void *arg, uint64_t ino), void *arg);

#endif
