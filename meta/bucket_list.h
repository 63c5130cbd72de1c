/* A flat listing, a page ahead of who reads it. Blocking. */
#ifndef SLUICE_META_BUCKET_LIST_H
#define SLUICE_META_BUCKET_LIST_H

#include <semaphore.h>

#include "meta/op.h"
#include "s3/store.h"

struct bucket_page {
    struct store_op op;
    char *token; /* owned */
    sem_t done;
    bool asked;
};

struct bucket_list {
    struct store *store;
    enum store_kind kind; /* STORE_LIST or STORE_MPU_LIST */
    const char *prefix;
    struct bucket_page pages[2];
    unsigned at;
    bool begun;
};

void bucket_list_init(struct bucket_list *list, struct store *store, enum store_kind kind,
                      const char *prefix);
/* 1: *page is the next page, valid until the next call; 0: the end; -errno. */
int bucket_list_next(struct bucket_list *list, const struct store_list **page, struct error *error);
void bucket_list_done(struct bucket_list *list);

#endif
