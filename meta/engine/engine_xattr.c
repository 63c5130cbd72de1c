/*
 * Attributes that are not stored: what the volume knows of an inode, under `user.sluice.`
 * (docs/open-layout.md). They can be read by name, and are not listed, so that programs that copy
 * all attributes do not copy them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "s3/mux.h"

#define PREFIX "user.sluice."

bool engine_xattr_is_virtual(const struct meta_name *name)
{
    size_t len = strlen(PREFIX);
    return name->len >= len && memcmp(name->bytes, PREFIX, len) == 0;
}

static int answer(struct meta_reply *reply, const char *text)
{
    size_t len = strlen(text);
    char *copy = meta_reply_alloc(reply, len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, len + 1);
    reply->data = copy;
    reply->data_len = len;
    return 0;
}

static bool is(const struct meta_op *op, const char *name)
{
    size_t at = strlen(PREFIX), len = strlen(name);
    return op->name.len == at + len && memcmp(op->name.bytes + at, name, len) == 0;
}

static int drift_of(struct engine *engine, const struct meta_op *op,
                    const struct record_inode *inode, uint64_t *files, uint64_t *bytes)
{
    struct meta_op ask = {.kind = META_DRIFT, .ino = op->ino};
    struct meta_reply reply;
    *files = *bytes = 0;
    if (S_ISREG(inode->mode)) {
        *files = inode->due_ns != 0;
        *bytes = inode->due_ns ? inode->size : 0;
        return 0;
    }
    if (!S_ISDIR(inode->mode))
        return 0;
    meta_reply_init(&reply);
    int rc = engine_read_dispatch(engine, &ask, 0, &reply);
    *files = reply.drift.files;
    *bytes = reply.drift.bytes;
    meta_reply_done(&reply);
    return rc;
}

/* The one object that a file is. */
static int object_of(struct engine *engine, const struct record_inode *inode,
                     struct meta_object *out)
{
    struct record_key key;
    struct record_object object;
    uint8_t room[ENGINE_RECORD_MAX];
    if (!S_ISREG(inode->mode) || inode->body != RECORD_BODY_OBJECT || inode->object_offset ||
        inode->object_length != inode->size)
        return -ENODATA;
    record_key_u64(&key, inode->object);
    int rc = engine_db_get(engine, TABLE_OBJECT, key.bytes, key.len, room);
    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    if (record_object_decode(room, (size_t)rc, &object) < 0)
        return -EIO;
    engine_object_export(inode->object, &object, out);
    return 0;
}

int engine_read_virtual_xattr(struct engine *engine, const struct meta_op *op,
                              struct meta_reply *reply)
{
    struct record_inode inode;
    struct meta_object object;
    uint8_t room[ENGINE_RECORD_MAX];
    uint64_t files, bytes;
    char text[64];
    int rc = engine_read_inode(engine, op->ino, &inode, room);
    if (rc < 0)
        return rc;
    if (is(op, "settled") || is(op, "drift")) {
        rc = drift_of(engine, op, &inode, &files, &bytes);
        if (is(op, "settled"))
            snprintf(text, sizeof(text), "%d", files == 0);
        else
            snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, files, bytes);
        return rc < 0 ? rc : answer(reply, text);
    }
    rc = object_of(engine, &inode, &object);
    if (rc < 0)
        return rc;
    size_t skip;
    unsigned store = store_route(object.key, strlen(object.key), &skip);
    if (is(op, "key"))
        return answer(reply, object.key + skip);
    if (is(op, "store")) {
        engine_store_name(engine, store, text);
        return answer(reply, text);
    }
    if (is(op, "etag"))
        return object.etag[0] ? answer(reply, object.etag) : -ENODATA;
    if (!is(op, "cid"))
        return -ENODATA;
    snprintf(text, sizeof(text), "%" PRIu64, object.cid);
    return answer(reply, text);
}
