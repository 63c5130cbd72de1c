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

#endif
