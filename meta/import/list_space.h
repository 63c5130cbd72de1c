/*
 * How keys are spread, as far as it was seen: to guess which key stands some pages behind one that
 * is known. Any guess is allowed, as a place to divide a listing at; a good one divides it evenly.
 *
 * A key is read as a number whose digits are its bytes behind the prefix, each place with the bytes
 * that were seen there (of digits and letters, if two differ: all of their kind). Pure; no I/O.
 */
#ifndef SLUICE_META_LIST_SPACE_H
#define SLUICE_META_LIST_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "s3/store.h"

#define LIST_PLACES 64 /* places behind the prefix that count */
/* Behind all keys that begin with what stands before it. */
#define LIST_BEHIND "\xf4\x8f\xbf\xbf"

struct list_space {
    size_t prefix_len;
    bool folders; /* what stands behind the first '/' does not count */
    struct {
        uint64_t seen[4]; /* bytes, one bit each */
        bool ends;        /* a key ended before this place */
    } places[LIST_PLACES];
};

void list_space_init(struct list_space *space, const char *prefix, bool folders);
/* `key` begins with the prefix. */
void list_space_learn(struct list_space *space, const char *key);

struct list_guess {
    const char *first, *last; /* of a page that was seen: it tells how dense keys are */
    const char *from;         /* ahead of this one */
    const char *until;        /* and before this one, with as much again behind; NULL: no end */
    unsigned pages;           /* by so many pages */
};

/* False: there is no such key to be named. */
bool list_space_ahead(const struct list_space *space, const struct list_guess *guess,
                      char out[STORE_KEY_MAX + 1]);

#endif
