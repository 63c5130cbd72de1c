#include "store_check.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define META_MAX 2048

/* Keys that are written must be UTF-8: S3 refuses others. A local directory may hold other names,
 * and what a listing shows can be read, copied and deleted. */
static bool is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        unsigned more;
        uint32_t code, min;
        if (*p < 0x80) {
            p++;
            continue;
        }
        if ((*p & 0xe0) == 0xc0) {
            more = 1, code = *p & 0x1f, min = 0x80;
        } else if ((*p & 0xf0) == 0xe0) {
            more = 2, code = *p & 0x0f, min = 0x800;
        } else if ((*p & 0xf8) == 0xf0) {
            more = 3, code = *p & 0x07, min = 0x10000;
        } else {
            return false;
        }
        p++;
        for (; more; more--, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            code = code << 6 | (*p & 0x3f);
        }
        if (code < min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
    }
    return true;
}

static int bad(struct store_op *op, const char *what)
{
    return error_set(&op->error, -EINVAL, "%s request: %s", store_kind_name(op->kind), what);
}

static int check_key(struct store_op *op, const char *key, bool written)
{
    if (!key || !*key)
        return bad(op, "no key");
    if (strnlen(key, STORE_KEY_MAX + 1) > STORE_KEY_MAX)
        return error_set(&op->error, -ENAMETOOLONG, "%s request: key of more than %d bytes",
                         store_kind_name(op->kind), STORE_KEY_MAX);
    if (written && !is_utf8(key))
        return bad(op, "the key is not UTF-8");
    return 0;
}

static int check_etag(struct store_op *op, const char *etag)
{
    if (!etag)
        return 0;
    size_t len = strnlen(etag, STORE_ETAG_MAX);
    if (!len || len >= STORE_ETAG_MAX)
        return bad(op, "an ETag of 1 to 99 bytes is needed");
    for (size_t i = 0; i < len; i++)
        if (etag[i] <= ' ' || etag[i] > '~' || etag[i] == '"')
            return bad(op, "an ETag has a quote, a space or a byte that is not printable");
    return 0;
}

static int check_conditions(struct store_op *op)
{
    if (op->if_match && op->if_none_match)
        return bad(op, "if_match and if_none_match exclude each other");
    if (op->if_match && store_etag_is_weak(op->if_match))
        return bad(op, "a write cannot be conditional on a weak ETag");
    return check_etag(op, op->if_match);
}

static bool is_meta_name(const char *name)
{
    if (!*name)
        return false;
    for (; *name; name++)
        if (!(*name >= 'a' && *name <= 'z') && !(*name >= '0' && *name <= '9') &&
            !strchr("-_.", *name))
            return false;
    return true;
}

static bool is_meta_value(const char *value)
{
    /* S3 trims outer white space, so such a value would not come back as it was given. */
    size_t len = strlen(value);
    if (len && (value[0] == ' ' || value[len - 1] == ' '))
        return false;
    for (; *value; value++)
        if (*value < ' ' || *value > '~')
            return false;
    return true;
}

static int check_meta(struct store_op *op)
{
    size_t sum = 0;
    for (unsigned i = 0; i < op->meta_count; i++) {
        const struct store_meta *m = &op->meta[i];
        if (!m->name || !m->value || !is_meta_name(m->name))
            return bad(op, "a metadata name needs a-z, 0-9, '-', '_' or '.'");
        if (!is_meta_value(m->value))
            return bad(op, "a metadata value needs printable ASCII without outer spaces");
        sum += strlen(m->name) + strlen(m->value);
        if (sum > META_MAX)
            return bad(op, "more than 2 KiB of metadata");
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(op->meta[j].name, m->name))
                return bad(op, "a metadata name is given twice");
    }
    return 0;
}

static int check_body(struct store_op *op, uint64_t max)
{
    uint64_t sum = 0;
    if (op->iov_count && !op->iov)
        return bad(op, "no body");
    for (unsigned i = 0; i < op->iov_count; i++) {
        if (op->iov[i].iov_len && !op->iov[i].iov_base)
            return bad(op, "no body");
        if (__builtin_add_overflow(sum, op->iov[i].iov_len, &sum))
            return bad(op, "the body is too long");
    }
    if (max && sum > max)
        return error_set(&op->error, -EFBIG, "%s request: %llu bytes, the store takes %llu at most",
                         store_kind_name(op->kind), (unsigned long long)sum,
                         (unsigned long long)max);
    return 0;
}

static int check_range(struct store_op *op)
{
    uint64_t end;
    if (__builtin_add_overflow(op->offset, op->length, &end) || end > INT64_MAX)
        return bad(op, "the range is out of bounds");
    return 0;
}

static int check_upload(struct store_op *op)
{
    int rc = check_key(op, op->key, true);
    if (rc)
        return rc;
    if (!op->upload_id || !*op->upload_id ||
        strnlen(op->upload_id, STORE_UPLOAD_ID_MAX + 1) > STORE_UPLOAD_ID_MAX)
        return bad(op, "no upload id, or a too long one");
    return 0;
}

static int check_part_number(const struct store_caps *caps, struct store_op *op, uint32_t number)
{
    if (number < 1 || (caps->part_count_max && number > caps->part_count_max))
        return bad(op, "the part number is out of bounds");
    return 0;
}

static int check_source(const struct store_caps *caps, struct store_op *op)
{
    if (!caps->server_copy)
        return error_set(&op->error, -EOPNOTSUPP, "%s request: the store does not copy",
                         store_kind_name(op->kind));
    if (op->source_if_match && store_etag_is_weak(op->source_if_match))
        return bad(op, "a copy cannot be conditional on a weak ETag");
    int rc = check_key(op, op->source_key, false);
    return rc ? rc : check_etag(op, op->source_if_match);
}

static int check_get(struct store_op *op)
{
    int rc = check_key(op, op->key, false);
    if (!rc)
        rc = check_etag(op, op->if_match);
    if (!rc)
        rc = check_range(op);
    if (rc)
        return rc;
    if (op->length > op->buf_len || (op->length && !op->buf))
        return bad(op, "the buffer is smaller than the range");
    return 0;
}

static int check_put(const struct store_caps *caps, struct store_op *op)
{
    int rc = check_key(op, op->key, true);
    if (!rc)
        rc = check_conditions(op);
    if (!rc)
        rc = check_body(op, caps->put_max);
    return rc ? rc : check_meta(op);
}

static int check_delete_many(struct store_op *op)
{
    if (!op->keys || op->key_count < 1 || op->key_count > STORE_DELETE_MANY_MAX)
        return bad(op, "1 to 1,000 keys are needed");
    for (unsigned i = 0; i < op->key_count; i++) {
        int rc = check_key(op, op->keys[i], false);
        if (rc)
            return rc;
    }
    return 0;
}

static int check_copy(const struct store_caps *caps, struct store_op *op)
{
    int rc = check_key(op, op->key, true);
    if (!rc)
        rc = check_source(caps, op);
    return rc ? rc : check_meta(op);
}

static int check_list(struct store_op *op)
{
    if (op->prefix && strnlen(op->prefix, STORE_KEY_MAX + 1) > STORE_KEY_MAX)
        return error_set(&op->error, -ENAMETOOLONG, "list request: prefix of more than %d bytes",
                         STORE_KEY_MAX);
    if (op->delimiter && !*op->delimiter)
        return bad(op, "an empty delimiter");
    if (op->token && !*op->token)
        return bad(op, "an empty token");
    return 0;
}

static int check_part(const struct store_caps *caps, struct store_op *op)
{
    int rc = check_upload(op);
    if (!rc)
        rc = check_part_number(caps, op, op->part_number);
    return rc ? rc : check_body(op, caps->part_max);
}

static int check_part_copy(const struct store_caps *caps, struct store_op *op)
{
    int rc = check_upload(op);
    if (!rc)
        rc = check_part_number(caps, op, op->part_number);
    if (!rc)
        rc = check_source(caps, op);
    if (!rc)
        rc = check_range(op);
    if (rc)
        return rc;
    if (!op->length && op->offset)
        return bad(op, "a range needs a length");
    if (caps->part_max && op->length > caps->part_max)
        return error_set(&op->error, -EFBIG, "%s request: the part is too large",
                         store_kind_name(op->kind));
    return 0;
}

static int check_complete(const struct store_caps *caps, struct store_op *op)
{
    int rc = check_upload(op);
    if (!rc)
        rc = check_conditions(op);
    if (!rc)
        rc = check_meta(op);
    if (rc)
        return rc;
    if (!op->parts || !op->part_count)
        return bad(op, "no parts");
    for (unsigned i = 0; i < op->part_count; i++) {
        rc = check_part_number(caps, op, op->parts[i].number);
        if (!rc && i && op->parts[i].number <= op->parts[i - 1].number)
            rc = bad(op, "part numbers are not ascending");
        if (!rc)
            rc = check_etag(op, op->parts[i].etag);
        if (rc)
            return rc;
    }
    return 0;
}

int store_check(const struct store_caps *caps, struct store_op *op)
{
    int rc;
    switch (op->kind) {
    case STORE_HEAD:
    case STORE_DELETE:
        rc = check_key(op, op->key, false);
        return rc ? rc : check_etag(op, op->if_match);
    case STORE_GET:
        return check_get(op);
    case STORE_PUT:
        return check_put(caps, op);
    case STORE_DELETE_MANY:
        return check_delete_many(op);
    case STORE_COPY:
        return check_copy(caps, op);
    case STORE_LIST:
    case STORE_MPU_LIST:
        return check_list(op);
    case STORE_MPU_CREATE:
        rc = check_key(op, op->key, true);
        return rc ? rc : check_meta(op);
    case STORE_MPU_PART:
        return check_part(caps, op);
    case STORE_MPU_PART_COPY:
        return check_part_copy(caps, op);
    case STORE_MPU_COMPLETE:
        return check_complete(caps, op);
    case STORE_MPU_ABORT:
        return check_upload(op);
    case STORE_KIND_COUNT:
        break;
    }
    return error_set(&op->error, -EINVAL, "unknown kind of store request: %d", (int)op->kind);
}
