#include "wire_locks.h"

#include <errno.h>
#include <string.h>

#define HELD_MIN 7 /* bytes of the shortest lock of a claim */
#define ERRNO_MAX 4095

static void get_range(struct reader *r, struct lock *lock)
{
    uint64_t pid = reader_varint(r);
    lock->start = reader_varint(r);
    lock->end = reader_varint(r);
    lock->pid = (uint32_t)pid;
    if (pid > UINT32_MAX || lock->start > lock->end)
        r->failed = true;
}

static void put_range(struct buf *b, const struct lock *lock)
{
    buf_put_varint(b, lock->pid);
    buf_put_varint(b, lock->start);
    buf_put_varint(b, lock->end);
}

void wire_put_lock_held(struct buf *b, const struct lock *lock)
{
    buf_put_u8(b, (uint8_t)lock->class);
    buf_put_u8(b, (uint8_t)lock->type);
    buf_put_varint(b, lock->ino);
    buf_put_varint(b, lock->owner.id);
    put_range(b, lock);
}

static void get_held(struct reader *r, struct lock *lock, enum lock_type most)
{
    *lock = (struct lock){0};
    uint8_t class = reader_u8(r), type = reader_u8(r);
    lock->ino = reader_varint(r);
    lock->owner.id = reader_varint(r);
    get_range(r, lock);
    if (class < LOCKS_POSIX || class > LOCKS_FLOCK || type < LOCKS_READ || type > most)
        r->failed = true;
    if (lock->ino == 0 || (class == LOCKS_FLOCK && (lock->start != 0 || lock->end != UINT64_MAX)))
        r->failed = true;
    lock->class = class;
    lock->type = type;
}

void wire_put_lock(struct buf *b, const struct wire_lock *m)
{
    size_t start = wire_begin(b, WIRE_LOCK);
    buf_put_varint(b, m->id);
    buf_put_u8(b, (uint8_t)m->how);
    wire_put_lock_held(b, &m->lock);
    wire_end(b, start);
}

int wire_get_lock(const void *data, size_t len, struct wire_lock *out)
{
    struct reader r;
    reader_init(&r, data, len);
    out->id = reader_varint(&r);
    uint8_t how = reader_u8(&r);
    get_held(&r, &out->lock, LOCKS_NONE);
    if (how < WIRE_LOCK_TEST || how > WIRE_LOCK_WAIT ||
        (out->lock.type == LOCKS_NONE && how != WIRE_LOCK_TRY))
        r.failed = true;
    out->how = how;
    return reader_end(&r);
}

void wire_put_lock_done(struct buf *b, const struct wire_lock_done *m)
{
    size_t start = wire_begin(b, WIRE_LOCK_DONE);
    buf_put_varint(b, m->id);
    buf_put_varint(b, (uint64_t)-m->result);
    buf_put_u8(b, (uint8_t)m->conflict.type);
    put_range(b, &m->conflict);
    wire_end(b, start);
}

int wire_get_lock_done(const void *data, size_t len, struct wire_lock_done *out)
{
    struct reader r;
    reader_init(&r, data, len);
    *out = (struct wire_lock_done){.id = reader_varint(&r)};
    uint64_t result = reader_varint(&r);
    uint8_t type = reader_u8(&r);
    get_range(&r, &out->conflict);
    if (result > ERRNO_MAX || type < LOCKS_READ || type > LOCKS_NONE)
        r.failed = true;
    out->result = -(int)(result & ERRNO_MAX);
    out->conflict.type = type;
    return reader_end(&r);
}

int wire_get_lock_claim(const void *data, size_t len,
                        void (*each)(void *arg, const struct lock *lock), void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        struct reader r;
        reader_init(&r, data, len);
        uint64_t count = reader_varint(&r);
        if (count > reader_left(&r) / HELD_MIN)
            return -EBADMSG;
        for (uint64_t i = 0; i < count && !r.failed; i++) {
            struct lock lock;
            get_held(&r, &lock, LOCKS_WRITE);
            if (pass == 1)
                each(arg, &lock);
        }
        if (reader_end(&r) < 0)
            return -EBADMSG;
    }
    return 0;
}
