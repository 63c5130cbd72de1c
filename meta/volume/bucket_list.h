/* A flat listing, in order, by several streams ahead of who reads it (list_plan.h). Blocking. */
#ifndef SLUICE_META_BUCKET_LIST_H
#define SLUICE_META_BUCKET_LIST_H

#include <pthread.h>

#include "import/list_plan.h"
#include "s3/store.h"

struct bucket_list {
    struct store *store;
    enum store_kind kind;
    struct list_plan plan;   /* who reads */
    struct bucket_page *now; /* what was given out last */
    struct store_list view;
    int failed; /* of the first request that failed */
    struct error error;
    unsigned in_flight;
    pthread_mutex_t lock; /* a leaf; the store's loop thread takes it */
    pthread_cond_t came;
    struct bucket_page *answers; /* under lock: have come, and were not looked at */
};

/* STORE_LIST of the keys of a range, or STORE_MPU_LIST (range: prefix only). The range's strings
 * stay as they are until bucket_list_done. */
void bucket_list_init(struct bucket_list *list, struct store *store, enum store_kind kind,
                      const struct list_range *range);
/* 1: *page is the next page (its next_token is not used), valid until the next call; 0: the end;
 * -errno. */
int bucket_list_next(struct bucket_list *list, const struct store_list **page, struct error *error);
void bucket_list_done(struct bucket_list *list);

#endif
