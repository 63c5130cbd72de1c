#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "conformance_cases.h"
#include "conformance_lib.h"

static void upload_of_two_parts(struct run *r)
{
    struct store_part parts[2];
    size_t len = r->part_size + 1234;
    uint8_t *data = run_pattern(r, len, 1);
    const char *id = run_create(r, "d/k");
    want_int(r, run_part(r, "d/k", id, 1, data, r->part_size, &parts[0]), 0);
    want_int(r, run_part(r, "d/k", id, 2, data + r->part_size, 1234, &parts[1]), 0);
    want_int(r, run_head(r, "d/k"), -ENOENT);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "");
    want_int(r, run_complete(r, "d/k", id, parts, 2), 0);
    const char *etag = run_keep(r, r->op.info.etag);
    want(r, *etag);
    run_want_object(r, "d/k", data, len);
    want_str(r, r->op.info.etag, etag);
}

static void upload_of_one_short_part(struct run *r)
{
    struct store_part part;
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "short", 5, &part), 0);
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    run_want_object(r, "k", "short", 5);
}

static void upload_of_one_empty_part(struct run *r)
{
    struct store_part part;
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "", 0, &part), 0);
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    run_want_object(r, "k", "", 0);
}

static void upload_in_any_order_with_gaps(struct run *r)
{
    static const uint32_t numbers[] = {7, 1, 10000, 3};
    static const unsigned sorted[] = {1, 3, 0, 2};
    struct store_part parts[4], ordered[4];
    size_t len = 4 * r->part_size;
    uint8_t *data = run_pattern(r, len, 2);
    const char *id = run_create(r, "k");
    for (unsigned i = 0; i < 4; i++)
        for (unsigned j = 0; j < 4; j++)
            if (sorted[j] == i)
                want_int(r,
                         run_part(r, "k", id, numbers[i], data + j * r->part_size, r->part_size,
                                  &parts[i]),
                         0);
    for (unsigned j = 0; j < 4; j++)
        ordered[j] = parts[sorted[j]];
    want_int(r, run_complete(r, "k", id, ordered, 4), 0);
    run_want_object(r, "k", data, len);
}

static void upload_of_parts_of_many_sizes(struct run *r)
{
    struct store_part parts[4];
    size_t p = r->part_size, len = 0;
    const size_t sizes[] = {p + 1, p, 2 * p + 77, 3};
    uint8_t *data = run_pattern(r, 5 * p, 3);
    const char *id = run_create(r, "k");
    for (unsigned i = 0; i < 4; i++) {
        want_int(r, run_part(r, "k", id, i + 1, data + len, sizes[i], &parts[i]), 0);
        len += sizes[i];
    }
    want_int(r, run_complete(r, "k", id, parts, 4), 0);
    run_want_object(r, "k", data, len);
}

static void short_part_may_come_first(struct run *r)
{
    struct store_part parts[3];
    size_t p = r->part_size, len = 2 * p + 65536;
    uint8_t *data = run_pattern(r, len, 4);
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 3, data + 2 * p, 65536, &parts[2]), 0);
    want_int(r, run_part(r, "k", id, 2, data + p, p, &parts[1]), 0);
    want_int(r, run_part(r, "k", id, 1, data, p, &parts[0]), 0);
    want_int(r, run_complete(r, "k", id, parts, 3), 0);
    run_want_object(r, "k", data, len);
}

static void parts_may_be_replaced(struct run *r)
{
    struct store_part parts[3], old;
    size_t p = r->part_size, len = 3 * p;
    uint8_t *data = run_pattern(r, len, 5), *wrong = run_pattern(r, p + 5, 6);
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, wrong, p, &old), 0);
    for (unsigned i = 0; i < 3; i++)
        want_int(r, run_part(r, "k", id, i + 1, data + i * p, p, &parts[i]), 0);
    want_int(r, run_part(r, "k", id, 3, wrong, 5, &old), 0);
    want_int(r, run_part(r, "k", id, 3, data + 2 * p, p, &parts[2]), 0);
    want_int(r, run_complete(r, "k", id, parts, 3), 0);
    run_want_object(r, "k", data, len);
}

static void parts_may_be_left_out(struct run *r)
{
    struct store_part parts[3];
    size_t p = r->part_size;
    uint8_t *data = run_pattern(r, 3 * p, 7);
    const char *id = run_create(r, "k");
    for (unsigned i = 0; i < 3; i++)
        want_int(r, run_part(r, "k", id, i + 1, data + i * p, p, &parts[i]), 0);
    want_int(r, run_complete(r, "k", id, parts, 2), 0);
    run_want_object(r, "k", data, 2 * p);
}

static void parts_at_once(struct run *r)
{
    enum { COUNT = 12 };
    struct store_op *ops = run_alloc(r, COUNT * sizeof(*ops));
    struct store_part parts[COUNT];
    size_t p = r->part_size, len = (COUNT - 1) * p + 99;
    uint8_t *data = run_pattern(r, len, 8);
    const char *id = run_create(r, "k");
    for (unsigned i = 0; i < COUNT; i++) {
        struct store_op *op = run_begin(r, STORE_MPU_PART, "k");
        op->upload_id = id;
        op->part_number = i + 1;
        run_body(r, op, data + i * p, i + 1 < COUNT ? p : 99);
        ops[i] = *op;
    }
    run_together(r, ops, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        want_int(r, ops[i].result, 0);
        want_int(r, ops[i].out_part.number, i + 1);
        parts[i] = ops[i].out_part;
        store_op_reset(&ops[i]);
    }
    want_int(r, run_complete(r, "k", id, parts, COUNT), 0);
    run_want_object(r, "k", data, len);
}

static void part_has_its_checksum(struct run *r)
{
    struct store_part part = {0};
    char expected[16];
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 4, "123456789", 9, &part), 0);
    want_int(r, part.number, 4);
    want(r, *part.etag);
    uint32_t crc = __builtin_bswap32(hash_crc32c(0, "123456789", 9));
    hash_base64(&crc, 4, expected);
    want_str(r, part.crc32c, expected);
}

static void part_with_another_checksum_than_promised_is_refused(struct run *r)
{
    struct store_part part = {0};
    const char *id = run_create(r, "k");
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        struct store_op *op = run_begin(r, STORE_MPU_PART, "k");
        op->upload_id = id;
        op->part_number = 1;
        op->has_crc32c = true;
        op->crc32c = hash_crc32c(0, "123456789", 9);
        run_body(r, op, wrong ? "123456780" : "123456789", 9);
        want_int(r, run_do(r), wrong ? -EBADMSG : 0);
        if (!wrong)
            part = r->op.out_part;
    }
    /* The part that was there before stands. */
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    run_want_object(r, "k", (const uint8_t *)"123456789", 9);
}

static void too_small_parts_are_refused(struct run *r)
{
    struct store_part parts[2];
    const char *id = run_create(r, "k");
    uint8_t *data = run_pattern(r, r->part_size, 9);
    want_int(r, run_part(r, "k", id, 1, data, r->caps->part_min - 1, &parts[0]), 0);
    want_int(r, run_part(r, "k", id, 2, data, 10, &parts[1]), 0);
    want_int(r, run_complete(r, "k", id, parts, 2), -EINVAL);
    want_int(r, run_head(r, "k"), -ENOENT);
}

static void wrong_parts_are_refused(struct run *r)
{
    struct store_part part, wrong;
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "text", 4, &part), 0);
    wrong = part;
    strcpy(wrong.etag, "0123456789abcdef0123456789abcdef");
    want_int(r, run_complete(r, "k", id, &wrong, 1), -EINVAL);
    wrong = part;
    wrong.number = 2;
    want_int(r, run_complete(r, "k", id, &wrong, 1), -EINVAL);
    struct store_part twice[2] = {part, part};
    want_int(r, run_complete(r, "k", id, twice, 2), -EINVAL);
    want_int(r, run_head(r, "k"), -ENOENT);
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    run_want_object(r, "k", "text", 4);
}

static void metadata_of_create_is_the_objects(struct run *r)
{
    const struct store_meta meta[] = {{"volume", "v1"}, {"mode", "0600"}};
    struct store_op *op = run_begin(r, STORE_MPU_CREATE, "k");
    op->meta = meta;
    op->meta_count = 2;
    want_int(r, run_do(r), 0);
    const char *id = r->op.out_upload_id ? run_keep(r, r->op.out_upload_id) : "none";
    struct store_part part;
    want_int(r, run_part(r, "k", id, 1, "text", 4, &part), 0);
    op = run_begin(r, STORE_MPU_COMPLETE, "k");
    op->upload_id = id;
    op->parts = &part;
    op->part_count = 1;
    op->meta = meta;
    op->meta_count = 2;
    want_int(r, run_do(r), 0);
    want_int(r, run_head(r, "k"), 0);
    want_int(r, r->op.out_meta_count, 2);
    want_str(r, store_op_meta(&r->op, "volume"), "v1");
}

static void complete_replaces(struct run *r)
{
    struct store_part part;
    want_int(r, run_put(r, "k", "what was there before"), 0);
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "new", 3, &part), 0);
    run_want_object(r, "k", "what was there before", 21);
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    run_want_object(r, "k", "new", 3);
}

static int complete_if(struct run *r, const char *id, const struct store_part *part, bool none,
                       const char *match)
{
    struct store_op *op = run_begin(r, STORE_MPU_COMPLETE, "k");
    op->upload_id = id;
    op->parts = part;
    op->part_count = 1;
    op->if_none_match = none;
    op->if_match = match;
    return run_do(r);
}

static void complete_if_none_match(struct run *r)
{
    struct store_part part;
    want_int(r, run_put(r, "k", "there"), 0);
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "new", 3, &part), 0);
    want_int(r, complete_if(r, id, &part, true, NULL), -EEXIST);
    run_want_object(r, "k", "there", 5);
    want_int(r, run_abort(r, "k", id), 0);
    want_int(r, run_delete(r, "k"), 0);
    id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "new", 3, &part), 0);
    want_int(r, complete_if(r, id, &part, true, NULL), 0);
    run_want_object(r, "k", "new", 3);
}

static void complete_if_match(struct run *r)
{
    struct store_part part;
    want_int(r, run_put(r, "k", "one"), 0);
    const char *first = run_keep(r, r->op.info.etag);
    want_int(r, run_put(r, "k", "two"), 0);
    const char *second = run_keep(r, r->op.info.etag);
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "new", 3, &part), 0);
    want_int(r, complete_if(r, id, &part, false, first), -EEXIST);
    run_want_object(r, "k", "two", 3);
    want_int(r, run_abort(r, "k", id), 0);
    id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "new", 3, &part), 0);
    want_int(r, complete_if(r, id, &part, false, second), 0);
    run_want_object(r, "k", "new", 3);
}

static void complete_if_none_match_has_one_winner(struct run *r)
{
    enum { COUNT = 8 };
    struct store_op *ops = run_alloc(r, COUNT * sizeof(*ops));
    struct store_part *parts = run_alloc(r, COUNT * sizeof(*parts));
    for (unsigned i = 0; i < COUNT; i++) {
        const char *id = run_create(r, "k"), *text = run_key(r, "upload %u", i);
        want_int(r, run_part(r, "k", id, 1, text, strlen(text), &parts[i]), 0);
        struct store_op *op = run_begin(r, STORE_MPU_COMPLETE, "k");
        op->upload_id = id;
        op->parts = &parts[i];
        op->part_count = 1;
        op->if_none_match = true;
        ops[i] = *op;
    }
    run_together(r, ops, COUNT);
    unsigned winners = 0, winner = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (!ops[i].result)
            winner = i, winners++;
        else
            want_int(r, ops[i].result, -EEXIST);
        store_op_reset(&ops[i]);
    }
    want_int(r, winners, 1);
    run_want_object(r, "k", run_key(r, "upload %u", winner), 8);
}

static void complete_ends_the_upload(struct run *r)
{
    struct store_part part;
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "text", 4, &part), 0);
    want_int(r, run_complete(r, "k", id, &part, 1), 0);
    want_int(r, run_part(r, "k", id, 2, "late", 4, NULL), -ENOENT);
    /* S3 may answer a repeated COMPLETE with the result of the first. */
    int rc = run_complete(r, "k", id, &part, 1);
    want(r, !rc || rc == -ENOENT);
    run_want_object(r, "k", "text", 4);
}

static void abort_ends_the_upload(struct run *r)
{
    struct store_part part;
    const char *id = run_create(r, "k");
    want_int(r, run_part(r, "k", id, 1, "text", 4, &part), 0);
    want_int(r, run_abort(r, "k", id), 0);
    want_int(r, run_part(r, "k", id, 2, "late", 4, NULL), -ENOENT);
    want_int(r, run_complete(r, "k", id, &part, 1), -ENOENT);
    want_str(r, r->op.error.store_code, "NoSuchUpload");
    want_int(r, run_abort(r, "k", id), 0);
    want_int(r, run_head(r, "k"), -ENOENT);
}

static const char *listed_id(const struct run *r, size_t i)
{
    const struct store_entry *e = &r->op.out_list.entries[i];
    return e->upload_id ? e->upload_id : e->etag;
}

static void uploads_are_listed(struct run *r)
{
    const char *a = run_create(r, "u/a"), *b = run_create(r, "u/b"), *c = run_create(r, "c");
    struct store_op *op = run_begin(r, STORE_MPU_LIST, NULL);
    op->prefix = run_key(r, "%su/", r->prefix);
    want_int(r, run_do(r), 0);
    want_str(r, run_names(r), "u/a u/b");
    if (r->op.out_list.count == 2) {
        want_str(r, listed_id(r, 0), a);
        want_str(r, listed_id(r, 1), b);
        want(r, r->op.out_list.entries[0].mtime_ns > 0);
    }
    want_int(r, run_abort(r, "u/a", a), 0);
    want_int(r, run_abort(r, "u/b", b), 0);
    want_int(r, run_abort(r, "c", c), 0);
    run_begin(r, STORE_MPU_LIST, NULL)->prefix = r->prefix;
    want_int(r, run_do(r), 0);
    want_str(r, run_names(r), "");
}

static int part_copy(struct run *r, const char *id, uint32_t number, uint64_t offset,
                     uint64_t length, const char *if_match, struct store_part *out)
{
    struct store_op *op = run_begin(r, STORE_MPU_PART_COPY, "k");
    op->upload_id = id;
    op->part_number = number;
    op->source_key = run_key(r, "%sfrom", r->prefix);
    op->source_if_match = if_match;
    op->offset = offset;
    op->length = length;
    int rc = run_do(r);
    if (!rc)
        *out = r->op.out_part;
    return rc;
}

static void parts_by_copy(struct run *r)
{
    struct store_part parts[3];
    size_t p = r->part_size, len = 2 * p + 50;
    uint8_t *data = run_pattern(r, len, 10);
    want_int(r, run_put_bytes(r, "from", data, len), 0);
    const char *etag = run_keep(r, r->op.info.etag);
    struct store_op *op = run_begin(r, STORE_MPU_CREATE, "k");
    op->copied_parts = true;
    want_int(r, run_do(r), 0);
    const char *id = r->op.out_upload_id ? run_keep(r, r->op.out_upload_id) : "none";
    /* The second half, own bytes, all. */
    want_int(r, part_copy(r, id, 1, p + 50, p, etag, &parts[0]), 0);
    want_int(r, part_copy(r, id, 3, 0, 0, etag, &parts[2]), 0);
    op = run_begin(r, STORE_MPU_PART, "k");
    op->upload_id = id;
    op->part_number = 2;
    op->copied_parts = true;
    run_body(r, op, data, p);
    want_int(r, run_do(r), 0);
    parts[1] = r->op.out_part;
    want_int(r, run_complete(r, "k", id, parts, 3), 0);
    uint8_t *whole = run_alloc(r, 2 * p + len);
    memcpy(whole, data + p + 50, p);
    memcpy(whole + p, data, p);
    memcpy(whole + 2 * p, data, len);
    run_want_object(r, "k", whole, 2 * p + len);
}

static void part_copy_of_what_is_not_there(struct run *r)
{
    struct store_part part;
    const char *id = run_create(r, "k");
    want_int(r, part_copy(r, id, 1, 0, 0, NULL, &part), -ENOENT);
    want_int(r, run_put(r, "from", "0123456789"), 0);
    int rc = part_copy(r, id, 1, 5, 6, NULL, &part);
    want(r, rc == -ERANGE || rc == -EINVAL);
    rc = part_copy(r, id, 1, 10, 1, NULL, &part);
    want(r, rc == -ERANGE || rc == -EINVAL);
    want_int(r, run_abort(r, "k", id), 0);
}

static void part_copy_if_match(struct run *r)
{
    struct store_part part;
    want_int(r, run_put(r, "from", "one"), 0);
    const char *first = run_keep(r, r->op.info.etag);
    want_int(r, run_put(r, "from", "two"), 0);
    const char *id = run_create(r, "k");
    want_int(r, part_copy(r, id, 1, 0, 3, first, &part), -EEXIST);
    want_int(r, run_abort(r, "k", id), 0);
}

const struct conformance_case conformance_upload_cases[] = {
    {"upload_of_two_parts", upload_of_two_parts},
    {"upload_of_one_short_part", upload_of_one_short_part},
    {"upload_of_one_empty_part", upload_of_one_empty_part},
    {"upload_in_any_order_with_gaps", upload_in_any_order_with_gaps},
    {"upload_of_parts_of_many_sizes", upload_of_parts_of_many_sizes},
    {"short_part_may_come_first", short_part_may_come_first},
    {"parts_may_be_replaced", parts_may_be_replaced},
    {"parts_may_be_left_out", parts_may_be_left_out},
    {"parts_at_once", parts_at_once},
    {"part_has_its_checksum", part_has_its_checksum},
    {"part_with_another_checksum_than_promised_is_refused",
     part_with_another_checksum_than_promised_is_refused},
    {"too_small_parts_are_refused", too_small_parts_are_refused, CONFORMANCE_PART_MIN},
    {"wrong_parts_are_refused", wrong_parts_are_refused},
    {"metadata_of_create_is_the_objects", metadata_of_create_is_the_objects},
    {"complete_replaces", complete_replaces},
    {"complete_if_none_match", complete_if_none_match, CONFORMANCE_COMPLETE_IF},
    {"complete_if_match", complete_if_match, CONFORMANCE_COMPLETE_IF},
    {"complete_if_none_match_has_one_winner", complete_if_none_match_has_one_winner,
     CONFORMANCE_COMPLETE_IF},
    {"complete_ends_the_upload", complete_ends_the_upload},
    {"abort_ends_the_upload", abort_ends_the_upload},
    {"uploads_are_listed", uploads_are_listed},
    {"parts_by_copy", parts_by_copy, CONFORMANCE_COPY},
    {"part_copy_of_what_is_not_there", part_copy_of_what_is_not_there, CONFORMANCE_COPY},
    {"part_copy_if_match", part_copy_if_match, CONFORMANCE_COPY_IF},
    {NULL},
};
