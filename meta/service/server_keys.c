/* Keys of the bucket for clients that have none: derived from the service's own (s3/keys.h). Who
 * may only read gets those of another user of the bucket, whom the store lets only read; a token
 * for a directory gets none, since such keys open the whole bucket. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "server_impl.h"
#include "wire/wire_keys.h"

static struct store_signer *signer_of(const struct session *session, struct error *error)
{
    const struct server_volume *volume = session->volume;
    const struct grant *grant = &session->grant;
    if (!volume->signer) {
        error_set(error, -EOPNOTSUPP, "mounts of this volume need credentials of their own");
        return NULL;
    }
    if (grant->path) {
        error_set(
            error, -EACCES,
            "a token for a directory gets no keys of the bucket: this mount needs credentials "
            "of its own");
        return NULL;
    }
    if (grant->rights >= TOKEN_WRITE)
        return volume->signer;
    if (!volume->read_signer)
        error_set(error, -EACCES,
                  "the service has no keys that can only read (reader-profile=NAME of the volume): "
                  "this mount needs credentials of its own");
    return volume->read_signer;
}

void keys_take(struct session *session, uint64_t id)
{
    struct error error = {0};
    struct store_keys keys;
    struct server_volume *volume = session->volume;
    struct buf *out = conn_out(session->conn);
    struct store_signer *signer = signer_of(session, &error);
    int64_t now_s = (int64_t)(clock_wall_ns() / NS_PER_S);
    metric_add(volume->server->requests, 1);
    if (!signer || store_signer_keys(signer, now_s, volume->keys_s, &keys, &error) < 0) {
        wire_put_no_keys(out, id, error.code, error_text(&error));
        return;
    }
    audit_session(session, "keys", keys.access_key);
    wire_put_keys(out, id, &keys);
    store_keys_done(&keys);
}
