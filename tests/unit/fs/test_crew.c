/* The threads that take requests of the kernel: with a real mount of a small file system, whose
 * files "0" to "99" have the size of their number. A stat of "stuck0" is answered when the test
 * lets it; that of "waits" too, but it says that it waits. */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/blocking.h"
#include "base/clock.h"
#include "front/crew.h"
#include "front/processors.h"
#include "test.h"

#define STUCK 1000u
#define WAITS 2000u

static struct mounted {
    char path[64];
    struct fuse_session *session;
    struct crew *crew;
    pthread_t thread;
    int result;
    sem_t go_on;
    atomic_int inside;
} m;

static struct stat stat_of(fuse_ino_t ino)
{
    return (struct stat){.st_ino = ino,
                         .st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644,
                         .st_nlink = 1,
                         .st_size = (off_t)ino - 2};
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st = stat_of(ino);
    (void)fi;
    if (ino >= STUCK) {
        if (ino == WAITS)
            blocking_begin();
        atomic_fetch_add(&m.inside, 1);
        sem_wait(&m.go_on);
    }
    fuse_reply_attr(req, &st, 0);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {0};
    (void)parent;
    if (strcmp(name, "waits") == 0)
        e.ino = WAITS;
    else if (strncmp(name, "stuck", 5) == 0)
        e.ino = STUCK + strtoul(name + 5, NULL, 10);
    else
        e.ino = strtoul(name, NULL, 10) + 2;
    e.attr = stat_of(e.ino);
    fuse_reply_entry(req, &e);
}

static void *serve(void *arg)
{
    (void)arg;
    m.result = crew_run(m.crew);
    return NULL;
}

static void start(unsigned threads, uint64_t poll_ns)
{
    static const struct fuse_lowlevel_ops ops = {.lookup = op_lookup, .getattr = op_getattr};
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct crew_config config = {.threads = threads, .poll_ns = poll_ns};
    memset(&m, 0, sizeof(m));
    sem_init(&m.go_on, 0, 0);
    snprintf(m.path, sizeof(m.path), "/tmp/sluice-test-crew-XXXXXX");
    check(mkdtemp(m.path) != NULL);
    fuse_opt_add_arg(&args, "test_crew");
    m.session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
    fuse_opt_free_args(&args);
    check(m.session != NULL);
    check_int(fuse_session_mount(m.session, m.path), 0);
    check_int(crew_new(m.session, &config, &m.crew), 0);
    check_int(pthread_create(&m.thread, NULL, serve, NULL), 0);
}

static void finish(void)
{
    pthread_join(m.thread, NULL);
    check_int(m.result, 0);
    crew_free(m.crew);
    fuse_session_unmount(m.session);
    fuse_session_destroy(m.session);
    check_int(rmdir(m.path), 0);
    sem_destroy(&m.go_on);
}

static void stop(void)
{
    crew_stop(m.crew);
    finish();
}

static off_t size_of(const char *name)
{
    char path[128];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", m.path, name);
    return stat(path, &st) == 0 ? st.st_size : -errno;
}

static void *ask(void *name)
{
    return (void *)(intptr_t)size_of(name);
}

static void *ask_often(void *arg)
{
    char name[16];
    intptr_t wrong = 0;
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "%d", i % 100);
        wrong += size_of(name) != i % 100;
    }
    (void)arg;
    return (void *)wrong;
}

static intptr_t result_of(pthread_t thread)
{
    void *result;
    pthread_join(thread, &result);
    return (intptr_t)result;
}

TEST(crew, serves_until_it_is_stopped)
{
    struct crew_counts counts;
    start(4, CREW_POLL_NS);
    for (int i = 0; i < 3; i++)
        check_int((intptr_t)ask_often(NULL), 0);
    crew_count(m.crew, &counts);
    check(counts.requests >= 1500);
    stop();
}

TEST(crew, serves_many_at_once)
{
    pthread_t threads[8];
    for (unsigned of = 1; of <= 10; of += 3) {
        start(of, of % 2 ? CREW_POLL_NS : 0);
        for (int i = 0; i < 8; i++)
            check_int(pthread_create(&threads[i], NULL, ask_often, NULL), 0);
        for (int i = 0; i < 8; i++)
            check_int(result_of(threads[i]), 0);
        stop();
    }
}

TEST(crew, ends_with_the_mount)
{
    start(4, CREW_POLL_NS);
    check_int(size_of("7"), 7);
    check_int(umount2(m.path, MNT_DETACH), 0);
    finish();
}

TEST(crew, ends_before_it_has_begun)
{
    start(2, 0);
    stop();
    start(2, 0);
    fuse_session_exit(m.session);
    stop();
}

/* Those that do not say that they wait are missed after some milliseconds, each. */
TEST(crew, goes_on_without_leaders_that_are_stuck)
{
    static char names[3][8] = {"stuck0", "stuck1", "stuck2"};
    struct crew_counts counts;
    pthread_t stuck[3];
    start(4, CREW_POLL_NS);
    for (int i = 0; i < 3; i++) {
        check_int(pthread_create(&stuck[i], NULL, ask, names[i]), 0);
        while (atomic_load(&m.inside) <= i)
            check_int(size_of("3"), 3);
        check_int((intptr_t)ask_often(NULL), 0);
    }
    crew_count(m.crew, &counts);
    check(counts.missed >= 1);
    for (int i = 0; i < 3; i++)
        sem_post(&m.go_on);
    for (int i = 0; i < 3; i++)
        check_int(result_of(stuck[i]), STUCK + i - 2);
    check_int((intptr_t)ask_often(NULL), 0);
    stop();
}

TEST(crew, lets_another_lead_when_two_ask)
{
    static char name[] = "waits";
    struct crew_counts counts;
    pthread_t waits, other;
    start(4, CREW_POLL_NS);
    check_int(pthread_create(&other, NULL, ask_often, NULL), 0);
    check_int(pthread_create(&waits, NULL, ask, name), 0);
    while (atomic_load(&m.inside) == 0)
        check_int(size_of("3"), 3);
    check_int(result_of(other), 0);
    check_int((intptr_t)ask_often(NULL), 0);
    crew_count(m.crew, &counts);
    check(counts.handed + counts.missed >= 1);
    sem_post(&m.go_on);
    check_int(result_of(waits), WAITS - 2);
    stop();
}

TEST(crew, looks_for_requests_only_if_it_may)
{
    struct crew_counts counts;
    start(2, 0);
    check_int((intptr_t)ask_often(NULL), 0);
    crew_count(m.crew, &counts);
    check_uint(counts.polled, 0);
    check(counts.slept > 0);
    stop();
    start(2, NS_PER_MS);
    check_int((intptr_t)ask_often(NULL), 0);
    crew_count(m.crew, &counts);
    check(counts.polled > 0);
    stop();
}

/* Nothing runs while nobody asks. */
TEST(crew, sleeps_when_nobody_asks)
{
    struct timespec before, after;
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    start(4, NS_PER_MS);
    check_int((intptr_t)ask_often(NULL), 0);
    usleep(100000);
    clock_gettime(clock, &before);
    usleep(300000);
    clock_gettime(clock, &after);
    uint64_t spent = (uint64_t)(after.tv_sec - before.tv_sec) * NS_PER_S + (uint64_t)after.tv_nsec -
                     (uint64_t)before.tv_nsec;
    check(spent < 3 * NS_PER_MS);
    stop();
}

TEST(processors, are_as_many_as_the_control_group_allows)
{
    check_int((int)(processors_of_quota("150000 100000") * 10), 15);
    check_int((int)processors_of_quota("400000 100000\n"), 4);
    check(processors_of_quota("max 100000") == 0);
    check(processors_of_quota("") == 0);
    check(processors_of_quota("100000") == 0);
    check(processors_of_quota("100000 0") == 0);
    check(processors_allowed() > 0);
}
