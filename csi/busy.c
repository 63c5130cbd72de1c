#include "busy.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct entry {
    char *key;
    UT_hash_handle hh;
};

struct busy {
    pthread_mutex_t lock; /* guards the table; a leaf */
    struct entry *entries;
};

struct busy *busy_new(void)
{
    struct busy *busy = calloc(1, sizeof(*busy));
    if (busy)
        pthread_mutex_init(&busy->lock, NULL);
    return busy;
}

void busy_free(struct busy *busy)
{
    if (!busy)
        return;
    pthread_mutex_destroy(&busy->lock);
    free(busy);
}

static void entry_free(struct entry *e)
{
    if (e)
        free(e->key);
    free(e);
}

bool busy_enter(struct busy *busy, const char *key)
{
    struct entry *fresh = calloc(1, sizeof(*fresh)), *there = NULL;
    if (fresh)
        fresh->key = strdup(key);
    if (!fresh || !fresh->key) {
        entry_free(fresh);
        return false;
    }
    pthread_mutex_lock(&busy->lock);
    HASH_FIND_STR(busy->entries, key, there);
    if (!there)
        HASH_ADD_KEYPTR(hh, busy->entries, fresh->key, strlen(fresh->key), fresh);
    pthread_mutex_unlock(&busy->lock);
    if (there)
        entry_free(fresh);
    return !there;
}

void busy_leave(struct busy *busy, const char *key)
{
    struct entry *there = NULL;
    pthread_mutex_lock(&busy->lock);
    HASH_FIND_STR(busy->entries, key, there);
    if (there)
        HASH_DEL(busy->entries, there);
    pthread_mutex_unlock(&busy->lock);
    entry_free(there);
}
