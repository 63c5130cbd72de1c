/* Keys of the bucket that the service gives to this mount: s3/keys.h. */
#include <errno.h>
#include <stdlib.h>

#include "remote_impl.h"
#include "wire/wire_keys.h"

int meta_remote_keys_ask(struct meta *meta, struct meta_remote_keys *ask)
{
    ask->result = 0;
    ask->keys = (struct store_keys){0};
    error_clear(&ask->error);
    if (!meta->remote)
        return -EINVAL;
    struct remote_call *call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    sem_init(&ask->answered, 0, 0);
    call->kind = REMOTE_KEYS;
    call->keys = ask;
    int rc = remote_call(meta->remote, call);
    if (rc)
        sem_destroy(&ask->answered);
    return rc;
}

int meta_remote_keys_wait(struct meta_remote_keys *ask)
{
    while (sem_wait(&ask->answered) < 0 && errno == EINTR)
        ;
    sem_destroy(&ask->answered);
    return ask->result;
}

int remote_keys_answer(struct remote *remote, const uint8_t *data, size_t len)
{
    struct wire_keys m;
    int rc = wire_get_keys(data, len, &m);
    if (rc < 0)
        return rc;
    struct remote_call *call = remote_take(remote, m.id, REMOTE_KEYS);
    if (!call) {
        store_keys_done(&m.keys);
        return 0;
    }
    struct meta_remote_keys *ask = call->keys;
    ask->keys = m.keys;
    ask->result = m.result;
    if (m.result)
        error_set(&ask->error, m.result, "%.*s", (int)m.text.len, m.text.bytes);
    free(call);
    sem_post(&ask->answered);
    return 0;
}
