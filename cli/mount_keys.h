/* Keys of the bucket that the metadata service gives to a mount: from its connection to the store,
 * which asks until it is freed, after the connection has ended. */
#ifndef SLUICE_CLI_MOUNT_KEYS_H
#define SLUICE_CLI_MOUNT_KEYS_H

#include <pthread.h>

#include "meta/remote.h"

struct mount_keys {
    struct store_keys_source source;
    pthread_mutex_t lock;
    struct meta *meta; /* under lock; NULL: it has ended */
};

void mount_keys_init(struct mount_keys *keys, struct meta *meta);
/* Before meta_close. */
void mount_keys_end(struct mount_keys *keys);

#endif
