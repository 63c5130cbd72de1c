#include "meta/codec.h"

#include <errno.h>
#include <sys/stat.h>

#include "test.h"

static void encode(struct buf *b, const struct meta_op *op)
{
    buf_init(b, 0);
    meta_codec_op_put(b, op);
    check_int(buf_error(b), 0);
}

static const struct meta_object object = {.id = 7,
                                          .state = META_OBJECT_RESERVED,
                                          .key = "p/a/b",
                                          .size = 1ull << 40,
                                          .etag = "\"abc\"",
                                          .cid = 5,
                                          .refs = 3};
static const struct meta_extent extents[] = {
    {.kind = META_EXTENT_OBJECT, .offset = 5, .length = 6, .object = 7, .object_offset = 8},
    {.kind = META_EXTENT_INLINE, .offset = 20, .length = 3, .data = "abc"},
    {.kind = META_EXTENT_HOLE, .offset = 30, .length = 9},
};
static const struct meta_entry entries[] = {
    {.name = "one", .name_len = 3, .size = 4, .mtime_ns = 5, .etag = "e"},
    {.name = "dir", .name_len = 3, .is_dir = true, .has_attr = true, .attr = {.mode = 0700}},
};
static const struct meta_settle step = {.action = META_SETTLE_COPY,
                                        .ino = 4,
                                        .data_version = 9,
                                        .target = {.id = 3, .key = "k"},
                                        .replaces = true,
                                        .old_etag = "old"};
static const struct meta_volume volume = {.id = "id", .prefix = "p/", .staging = "_t*"};
static const uint64_t inos[] = {1, 2, UINT64_MAX};

static const struct meta_op ops[] = {
    {.kind = META_LOOKUP, .parent = 1, .name = {"name", 4}},
    {.kind = META_READDIR, .ino = 1, .count = 10, .plus = true},
    {.kind = META_RENAME,
     .time_ns = 5,
     .parent = 1,
     .name = {"a", 1},
     .new_parent = 2,
     .new_name = {"b", 1},
     .flags = 2},
    {.kind = META_MKNOD, .parent = 1, .name = {"a", 1}, .attr = {.mode = 0644, .has_xattr = true}},
    {.kind = META_CLONE, .ino = 1, .offset = 2, .length = 3, .new_ino = 4, .new_offset = 5},
    {.kind = META_SETXATTR, .ino = 1, .name = {"user.x", 6}, .data = "value", .data_len = 5},
    {.kind = META_DROP, .inos = inos, .ino_count = 3},
    {.kind = META_COMMIT,
     .ino = 1,
     .objects = &object,
     .object_count = 1,
     .extents = extents,
     .extent_count = 3,
     .valid = META_SET_SIZE},
    {.kind = META_IMPORT_DIR, .ino = 1, .entries = entries, .entry_count = 2},
    {.kind = META_SETTLE_DONE, .settle = &step, .objects = &object, .object_count = 1},
    {.kind = META_FORMAT, .volume = &volume},
    {.kind = META_ABANDON, .object = 77},
    {.kind = META_PUNCH, .ino = 1, .session = 5, .request = 6, .retry = true},
};
#define OPS (sizeof(ops) / sizeof(ops[0]))

TEST(meta_codec, round_trip)
{
    for (size_t i = 0; i < OPS; i++) {
        struct buf one, two;
        struct meta_decoded_op got;
        encode(&one, &ops[i]);
        check_int(meta_codec_op_get(one.data, one.len, &got), 0);
        check_uint(got.op.kind, ops[i].kind);
        encode(&two, &got.op);
        check_uint(two.len, one.len);
        check_mem(two.data, one.data, one.len);
        meta_codec_op_done(&got);
        buf_done(&one);
        buf_done(&two);
    }
}

TEST(meta_codec, keeps_each_field)
{
    struct buf b;
    struct meta_decoded_op got;
    encode(&b, &ops[7]);
    check_int(meta_codec_op_get(b.data, b.len, &got), 0);
    check_uint(got.op.extent_count, 3);
    check_uint(got.op.extents[0].object_offset, 8);
    check_mem(got.op.extents[1].data, "abc", 3);
    check_uint(got.op.extents[2].kind, META_EXTENT_HOLE);
    check_mem(&got.op.objects[0], &object, sizeof(object));
    meta_codec_op_done(&got);
    buf_done(&b);
    encode(&b, &ops[10]);
    check_int(meta_codec_op_get(b.data, b.len, &got), 0);
    check_mem(got.op.volume, &volume, sizeof(volume));
    meta_codec_op_done(&got);
    buf_done(&b);
}

TEST(meta_codec, refuses_what_is_cut_or_too_long)
{
    for (size_t i = 0; i < OPS; i++) {
        struct buf b;
        struct meta_decoded_op got;
        encode(&b, &ops[i]);
        for (size_t len = 0; len < b.len; len++)
            check_int(meta_codec_op_get(b.data, len, &got), -EBADMSG);
        buf_put_u8(&b, 0);
        check_int(meta_codec_op_get(b.data, b.len, &got), -EBADMSG);
        b.data[0] = 2; /* a later version */
        check_int(meta_codec_op_get(b.data, b.len - 1, &got), -EBADMSG);
        buf_done(&b);
    }
}
