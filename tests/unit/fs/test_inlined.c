/* Bytes of small files that are kept when they are closed: right as long as their version is. */
#include "data/inlined.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data_lib.h"

static struct data_test t;

static void begin(void)
{
    data_begin(&t);
    check_int(inlined_new(&t.data->inlined), 0); /* as for a volume of a service */
}

static void end(void)
{
    data_end(&t);
}

static struct file_extents *extents_of(uint64_t version, uint64_t length)
{
    struct file_extents *extents = calloc(1, sizeof(*extents));
    atomic_init(&extents->refs, 1);
    extents->data_version = version;
    meta_reply_init(&extents->reply);
    extents->reply.extents = meta_reply_alloc(&extents->reply, sizeof(struct meta_extent));
    extents->reply.extents[0] =
        (struct meta_extent){.kind = META_EXTENT_INLINE,
                             .length = length,
                             .data = meta_reply_alloc(&extents->reply, length)};
    extents->reply.extent_count = 1;
    return extents;
}

static bool has(struct inlined *inlined, uint64_t ino, uint64_t version)
{
    struct file_extents *extents = inlined_get(inlined, ino, version);
    file_extents_unref(extents);
    return extents;
}

static void put(struct inlined *inlined, uint64_t ino, uint64_t version, uint64_t length)
{
    struct file_extents *extents = extents_of(version, length);
    inlined_put(inlined, ino, extents);
    file_extents_unref(extents);
}

TEST(inlined, has_what_was_put_last_of_its_version)
{
    struct inlined *inlined;
    check_int(inlined_new(&inlined), 0);
    put(inlined, 5, 2, 100);
    check(has(inlined, 5, 2));
    check(!has(inlined, 5, 3) && !has(inlined, 6, 2));
    put(inlined, 5, 3, 100);
    check(has(inlined, 5, 3) && !has(inlined, 5, 2));
    struct file_extents *object = extents_of(1, 100);
    object->reply.extents[0].length = 1ull << 40;
    object->reply.extents[0].kind = META_EXTENT_OBJECT;
    object->reply.object_count = 1;
    inlined_put(inlined, 7, object);
    check(has(inlined, 7, 1));
    inlined_moved(inlined, 7); /* where an object lies may change under its version, */
    inlined_moved(inlined, 5); /* not what is inline */
    check(!has(inlined, 7, 1) && has(inlined, 5, 3));
    object->reply.object_count = 2;
    inlined_put(inlined, 7, object);
    check(!has(inlined, 7, 1));
    file_extents_unref(object);
    inlined_put(inlined, 8, NULL);
    inlined_put(NULL, 8, NULL);
    check(!has(NULL, 8, 1));
    inlined_gone(inlined, 5);
    inlined_gone(NULL, 5);
    check(!has(inlined, 5, 3));
    inlined_free(inlined);
}

TEST(inlined, is_bounded)
{
    struct inlined *inlined;
    uint64_t length = INLINED_BYTES_MAX / 10;
    check_int(inlined_new(&inlined), 0);
    for (uint64_t ino = 2; ino < 22; ino++) {
        put(inlined, ino, 1, length);
        check(has(inlined, 2, 1)); /* what is used stays */
    }
    check(!has(inlined, 3, 1) && !has(inlined, 12, 1));
    check(has(inlined, 21, 1));
    put(inlined, 30, 1, INLINED_BYTES_MAX);
    check(!has(inlined, 30, 1) && has(inlined, 21, 1));
    inlined_free(inlined);
}

#ifndef __SANITIZE_ADDRESS__ /* its malloc counts nothing */
TEST(inlined, counts_all_memory_of_small_files)
{
    struct inlined *inlined;
    check_int(inlined_new(&inlined), 0);
    uint64_t before = mallinfo2().uordblks, files = 2 * INLINED_BYTES_MAX / 512;
    for (uint64_t ino = 2; ino < 2 + files; ino++)
        put(inlined, ino, 1, 10);
    uint64_t taken = mallinfo2().uordblks - before;
    check(taken > INLINED_BYTES_MAX / 2);
    check(taken < INLINED_BYTES_MAX / 4 * 5); /* malloc's own, and the table's */
    inlined_free(inlined);
}
#endif

static bool is_kept(struct data_handle *handle)
{
    pthread_mutex_lock(&handle->file->lock);
    bool kept = handle->file->extents;
    pthread_mutex_unlock(&handle->file->lock);
    return kept;
}

/* Written, closed, and out of the table of open files. */
static uint64_t make_closed(void)
{
    uint64_t ino;
    struct data_handle *handle = data_test_create(&t, "a", &ino);
    check_int(data_test_write(handle, "0123456789", 0, 10), 10);
    check_int(data_test_flush(handle), 0);
    data_file_release(handle);
    for (int i = 0; atomic_load(&t.data->file_count) && i < 120000; i++)
        usleep(1000);
    check_uint(atomic_load(&t.data->file_count), 0);
    return ino;
}

TEST(inlined, a_file_that_was_written_here_needs_no_question, .init = begin, .fini = end)
{
    char bytes[10];
    struct data_handle *handle = data_test_handle(&t, make_closed());
    check(!is_kept(handle));
    data_handle_kept(handle, data_changes(t.data));
    check(is_kept(handle));
    check_int((int)data_test_read(handle, 0, 10, bytes), 10);
    check_int(memcmp(bytes, "0123456789", 10), 0);
    data_file_release(handle);
}

TEST(inlined, what_is_pushed_between_attributes_and_open_counts, .init = begin, .fini = end)
{
    uint64_t ino = make_closed(), since = data_changes(t.data);
    data_content_changed(t.data, ino);
    struct data_handle *handle = data_test_handle(&t, ino);
    data_handle_kept(handle, since);
    check(!is_kept(handle));
    data_file_release(handle);
}

/* The service may have to wait with an answer, and then a push overtakes it. */
TEST(inlined, extents_of_before_a_push_are_not_taken, .init = begin, .fini = end)
{
    uint64_t ino = make_closed(), since = data_changes(t.data);
    struct meta_request ask = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    check_int(meta_call(t.data->meta, &ask), 0);
    data_content_changed(t.data, ino);
    struct data_handle *handle = data_test_handle(&t, ino);
    data_handle_extents(handle, &ask.reply, since);
    check(!is_kept(handle));
    data_handle_extents(handle, &ask.reply, data_changes(t.data));
    check(is_kept(handle));
    meta_reply_done(&ask.reply);
    data_file_release(handle);
}
