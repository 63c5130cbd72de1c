/* What comes over a connection of the metadata service, at both ends: frames, messages, answers. */
#include <stdlib.h>
#include <string.h>

#include "meta/codec.h"
#include "wire/wire_keys.h"
#include "wire/wire_locks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void each_item(void *arg, const struct wire_item *item)
{
    if (item->kind == WIRE_ITEM_ENTRY && (item->name.len == 0 || item->name.len > META_NAME_MAX))
        abort();
    ++*(size_t *)arg;
}

static void each_object(void *arg, uint64_t object)
{
    ++*(size_t *)arg;
}

static void check_lock(const struct lock *lock)
{
    if (lock->ino == 0 || lock->start > lock->end || lock->type < LOCKS_READ ||
        lock->type > LOCKS_NONE || lock->class < LOCKS_POSIX || lock->class > LOCKS_FLOCK)
        abort();
}

static void each_lock(void *arg, const struct lock *lock)
{
    check_lock(lock);
    if (lock->type == LOCKS_NONE)
        abort();
    ++*(size_t *)arg;
}

static void try_lock(const uint8_t *data, size_t len)
{
    struct wire_lock m;
    struct buf b;
    if (wire_get_lock(data, len, &m) < 0)
        return;
    check_lock(&m.lock);
    buf_init(&b, 0);
    wire_put_lock(&b, &m);
    if (buf_error(&b) < 0 || b.len != len + WIRE_HEAD || memcmp(b.data + WIRE_HEAD, data, len) != 0)
        abort();
    buf_done(&b);
}

/* An answer that is accepted comes out the same when it is written again. */
static void try_reply(const uint8_t *data, size_t len)
{
    struct wire_reply m;
    struct meta_reply one, two;
    struct buf first, second;
    if (wire_get_reply(data, len, &m) < 0 || !m.reply ||
        meta_codec_reply_get(m.reply, m.reply_len, &one) < 0)
        return;
    buf_init(&first, 0);
    buf_init(&second, 0);
    meta_codec_reply_put(&first, &one);
    if (buf_error(&first) < 0 || meta_codec_reply_get(first.data, first.len, &two) < 0)
        abort();
    meta_codec_reply_put(&second, &two);
    if (second.len != first.len || memcmp(second.data, first.data, first.len) != 0)
        abort();
    meta_reply_done(&one);
    meta_reply_done(&two);
    buf_done(&first);
    buf_done(&second);
}

static void try_request(const uint8_t *data, size_t len)
{
    struct wire_request m;
    struct meta_decoded_op op;
    if (wire_get_request(data, len, &m) == 0 && meta_codec_op_get(m.op, m.op_len, &op) == 0)
        meta_codec_op_done(&op);
}

static void try_keys(const uint8_t *data, size_t len)
{
    struct wire_keys m;
    struct buf b;
    if (wire_get_keys(data, len, &m) < 0 || m.result)
        return;
    buf_init(&b, 0);
    wire_put_keys(&b, m.id, &m.keys);
    if (buf_error(&b) < 0 || b.len != len + WIRE_HEAD || memcmp(b.data + WIRE_HEAD, data, len) != 0)
        abort();
    buf_done(&b);
    store_keys_done(&m.keys);
}

static void try_message(enum wire_type type, const uint8_t *data, size_t len)
{
    struct wire_hello hello;
    struct wire_welcome welcome;
    struct wire_refused refused;
    struct wire_task task;
    struct wire_task_done done;
    struct wire_text text;
    struct wire_lock_done lock_done;
    uint64_t a, b;
    size_t count = 0;
    switch (type) {
    case WIRE_HELLO:
        wire_get_hello(data, len, &hello);
        break;
    case WIRE_WELCOME:
        wire_get_welcome(data, len, &welcome);
        break;
    case WIRE_REFUSED:
        wire_get_refused(data, len, &refused);
        break;
    case WIRE_REQUEST:
        try_request(data, len);
        break;
    case WIRE_REPLY:
        try_reply(data, len);
        break;
    case WIRE_TASK:
        wire_get_task(data, len, &task);
        break;
    case WIRE_TASK_DONE:
        wire_get_task_done(data, len, &done);
        break;
    case WIRE_TASK_PROGRESS:
        wire_get_progress(data, len, &a, &b);
        break;
    case WIRE_STATUS_REPLY:
    case WIRE_STORES:
    case WIRE_STORES_REPLY:
        wire_get_text(data, len, &a, &text);
        break;
    case WIRE_INVALIDATE:
        wire_get_items(data, len, &a, each_item, &count);
        break;
    case WIRE_CLAIM:
        wire_get_claim(data, len, each_object, &count);
        break;
    case WIRE_LOCK:
        try_lock(data, len);
        break;
    case WIRE_KEYS_REPLY:
        try_keys(data, len);
        break;
    case WIRE_LOCK_DONE:
        wire_get_lock_done(data, len, &lock_done);
        break;
    case WIRE_LOCK_CLAIM:
        wire_get_lock_claim(data, len, each_lock, &count);
        break;
    default:
        wire_get_number(data, len, &a);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_input in;
    enum wire_type type;
    const uint8_t *message;
    size_t len;
    wire_input_init(&in, 4096);
    while (size) {
        size_t room_len, part;
        uint8_t *room = wire_input_room(&in, &room_len);
        if (!room)
            break;
        part = size < room_len ? size : room_len;
        part = part > 37 ? 37 : part;
        memcpy(room, data, part);
        wire_input_add(&in, part);
        data += part;
        size -= part;
        int rc = 0;
        while ((rc = wire_input_next(&in, &type, &message, &len)) > 0)
            try_message(type, message, len);
        if (rc < 0)
            break;
    }
    wire_input_done(&in);
    return 0;
}
