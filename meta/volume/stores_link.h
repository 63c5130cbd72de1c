/* The stores of a volume as stores.c connects and changes them, and stores_show.c shows them. */
#ifndef SLUICE_META_STORES_LINK_H
#define SLUICE_META_STORES_LINK_H

#include <pthread.h>

#include "stores.h"

/* One other store. `info` changes under stores->lock, by its thread or who has `changing`. */
struct link {
    struct stores *stores;
    struct meta_store info;
    pthread_t thread;
    bool has_thread;

    /* under stores->lock */
    struct owner *owner;   /* NULL: not taken (yet), or read-only */
    bool connected, ended; /* ended: its first try */
    bool stop;             /* no more tries */
    char why[256];
};

struct stores {
    struct meta *meta;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    struct link *links[META_STORES_MAX + 1]; /* by number */
    bool stopping;
    bool changing; /* somebody attaches or detaches */
};

#endif
