#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "conformance.h"
#include "conformance_lib.h"
#include "s3/backend.h"
#include "test.h"

static char dir[4096];
static struct loop *loop;
static struct store *store;
static struct run r;

static void open_store(void)
{
    struct error error;
    check_int(store_file_new(dir, false, loop, &store, &error), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
}

static void open_file(void)
{
    test_dir_make(dir);
    check_int(loop_new(&loop, "test"), 0);
    open_store();
}

static void close_store(void)
{
    run_end(&r);
    store_free(store);
    store = NULL;
}

static void close_file(void)
{
    close_store();
    loop_free(loop);
    test_dir_remove(dir);
}

static const char *at(const char *name)
{
    static char path[8192];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    check(fd >= 0);
    check_int(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static const char *read_file(const char *name)
{
    static char text[4096];
    int fd = open(at(name), O_RDONLY);
    check(fd >= 0);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    check(n >= 0);
    text[n] = 0;
    return text;
}

static bool exists(const char *name)
{
    struct stat st;
    return lstat(at(name), &st) == 0;
}

static unsigned entries(const char *name)
{
    unsigned count = 0;
    DIR *d = opendir(at(name));
    check(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.' || e->d_name[1] == 's';
    closedir(d);
    return count;
}

/* The only work directory is ours, and it has no temporary file. */
static void check_no_temporary_files(void)
{
    DIR *d = opendir(at(".sluice-tmp"));
    unsigned works = 0;
    check(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        if (!strncmp(e->d_name, "w-", 2)) {
            char name[512];
            snprintf(name, sizeof(name), ".sluice-tmp/%s", e->d_name);
            works++;
            check_uint(entries(name), 0);
        }
    closedir(d);
    check_uint(works, 1);
}

TEST(file_store, conforms, .init = open_file, .fini = close_file)
{
    struct conformance_result result = conformance_run(store, "c/", NULL, false, stdout);
    check_uint(result.failed, 0);
    check_uint(result.different, 4);
    check(result.passed >= 70);
    check_no_temporary_files();
    check(!exists("c")); /* directories went with their objects */
}

TEST(file_store, objects_are_plain_files, .init = open_file, .fini = close_file)
{
    check_int(run_put(&r, "a/b/c", "content"), 0);
    check_str(read_file("a/b/c"), "content");
    check_int(run_delete(&r, "a/b/c"), 0);
    check(!exists("a"));
}

TEST(file_store, foreign_files_are_objects, .init = open_file, .fini = close_file)
{
    check_int(mkdir(at("d"), 0755), 0);
    write_file("d/foreign", "theirs");
    run_want_object(&r, "d/foreign", "theirs", 6);
    check_str(r.failure, "");
    check_int(run_list(&r, "", NULL), 0);
    check_str(run_names(&r), "d/foreign");
    check_int(run_delete(&r, "d/foreign"), 0);
    check(!exists("d"));
}

TEST(file_store, outside_change_changes_the_etag, .init = open_file, .fini = close_file)
{
    char buf[8];
    check_int(run_put(&r, "k", "ours!"), 0);
    const char *etag = run_keep(&r, r.op.info.etag);
    write_file("k", "their"); /* the same size and inode */
    check_int(run_head(&r, "k"), 0);
    check(strcmp(r.op.info.etag, etag) != 0);
    struct store_op *op = run_begin(&r, STORE_GET, "k");
    op->if_match = etag;
    op->buf = buf;
    op->buf_len = op->length = 5;
    check_int(run_do(&r), -EEXIST);
}

TEST(file_store, etags_of_equal_writes_differ, .init = open_file, .fini = close_file)
{
    char before[STORE_ETAG_MAX] = "";
    for (int i = 0; i < 50; i++) {
        check_int(run_put(&r, "k", i % 2 ? "odd " : "even"), 0);
        check(strcmp(before, r.op.info.etag) != 0);
        strcpy(before, r.op.info.etag);
    }
}

TEST(file_store, links_and_special_files_are_left_alone, .init = open_file, .fini = close_file)
{
    char outside[4096], link[8192];
    test_dir_make(outside);
    snprintf(link, sizeof(link), "%s/secret", outside);
    check_int(symlink(link, at("link")), 0);
    check_int(symlink(outside, at("linkdir")), 0);
    check_int(mkfifo(at("fifo"), 0644), 0);
    int fd = open(link, O_WRONLY | O_CREAT, 0644);
    check_int(write(fd, "secret", 6), 6);
    close(fd);
    static const char *const keys[] = {"link", "linkdir/secret", "fifo"};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        check_int(run_head(&r, keys[i]), -ENOENT);
        check_int(run_get(&r, keys[i], 0, 6), -ENOENT);
        check_int(run_put(&r, keys[i], "x"), -EACCES);
        check_int(run_delete(&r, keys[i]), 0);
        check_int(run_copy(&r, keys[i], "copy"), -ENOENT);
    }
    check_int(run_put(&r, "linkdir/new", "x"), -EACCES);
    check_int(run_list(&r, "", NULL), 0);
    check_str(run_names(&r), "");
    check_int(run_list(&r, "linkdir/", "/"), 0);
    check_str(run_names(&r), "");
    check(exists("link") && exists("linkdir") && exists("fifo"));
    struct stat st;
    check_int(stat(link, &st), 0);
    check_int(st.st_size, 6);
    test_dir_remove(outside);
}

TEST(file_store, own_directory_is_out_of_reach, .init = open_file, .fini = close_file)
{
    check_int(run_head(&r, ".sluice-tmp/lock"), -ENOENT);
    check_int(run_put(&r, ".sluice-tmp/x", "x"), -EINVAL);
    check_int(run_put(&r, ".sluice-tmp", "x"), -EINVAL);
    check_int(run_delete(&r, ".sluice-tmp/lock"), 0);
    check(exists(".sluice-tmp/lock"));
    check_int(run_list(&r, ".sluice-tmp/", NULL), 0);
    check_str(run_names(&r), "");
    check_int(run_put(&r, "d/.sluice-tmp", "x"), 0); /* reserved at the root only */
}

TEST(file_store, keys_that_are_no_paths, .init = open_file, .fini = close_file)
{
    static const char *const keys[] = {"a//b", "/a", "a/../b", "./a", "..", ".", "a/.", "a//", "/"};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        check_int(run_put(&r, keys[i], "x"), -EINVAL);
        check_int(run_head(&r, keys[i]), -ENOENT);
        check_int(run_delete(&r, keys[i]), 0);
    }
    char name[300];
    memset(name, 'n', 299);
    name[299] = 0;
    check_int(run_put(&r, name, "x"), -ENAMETOOLONG);
    check_int(run_head(&r, name), -ENOENT);
    check_int(run_put(&r, "dir/", "with data"), -EINVAL);
}

TEST(file_store, names_that_are_not_utf8_can_be_read_and_deleted, .init = open_file,
     .fini = close_file)
{
    write_file("\xff\xfe", "odd");
    check_int(run_list(&r, "", NULL), 0);
    check_str(run_names(&r), "\xff\xfe");
    check_int(run_get(&r, "\xff\xfe", 0, 3), 0);
    check_mem(r.op.buf, "odd", 3);
    check_int(run_copy(&r, "\xff\xfe", "copy"), 0);
    check_int(run_delete(&r, "\xff\xfe"), 0);
    check(!exists("\xff\xfe"));
}

TEST(file_store, empty_directories_of_others_are_not_in_the_way, .init = open_file,
     .fini = close_file)
{
    check_int(mkdir(at("a"), 0755), 0);
    check_int(run_put(&r, "a", "file now"), 0);
    check_str(read_file("a"), "file now");
    check_int(mkdir(at("b"), 0755), 0);
    run_begin(&r, STORE_PUT, "b")->if_none_match = true;
    check_int(run_do(&r), 0);
}

TEST(file_store, marked_directories_stay, .init = open_file, .fini = close_file)
{
    check_int(run_put(&r, "d/", ""), 0);
    const char *etag = run_keep(&r, r.op.info.etag);
    check_int(run_put(&r, "d/k", "x"), 0);
    check_int(run_delete(&r, "d/k"), 0);
    check(exists("d"));
    check_int(run_head(&r, "d/"), 0);
    check_str(r.op.info.etag, etag); /* what is in the directory does not change it */
    check_int(run_put(&r, "d", "x"), -EISDIR);
    run_begin(&r, STORE_PUT, "d/")->if_none_match = true;
    check_int(run_do(&r), -EEXIST);
    check_int(run_delete(&r, "d/"), 0);
    check(!exists("d"));
}

TEST(file_store, metadata_stays_over_a_restart, .init = open_file, .fini = close_file)
{
    const struct store_meta meta = {"mode", "0600"};
    struct store_op *op = run_begin(&r, STORE_PUT, "k");
    op->meta = &meta;
    op->meta_count = 1;
    check_int(run_do(&r), 0);
    const char *etag = strdup(r.op.info.etag);
    close_store();
    open_store();
    check_int(run_head(&r, "k"), 0);
    check_str(store_op_meta(&r.op, "mode"), "0600");
    check_str(r.op.info.etag, etag);
    free((char *)etag);
}

TEST(file_store, uploads_stay_over_a_restart, .init = open_file, .fini = close_file)
{
    struct store_part parts[2];
    char id[64];
    snprintf(id, sizeof(id), "%s", run_create(&r, "k"));
    uint8_t *data = run_pattern(&r, 65536, 1);
    check_int(run_part(&r, "k", id, 1, data, 65536, &parts[0]), 0);
    close_store();
    open_store();
    check_int(run_part(&r, "k", id, 2, "end", 3, &parts[1]), 0);
    check_int(run_complete(&r, "k", id, parts, 2), 0);
    check_uint(r.op.info.size, 65539);
    check_uint(entries(".sluice-tmp/u"), 0);
}

/* Parts of one size are written where they will be. */
TEST(file_store, complete_copies_nothing, .init = open_file, .fini = close_file)
{
    struct store_part parts[3];
    char path[256];
    struct stat before, after;
    size_t size = 128 << 10;
    uint8_t *data = run_pattern(&r, 3 * size, 2);
    const char *id = run_create(&r, "k");
    check_int(run_part(&r, "k", id, 3, data + 2 * size, 777, &parts[2]), 0); /* no size yet */
    check_int(run_part(&r, "k", id, 2, data + size, size, &parts[1]), 0);
    check_int(run_part(&r, "k", id, 1, data, size, &parts[0]), 0);
    check_int(run_part(&r, "k", id, 3, data + 2 * size, 777, &parts[2]), 0);
    snprintf(path, sizeof(path), ".sluice-tmp/u/%s/data", id);
    check_int(stat(at(path), &before), 0);
    check_int(run_complete(&r, "k", id, parts, 2), 0);
    check_int(stat(at("k"), &after), 0);
    check_uint(after.st_ino, before.st_ino);
    run_want_object(&r, "k", data, 2 * size);
    check_str(r.failure, "");
}

TEST(file_store, remains_of_the_dead_are_removed_at_open, .init = open_file, .fini = close_file)
{
    check_int(run_put(&r, "k", "x"), 0);
    const char *id = run_create(&r, "k"), *live = run_create(&r, "l");
    char path[256];
    snprintf(path, sizeof(path), ".sluice-tmp/u/%s/data", id);
    check_int(unlink(at(path)), 0); /* as if COMPLETE was killed behind its rename */
    check_int(mkdir(at(".sluice-tmp/w-0123"), 0700), 0);
    write_file(".sluice-tmp/w-0123/t5", "torn");
    check_int(mkdir(at(".sluice-tmp/w-0123/t6"), 0700), 0);
    write_file(".sluice-tmp/w-0123/t6/data", "torn");
    struct store *other;
    struct error error;
    check_int(store_file_new(dir, false, loop, &other, &error), 0);
    check(!exists(".sluice-tmp/w-0123"));
    check_uint(entries(".sluice-tmp/u"), 1);
    check_uint(entries(".sluice-tmp"), 4); /* lock, u, and two who live */
    store_free(other);
    check_no_temporary_files();
    check_int(run_put(&r, "k", "y"), 0);
    check_int(run_abort(&r, "l", live), 0);
}

/* Requests of a thread of its own. */
struct racer {
    struct run run;
    struct store_op *ops;
    unsigned count;
    pthread_t thread;
};

static void *race(void *arg)
{
    struct racer *racer = arg;
    run_together(&racer->run, racer->ops, racer->count);
    return NULL;
}

/* Two stores on one directory are like two processes: they share no mutex. */
TEST(file_store, conditions_hold_between_stores, .init = open_file, .fini = close_file)
{
    enum { EACH = 8, ROUNDS = 30 };
    struct store *other;
    struct error error;
    check_int(store_file_new(dir, false, loop, &other, &error), 0);
    for (int round = 0; round < ROUNDS; round++) {
        struct racer racers[2] = {{.run.store = store}, {.run.store = other}};
        check_int(run_put(&r, "k", "before"), 0);
        const char *etag = run_keep(&r, r.op.info.etag);
        for (int i = 0; i < 2; i++) {
            struct run *run = &racers[i].run;
            run->prefix = "";
            racers[i].ops = run_alloc(run, EACH * sizeof(struct store_op));
            racers[i].count = EACH;
            for (int n = 0; n < EACH; n++) {
                run_body(run, run_begin(run, STORE_PUT, "k"), "x", 1);
                run->op.if_match = etag;
                racers[i].ops[n] = run->op;
            }
        }
        for (int i = 0; i < 2; i++)
            check_int(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        int winners = 0;
        for (int i = 0; i < 2; i++) {
            pthread_join(racers[i].thread, NULL);
            for (int n = 0; n < EACH; n++) {
                winners += !racers[i].ops[n].result;
                store_op_reset(&racers[i].ops[n]);
            }
            run_end(&racers[i].run);
        }
        check_int(winners, 1);
    }
    store_free(other);
}

/* Directories are made and removed under the feet of those who use them. */
TEST(file_store, puts_and_deletes_in_one_directory, .init = open_file, .fini = close_file)
{
    enum { COUNT = 64, ROUNDS = 40 };
    struct store_op *ops = run_alloc(&r, COUNT * sizeof(*ops));
    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            const char *key = run_key(&r, "a/b/c%u/k%u", i % 2, i / 2 % 8);
            ops[i] = *run_begin(&r, i / 16 % 2 ? STORE_DELETE : STORE_PUT, key);
        }
        run_together(&r, ops, COUNT);
        for (unsigned i = 0; i < COUNT; i++) {
            check_int(ops[i].result, 0);
            store_op_reset(&ops[i]);
        }
    }
    for (unsigned i = 0; i < 16; i++)
        check_int(run_delete(&r, run_key(&r, "a/b/c%u/k%u", i % 2, i / 2)), 0);
    check(!exists("a"));
    check_no_temporary_files();
}

/* What is there all the time is listed once, whatever happens beside it. */
TEST(file_store, listing_is_whole_while_others_write, .init = open_file, .fini = close_file)
{
    enum { STAY = 300, CHURN = 24 };
    for (unsigned i = 0; i < STAY; i++) {
        check_int(mkdir(at("d"), 0755) < 0 && errno != EEXIST, 0);
        char name[32];
        snprintf(name, sizeof(name), "d/s%03u", i);
        write_file(name, "x");
    }
    for (int round = 0; round < 8; round++) {
        struct racer racer = {.run = {.store = store, .prefix = ""}, .count = CHURN};
        racer.ops = run_alloc(&racer.run, CHURN * sizeof(struct store_op));
        for (unsigned i = 0; i < CHURN; i++)
            racer.ops[i] = *run_begin(&racer.run, round % 2 ? STORE_DELETE : STORE_PUT,
                                      run_key(&racer.run, "d/s%03u-new", i * 12));
        check_int(pthread_create(&racer.thread, NULL, race, &racer), 0);
        unsigned next = 0;
        const char *token = NULL;
        do {
            struct store_op *op = run_begin(&r, STORE_LIST, NULL);
            op->prefix = "d/";
            op->max_keys = 40;
            op->token = token;
            check_int(run_do(&r), 0);
            for (size_t i = 0; i < r.op.out_list.count; i++) {
                const char *name = r.op.out_list.entries[i].name;
                if (!strstr(name, "-new"))
                    check_str(name, run_key(&r, "d/s%03u", next++));
            }
            token = r.op.out_list.next_token ? run_keep(&r, r.op.out_list.next_token) : NULL;
        } while (token);
        check_uint(next, STAY);
        pthread_join(racer.thread, NULL);
        for (unsigned i = 0; i < CHURN; i++)
            store_op_reset(&racer.ops[i]);
        run_end(&racer.run);
    }
}

TEST(file_store, lists_a_directory_that_start_after_is_in, .init = open_file, .fini = close_file)
{
    check_int(run_put(&r, "b/1", ""), 0);
    check_int(run_put(&r, "b/c/3", ""), 0);
    check_int(run_put(&r, "b0", ""), 0);
    static const struct {
        const char *after, *names;
    } cases[] = {
        {"a", "(b/) b0"}, {"b/", "(b/) b0"},  {"b/1", "(b/) b0"}, {"b/c/2", "(b/) b0"},
        {"b/c/3", "b0"},  {"b/c/zz/y", "b0"}, {"b/d", "b0"},      {"b0", ""},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct store_op *op = run_begin(&r, STORE_LIST, NULL);
        op->delimiter = "/";
        op->start_after = cases[i].after;
        check_int(run_do(&r), 0);
        check_str(run_names(&r), cases[i].names);
    }
}

TEST(file_store, failed_write_leaves_nothing, .init = open_file, .fini = close_file)
{
    struct rlimit old, limit;
    size_t len = 4 << 20;
    uint8_t *data = run_pattern(&r, len, 3);
    check_int(run_put(&r, "k", "stays"), 0);
    const char *id = run_create(&r, "m");
    signal(SIGXFSZ, SIG_IGN);
    check_int(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = old.rlim_max};
    check_int(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int put = run_put_bytes(&r, "k", data, len);
    int part = run_part(&r, "m", id, 1, data, len, NULL);
    int copy = run_put_bytes(&r, "new/k", data, len);
    setrlimit(RLIMIT_FSIZE, &old);
    check_int(put, -EFBIG);
    check_int(part, -EFBIG);
    check_int(copy, -EFBIG);
    check_str(read_file("k"), "stays");
    check(!exists("new"));
    check_no_temporary_files();
    struct store_part good;
    check_int(run_part(&r, "m", id, 1, data, len, &good), 0);
    check_int(run_complete(&r, "m", id, &good, 1), 0);
    run_want_object(&r, "m", data, len);
    check_str(r.failure, "");
}

TEST(file_store, read_only_writes_nothing)
{
    struct error error;
    test_dir_make(dir);
    check_int(loop_new(&loop, "test"), 0);
    write_file("k", "x");
    check_int(store_file_new(dir, true, loop, &store, &error), 0);
    r = (struct run){.store = store, .caps = store_caps(store), .prefix = ""};
    run_want_object(&r, "k", "x", 1);
    check_str(r.failure, "");
    check_int(run_list(&r, "", NULL), 0);
    check_str(run_names(&r), "k");
    check_int(run_put(&r, "k", "y"), -EACCES);
    check_int(run_delete(&r, "k"), -EACCES);
    run_begin(&r, STORE_MPU_LIST, NULL);
    check_int(run_do(&r), 0);
    check_str(read_file("k"), "x");
    check_uint(entries(""), 1);
    close_file();
}

TEST(file_store, bad_directories_are_refused)
{
    struct error error;
    char path[5000];
    test_dir_make(dir);
    check_int(loop_new(&loop, "test"), 0);
    snprintf(path, sizeof(path), "%s/none/deeper", dir);
    check_int(store_file_new(path, false, loop, &store, &error), -ENOENT);
    check(strstr(error.message, "none/deeper") != NULL);
    snprintf(path, sizeof(path), "%s/none", dir);
    check_int(store_file_new(path, true, loop, &store, &error), -ENOENT);
    check(!exists("none"));
    write_file("file", "x");
    snprintf(path, sizeof(path), "%s/file", dir);
    check_int(store_file_new(path, false, loop, &store, &error), -ENOTDIR);
    snprintf(path, sizeof(path), "%s/made", dir);
    check_int(store_file_new(path, false, loop, &store, &error), 0);
    store_free(store);
    loop_free(loop);
    test_dir_remove(dir);
}

#ifndef TEST_PLAIN_RUNNER /* a fork of a process with threads */

/* Writes "all of a kind" objects until it is killed. */
static void write_for_ever(void)
{
    size_t len = 256 << 10;
    check_int(loop_new(&loop, "child"), 0);
    open_store();
    for (unsigned n = 0;; n++) {
        uint8_t *data = malloc(len);
        struct store_part parts[2];
        memset(data, 'a' + (int)(n % 26), len);
        run_put_bytes(&r, "d/put", data, len);
        const char *id = run_create(&r, "d/upload");
        run_part(&r, "d/upload", id, 1, data, len / 2, &parts[0]);
        run_part(&r, "d/upload", id, 2, data, len / 2, &parts[1]);
        run_complete(&r, "d/upload", id, parts, 2);
        free(data);
        run_end(&r);
    }
}

TEST(file_store, killed_writers_leave_whole_objects, .timeout = 300)
{
    test_dir_make(dir);
    for (int round = 0; round < 8; round++) {
        pid_t pid = fork();
        check(pid >= 0);
        if (!pid)
            write_for_ever();
        for (int tries = 0; tries < 12000 && !exists("d/upload"); tries++)
            usleep(10000);
        usleep(3000u * (unsigned)round);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        check_int(loop_new(&loop, "test"), 0);
        open_store();
        static const char *const keys[] = {"d/put", "d/upload"};
        for (unsigned i = 0; i < 2; i++) {
            size_t len = 256 << 10;
            check_int(run_get(&r, keys[i], 0, len), 0);
            const char *data = r.op.buf;
            check_uint(r.op.got, len);
            for (size_t n = 1; n < len; n++)
                check(data[n] == data[0]);
        }
        check_no_temporary_files();
        close_store();
        loop_free(loop);
    }
    test_dir_remove(dir);
}

#endif
