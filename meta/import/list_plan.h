/*
 * One listing by several streams of pages at once. What is not listed yet is divided into parts,
 * (after, until], each listed by a chain of requests of its own; the pages are given out in the
 * order of keys. Together the parts are always the whole range, so no key is missed or comes twice,
 * wherever it is divided; where to divide is guessed by the pages that came (list_space.h).
 *
 * It begins with one stream, and takes one more with each page that came: small listings cost no
 * request more. Where the keys end is looked for by one request at a time. Parts that were found
 * empty are counted, and when they are too many of the requests nothing is divided any more. Pure:
 * what to ask and what to do with an answer; requests are bucket_list.c's and listing.c's. One
 * thread at a time.
 */
#ifndef SLUICE_META_LIST_PLAN_H
#define SLUICE_META_LIST_PLAN_H

#include "base/error.h"
#include "list_space.h"

#define LIST_STREAMS 8 /* of a store whose listings do not hold each other up */

struct list_part;

/* A page on its way; embedded in the caller's request. */
struct list_page {
    struct list_page *next; /* of its part */
    struct list_part *part;
    const struct store_list *answer; /* NULL: not here yet */
    size_t count;                    /* entries of it that belong to its part */
    bool last;                       /* set with list_plan_take: nothing follows */
    char *begin;                     /* keys behind this one; NULL: from the start. Owned */
    char *end; /* up to this one; NULL: to the end. Owned; set with its answer */
};

/* Keys of a listing that are not asked for: those that begin with `skip`. */
struct list_range {
    const char *prefix; /* borrowed, as skip */
    const char *after;  /* keys behind it; NULL or "": all */
    const char *skip;   /* NULL: none */
    bool folders;       /* with "/" as the delimiter */
};

struct list_plan {
    struct list_range range;
    struct list_space space;
    struct list_part *parts; /* in the order of keys */
    unsigned streams;        /* may be changed at any time */
    unsigned in_flight, pages;
    uint64_t answered, empty, divided;
    bool unordered;     /* the server gives keys in another order: one stream only */
    char *first, *last; /* of a page that came lately, with more behind it. Owned */
    char *final;        /* no key of the listing is behind this one; NULL: not known. Owned */
};

/* streams 1: never divided. -ENOMEM. list_plan_done also after an error. */
int list_plan_init(struct list_plan *plan, const struct list_range *range, unsigned streams);
/* After all pages were taken or dropped. */
void list_plan_done(struct list_plan *plan);

/* What is to be asked next, for which `page` (zeroed) stands from now on: one of *token and
 * *start_after, or none, valid until the next call. False: nothing now. */
bool list_plan_ask(struct list_plan *plan, struct list_page *page, const char **start_after,
                   const char **token);
/* The answer, which stays as it is until the page was taken. -ENOMEM · -EIO: the server does not
 * list in order. */
int list_plan_answer(struct list_plan *plan, struct list_page *page,
                     const struct store_list *answer);
/* The next page in the order of keys, or NULL: it is not here yet, or there is none. */
struct list_page *list_plan_take(struct list_plan *plan);
/* A page that was not taken, here or not, to be freed: at the end, until NULL. */
struct list_page *list_plan_drop(struct list_plan *plan);
/* A page that was taken last is to be asked for once more: its range is the first part again.
 * -ENOMEM. */
int list_plan_again(struct list_plan *plan, const struct list_page *page);
/* Frees what the page owns. */
void list_page_done(struct list_page *page);

#endif
