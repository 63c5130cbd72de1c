#include "retry_verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/hash.h"

#define MD5_LEN 16
#define HEX_LEN (2 * MD5_LEN)

static uint64_t body_len(const struct store_op *op)
{
    uint64_t len = 0;
    for (unsigned i = 0; i < op->iov_count; i++)
        len += op->iov[i].iov_len;
    return len;
}

static bool has_our_metadata(const struct store_op *op, const struct store_op *head)
{
    for (unsigned i = 0; i < op->meta_count; i++) {
        const char *value = store_op_meta(head, op->meta[i].name);
        if (!value || strcmp(value, op->meta[i].value) != 0)
            return false;
    }
    return true;
}

/* The ETag of an object made of parts: the MD5 of their MD5s. False if the parts' ETags are none.
 */
static bool parts_etag(const struct store_op *op, char out[STORE_ETAG_MAX])
{
    cleanup(buf_done) struct buf digests;
    buf_init(&digests, 0);
    for (unsigned i = 0; i < op->part_count; i++) {
        uint8_t *room = buf_extend(&digests, MD5_LEN);
        if (!room || strlen(op->parts[i].etag) != HEX_LEN ||
            hash_unhex(op->parts[i].etag, HEX_LEN, room, MD5_LEN) != 0)
            return false;
    }
    uint8_t digest[MD5_LEN];
    char hex[HEX_LEN + 1];
    hash_md5(digests.data, digests.len, digest);
    hash_hex(digest, sizeof(digest), hex);
    snprintf(out, STORE_ETAG_MAX, "%s-%u", hex, op->part_count);
    return true;
}

static bool body_etag(const struct store_op *op, char out[STORE_ETAG_MAX])
{
    cleanup(buf_done) struct buf joined;
    buf_init(&joined, 0);
    const void *data = op->iov_count == 1 ? op->iov[0].iov_base : NULL;
    if (op->iov_count != 1) {
        for (unsigned i = 0; i < op->iov_count; i++)
            buf_put(&joined, op->iov[i].iov_base, op->iov[i].iov_len);
        data = joined.data;
    }
    if (buf_error(&joined))
        return false;
    uint8_t digest[MD5_LEN];
    hash_md5(data ? data : "", body_len(op), digest);
    hash_hex(digest, sizeof(digest), out);
    return true;
}

enum verify_result retry_verify(const struct store_op *op, const struct store_op *head,
                                uint64_t compare_max)
{
    char etag[STORE_ETAG_MAX];
    if (!has_our_metadata(op, head))
        return VERIFY_FOREIGN;
    if (op->kind == STORE_MPU_COMPLETE) {
        if (parts_etag(op, etag) && strcmp(etag, head->info.etag) == 0)
            return VERIFY_OURS;
        return op->meta_count > 0 ? VERIFY_OURS : VERIFY_FOREIGN;
    }
    uint64_t len = body_len(op);
    if (head->info.size != len)
        return VERIFY_FOREIGN;
    if (len == 0)
        return op->meta_count > 0 ? VERIFY_OURS : VERIFY_FOREIGN;
    if (len <= compare_max)
        return VERIFY_COMPARE;
    if (op->meta_count > 0)
        return VERIFY_OURS;
    return body_etag(op, etag) && strcmp(etag, head->info.etag) == 0 ? VERIFY_OURS : VERIFY_FOREIGN;
}

bool retry_verify_bytes(const struct store_op *put, const void *data, size_t len)
{
    if (len != body_len(put))
        return false;
    const char *p = data;
    for (unsigned i = 0; i < put->iov_count; i++) {
        if (put->iov[i].iov_len && memcmp(p, put->iov[i].iov_base, put->iov[i].iov_len) != 0)
            return false;
        p += put->iov[i].iov_len;
    }
    return true;
}
