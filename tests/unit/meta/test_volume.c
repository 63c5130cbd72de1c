/* Requests, durability, opening and closing. */
#include <errno.h>
#include <jansson.h>
#include <semaphore.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "volume_lib.h"

static struct volume v;

static void init(void)
{
    volume_begin(&v);
}

static void fini(void)
{
    volume_end(&v);
}

TEST(volume, formats_an_empty_database, .init = init, .fini = fini)
{
    volume_open(&v);
    const struct meta_volume *format = meta_volume(v.meta);
    check_uint(strlen(format->id), 32);
    check_str(format->store, "memory://");
    struct meta_attr attr;
    struct meta_request request = {.op = {.kind = META_GETATTR, .ino = META_ROOT_INO}};
    check_int(meta_call(v.meta, &request), 0);
    attr = request.reply.attr;
    meta_reply_done(&request.reply);
    check(S_ISDIR(attr.mode));
}

TEST(volume, keeps_what_was_changed, .init = init, .fini = fini)
{
    volume_open(&v);
    char id[33];
    strcpy(id, meta_volume(v.meta)->id);
    uint64_t ino;
    check_int(name_mkdir(&v, META_ROOT_INO, "dir", &ino), 0);
    file_inline(&v, ino, "file", "hello");
    volume_again(&v);
    check_str(meta_volume(v.meta)->id, id);
    uint64_t file = name_ino(&v, name_ino(&v, META_ROOT_INO, "dir"), "file");
    cleanup(free_ptr) char *text = file_read(&v, file, NULL);
    check_str(text, "hello");
}

TEST(volume, refuses_another_place, .init = init, .fini = fini)
{
    struct error error = {0};
    volume_open(&v);
    volume_close(&v);
    v.config.prefix = "other/";
    check_int(volume_try_open(&v, &error), -EINVAL);
    check(strstr(error.message, "belongs to") != NULL);
}

TEST(volume, refuses_a_prefix_without_slash, .init = init, .fini = fini)
{
    struct error error = {0};
    v.config.prefix = "other";
    check_int(volume_try_open(&v, &error), -EINVAL);
}

TEST(volume, refuses_internal_kinds, .init = init, .fini = fini)
{
    volume_open(&v);
    struct meta_request request = {.op = {.kind = META_GC_DONE}};
    check_int(meta_submit(v.meta, &request), -EINVAL);
    meta_reply_done(&request.reply);
}

struct answer {
    sem_t answered;
    int result;
};

static void answered(struct meta_request *request)
{
    struct answer *answer = request->arg;
    answer->result = request->result;
    sem_post(&answer->answered);
}

TEST(volume, answers_durable_requests_later, .init = init, .fini = fini)
{
    volume_open(&v);
    struct answer answer = {.result = 1};
    sem_init(&answer.answered, 0, 0);
    struct meta_request request = {.op = {.kind = META_MKNOD,
                                          .parent = META_ROOT_INO,
                                          .name = {"d", 1},
                                          .attr = {.mode = S_IFDIR | 0755}},
                                   .durable = true,
                                   .done = answered,
                                   .arg = &answer};
    check_int(meta_submit(v.meta, &request), -EINPROGRESS);
    sem_wait(&answer.answered);
    check_int(answer.result, 0);
    meta_reply_done(&request.reply);
    sem_destroy(&answer.answered);
}

TEST(volume, answers_other_changes_at_once, .init = init, .fini = fini)
{
    volume_open(&v);
    struct meta_request request = {.op = {.kind = META_MKNOD,
                                          .parent = META_ROOT_INO,
                                          .name = {"d", 1},
                                          .attr = {.mode = S_IFDIR | 0755}}};
    check_int(meta_submit(v.meta, &request), 0);
    meta_reply_done(&request.reply);
    check_int(meta_submit(v.meta, &request), -EEXIST);
    meta_reply_done(&request.reply);
}

/* Which requests wait for a sync: only those that must. */
static bool waits(enum meta_sync sync, enum meta_kind kind)
{
    volume_close(&v);
    v.config.sync = sync;
    volume_open(&v);
    struct answer answer = {.result = 1};
    sem_init(&answer.answered, 0, 0);
    struct meta_request request = {.op = {.kind = kind,
                                          .parent = META_ROOT_INO,
                                          .name = {"x", 1},
                                          .new_parent = META_ROOT_INO,
                                          .new_name = {"y", 1}},
                                   .done = answered,
                                   .arg = &answer};
    name_mkdir(&v, META_ROOT_INO, "x", NULL);
    name_rmdir(&v, META_ROOT_INO, "y");
    if (kind == META_UNLINK)
        request.op.flags = META_RMDIR;
    int rc = meta_submit(v.meta, &request);
    if (rc == -EINPROGRESS)
        sem_wait(&answer.answered);
    meta_reply_done(&request.reply);
    sem_destroy(&answer.answered);
    check_int(rc == -EINPROGRESS ? answer.result : rc, 0);
    return rc == -EINPROGRESS;
}

TEST(volume, rename_is_always_durable, .init = init, .fini = fini)
{
    check(waits(META_SYNC_INTERVAL, META_RENAME));
    check(!waits(META_SYNC_INTERVAL, META_UNLINK));
    check(waits(META_SYNC_ALWAYS, META_UNLINK));
    check(!waits(META_SYNC_ALWAYS, META_LOOKUP));
}

#define THREADS 8
#define EACH 50

static void *create_many(void *arg)
{
    intptr_t n = (intptr_t)arg, failed = 0;
    for (int i = 0; i < EACH; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "f-%d-%d", (int)n, i);
        struct meta_request request = {.op = {.kind = META_MKNOD,
                                              .parent = META_ROOT_INO,
                                              .name = {name, (size_t)len},
                                              .attr = {.mode = S_IFREG | 0644}},
                                       .durable = i % 2};
        failed += meta_call(v.meta, &request) != 0;
        meta_reply_done(&request.reply);
    }
    return (void *)failed;
}

TEST(volume, takes_changes_from_many_threads, .init = init, .fini = fini)
{
    volume_open(&v);
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, create_many, (void *)i);
    void *failed = NULL;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &failed);
        check(!failed);
    }
    struct meta_request usage = {.op = {.kind = META_USAGE, .ino = META_ROOT_INO}};
    check_int(meta_call(v.meta, &usage), 0);
    check_uint(usage.reply.usage.files, THREADS * EACH);
    meta_reply_done(&usage.reply);
}

TEST(volume, read_only_changes_nothing, .init = init, .fini = fini)
{
    bucket_put(&v, "a", "text");
    v.config.read_only = true;
    volume_open(&v);
    check_int(name_mkdir(&v, META_ROOT_INO, "d", NULL), -EROFS);
    cleanup(free_ptr) char *text = file_read(&v, name_ino(&v, META_ROOT_INO, "a"), NULL);
    check_str(text, "text");
    volume_close(&v);
    check_uint(bucket_count(&v, ""), 1);
    /* The scratch directory is gone. */
    check_int(rmdir(v.database), 0);
}

static void synced(struct meta_task *task)
{
    sem_post(task->arg);
}

TEST(volume, sync_answers_on_demand, .init = init, .fini = fini)
{
    volume_open(&v);
    sem_t ended;
    sem_init(&ended, 0, 0);
    struct meta_task task = {.done = synced, .arg = &ended};
    name_mkdir(&v, META_ROOT_INO, "d", NULL);
    meta_sync(v.meta, &task);
    sem_wait(&ended);
    check_int(task.result, 0);
    sem_destroy(&ended);
}

static uint64_t sequence_of(enum meta_kind kind, const char *name, const char *new_name)
{
    struct meta_request request = {.op = {.kind = kind,
                                          .parent = META_ROOT_INO,
                                          .name = {name, strlen(name)},
                                          .new_parent = META_ROOT_INO,
                                          .new_name = {new_name, strlen(new_name)},
                                          .attr = {.mode = S_IFDIR | 0755}}};
    check_int(meta_call(v.meta, &request), 0);
    meta_reply_done(&request.reply);
    return request.sequence;
}

TEST(volume, knows_what_survives, .init = init, .fini = fini)
{
    v.config.sync_interval_ms = 3600 * 1000;
    v.config.no_settle = true; /* who settles syncs */
    volume_open(&v);
    uint64_t made = sequence_of(META_MKNOD, "a", "");
    check(!meta_is_synced(v.meta, made));
    uint64_t renamed = sequence_of(META_RENAME, "a", "b");
    check(renamed > made);
    check(meta_is_synced(v.meta, made));
    check(meta_is_synced(v.meta, renamed));
    uint64_t later = sequence_of(META_MKNOD, "c", "");
    check(!meta_is_synced(v.meta, 0));
    check(!meta_is_synced(v.meta, later));
    check(meta_is_synced(v.meta, renamed));
    sem_t ended;
    sem_init(&ended, 0, 0);
    /* What survives already is answered without a sync. */
    struct meta_task task = {.sequence = renamed, .done = synced, .arg = &ended};
    meta_sync(v.meta, &task);
    sem_wait(&ended);
    check(!meta_is_synced(v.meta, later));
    task.sequence = 0;
    meta_sync(v.meta, &task);
    sem_wait(&ended);
    check(meta_is_synced(v.meta, later));
    sem_destroy(&ended);
}

TEST(volume, change_survives_after_the_interval, .init = init, .fini = fini)
{
    v.config.sync_interval_ms = 5;
    volume_open(&v);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "d%d", i);
        uint64_t made = sequence_of(META_MKNOD, name, "");
        eventually(meta_is_synced(v.meta, made));
        sleep_ms((unsigned)i); /* the syncer is asleep, or not yet */
    }
}

static void note_thread(struct meta_request *request)
{
    *(pthread_t *)request->arg = pthread_self();
}

TEST(volume, caller_who_may_wait_syncs_himself, .init = init, .fini = fini)
{
    v.config.sync_interval_ms = 3600 * 1000;
    v.config.no_settle = true;
    volume_open(&v);
    pthread_t answered_by = 0;
    struct meta_request request = {.op = {.kind = META_MKNOD,
                                          .parent = META_ROOT_INO,
                                          .name = {"d", 1},
                                          .attr = {.mode = S_IFDIR | 0755}},
                                   .durable = true,
                                   .may_wait = true,
                                   .done = note_thread,
                                   .arg = &answered_by};
    check_int(meta_submit(v.meta, &request), -EINPROGRESS);
    check(pthread_equal(answered_by, pthread_self()));
    check_int(request.result, 0);
    check(meta_is_synced(v.meta, request.sequence));
    meta_reply_done(&request.reply);
}

static void *sync_many(void *arg)
{
    bool may_wait = (uintptr_t)arg % 2;
    intptr_t failed = 0;
    sem_t ended;
    sem_init(&ended, 0, 0);
    for (int i = 0; i < EACH; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "s%u-%d", (unsigned)(uintptr_t)arg, i);
        struct meta_request request = {.op = {.kind = META_MKNOD,
                                              .parent = META_ROOT_INO,
                                              .name = {name, (size_t)len},
                                              .attr = {.mode = S_IFREG | 0644}}};
        failed += meta_call(v.meta, &request) != 0;
        meta_reply_done(&request.reply);
        struct meta_task task = {
            .sequence = request.sequence, .may_wait = may_wait, .done = synced, .arg = &ended};
        meta_sync(v.meta, &task);
        sem_wait(&ended);
        failed += task.result != 0 || !meta_is_synced(v.meta, request.sequence);
    }
    sem_destroy(&ended);
    return (void *)failed;
}

/* Who syncs changes from one thread to another: nobody is left waiting, and none is answered too
 * early. */
TEST(volume, many_sync_for_each_other, .init = init, .fini = fini)
{
    volume_open(&v);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, sync_many, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        check(!failed);
    }
}

TEST(volume, status_is_json, .init = init, .fini = fini)
{
    volume_open(&v);
    file_inline(&v, META_ROOT_INO, "f", "four");
    cleanup(free_ptr) char *text = volume_status(&v);
    json_t *root = json_loads(text, 0, NULL);
    check(root != NULL);
    json_t *usage = json_object_get(root, "usage");
    check_int(json_integer_value(json_object_get(usage, "bytes")), 4);
    static const char *const parts[] = {"volume", "usage", "drift",  "database",
                                        "settle", "gc",    "import", "owner"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        check(json_is_object(json_object_get(root, parts[i])));
    json_decref(root);
}

TEST(volume, time_never_steps_back, .init = init, .fini = fini)
{
    volume_open(&v);
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = meta_time_ns(v.meta);
        check(now >= last);
        last = now;
    }
}
