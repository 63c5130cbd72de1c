#include "data_lib.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <semaphore.h>
#include <unistd.h>

#include "base/cleanup.h"

static uint64_t random_state = 1;

void random_seed(uint64_t seed)
{
    random_state = seed * 0x9e3779b97f4a7c15ull + 1;
}

uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

uint64_t random_below(uint64_t n)
{
    return random_next() % n;
}

void random_fill(void *bytes, size_t length)
{
    uint8_t *p = bytes;
    for (size_t i = 0; i < length; i++)
        p[i] = (uint8_t)random_next();
}

static void changed(void *arg, uint64_t ino)
{
    struct data_test *t = arg;
    (void)ino;
    t->changed++;
}

static void configure(struct data_test *t)
{
    t->v.config.no_settle = true;
    data_config_init(&t->config);
    t->config.buffer_bytes = 32 << 20;
    t->config.part_bytes = 64 << 10;
    t->config.changed = changed;
    t->config.arg = t;
    t->config.flush_age_ms = 3600 * 1000;
    snprintf(t->staging, sizeof(t->staging), "%s/staging", t->v.dir);
}

void data_begin(struct data_test *t)
{
    memset(t, 0, sizeof(*t));
    volume_begin(&t->v);
    configure(t);
    data_test_open(t);
}

void data_begin_file(struct data_test *t, const char *dir)
{
    memset(t, 0, sizeof(*t));
    volume_begin_file(&t->v, dir);
    configure(t);
}

void data_test_open(struct data_test *t)
{
    struct error error = {0};
    volume_open(&t->v);
    check_int(metrics_new(&t->metrics), 0);
    t->config.meta = t->v.meta;
    t->config.store = t->v.store;
    t->config.loop = t->v.loop;
    t->config.metrics = t->metrics;
    t->config.staging_dir = t->staging;
    int rc = data_open(&t->config, &t->data, &error);
    if (rc)
        test_fail("data_open: %d %s", rc, error.message);
}

int data_test_close(struct data_test *t)
{
    int rc = data_close(TAKE_PTR(t->data));
    metrics_free(TAKE_PTR(t->metrics));
    volume_close(&t->v);
    return rc;
}

void data_end(struct data_test *t)
{
    check_int(data_close(TAKE_PTR(t->data)), 0);
    metrics_free(TAKE_PTR(t->metrics));
    volume_end(&t->v);
}

/* Calls that wait */

static void wake(struct data_request *request)
{
    sem_post(request->arg);
}

static int finish(int rc, struct data_request *request)
{
    if (rc != -EINPROGRESS) {
        sem_destroy(request->arg);
        return rc;
    }
    while (sem_wait(request->arg))
        continue;
    sem_destroy(request->arg);
    return request->result;
}

#define WAITING(request_)                                                                          \
    sem_t request_##_sem;                                                                          \
    sem_init(&request_##_sem, 0, 0);                                                               \
    struct data_request request_ = {.done = wake, .arg = &request_##_sem}

struct data_handle *data_test_handle(struct data_test *t, uint64_t ino)
{
    struct data_handle *handle = NULL;
    struct meta_request request = {.op = {.kind = META_GETATTR, .ino = ino}};
    check_int(meta_call(t->v.meta, &request), 0);
    check_int(data_file_open(t->data, &request.reply.attr, true, &handle), 0);
    meta_reply_done(&request.reply);
    return handle;
}

struct data_handle *data_test_create(struct data_test *t, const char *name, uint64_t *ino)
{
    uint64_t made;
    check_int(name_create(&t->v, META_ROOT_INO, name, &made), 0);
    if (ino)
        *ino = made;
    return data_test_handle(t, made);
}

static int write_at(struct data_handle *handle, const void *bytes, uint64_t offset, uint64_t length,
                    bool append)
{
    WAITING(request);
    struct fuse_bufvec in = FUSE_BUFVEC_INIT(length);
    in.buf[0].mem = (void *)(uintptr_t)bytes;
    return finish(data_write(handle, &in, offset, append, &request), &request);
}

int data_test_write(struct data_handle *handle, const void *bytes, uint64_t offset, uint64_t length)
{
    return write_at(handle, bytes, offset, length, false);
}

int data_test_append(struct data_handle *handle, const void *bytes, uint64_t length)
{
    return write_at(handle, bytes, 0, length, true);
}

int data_test_flush(struct data_handle *handle)
{
    WAITING(request);
    return finish(data_flush(handle, &request), &request);
}

int data_test_flush_all(struct data_test *t)
{
    WAITING(request);
    return finish(data_flush_all(t->data, &request), &request);
}

int data_test_truncate(struct data_test *t, uint64_t ino, uint64_t size)
{
    WAITING(request);
    return finish(data_truncate(t->data, ino, size, &request), &request);
}

int data_test_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length)
{
    WAITING(request);
    return finish(data_fallocate(handle, mode, offset, length, &request), &request);
}

int data_test_copy(struct data_handle *from, uint64_t from_offset, struct data_handle *to,
                   uint64_t to_offset, uint64_t length)
{
    WAITING(request);
    return finish(data_copy(from, from_offset, to, to_offset, length, &request), &request);
}

int64_t data_test_seek(struct data_handle *handle, uint64_t offset, int whence)
{
    WAITING(request);
    int rc = finish(data_seek(handle, offset, whence, &request), &request);
    return rc ? rc : (int64_t)request.offset;
}

int64_t data_test_read(struct data_handle *handle, uint64_t offset, uint64_t length, void *buf)
{
    WAITING(request);
    int rc = finish(data_read(handle, offset, length, &request), &request);
    if (rc)
        return rc;
    struct data_buffer *buffer = request.buffer;
    uint64_t got = 0;
    if (buffer->fd >= 0) {
        check_int(pread(buffer->fd, buf, buffer->length, (off_t)buffer->fd_offset),
                  (int64_t)buffer->length);
        got = buffer->length;
    } else {
        for (unsigned i = 0; i < buffer->iov_count; i++) {
            memcpy((char *)buf + got, buffer->iov[i].iov_base, buffer->iov[i].iov_len);
            got += buffer->iov[i].iov_len;
        }
    }
    check_uint(got, buffer->length);
    data_buffer_put(buffer);
    return (int64_t)got;
}

struct meta_attr data_test_attr(struct data_test *t, uint64_t ino)
{
    struct meta_request request = {.op = {.kind = META_GETATTR, .ino = ino}};
    check_int(meta_call(t->v.meta, &request), 0);
    struct meta_attr attr = request.reply.attr;
    meta_reply_done(&request.reply);
    data_overlay(t->data, &attr);
    return attr;
}

void data_test_check(struct data_test *t, uint64_t ino, const void *bytes, uint64_t length)
{
    check_uint(data_test_attr(t, ino).size, length);
    struct data_handle *handle = data_test_handle(t, ino);
    char *got = malloc(length + 1);
    uint64_t at = 0;
    while (at < length) {
        int64_t n = data_test_read(handle, at, MIN(length - at, 200000u), got + at);
        if (n <= 0)
            test_fail("read at %llu of %llu: %lld", (unsigned long long)at,
                      (unsigned long long)length, (long long)n);
        at += (uint64_t)n;
    }
    check_mem(got, bytes, length);
    check_int(data_test_read(handle, length, 1, got), 0);
    free(got);
    data_file_release(handle);
}

void data_test_check_committed(struct data_test *t, uint64_t ino, const void *bytes,
                               uint64_t length)
{
    size_t size;
    char *got;
    /* Settle may move the bytes to another object between the look and the read. */
    eventually((got = file_read(&t->v, ino, &size)) != NULL);
    check_uint(size, length);
    check_mem(got, bytes, length);
    free(got);
}

const char *data_test_extents(struct data_test *t, uint64_t ino)
{
    static char text[4096];
    size_t len = 0;
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    check_int(meta_call(t->v.meta, &request), 0);
    text[0] = 0;
    for (size_t i = 0; i < request.reply.extent_count && len < sizeof(text) - 100; i++) {
        const struct meta_extent *e = &request.reply.extents[i];
        len += (size_t)sprintf(text + len, "%s %llu+%llu;",
                               e->kind == META_EXTENT_OBJECT ? "object" : "inline",
                               (unsigned long long)e->offset, (unsigned long long)e->length);
    }
    meta_reply_done(&request.reply);
    return text;
}
