/*
 * Which keys of a bucket are no POSIX paths, and the list of those that are therefore hidden
 * (docs/import.md). Work thread only.
 */
#ifndef SLUICE_META_NAMES_H
#define SLUICE_META_NAMES_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum names_problem {
    NAMES_OK = 0,
    NAMES_EMPTY,      /* a//b */
    NAMES_DOTS,       /* a/./b, a/../b */
    NAMES_LONG,       /* a component of more than 255 bytes */
    NAMES_SLASH_DATA, /* a key that ends in '/' and has data */
    NAMES_BESIDE,     /* the key `a` where there are keys `a/…` */
    NAMES_PROBLEM_COUNT
};

/* One component of a path. */
enum names_problem names_check(const char *name, size_t len);

/* The order of names in a directory: bytewise. <0, 0, >0. */
int names_compare(const char *a, size_t a_len, const char *b, size_t b_len);

#define NAMES_HIDDEN_KEPT 100

struct names_hidden;
int names_hidden_new(struct names_hidden **out);
void names_hidden_free(struct names_hidden *hidden);
/* A directory is listed anew: what was found in it before counts no more. */
void names_hidden_reset(struct names_hidden *hidden, uint64_t dir);
/* The first NAMES_HIDDEN_KEPT keys are kept by name, all are counted. The same key of the same
 * directory counts once as long as it is kept. */
void names_hidden_add(struct names_hidden *hidden, uint64_t dir, const char *key,
                      enum names_problem problem);
uint64_t names_hidden_count(const struct names_hidden *hidden);
/* Sets "hidden_keys" (a number) and "hidden" (an array of {key, why}). */
void names_hidden_status(const struct names_hidden *hidden, json_t *out);

#endif
