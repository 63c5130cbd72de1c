/* Private to meta: the answer to KEYS (docs/protocol.md, "Keys of the bucket"). As those of
 * wire.h. */
#ifndef SLUICE_META_WIRE_KEYS_H
#define SLUICE_META_WIRE_KEYS_H

#include "s3/keys.h"
#include "wire.h"

struct wire_keys {
    uint64_t id;
    int result;            /* 0 or -errno: then `text` says why, and there are no keys */
    struct wire_text text; /* when decoded */
    struct store_keys keys;
};

void wire_put_keys(struct buf *b, uint64_t id, const struct store_keys *keys);
void wire_put_no_keys(struct buf *b, uint64_t id, int code, const char *text);
/* out->keys is the caller's after 0. */
int wire_get_keys(const void *data, size_t len, struct wire_keys *out);

#endif
