/*
 * Writing through the data path: what a reader, the attributes and, after a flush, the store see.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "data/file.h"
#include "data/staging.h"
#include "data_lib.h"

#define KIB 1024u

static struct data_test t;

static void begin(void)
{
    data_begin(&t);
}

static void end(void)
{
    data_end(&t);
}

static struct data_stats stats_now(void)
{
    struct data_stats stats;
    data_stats(t.data, &stats);
    return stats;
}

TEST(write, a_small_file_is_committed_inline, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "small", &ino);
    check_int(data_test_write(h, "hello", 0, 5), 5);
    check_int(data_test_append(h, " world", 6), 6);
    data_test_check(&t, ino, "hello world", 11);
    check_str(data_test_extents(&t, ino), "");
    check_int(data_test_flush(h), 0);
    check_str(data_test_extents(&t, ino), "inline 0+11;");
    data_test_check(&t, ino, "hello world", 11);
    data_test_check_committed(&t, ino, "hello world", 11);
    check_uint(bucket_count(&t.v, "small"), 0);
    check_int(data_test_flush(h), 0);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    check_uint(stats_now().staged_bytes, 0);
}

TEST(write, a_patch_of_a_large_file_is_inline, .init = begin, .fini = end)
{
    static uint8_t bytes[100 * KIB];
    uint64_t ino;
    random_fill(bytes, sizeof(bytes));
    struct data_handle *h = data_test_create(&t, "large", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_flush(h), 0);
    check_str(data_test_extents(&t, ino), "object 0+102400;");
    check(bucket_has(&t.v, "large"));
    static const uint8_t patch[] = {'p', 'a', 't', 'c', 'h'};
    memcpy(bytes + 500, patch, sizeof(patch));
    check_int(data_test_write(h, patch, 500, sizeof(patch)), sizeof(patch));
    data_test_check(&t, ino, bytes, sizeof(bytes));
    check_int(data_test_flush(h), 0);
    check_str(data_test_extents(&t, ino), "object 0+500;inline 500+5;object 505+101895;");
    data_test_check(&t, ino, bytes, sizeof(bytes));
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    data_file_release(h);
}

TEST(write, scattered_ranges_are_one_object, .init = begin, .fini = end)
{
    static uint8_t bytes[300 * KIB], patch[20 * KIB];
    uint64_t ino;
    random_fill(bytes, sizeof(bytes));
    random_fill(patch, sizeof(patch));
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_flush(h), 0);
    unsigned before = bucket_count(&t.v, "");
    for (int i = 0; i < 5; i++) {
        memcpy(bytes + i * 50 * KIB, patch, sizeof(patch));
        check_int(data_test_write(h, patch, i * 50 * KIB, sizeof(patch)), sizeof(patch));
    }
    check_int(data_test_flush(h), 0);
    check_uint(bucket_count(&t.v, ""), before + 1);
    data_test_check(&t, ino, bytes, sizeof(bytes));
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    data_file_release(h);
}

TEST(write, what_was_cut_reads_as_zeros, .init = begin, .fini = end)
{
    static uint8_t bytes[200 * KIB];
    uint64_t ino;
    random_fill(bytes, sizeof(bytes));
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_flush(h), 0);
    check_int(data_test_truncate(&t, ino, 1000), 0);
    check_int(data_test_truncate(&t, ino, sizeof(bytes)), 0);
    memset(bytes + 1000, 0, sizeof(bytes) - 1000);
    bytes[150000] = 'x';
    check_int(data_test_write(h, "x", 150000, 1), 1);
    data_test_check(&t, ino, bytes, sizeof(bytes));
    check_int(data_test_flush(h), 0);
    data_test_check(&t, ino, bytes, sizeof(bytes));
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    check_str(data_test_extents(&t, ino), "object 0+1000;inline 150000+1;");
    data_file_release(h);
}

TEST(write, a_file_that_is_not_open_is_cut_at_once, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, "hello", 0, 5), 5);
    check_int(data_test_flush(h), 0);
    data_file_release(h);
    check_int(data_test_truncate(&t, ino, 2), 0);
    data_test_check_committed(&t, ino, "he", 2);
    check_int(data_test_truncate(&t, 4711, 2), -ENOENT);
}

TEST(write, punching_makes_holes, .init = begin, .fini = end)
{
    static uint8_t bytes[200 * KIB];
    uint64_t ino;
    random_fill(bytes, sizeof(bytes));
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_flush(h), 0);
    int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    check_int(data_test_fallocate(h, punch, 100, 100 * KIB), 0);
    memset(bytes + 100, 0, 100 * KIB);
    data_test_check(&t, ino, bytes, sizeof(bytes));
    uint64_t objects = bucket_count(&t.v, "");
    check_int(data_test_flush(h), 0);
    check_uint(bucket_count(&t.v, ""), objects);
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    check_int(data_test_seek(h, 0, SEEK_HOLE), 100);
    check_int(data_test_seek(h, 100, SEEK_DATA), 100 + 100 * KIB);
    check_int(data_test_seek(h, sizeof(bytes), SEEK_DATA), -ENXIO);
    check_int(data_test_seek(h, 150 * KIB, SEEK_HOLE), sizeof(bytes));
    check_int(data_test_fallocate(h, 0, 0, 250 * KIB), 0);
    check_uint(data_test_attr(&t, ino).size, 250 * KIB);
    check_int(data_test_fallocate(h, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
    check_int(data_test_seek(h, 0, SEEK_DATA), 0);
    check_int(data_test_seek(h, 210 * KIB, SEEK_DATA), -ENXIO);
    data_file_release(h);
}

TEST(write, copying_shares_the_object, .init = begin, .fini = end)
{
    static uint8_t bytes[200 * KIB];
    uint64_t ino, copy;
    random_fill(bytes, sizeof(bytes));
    struct data_handle *h = data_test_create(&t, "f", &ino), *c = data_test_create(&t, "g", &copy);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_write(c, "old old", 0, 7), 7);
    check_int(data_test_copy(h, 0, c, 0, 1 << 30), sizeof(bytes));
    data_test_check(&t, copy, bytes, sizeof(bytes));
    data_test_check_committed(&t, copy, bytes, sizeof(bytes));
    check_uint(bucket_count(&t.v, "g"), 0);
    check_int(data_test_copy(h, sizeof(bytes), c, 0, 1), 0);
    check_int(data_test_copy(h, 0, h, 10, 100), -EINVAL);
    data_file_release(h);
    data_file_release(c);
}

TEST(write, an_unlinked_file_is_not_uploaded, .init = begin, .fini = end)
{
    static uint8_t bytes[100 * KIB];
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    data_unlinked(t.data, ino);
    check_int(data_test_flush(h), 0);
    static uint8_t got[100 * KIB];
    check_int(data_test_read(h, 0, sizeof(got), got), sizeof(got));
    check_mem(got, bytes, sizeof(got));
    data_linked(t.data, ino);
    check_int(data_test_flush(h), 0);
    check(bucket_has(&t.v, "f"));
    check_int(data_test_write(h, "x", 0, 1), 1);
    data_unlinked(t.data, ino);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    check_uint(stats_now().staged_bytes, 0);
    check_uint(stats_now().dirty_files, 0);
}

TEST(write, a_time_that_was_set_is_not_undone, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, "hello", 0, 5), 5);
    struct meta_request set = {.op = {.kind = META_SETATTR,
                                      .ino = ino,
                                      .valid = META_SET_MTIME,
                                      .attr = {.mtime_ns = 12345}}};
    check_int(meta_call(t.v.meta, &set), 0);
    data_times_set(t.data, ino, 12345, set.reply.attr.ctime_ns);
    meta_reply_done(&set.reply);
    check_uint(data_test_attr(&t, ino).mtime_ns, 12345);
    check_int(data_test_flush(h), 0);
    check_uint(data_test_attr(&t, ino).mtime_ns, 12345);
    check_int(data_test_write(h, "x", 0, 1), 1);
    check(data_test_attr(&t, ino).mtime_ns != 12345);
    data_file_release(h);
}

/* ---- against a plain buffer ---- */

#define MODEL_MAX (400u * KIB)

struct model {
    uint8_t bytes[MODEL_MAX];
    uint64_t size;
};

enum change_kind {
    CHANGE_WRITE,
    CHANGE_TRUNCATE,
    CHANGE_PUNCH,
    CHANGE_FLUSH,
    CHANGE_REOPEN,
    CHANGE_READ
};

struct change {
    enum change_kind kind;
    uint64_t offset, length;
    uint64_t seed;
};

static struct change change_next(const struct model *model, bool small)
{
    static const enum change_kind kinds[] = {
        CHANGE_WRITE, CHANGE_WRITE, CHANGE_WRITE,    CHANGE_WRITE, CHANGE_WRITE, CHANGE_WRITE,
        CHANGE_READ,  CHANGE_FLUSH, CHANGE_TRUNCATE, CHANGE_PUNCH, CHANGE_REOPEN};
    uint64_t max = small ? 40 * KIB : MODEL_MAX;
    struct change c = {.kind = kinds[random_below(ARRAY_LEN(kinds))], .seed = random_next()};
    /* Half of the writes go on at the end: streams. */
    c.offset = random_below(2) && model->size < max ? model->size : random_below(max);
    c.length = 1 + random_below(small || random_below(2) ? 5000 : 100000);
    if (c.length > MODEL_MAX - c.offset)
        c.length = MODEL_MAX - c.offset;
    if (c.kind == CHANGE_TRUNCATE && random_below(3) == 0)
        c.offset = 0;
    return c;
}

static void model_apply(struct model *model, const struct change *c, uint8_t *bytes)
{
    uint64_t end = c->offset + c->length;
    switch (c->kind) {
    case CHANGE_WRITE:
        for (uint64_t i = 0, x = c->seed; i < c->length; i++, x = x * 6364136223846793005ull + 1)
            bytes[i] = (uint8_t)(x >> 56);
        if (c->offset > model->size)
            memset(model->bytes + model->size, 0, c->offset - model->size);
        memcpy(model->bytes + c->offset, bytes, c->length);
        model->size = MAX(model->size, end);
        break;
    case CHANGE_TRUNCATE:
        if (c->offset > model->size)
            memset(model->bytes + model->size, 0, c->offset - model->size);
        model->size = c->offset;
        break;
    case CHANGE_PUNCH:
        if (c->offset < model->size)
            memset(model->bytes + c->offset, 0, MIN(end, model->size) - c->offset);
        break;
    default:
        break;
    }
}

/* One change to the file; 0 or the error. */
static int file_apply(struct data_test *test, uint64_t ino, struct data_handle **h,
                      const struct change *c, const uint8_t *bytes)
{
    int rc = 0;
    switch (c->kind) {
    case CHANGE_WRITE:
        rc = data_test_write(*h, bytes, c->offset, c->length);
        return rc == (int)c->length ? 0 : -EIO;
    case CHANGE_TRUNCATE:
        return data_test_truncate(test, ino, c->offset);
    case CHANGE_PUNCH:
        return data_test_fallocate(*h, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, c->offset,
                                   c->length);
    case CHANGE_FLUSH:
        return data_test_flush(*h);
    case CHANGE_REOPEN:
        data_file_release(*h);
        *h = data_test_handle(test, ino);
        return 0;
    case CHANGE_READ:
        break;
    }
    return 0;
}

static void random_run(struct data_test *test, uint64_t seed, unsigned steps, bool small)
{
    static uint8_t bytes[100000];
    struct model *model = calloc(1, sizeof(*model));
    char name[32];
    uint64_t ino;
    snprintf(name, sizeof(name), "file%llu", (unsigned long long)seed);
    struct data_handle *h = data_test_create(test, name, &ino);
    random_seed(seed);
    for (unsigned i = 0; i < steps; i++) {
        struct change c = change_next(model, small);
        model_apply(model, &c, bytes);
        check_int(file_apply(test, ino, &h, &c, bytes), 0);
        if (c.kind == CHANGE_READ || c.kind == CHANGE_FLUSH)
            data_test_check(test, ino, model->bytes, model->size);
        if (c.kind == CHANGE_FLUSH)
            data_test_check_committed(test, ino, model->bytes, model->size);
    }
    check_int(data_test_flush(h), 0);
    data_test_check_committed(test, ino, model->bytes, model->size);
    data_file_release(h);
    data_test_check(test, ino, model->bytes, model->size);
    free(model);
}

TEST(write, random_changes_match_a_plain_buffer, .init = begin, .fini = end)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        random_run(&t, seed, 120, seed % 3 == 0);
}

/* Requests that come late, so that writes meet flushes in every state. */
TEST(write, random_changes_while_the_store_is_slow, .init = begin, .fini = end)
{
    volume_fault(&t.v, (struct store_fault_rule){.kind = -1, .delay_ms = 2});
    for (uint64_t seed = 21; seed <= 24; seed++)
        random_run(&t, seed, 80, false);
    volume_no_fault(&t.v);
}

static void ignore_entry(void *arg, uint64_t parent, const char *name, size_t len)
{
}

static void ignore_inode(void *arg, uint64_t ino, bool data)
{
}

/* The data path is told as the front tells it. */
static void extents_moved(void *arg, uint64_t ino)
{
    struct data_test *test = arg;
    if (test->data)
        data_extents_changed(test->data, ino, false);
}

TEST(write, random_changes_while_files_settle)
{
    char dir[4096];
    test_dir_make(dir);
    data_begin_file(&t, dir);
    t.v.config.no_settle = false;
    t.v.config.events.extents_changed = extents_moved;
    t.v.config.events.arg = &t;
    t.v.config.events.entry_changed = ignore_entry;
    t.v.config.events.inode_changed = ignore_inode;
    data_test_open(&t);
    for (uint64_t seed = 31; seed <= 34; seed++)
        random_run(&t, seed, 60, seed == 32);
    data_end(&t);
}

/* ---- several at once ---- */

#define WRITERS 4u
#define REGION (100u * KIB)

struct writer {
    struct data_handle *handle;
    unsigned index;
    uint8_t *bytes; /* of its region */
    bool good;
};

/* Writes, flushes and reads its own region of the shared file. */
static void *writer_run(void *arg)
{
    struct writer *w = arg;
    uint64_t start = (uint64_t)w->index * REGION, x = w->index + 1;
    uint8_t *got = malloc(REGION);
    w->good = true;
    for (unsigned i = 0; i < 150 && w->good; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t offset = (x >> 33) % REGION, length = 1 + (x >> 20) % 20000;
        length = MIN(length, REGION - offset);
        memset(w->bytes + offset, (int)(x >> 56), length);
        int n = data_test_write(w->handle, w->bytes + offset, start + offset, length);
        w->good = n == (int)length;
        if (i % 8 == w->index)
            w->good &= data_test_flush(w->handle) == 0;
        int64_t want = (int64_t)(offset + length);
        int64_t read = data_test_read(w->handle, start, (uint64_t)want, got);
        w->good &= read == want && memcmp(got, w->bytes, (size_t)want) == 0;
    }
    free(got);
    return NULL;
}

TEST(write, several_writers_see_their_own_writes, .init = begin, .fini = end)
{
    static uint8_t bytes[WRITERS * REGION];
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "f", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    volume_fault(&t.v, (struct store_fault_rule){.kind = -1, .delay_ms = 1});
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){data_test_handle(&t, ino), i, bytes + i * REGION, false};
        check_int(pthread_create(&threads[i], NULL, writer_run, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        check_int(pthread_join(threads[i], NULL), 0);
        data_file_release(writers[i].handle);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        check(writers[i].good);
    volume_no_fault(&t.v);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, sizeof(bytes));
    data_file_release(h);
}

/* ---- a process that dies ---- */

static void play(struct data_test *test, const char *dir, uint64_t seed, unsigned steps,
                 struct model *model)
{
    static uint8_t bytes[100000];
    uint64_t ino;
    struct data_handle *h = NULL;
    if (test) {
        data_begin_file(test, dir);
        data_test_open(test);
        h = data_test_create(test, "file", &ino);
    }
    random_seed(seed);
    for (unsigned i = 0; i < steps; i++) {
        struct change c = change_next(model, seed % 3 == 0);
        model_apply(model, &c, bytes);
        if (test && file_apply(test, ino, &h, &c, bytes))
            _exit(2);
    }
}

TEST(write, what_was_written_survives_a_killed_process)
{
    struct model *model = calloc(1, sizeof(*model));
    for (uint64_t seed = 41; seed <= 52; seed++) {
        char dir[4096];
        test_dir_make(dir);
        unsigned steps = 1 + (unsigned)seed % 30;
        pid_t child = fork();
        check(child >= 0);
        memset(model, 0, sizeof(*model));
        if (child == 0) {
            play(&t, dir, seed, steps, model);
            _exit(0);
        }
        int status;
        check_int(waitpid(child, &status, 0), child);
        check_int(status, 0);
        play(NULL, NULL, seed, steps, model);

        data_begin_file(&t, dir);
        data_test_open(&t);
        uint64_t ino = name_ino(&t.v, META_ROOT_INO, "file");
        data_test_check(&t, ino, model->bytes, model->size);
        data_test_check_committed(&t, ino, model->bytes, model->size);
        check_uint(stats_now().staged_bytes, 0);
        data_end(&t);
    }
    free(model);
}

/* What a change that was not answered may have left: its bytes, the old ones, or some of each. */
static void check_half_done(struct data_test *test, uint64_t ino, const struct model *before,
                            const struct model *after, const struct change *c)
{
    uint64_t size = data_test_attr(test, ino).size;
    check(size == before->size || size == after->size);
    uint8_t *got = malloc(MODEL_MAX + 1);
    struct data_handle *h = data_test_handle(test, ino);
    int64_t n = data_test_read(h, 0, MODEL_MAX, got);
    check_int(n, (int64_t)size);
    data_file_release(h);
    for (uint64_t i = 0; i < size; i++) {
        uint8_t old = i < before->size ? before->bytes[i] : 0;
        uint8_t new = i < after->size ? after->bytes[i] : 0;
        if (got[i] != old && got[i] != new)
            test_fail("byte %llu of %llu is %02x, expected %02x or %02x (change %d at %llu+%llu)",
                      (unsigned long long)i, (unsigned long long)size, got[i], old, new, c->kind,
                      (unsigned long long)c->offset, (unsigned long long)c->length);
    }
    free(got);
}

/* Steps that were answered, told by the process that will be killed. */
static _Atomic unsigned *answered;

static void play_until_killed(const char *dir, uint64_t seed, const char *crash_at)
{
    static uint8_t buf[100000];
    struct model *model = calloc(1, sizeof(*model));
    uint64_t ino;
    crash_setup(crash_at, NULL);
    data_begin_file(&t, dir);
    data_test_open(&t);
    struct data_handle *h = data_test_create(&t, "file", &ino);
    atomic_store(answered, 1);
    random_seed(seed);
    for (;;) {
        struct change c = change_next(model, seed % 4 == 0);
        model_apply(model, &c, buf);
        if (file_apply(&t, ino, &h, &c, buf))
            _exit(2);
        atomic_fetch_add(answered, 1);
    }
}

static void recover_and_check(const char *dir, uint64_t seed, unsigned steps)
{
    static uint8_t buf[100000];
    struct model *before = calloc(1, sizeof(*before)), *after = calloc(1, sizeof(*after));
    struct change c = {0};
    random_seed(seed);
    for (unsigned i = 0; i < steps; i++) {
        memcpy(before, after, sizeof(*before));
        c = change_next(after, seed % 4 == 0);
        model_apply(after, &c, buf);
    }
    data_begin_file(&t, dir);
    data_test_open(&t);
    uint64_t ino = name_ino(&t.v, META_ROOT_INO, "file");
    check_half_done(&t, ino, before, after, &c);
    data_end(&t);
    free(before);
    free(after);
}

/* Ends by SIGKILL at the crash point (if one is named), or after some answers. */
static void kill_and_recover(uint64_t seed, unsigned steps, const char *crash_at)
{
    char dir[4096];
    test_dir_make(dir);
    answered = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(answered != MAP_FAILED);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0)
        play_until_killed(dir, seed, crash_at);
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (atomic_load(answered) > steps)
            kill(child, SIGKILL);
        else
            sleep_ms(1);
    }
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    check(atomic_load(answered) > 0);
    recover_and_check(dir, seed, atomic_load(answered));
    munmap((void *)answered, 4096);
}

TEST(write, killed_at_any_moment_nothing_answered_is_lost)
{
    for (uint64_t seed = 61; seed <= 72; seed++)
        kill_and_recover(seed, (unsigned)(seed * 7 % 60), NULL);
}

TEST(write, killed_at_each_step_of_a_flush_nothing_answered_is_lost)
{
    static const char *const points[] = {"flush.reserved", "flush.sent", "flush.completed",
                                         "flush.committed", "stream.part"};
    for (uint64_t seed = 81; seed <= 83; seed++)
        for (size_t i = 0; i < ARRAY_LEN(points); i++) {
            char at[40];
            snprintf(at, sizeof(at), "%s:%u", points[i], (unsigned)(seed - 80));
            kill_and_recover(seed, 3000, at);
        }
}

/* Writes `count` pieces of `length` bytes one after the other and closes; whether the next open,
 * and the one after it, keep the kernel's pages. */
static void write_pieces(const char *name, unsigned count, unsigned length, bool keep[2])
{
    uint64_t ino;
    struct data_handle *handle = data_test_create(&t, name, &ino);
    uint8_t *bytes = calloc(1, length);
    for (unsigned i = 0; i < count; i++)
        check_int(data_test_write(handle, bytes, (uint64_t)i * length, length), (int)length);
    check_int(data_test_flush(handle), 0);
    data_file_release(handle);
    free(bytes);
    for (int i = 0; i < 2; i++) {
        handle = data_test_handle(&t, ino);
        keep[i] = data_handle_keep_cache(handle);
        data_file_release(handle);
    }
}

TEST(write, a_file_written_in_pieces_of_pages_is_read_anew, .init = begin, .fini = end)
{
    bool keep[2];
    write_pieces("tar", 4, 10 * KIB, keep); /* pages 2 and 7 come in two pieces */
    check(!keep[0] && keep[1]);
    write_pieces("whole pages", 4, 8 * KIB, keep);
    check(keep[0] && keep[1]);
    write_pieces("one piece", 1, 10 * KIB, keep); /* its last page only */
    check(keep[0] && keep[1]);
    write_pieces("lines", 50, 80, keep); /* all in one page */
    check(keep[0] && keep[1]);
}

TEST(write, pages_that_the_kernel_collected_are_whole, .init = begin, .fini = end)
{
    bool keep[2];
    data_test_close(&t);
    t.config.whole_pages = true;
    data_test_open(&t);
    write_pieces("collected", 4, 10 * KIB, keep);
    check(keep[0] && keep[1]);
}

/* --- files of medium size */
static const char *written_of(const char *name, uint64_t length)
{
    uint64_t ino;
    struct data_handle *handle = data_test_create(&t, name, &ino);
    uint8_t *bytes = malloc(length);
    random_fill(bytes, length);
    check_int(data_test_write(handle, bytes, 0, length), (int)length);
    check_int(data_test_flush(handle), 0);
    data_test_check_committed(&t, ino, bytes, length);
    data_file_release(handle);
    free(bytes);
    return data_test_extents(&t, ino);
}

TEST(write, a_file_of_medium_size_is_inline_while_not_many_come, .init = begin, .fini = end)
{
    data_test_close(&t);
    t.config.part_bytes = 1024 * KIB; /* no stream of such a file */
    data_test_open(&t);
    t.data->inline_most = 256 * KIB;
    check_str(written_of("first", 200 * KIB), "inline 0+204800;");
    check_str(written_of("large", 300 * KIB), "object 0+307200;");
    t.data->burst = (struct burst){.left = 100 * KIB, .seen_ns = UINT64_MAX};
    check_str(written_of("no room", 200 * KIB), "object 0+204800;");
    check_str(written_of("small", 10 * KIB), "inline 0+10240;");
    check_uint(t.data->burst.left, 100 * KIB); /* small ones do not count */
    check_str(written_of("fits", 100 * KIB), "inline 0+102400;");
    check_uint(t.data->burst.left, 0);
}

/* Somebody opens a file: its attributes are asked for, and before they are used somebody else has
 * written, closed and let go of it. */
TEST(write, attributes_of_before_a_commit_cut_nothing, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "late", &ino), *late = NULL;
    check_int(data_test_write(h, "0123456789", 0, 10), 10);
    check_int(data_test_flush(h), 0);
    struct meta_attr before = data_test_attr(&t, ino);
    check_int(data_test_write(h, "abcdefghij", 10, 10), 10);
    check_int(data_test_flush(h), 0);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    check_int(data_file_open(t.data, &before, true, &late), -EAGAIN);
    h = data_test_handle(&t, ino);
    check_int(data_test_write(h, "XX", 2, 2), 2);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, "01XX456789abcdefghij", 20);
    data_file_release(h);
}

/* truncate(2) of what somebody reads: no close follows it. */
TEST(write, a_truncate_beside_a_reader_is_committed_soon, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "read", &ino), *reader = NULL;
    check_int(data_test_write(h, "0123456789", 0, 10), 10);
    check_int(data_test_flush(h), 0);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    struct meta_attr attr = data_test_attr(&t, ino);
    check_int(data_file_open(t.data, &attr, false, &reader), 0);
    check_int(data_test_truncate(&t, ino, 4), 0);
    check_uint(t.config.flush_age_ms, 3600000);
    data_test_check_committed(&t, ino, "0123", 4);
    data_file_release(reader);
}

TEST(write, attributes_of_before_a_truncate_come_too_late, .init = begin, .fini = end)
{
    uint64_t ino;
    struct data_handle *h = data_test_create(&t, "cut", &ino);
    check_int(data_test_write(h, "0123456789", 0, 10), 10);
    check_int(data_test_flush(h), 0);
    data_file_release(h);
    eventually(stats_now().open_files == 0);
    struct meta_attr before = data_test_attr(&t, ino);
    check_int(data_test_truncate(&t, ino, 4), 0);
    check_int(data_file_open(t.data, &before, true, &h), -EAGAIN);
    h = data_test_handle(&t, ino);
    check_int(data_test_write(h, "X", 1, 1), 1);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, "0X23", 4);
    data_file_release(h);
}

/* --- A local disk that loses what it took */

static int staged_fd(uint64_t ino)
{
    struct file *file = file_get(t.data, ino);
    pthread_mutex_lock(&file->lock);
    struct staging_view *view = staging_view_get(file->staging);
    int fd = staging_view_fd(view);
    pthread_mutex_unlock(&file->lock);
    staging_view_put(view);
    file_put(file);
    return fd;
}

TEST(write, bytes_that_the_local_disk_lost_are_not_sent, .init = begin, .fini = end)
{
    static const size_t sizes[] = {60 * KIB, 500 * KIB}; /* one PUT; parts */
    static uint8_t bytes[500 * KIB];
    t.data->inline_max = t.data->inline_most = 0;
    random_fill(bytes, sizeof(bytes));
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t ino;
        struct data_handle *h = data_test_create(&t, i ? "parts" : "one", &ino);
        check_int(data_test_write(h, bytes, 0, sizes[i] - 1), sizes[i] - 1);
        check_int(data_test_write(h, bytes + sizes[i] - 1, sizes[i] - 1, 1), 1);
        int fd = staged_fd(ino);
        check_int(pwrite(fd, "lost", 4, 30000), 4);
        check_int(data_test_flush(h), -EIO);
        check_str(data_test_extents(&t, ino), "");
        check_int(pwrite(fd, bytes + 30000, 4, 30000), 4);
        check_int(data_test_flush(h), 0);
        data_test_check_committed(&t, ino, bytes, sizes[i]);
        data_file_release(h);
    }
}

static void begin_local(void)
{
    data_begin(&t);
    check_int(data_test_close(&t), 0);
    t.config.durability = DATA_LOCAL;
    t.config.upload_delay_ms = 3600 * 1000;
    data_test_open(&t);
}

TEST(write, a_sync_that_failed_is_not_forgotten, .init = begin_local, .fini = end)
{
    static uint8_t bytes[700 * KIB];
    uint64_t ino;
    int pipes[2];
    random_fill(bytes, sizeof(bytes));
    struct data_handle *h = data_test_create(&t, "local", &ino);
    check_int(data_test_write(h, bytes, 0, sizeof(bytes)), sizeof(bytes));
    check_int(data_test_flush(h), 0);
    check_str(data_test_extents(&t, ino), ""); /* the local disk has it */
    check_int(data_test_write(h, bytes, 0, 1), 1);
    int fd = staged_fd(ino), kept = dup(fd);
    check(kept >= 0);
    check_int(pipe(pipes), 0);
    check_int(dup2(pipes[1], fd), fd); /* cannot be synced */
    check_int(data_test_flush(h), -EIO);
    check_int(dup2(kept, fd), fd);
    check_int(data_test_flush(h), 0);
    data_test_check_committed(&t, ino, bytes, sizeof(bytes)); /* by the store, then */
    close(kept);
    close(pipes[0]);
    close(pipes[1]);
    data_file_release(h);
}

/* --- Few descriptors */

static void begin_few(void)
{
    data_begin(&t);
    check_int(data_test_close(&t), 0);
    struct rlimit limit;
    check_int(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 160;
    check_int(setrlimit(RLIMIT_NOFILE, &limit), 0);
    data_test_open(&t);
}

static void end_few(void)
{
    struct rlimit limit;
    end();
    check_int(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    check_int(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST(write, more_open_files_than_descriptors_wait_for_a_flush, .init = begin_few, .fini = end_few)
{
    enum { FILES = 120 };
    static struct data_handle *handles[FILES];
    static uint8_t bytes[70 * KIB];
    uint64_t ino[FILES];
    t.data->inline_max = t.data->inline_most = 0;
    random_fill(bytes, sizeof(bytes));
    for (unsigned i = 0; i < FILES; i++) {
        char name[20];
        snprintf(name, sizeof(name), "file-%u", i);
        handles[i] = data_test_create(&t, name, &ino[i]);
        check_int(data_test_write(handles[i], bytes + i, 0, 60 * KIB), 60 * KIB);
    }
    for (unsigned i = 0; i < FILES; i++) {
        check_int(data_test_flush(handles[i]), 0);
        data_test_check_committed(&t, ino[i], bytes + i, 60 * KIB);
        data_file_release(handles[i]);
    }
}
