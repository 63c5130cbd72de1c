/*
 * Reads through the whole data path: a real namespace on RocksDB, objects in a store in memory with
 * faults before it. What is read is compared with what was put there.
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "data/file.h"
#include "fs/data.h"
#include "meta/meta.h"
#include "s3/backend.h"
#include "test.h"

#define KIB 1024ull
#define MIB (1024ull * 1024)

static char directory[4096];
static struct loop *loop;
static struct store *memory, *store;
static struct meta *meta;
static struct data *data;

static void nothing(void *arg, uint64_t ino)
{
}

static void begin(void)
{
    test_dir_make(directory);
    char path[4200];
    check_int(loop_new(&loop, "test"), 0);
    check_int(store_memory_new(loop, &memory), 0);
    check_int(store_fault_new(memory, &store), 0);
    struct error error = {0};
    struct meta_config config;
    meta_config_init(&config);
    snprintf(path, sizeof(path), "%s/meta", directory);
    config.directory = path;
    config.store = store;
    config.prefix = "";
    config.no_settle = true;
    config.owner_text = "test";
    if (meta_open(&config, &meta, &error) < 0)
        test_fail("meta_open: %s", error_text(&error));
    struct data_config data_config;
    data_config_init(&data_config);
    char staging[4200];
    snprintf(staging, sizeof(staging), "%s/staging", directory);
    data_config.meta = meta;
    data_config.store = store;
    data_config.loop = loop;
    data_config.staging_dir = staging;
    data_config.buffer_bytes = 32 * MIB;
    data_config.changed = nothing;
    if (data_open(&data_config, &data, &error) < 0)
        test_fail("data_open: %s", error_text(&error));
}

static void end(void)
{
    store_fault_set(store, NULL, 0);
    check_int(data_close(data), 0);
    meta_close(meta);
    store_free(store);
    loop_free(loop);
    test_dir_remove(directory);
}

static uint8_t byte_at(uint64_t offset, unsigned seed)
{
    return (uint8_t)(offset % 251 + (offset >> 12) * 7 + seed);
}

static uint8_t *make_bytes(uint64_t length, unsigned seed)
{
    uint8_t *bytes = malloc(length + 1);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = byte_at(i, seed);
    return bytes;
}

/* Puts an object as another S3 client does. */
static void put(const char *key, const void *bytes, uint64_t length)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, length};
    struct store_op op = {.kind = STORE_PUT, .key = key, .iov = &iov, .iov_count = 1};
    check_int(store_wait(memory, &op), 0);
    store_op_reset(&op);
}

static struct meta_attr lookup(const char *name)
{
    struct meta_request request = {
        .op = {.kind = META_LOOKUP, .parent = META_ROOT_INO, .name = {name, strlen(name)}}};
    check_int(meta_call(meta, &request), 0);
    struct meta_attr attr = request.reply.attr;
    meta_reply_done(&request.reply);
    return attr;
}

static struct meta_attr create(const char *name)
{
    struct meta_request request = {.op = {.kind = META_MKNOD,
                                          .parent = META_ROOT_INO,
                                          .name = {name, strlen(name)},
                                          .attr.mode = S_IFREG | 0644}};
    check_int(meta_call(meta, &request), 0);
    struct meta_attr attr = request.reply.attr;
    meta_reply_done(&request.reply);
    return attr;
}

static struct data_handle *open_attr(const struct meta_attr *attr, bool writable)
{
    struct data_handle *handle;
    check_int(data_file_open(data, attr, writable, &handle), 0);
    return handle;
}

static struct data_handle *open_name(const char *name)
{
    struct meta_attr attr = lookup(name);
    return open_attr(&attr, true);
}

struct call {
    struct data_request request;
    sem_t ended;
};

static void call_done(struct data_request *request)
{
    sem_post(&container_of(request, struct call, request)->ended);
}

static void call_init(struct call *call)
{
    memset(call, 0, sizeof(*call));
    call->request.done = call_done;
    sem_init(&call->ended, 0, 0);
}

static int call_wait(struct call *call, int rc)
{
    if (rc == -EINPROGRESS) {
        while (sem_wait(&call->ended) < 0 && errno == EINTR)
            ;
        rc = call->request.result;
    }
    sem_destroy(&call->ended);
    return rc;
}

static int64_t take_buffer(struct data_buffer *buffer, uint8_t *out)
{
    uint64_t length = buffer->length, at = 0;
    if (buffer->fd >= 0) {
        if (pread(buffer->fd, out, length, (off_t)buffer->fd_offset) != (ssize_t)length)
            return -EIO;
        at = length;
    }
    for (unsigned i = 0; buffer->fd < 0 && i < buffer->iov_count; i++) {
        memcpy(out + at, buffer->iov[i].iov_base, buffer->iov[i].iov_len);
        at += buffer->iov[i].iov_len;
    }
    data_buffer_put(buffer);
    return at == length ? (int64_t)length : -EIO;
}

/* Bytes read, or -errno. */
static int64_t read_at(struct data_handle *handle, uint64_t offset, uint64_t length, uint8_t *out)
{
    struct call call;
    call_init(&call);
    int rc = call_wait(&call, data_read(handle, offset, length, &call.request));
    return rc < 0 ? rc : take_buffer(call.request.buffer, out);
}

static void check_read(struct data_handle *handle, uint64_t offset, uint64_t length,
                       const uint8_t *expected)
{
    uint8_t *got = malloc(length + 1);
    check_int(read_at(handle, offset, length, got), (int64_t)length);
    check_mem(got, expected + offset, length);
    free(got);
}

static void write_at(struct data_handle *handle, uint64_t offset, const void *bytes,
                     uint64_t length)
{
    struct fuse_bufvec in = FUSE_BUFVEC_INIT(length);
    in.buf[0].mem = (void *)(uintptr_t)bytes;
    struct call call;
    call_init(&call);
    check_int(call_wait(&call, data_write(handle, &in, offset, false, &call.request)), (int)length);
}

static void flush(struct data_handle *handle)
{
    struct call call;
    call_init(&call);
    check_int(call_wait(&call, data_flush(handle, &call.request)), 0);
}

TEST(data_read, imported_object_byte_for_byte, .init = begin, .fini = end)
{
    uint64_t size = 3 * MIB + 123;
    uint8_t *bytes = make_bytes(size, 1);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    static const uint64_t ranges[][2] = {{0, 1},         {0, 4096},          {4095, 2},
                                         {100, 1 << 20}, {1 << 20, 131072},  {3145728, 123},
                                         {3145850, 1},   {2097152, 1048576}, {5, 3 * 1048576}};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++)
        check_read(handle, ranges[i][0], ranges[i][1], bytes);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, is_short_at_the_end_and_empty_beyond, .init = begin, .fini = end)
{
    uint8_t *bytes = make_bytes(10000, 1), got[20000];
    put("f", bytes, 10000);
    struct data_handle *handle = open_name("f");
    check_int(read_at(handle, 9000, 5000, got), 1000);
    check_mem(got, bytes + 9000, 1000);
    check_int(read_at(handle, 10000, 5000, got), 0);
    check_int(read_at(handle, 1 << 30, 5000, got), 0);
    check_int(read_at(handle, 0, 20000, got), 10000);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, sequential_reader_needs_few_requests, .init = begin, .fini = end)
{
    uint64_t size = 16 * MIB;
    uint8_t *bytes = make_bytes(size, 2);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    uint64_t before = store_fault_seen(store, STORE_GET);
    for (uint64_t offset = 0; offset < size; offset += 128 * KIB)
        check_read(handle, offset, 128 * KIB, bytes);
    check(store_fault_seen(store, STORE_GET) - before <= 24);
    data_file_release(handle);
    struct data_stats stats;
    data_stats(data, &stats);
    check(stats.buffer_peak_bytes <= 32 * MIB);
    free(bytes);
}

TEST(data_read, holes_are_zeros, .init = begin, .fini = end)
{
    struct meta_attr attr = create("f");
    struct data_handle *handle = open_attr(&attr, true);
    uint64_t size = 2 * MIB;
    uint8_t *bytes = calloc(1, size);
    memset(bytes + MIB, 'x', 100);
    write_at(handle, MIB,
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxx",
             100);
    struct call call;
    call_init(&call);
    check_int(call_wait(&call, data_truncate(data, attr.ino, size, &call.request)), 0);
    check_read(handle, 0, size, bytes);
    flush(handle);
    check_read(handle, 0, size, bytes);
    check_read(handle, MIB - 10, 200, bytes);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, small_file_is_inline_after_flush, .init = begin, .fini = end)
{
    uint64_t before = store_fault_seen(store, STORE_GET);
    struct meta_attr attr = create("small");
    struct data_handle *handle = open_attr(&attr, true);
    uint8_t *bytes = make_bytes(4000, 3);
    write_at(handle, 0, bytes, 4000);
    check_read(handle, 0, 4000, bytes);
    flush(handle);
    data_file_release(handle);
    handle = open_name("small");
    check_read(handle, 0, 4000, bytes);
    check_read(handle, 17, 1000, bytes);
    check_uint(store_fault_seen(store, STORE_GET), before);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, staged_bytes_lie_over_committed_ones, .init = begin, .fini = end)
{
    uint64_t size = 2 * MIB;
    uint8_t *bytes = make_bytes(size, 4), *patch = make_bytes(300 * KIB, 99);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    static const uint64_t patches[][2] = {
        {100, 50}, {4096, 4096}, {1000000, 300000}, {2097000, 152}};
    for (size_t i = 0; i < ARRAY_LEN(patches); i++) {
        write_at(handle, patches[i][0], patch, patches[i][1]);
        memcpy(bytes + patches[i][0], patch, patches[i][1]);
        check_read(handle, 0, size, bytes);
        check_read(handle, patches[i][0], patches[i][1], bytes);
        check_read(handle, patches[i][0] / 2, patches[i][1], bytes);
    }
    flush(handle);
    check_read(handle, 0, size, bytes);
    data_file_release(handle);
    handle = open_name("f");
    for (uint64_t offset = 0; offset < size; offset += 100000)
        check_read(handle, offset, MIN(100000, size - offset), bytes);
    data_file_release(handle);
    free(bytes);
    free(patch);
}

TEST(data_read, cut_and_grown_again_is_zeros_behind_the_cut, .init = begin, .fini = end)
{
    uint64_t size = MIB;
    uint8_t *bytes = make_bytes(size, 5);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    uint64_t ino = data_handle_ino(handle);
    struct call call;
    call_init(&call);
    check_int(call_wait(&call, data_truncate(data, ino, 500001, &call.request)), 0);
    call_init(&call);
    check_int(call_wait(&call, data_truncate(data, ino, size, &call.request)), 0);
    memset(bytes + 500001, 0, size - 500001);
    check_read(handle, 0, size, bytes);
    flush(handle);
    check_read(handle, 0, size, bytes);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, changed_from_outside_is_stale_for_old_handles_and_new_for_new_ones, .init = begin,
     .fini = end)
{
    uint64_t size = 2 * MIB;
    uint8_t *bytes = make_bytes(size, 6), *changed = make_bytes(size, 7), got[4096];
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    check_read(handle, 0, 4096, bytes);
    put("f", changed, size);
    check_int(read_at(handle, 512 * KIB, 4096, got), -ESTALE);
    data_extents_changed(data, data_handle_ino(handle), true);
    check_int(read_at(handle, 0, 4096, got), -ESTALE);
    struct data_handle *fresh = open_name("f");
    check_read(fresh, 0, size, changed);
    data_file_release(fresh);
    data_file_release(handle);
    free(bytes);
    free(changed);
}

static void task_done(struct meta_task *task)
{
    sem_post(task->arg);
}

TEST(data_read, goes_on_where_the_bytes_moved_to, .init = begin, .fini = end)
{
    uint64_t size = MIB;
    uint8_t *bytes = make_bytes(size, 8);
    struct meta_attr attr = create("a_temporary");
    struct data_handle *handle = open_attr(&attr, true);
    write_at(handle, 0, bytes, size);
    flush(handle);
    check_read(handle, 0, 4096, bytes);
    struct meta_request rename = {.op = {.kind = META_RENAME,
                                         .parent = META_ROOT_INO,
                                         .name = {"a_temporary", 11},
                                         .new_parent = META_ROOT_INO,
                                         .new_name = {"b", 1}}};
    check_int(meta_call(meta, &rename), 0);
    meta_reply_done(&rename.reply);
    sem_t ended;
    sem_init(&ended, 0, 0);
    struct meta_task task = {.ino = attr.ino, .done = task_done, .arg = &ended};
    meta_settle_wait(meta, &task);
    while (sem_wait(&ended) < 0 && errno == EINTR)
        ;
    check_int(task.result, 0);
    /* As gc does later. */
    struct store_op op = {.kind = STORE_DELETE, .key = "a_temporary"};
    check_int(store_wait(memory, &op), 0);
    store_op_reset(&op);
    check_read(handle, 600 * KIB, 64 * KIB, bytes);
    check_read(handle, 0, size, bytes);
    data_file_release(handle);
    free(bytes);
    sem_destroy(&ended);
}

TEST(data_read, failure_of_the_store_is_eio_once, .init = begin, .fini = end)
{
    uint8_t *bytes = make_bytes(MIB, 9), got[4096];
    put("f", bytes, MIB);
    struct data_handle *handle = open_name("f");
    struct store_fault_rule rule = {.kind = STORE_GET, .count = 1, .result = -EIO};
    store_fault_set(store, &rule, 1);
    check_int(read_at(handle, 300 * KIB, 4096, got), -EIO);
    check_read(handle, 300 * KIB, 4096, bytes);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, failed_read_ahead_is_silent, .init = begin, .fini = end)
{
    uint64_t size = 8 * MIB;
    uint8_t *bytes = make_bytes(size, 10);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    /* The reader's own GET is the first, the second is for what is ahead of him. */
    struct store_fault_rule rule = {
        .kind = STORE_GET, .key_part = "f", .skip = 1, .count = 1, .result = -ETIMEDOUT};
    store_fault_set(store, &rule, 1);
    for (uint64_t offset = 0; offset < size; offset += 128 * KIB)
        check_read(handle, offset, 128 * KIB, bytes);
    data_file_release(handle);
    free(bytes);
}

struct reading {
    pthread_t thread;
    struct data_handle *handle;
    const uint8_t *bytes;
    uint64_t offset, length, step;
    bool good;
};

static void *run_reader(void *arg)
{
    struct reading *reader = arg;
    uint8_t *got = malloc(reader->step);
    reader->good = true;
    for (uint64_t at = 0; at < reader->length && reader->good; at += reader->step)
        reader->good = read_at(reader->handle, reader->offset + at, reader->step, got) ==
                           (int64_t)reader->step &&
                       !memcmp(got, reader->bytes + reader->offset + at, reader->step);
    free(got);
    return NULL;
}

TEST(data_read, readers_of_one_block_share_one_get, .init = begin, .fini = end)
{
    uint8_t *bytes = make_bytes(2 * MIB, 11);
    put("f", bytes, 2 * MIB);
    struct data_handle *handle = open_name("f");
    check_read(handle, 0, 4096, bytes);
    struct store_fault_rule rule = {.kind = STORE_GET, .delay_ms = 1000};
    store_fault_set(store, &rule, 1);
    uint64_t before = store_fault_seen(store, STORE_GET);
    struct reading readers[8];
    for (int i = 0; i < 8; i++) {
        readers[i] = (struct reading){.handle = handle,
                                      .bytes = bytes,
                                      .offset = 512 * KIB,
                                      .length = 64 * KIB,
                                      .step = 64 * KIB};
        check_int(pthread_create(&readers[i].thread, NULL, run_reader, &readers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(readers[i].thread, NULL);
        check(readers[i].good);
    }
    /* A thread that started late, on a machine that is busy, may need one of its own. */
    check(store_fault_seen(store, STORE_GET) - before < 8);
    data_file_release(handle);
    free(bytes);
}

TEST(data_read, many_streams_stay_within_the_budget, .init = begin, .fini = end)
{
    uint64_t size = 8 * MIB;
    uint8_t *bytes = make_bytes(size, 12);
    struct reading readers[12];
    for (int i = 0; i < 12; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        put(name, bytes, size);
        readers[i] = (struct reading){
            .handle = open_name(name), .bytes = bytes, .length = size, .step = MIB};
    }
    for (int i = 0; i < 12; i++)
        check_int(pthread_create(&readers[i].thread, NULL, run_reader, &readers[i]), 0);
    for (int i = 0; i < 12; i++) {
        pthread_join(readers[i].thread, NULL);
        check(readers[i].good);
    }
    struct data_stats stats;
    data_stats(data, &stats);
    check(stats.buffer_peak_bytes <= 32 * MIB);
    for (int i = 0; i < 12; i++)
        data_file_release(readers[i].handle);
    free(bytes);
}

/* Each takes its part of the memory: what the others fetch ahead leaves room for demand and for the
 * way into the cache. */
TEST(data_read, streams_share_the_memory, .init = begin, .fini = end)
{
    enum { READERS = 8 };
    const uint64_t part = 8 * MIB;
    uint8_t *bytes = make_bytes(READERS * part, 14);
    put("f", bytes, READERS * part);
    struct data_handle *handles[READERS];
    for (unsigned i = 0; i < READERS; i++)
        handles[i] = open_name("f");
    for (uint64_t offset = 0; offset < part; offset += 512 * KIB)
        for (unsigned i = 0; i < READERS; i++)
            check_read(handles[i], i * part + offset, 512 * KIB, bytes);
    for (unsigned i = 0; i < READERS; i++)
        data_file_release(handles[i]);
    free(bytes);
    struct data_stats stats;
    data_stats(data, &stats);
    /* Half of the 16 MiB, and what is read; three quarters would be more. */
    check(stats.buffer_peak_bytes <= 11 * MIB);
}

TEST(data_read, one_handle_read_by_many_threads, .init = begin, .fini = end)
{
    uint64_t size = 16 * MIB;
    uint8_t *bytes = make_bytes(size, 13);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    struct reading readers[8];
    for (uint64_t i = 0; i < 8; i++) {
        readers[i] = (struct reading){.handle = handle,
                                      .bytes = bytes,
                                      .offset = i * 2 * MIB,
                                      .length = 2 * MIB,
                                      .step = 64 * KIB};
        check_int(pthread_create(&readers[i].thread, NULL, run_reader, &readers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(readers[i].thread, NULL);
        check(readers[i].good);
    }
    data_file_release(handle);
    free(bytes);
}

TEST(read_range, gives_committed_bytes_and_zeros, .init = begin, .fini = end)
{
    uint64_t size = MIB;
    uint8_t *bytes = make_bytes(size + 5000, 14), *got = malloc(size + 5000);
    memset(bytes + size, 0, 5000);
    put("f", bytes, size);
    struct data_handle *handle = open_name("f");
    write_at(handle, 10, "staged", 6);
    struct call call;
    call_init(&call);
    check_int(call_wait(&call, read_range(handle->file, 0, size + 5000, got, &call.request)), 0);
    check_mem(got, bytes, size + 5000);
    data_file_release(handle);
    free(bytes);
    free(got);
}

/* Opens files of one content each, one after the other; how many may keep the kernel's pages. */
static unsigned open_each(uint64_t count, uint64_t version)
{
    unsigned keep = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct meta_attr attr = {
            .ino = 1000 + i, .mode = S_IFREG | 0644, .nlink = 1, .data_version = version};
        struct data_handle *handle;
        check_int(data_file_open(data, &attr, false, &handle), 0);
        keep += data_handle_keep_cache(handle);
        data_file_release(handle);
    }
    return keep;
}

TEST(data_keep_cache, files_used_in_turn_keep_their_pages, .init = begin, .fini = end)
{
    check_int(open_each(40000, 1), 0);
    check_int(open_each(40000, 1), 40000);
    check_int(open_each(10, 2), 0); /* other content */
    check_int(open_each(10, 2), 10);
}
