#include "mount_keys.h"

#include <errno.h>
#include <string.h>

/* The lock is held while the question is sent, which waits for nothing. */
static int fetch(void *arg, struct store_keys *out, struct error *error)
{
    struct mount_keys *keys = arg;
    struct meta_remote_keys ask;
    pthread_mutex_lock(&keys->lock);
    int r = keys->meta ? meta_remote_keys_ask(keys->meta, &ask) : -ECANCELED;
    pthread_mutex_unlock(&keys->lock);
    if (r == 0) {
        r = meta_remote_keys_wait(&ask);
        if (r < 0 && ask.error.code)
            return error_set(error, r, "%s", error_text(&ask.error));
    }
    if (r < 0)
        return error_set(error, r, "asking the metadata service: %s", strerror(-r));
    *out = ask.keys;
    return 0;
}

void mount_keys_init(struct mount_keys *keys, struct meta *meta)
{
    *keys = (struct mount_keys){.source = {.fetch = fetch, .arg = keys}, .meta = meta};
    pthread_mutex_init(&keys->lock, NULL);
}

void mount_keys_end(struct mount_keys *keys)
{
    if (!keys->source.fetch)
        return;
    pthread_mutex_lock(&keys->lock);
    keys->meta = NULL;
    pthread_mutex_unlock(&keys->lock);
}
