/* Crashes, damage, and readers beside the writer. */
#include "engine/engine_impl.h"
#include "engine_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* The n-th file of the database whose name ends so, by number; its length. */
static off_t db_file(struct world *w, const char *end, char path[8192])
{
    char dir[4300];
    off_t largest = -1;
    snprintf(dir, sizeof(dir), "%s/db", w->db);
    DIR *list = opendir(dir);
    check(list != NULL);
    for (struct dirent *e; (e = readdir(list));) {
        char name[8192];
        struct stat st;
        size_t len = strlen(e->d_name), end_len = strlen(end);
        snprintf(name, sizeof(name), "%s/%s", dir, e->d_name);
        if (len > end_len && strcmp(e->d_name + len - end_len, end) == 0 && stat(name, &st) == 0 &&
            st.st_size > largest) {
            largest = st.st_size;
            snprintf(path, 8192, "%s", name);
        }
    }
    closedir(list);
    return largest;
}

static void flip_byte(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    check(fd >= 0);
    check_int(pread(fd, &byte, 1, at), 1);
    byte ^= 0x55;
    check_int(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static uint8_t *load(const char *path, off_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    check(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    check(bytes != NULL);
    check_int(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *len = st.st_size;
    return bytes;
}

/* Behind the last byte of a log that is not zero: what it is given ahead reads as zeros. */
static off_t log_end(const char *path)
{
    off_t len;
    uint8_t *bytes = load(path, &len);
    while (len > 0 && bytes[len - 1] == 0)
        len--;
    free(bytes);
    return len;
}

static void zero_bytes(const char *path, off_t at, size_t len)
{
    uint8_t zeros[4096] = {0};
    int fd = open(path, O_RDWR);
    check(fd >= 0 && len <= sizeof(zeros));
    check_int(pwrite(fd, zeros, len, at), len);
    close(fd);
}

/* Where a record of the log begins: the second one of the 32 KiB block that `at` is in. */
static off_t record_at(const char *path, off_t at)
{
    off_t len;
    uint8_t *bytes = load(path, &len);
    at = at / 32768 * 32768;
    check(at + 7 < len);
    at += 7 + (bytes[at + 4] | bytes[at + 5] << 8);
    check(at < len && bytes[at + 6] != 0);
    free(bytes);
    return at;
}

static int try_open(struct world *w, struct error *error)
{
    struct engine_options options = {.path = w->db, .memory_bytes = 16 << 20, .rebuild_note = true};
    return engine_open(&options, &w->engine, error);
}

static void fill(struct world *w)
{
    char name[32];
    world_init(w);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        check(make(w, 1, name, S_IFREG | 0644) > 0);
    }
}

static void remove_world(struct world *w)
{
    meta_reply_done(&w->reply);
    test_dir_remove(w->dir);
}

TEST(engine_open, refuses_a_damaged_log)
{
    struct world w;
    char path[8192];
    struct error error = {0};
    fill(&w);
    world_close(&w); /* synced */
    off_t len = db_file(&w, ".log", path);
    check(len > 10000);
    flip_byte(path, len / 2);
    check_int(try_open(&w, &error), -EILSEQ);
    check(strstr(error.message, "damaged") != NULL);
    check(strstr(error.message, w.db) != NULL);
    flip_byte(path, len / 2); /* nothing was changed by the attempt */
    check_int(try_open(&w, &error), 0);
    check(lookup(&w, 1, "f499") > 0);
    world_done(&w);
}

/* Writes `version` into the first byte of a record, past the engine; the byte that was there. */
static uint8_t set_version(struct world *w, const char *record, uint8_t version)
{
    struct engine *engine = w->engine;
    struct record_key key;
    size_t len;
    char *message = NULL;
    record_key_text(&key, record);
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    char *value = rocksdb_get_cf(engine->db, read, engine->tables[TABLE_SYSTEM],
                                 (const char *)key.bytes, key.len, &len, &message);
    check(value != NULL && !message);
    uint8_t was = (uint8_t)value[0];
    value[0] = (char)version;
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    rocksdb_put_cf(engine->db, write, engine->tables[TABLE_SYSTEM], (const char *)key.bytes,
                   key.len, value, len, &message);
    check(!message);
    rocksdb_free(value);
    rocksdb_readoptions_destroy(read);
    rocksdb_writeoptions_destroy(write);
    return was;
}

TEST(engine_open, refuses_what_a_newer_version_wrote)
{
    static const struct {
        const char *record;
        uint8_t newest;
    } records[] = {{"volume", RECORD_VOLUME_VERSION}, {"counters", RECORD_COUNTERS_VERSION}};
    struct world w;
    for (size_t i = 0; i < ARRAY_LEN(records); i++) {
        struct error error = {0};
        fill(&w);
        check(set_version(&w, records[i].record, records[i].newest + 1) <= records[i].newest);
        world_close(&w);
        for (int n = 0; n < 2; n++) { /* the attempt changes nothing */
            check_int(try_open(&w, &error), -EPROTO);
            check(strstr(error.message, "newer version") != NULL);
        }
        remove_world(&w);
    }
}

TEST(engine_open, refuses_a_log_that_lost_its_end)
{
    struct world w;
    char path[8192];
    struct error error = {0};
    fill(&w);
    world_close(&w);
    off_t len = db_file(&w, ".log", path);
    check_int(truncate(path, len / 2), 0);
    check_int(try_open(&w, &error), -EILSEQ);
    remove_world(&w);
}

/* A database with 500 synced files and 300 that are not, as a power loss could leave it, and its
 * log. */
static void fill_unsynced(struct world *w, char path[8192])
{
    char copy[4190], command[13000];
    fill(w);
    check_int(engine_sync(w->engine), 0);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof(name), "late%d", i);
        check(make(w, 1, name, S_IFREG | 0644) > 0);
    }
    snprintf(copy, sizeof(copy), "%.4090s/copy", w->dir);
    snprintf(command, sizeof(command), "cp -r '%s' '%s'", w->db, copy);
    check_int(system(command), 0);
    world_close(w);
    snprintf(w->db, sizeof(w->db), "%s", copy);
    check(db_file(w, ".log", path) > 0);
}

TEST(engine_open, takes_a_log_with_a_cut_end_that_was_never_synced)
{
    struct world w;
    char path[8192];
    struct error error = {0};
    fill_unsynced(&w, path);
    check_int(truncate(path, log_end(path) - 700), 0);
    check_int(try_open(&w, &error), 0);
    check(lookup(&w, 1, "f499") > 0);
    check(lookup(&w, 1, "late250") > 0);
    check_int(lookup(&w, 1, "late299"), -ENOENT);
    check_int(engine_check(w.engine, NULL, NULL), 0);
    world_done(&w);
}

/* Pages that were written later may be on the disk while earlier ones are not. */
TEST(engine_open, takes_nothing_behind_a_gap_in_the_log)
{
    for (int kind = 0; kind < 2; kind++) {
        struct world w;
        char path[8192];
        struct error error = {0};
        fill_unsynced(&w, path);
        off_t gap = record_at(path, log_end(path) - 50000);
        if (kind == 0)
            zero_bytes(path, gap, 4096);
        else
            flip_byte(path, gap);
        check_int(try_open(&w, &error), 0);
        check(lookup(&w, 1, "f499") > 0);
        check(lookup(&w, 1, "late20") > 0);
        check_int(lookup(&w, 1, "late299"), -ENOENT);
        check_int(engine_check(w.engine, NULL, NULL), 0);
        world_close(&w);
        check_int(try_open(&w, &error), 0); /* and again, with what was cut */
        check(lookup(&w, 1, "late20") > 0);
        world_done(&w);
    }
}

TEST(engine_open, refuses_a_gap_in_what_was_synced)
{
    struct world w;
    char path[8192];
    off_t len, len_after;
    struct error error = {0};
    fill_unsynced(&w, path);
    zero_bytes(path, record_at(path, 40000), 4096);
    uint8_t *before = load(path, &len);
    check_int(try_open(&w, &error), -EILSEQ);
    check(strstr(error.message, "damaged") != NULL);
    uint8_t *after = load(path, &len_after);
    check_int(len, len_after);
    check(memcmp(before, after, (size_t)len) == 0);
    free(before);
    free(after);
    remove_world(&w);
}

TEST(engine_open, gives_the_log_its_size_ahead)
{
    struct world w;
    char path[8192];
    fill(&w);
    off_t len = db_file(&w, ".log", path), end = log_end(path);
    struct stat st;
    check_int(stat(path, &st), 0);
    /* Where the file system reserves nothing, it grows as it is written. */
    if (st.st_blocks * 512 > end + 65536)
        check(len > end + 65536);
    world_reopen(&w);
    check(lookup(&w, 1, "f499") > 0);
    world_done(&w);
}

TEST(engine_open, refuses_damaged_or_missing_files)
{
    static const char *const ends[] = {"CURRENT", "MANIFEST-"};
    for (int i = 0; i < 2; i++) {
        struct world w;
        char path[8192] = "", command[8300];
        struct error error = {0};
        fill(&w);
        world_close(&w);
        snprintf(command, sizeof(command), "rm '%s'/db/%s*", w.db, ends[i]);
        check_int(system(command), 0);
        int rc = try_open(&w, &error);
        check(rc < 0 && error.message[0]);
        if (i == 0)
            check_int(rc, -EILSEQ);
        (void)path;
        remove_world(&w);
    }
}

TEST(engine_open, read_only_changes_nothing)
{
    struct world w;
    struct error error = {0};
    fill(&w);
    world_close(&w);
    struct engine_options options = {.path = w.db, .read_only = true};
    check_int(engine_open(&options, &w.engine, &error), 0);
    check(lookup(&w, 1, "f0") > 0);
    check_int(make(&w, 1, "x", S_IFREG | 0644), -EROFS);
    check_int(engine_sync(w.engine), 0);
    world_done(&w);
}

TEST(engine_open, before_format_there_is_nothing)
{
    struct world w;
    struct meta_volume volume;
    world_init_raw(&w);
    check_int(engine_volume(w.engine, &volume), -ENOENT);
    check_int(make(&w, 1, "x", S_IFREG | 0644), -ENOENT);
    check_int(lookup(&w, 1, "x"), -ENOENT);
    w.volume.prefix[1] = '\0'; /* does not end in '/' */
    check_int(world_format(&w), -EINVAL);
    w.volume.prefix[0] = '\0';
    check_int(world_format(&w), 0);
    check_int(world_format(&w), -EEXIST);
    world_done(&w);
}

/* Applies without end, and tells how far it got. */
static void child(struct world *w, int out)
{
    for (uint64_t i = 0;; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%ju", (uintmax_t)i);
        struct meta_op op = {.kind = META_MKNOD,
                             .parent = 1,
                             .name = name_of(name),
                             .attr = {.mode = S_IFREG | 0644},
                             .time_ns = w->now + i};
        struct meta_reply reply;
        meta_reply_init(&reply);
        if (engine_apply(w->engine, &op, &reply) < 0)
            _exit(1);
        meta_reply_done(&reply);
        if (write(out, &i, sizeof(i)) != (ssize_t)sizeof(i))
            _exit(1);
    }
}

TEST(engine_apply, survives_a_kill)
{
    struct world w;
    struct error error = {0};
    world_init(&w);
    world_close(&w);
    for (int round = 0; round < 3; round++) {
        int pipes[2], status;
        uint64_t last = 0, seen;
        check_int(pipe(pipes), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(pipes[0]);
            if (try_open(&w, &error) < 0)
                _exit(1);
            child(&w, pipes[1]);
        }
        close(pipes[1]);
        while (last < 300 + 100 * (uint64_t)round &&
               read(pipes[0], &seen, sizeof(seen)) == (ssize_t)sizeof(seen))
            last = seen;
        kill(pid, SIGKILL);
        while (read(pipes[0], &seen, sizeof(seen)) == (ssize_t)sizeof(seen))
            last = seen;
        check_int(waitpid(pid, &status, 0), pid);
        close(pipes[0]);
        check(last >= 300);
        check_int(try_open(&w, &error), 0);
        char name[32];
        snprintf(name, sizeof(name), "n%ju", (uintmax_t)last);
        check(lookup(&w, 1, name) > 0); /* the last that was acknowledged */
        check(usage_of(&w, 1).files >= last + 1);
        struct meta_op list = {.kind = META_READDIR, .ino = 1, .count = 100000};
        check_int(world_read(&w, &list), 0);
        size_t count = w.reply.entry_count;
        for (size_t i = 0; i < count; i++) {
            snprintf(name, sizeof(name), "n%zu", i);
            int rc = unlink_at(&w, 1, name, 0);
            check_int(rc, 0);
            check_int(drop(&w, w.reply.attr.ino), 0);
        }
        check_int(engine_check(w.engine, NULL, NULL), 0);
        world_close(&w);
    }
    world_reopen(&w);
    world_done(&w);
}

struct reader_thread {
    struct engine *engine;
    uint64_t ino;
    atomic_bool *stop;
    int wrong, rounds;
};

/* One file is renamed to and fro: each listing has exactly one name, and that one's file is known
 * with the attributes of a state that there was. */
static void *read_along(void *arg)
{
    struct reader_thread *r = arg;
    uint64_t version = 0;
    while (!atomic_load(r->stop) || r->rounds == 0) {
        struct meta_reply reply;
        struct meta_op op = {.kind = META_READDIR, .ino = 1, .count = 10, .plus = true};
        meta_reply_init(&reply);
        int rc = engine_read(r->engine, &op, 0, &reply);
        r->wrong += rc != 0 || reply.entry_count != 1 || reply.entries[0].ino != r->ino;
        meta_reply_done(&reply);
        op = (struct meta_op){.kind = META_GETATTR, .ino = r->ino};
        rc = engine_read(r->engine, &op, 0, &reply);
        r->wrong += rc != 0 || reply.attr.meta_version < version;
        version = reply.attr.meta_version;
        meta_reply_done(&reply);
        op = (struct meta_op){.kind = META_EXTENTS, .ino = r->ino};
        rc = engine_read(r->engine, &op, 0, &reply);
        uint64_t end = 0;
        for (size_t i = 0; i < reply.extent_count; i++)
            end = reply.extents[i].offset + reply.extents[i].length;
        r->wrong += rc != 0 || end != reply.attr.size;
        meta_reply_done(&reply);
        r->rounds++;
    }
    return NULL;
}

TEST(engine_read, sees_whole_states_beside_the_writer)
{
    struct world w;
    atomic_bool stop = false;
    pthread_t threads[3];
    struct reader_thread readers[3];
    world_init(&w);
    uint64_t ino = (uint64_t)make(&w, 1, "a", S_IFREG | 0644);
    for (int i = 0; i < 3; i++) {
        readers[i] = (struct reader_thread){.engine = w.engine, .ino = ino, .stop = &stop};
        check_int(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
    }
    for (int i = 0; i < 1000; i++) {
        check_int(rename_at(&w, 1, i % 2 ? "b" : "a", 1, i % 2 ? "a" : "b", 0), 0);
        if (i % 3 == 0)
            check(write_object(&w, ino, 10 + (uint64_t)i, META_INTERNAL_KEY) > 0);
        if (i % 7 == 0)
            check_int(write_inline(&w, ino, attr_of(&w, ino).size, "xyz", 3), 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        check_int(readers[i].wrong, 0);
        check(readers[i].rounds > 0);
    }
    world_done(&w);
}
