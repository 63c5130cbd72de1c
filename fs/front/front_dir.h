/*
 * Positions in a directory that is being read: which name a cookie stands for.
 *
 * A directory is listed in the order of its names, and each reply lists afresh what comes after the
 * last name of the one before. Names that come or go meanwhile do not move the others: every entry
 * that was there all the time is seen exactly once. A cookie is the number of an entry in what this
 * handle gave; a number is never used twice, so that old positions (telldir) stay right when a
 * reader jumps.
 *
 * Memory: the names that were given, each without what it shares with the name before (a few bytes
 * for each), until the handle is closed or rewound. Not thread-safe.
 */
#ifndef SLUICE_FS_FRONT_DIR_H
#define SLUICE_FS_FRONT_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIR_COOKIE_DOT 1
#define DIR_COOKIE_DOTDOT 2
#define DIR_COOKIE_FIRST 3 /* of the first name */
#define DIR_NAME_MAX 255

struct buf;

struct dir_positions {
    struct buf *chunks; /* of so many names each */
    size_t count, cap;
    uint64_t next; /* cookie of the next entry */
    char last[DIR_NAME_MAX];
    size_t last_len; /* of the name of the entry `next - 1`; 0: there is none */
};

void dir_positions_init(struct dir_positions *p);
void dir_positions_done(struct dir_positions *p);
/* All positions are forgotten: the next entry is the first. */
void dir_positions_rewind(struct dir_positions *p);
/* The entry that was listed next. Returns its cookie; 0 without memory, and then nothing changed.
 * len is 1..DIR_NAME_MAX. */
uint64_t dir_positions_add(struct dir_positions *p, const char *name, size_t len);
/* The name to list after, to continue behind `cookie`: len 0 for the start. -EINVAL: not a cookie
 * of this handle. */
int dir_positions_find(const struct dir_positions *p, uint64_t cookie, char name[DIR_NAME_MAX],
                       size_t *len);

/*
 * The kernel may keep the listing of a directory, for all its handles, with the cookies of the one
 * that listed it. Who reads from there is sent on to us when others have changed the directory
 * meanwhile: then we must know what that one's cookies stand for. And nobody else may list it anew
 * into the kernel's cache, where the cookies that he has would be other names, or none. So one
 * handle at a time uses the kernel's listing, and has the positions that it was made with; they are
 * kept for the next one. Thread-safe.
 */
struct dir_kept;
/* So much of what nobody has open. */
#define DIR_KEPT_DIRECTORIES 16384
#define DIR_KEPT_NAMES (1u << 20)
int dir_kept_new(struct dir_kept **out);
void dir_kept_free(struct dir_kept *kept); /* all were given back */
/* The positions that go with the kernel's listing of the directory, until dir_kept_give. NULL:
 * another handle has them, or there is no memory: then it must be listed past the kernel. *known:
 * they go with what the kernel has now; else that must be dropped. */
struct dir_positions *dir_kept_take(struct dir_kept *kept, uint64_t ino, bool *known);
void dir_kept_give(struct dir_kept *kept, struct dir_positions *positions);

#endif
