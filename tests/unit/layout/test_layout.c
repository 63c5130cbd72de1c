/*
 * Random interleavings of a writer, a renamer, readers, others who put and delete objects, settle,
 * gc, import and crashes, in virtual time: the invariants I1 to I5 and I9 of the open layout hold
 * at each step (docs/testing.md). A run is given by its seed:
 *
 *   SLUICE_LAYOUT_SEED=7 SLUICE_LAYOUT_STEPS=5000000 build/tests/unit/layout/unit_layout
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "bucket.h"
#include "meta/check.h"
#include "meta/meta.h"
#include "model.h"
#include "sim.h"
#include "test.h"

#define VOLUME_ID "00112233445566778899aabbccddeeff"
#define LARGE (300u << 10)
#define DRAIN_STEPS 200000
#define DRAIN_NS (60 * NS_PER_S)
#define CRASH_STEPS 6000

static struct {
    char dir[4096], database[4200];
    struct meta_config config;
    struct meta_volume format;
    struct meta *meta;
    bool down, stop; /* the process is dead; the actors are to end */
    unsigned foreign;
    unsigned commits, renames, reads, crashes, puts;
} w;

static void open_volume(void)
{
    struct error error = {0};
    model_dead(false);
    bucket_alive();
    bucket_calm(true); /* that a volume cannot be opened while the store fails is no news */
    int rc = meta_open(&w.config, &w.meta, &error);
    if (rc)
        sim_violation("the volume cannot be opened: %s", error.message);
    bucket_calm(false);
    model_engine(meta_engine(w.meta));
    bucket_engine(meta_engine(w.meta));
    w.down = false;
    model_check("opening");
}

/* The process dies. What it did is done; its memory is gone. */
static void crash(void)
{
    w.crashes++;
    bucket_crash();
    model_dead(true);
    w.down = true;
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(TAKE_PTR(w.meta));
}

static void begin(uint64_t seed, enum bucket_fault fault)
{
    log_init(LOG_ERROR, "/dev/null");
    test_dir_make(w.dir);
    sim_init(seed);
    bucket_init(VOLUME_ID, fault);
    snprintf(w.database, sizeof(w.database), "%s/meta", w.dir);
    meta_format_init(&w.format);
    memcpy(w.format.id, VOLUME_ID, sizeof(VOLUME_ID));
    w.format.settle_delay_ms = 20;
    w.format.gc_delay_ms = 30;
    meta_config_init(&w.config);
    w.config.directory = w.database;
    w.config.store = bucket_store();
    w.config.format = &w.format;
    w.config.memory_bytes = 16 << 20;
    w.config.import_ttl_ms = 300;
    w.config.negative_ttl_ms = 60;
    w.config.settle_parallel = 3;
    w.config.owner_text = "test";
    open_volume();
}

/* --- Requests of the actors */

static int ask(struct meta_request *request)
{
    while (w.down && !w.stop)
        sim_sleep_ms(50);
    if (w.down) {
        meta_reply_init(&request->reply);
        return -ESHUTDOWN;
    }
    return meta_call(w.meta, request);
}

static int simple(const struct meta_op *op, struct meta_attr *attr, struct meta_attr *replaced)
{
    struct meta_request request = {.op = *op};
    int rc = ask(&request);
    if (!rc && attr)
        *attr = request.reply.attr;
    if (!rc && replaced)
        *replaced = request.reply.replaced;
    meta_reply_done(&request.reply);
    return rc;
}

static struct meta_name name_of(const char *text)
{
    return (struct meta_name){text, strlen(text)};
}

static const char *const files[] = {"a", "b", "c"};
static const char *const dirs[] = {"d", "e"};

static const char *any_file(void)
{
    return files[sim_below(ARRAY_LEN(files))];
}

static uint64_t any_dir(bool make)
{
    unsigned which = sim_below(ARRAY_LEN(dirs) + 1);
    if (which == ARRAY_LEN(dirs))
        return META_ROOT_INO;
    struct meta_attr attr = {0};
    struct meta_op look = {
        .kind = META_LOOKUP, .parent = META_ROOT_INO, .name = name_of(dirs[which])};
    int rc = simple(&look, &attr, NULL);
    if (rc == -ENOENT && make) {
        struct meta_op mkdir = {.kind = META_MKNOD,
                                .parent = META_ROOT_INO,
                                .name = name_of(dirs[which]),
                                .attr = {.mode = S_IFDIR | 0755}};
        rc = simple(&mkdir, &attr, NULL);
    }
    return rc || !S_ISDIR(attr.mode) ? META_ROOT_INO : attr.ino;
}

static void drop(uint64_t ino)
{
    struct meta_op op = {.kind = META_DROP, .inos = &ino, .ino_count = 1};
    simple(&op, NULL, NULL);
}

/* --- The writer */

/* Few different contents, so that equal ones (with equal ETags) meet. */
static void fill(uint8_t *data, size_t len)
{
    unsigned start = sim_below(3);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)('a' + (i / 7 + start) % 26);
}

static int put_object(const struct meta_object *object, const void *data, size_t len)
{
    struct meta_object_tags tags;
    struct meta_attr attr = {.mode = S_IFREG | 0644};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct store_op put = {.kind = STORE_PUT,
                           .key = object->key,
                           .iov = &iov,
                           .iov_count = 1,
                           .if_none_match = true,
                           .meta = tags.pairs,
                           .meta_count = meta_object_tags(&w.format, object, &attr, &tags)};
    int rc = store_wait(bucket_store(), &put);
    if (!rc)
        snprintf((char *)object->etag, sizeof(object->etag), "%s", put.info.etag);
    store_op_reset(&put);
    return rc;
}

static void abandon(uint64_t object, bool not_written)
{
    struct meta_op op = {
        .kind = META_ABANDON, .object = object, .flags = not_written ? META_NOT_WRITTEN : 0};
    simple(&op, NULL, NULL);
}

static void write_object(uint64_t ino, uint64_t offset, bool replace)
{
    size_t len = sim_below(40) == 0 ? LARGE + sim_below(3) * 1000 : sim_below(3000);
    cleanup(free_ptr) uint8_t *data = malloc(len + 1);
    fill(data, len);
    struct meta_request reserve = {
        .op = {.kind = META_RESERVE, .ino = ino, .flags = sim_below(3) ? 0 : META_INTERNAL_KEY},
        .durable = true};
    int rc = ask(&reserve);
    struct meta_object object = {0};
    if (!rc)
        object = reserve.reply.objects[0];
    meta_reply_done(&reserve.reply);
    struct meta *meta = w.meta;
    if (rc || w.down)
        return;
    rc = put_object(&object, data, len);
    if (w.meta != meta || w.down)
        return; /* it died meanwhile: the next process has abandoned the object */
    if (rc) {
        abandon(object.id, rc == -EEXIST);
        return;
    }
    object.size = len;
    struct meta_extent extent = {
        .kind = META_EXTENT_OBJECT, .offset = offset, .length = len, .object = object.id};
    struct meta_op commit = {.kind = META_COMMIT,
                             .ino = ino,
                             .objects = &object,
                             .object_count = 1,
                             .extents = &extent,
                             .extent_count = len > 0,
                             .flags = replace ? META_REPLACE : 0};
    if (replace) {
        commit.valid = META_SET_SIZE;
        commit.attr.size = len;
    }
    rc = simple(&commit, NULL, NULL);
    w.commits += !rc;
    if (rc && w.meta == meta)
        abandon(object.id, false);
}

static void write_inline(uint64_t ino, uint64_t offset, bool replace)
{
    uint8_t data[600];
    size_t len = sim_below(sizeof(data));
    fill(data, len);
    struct meta_extent extent = {
        .kind = META_EXTENT_INLINE, .offset = offset, .length = len, .data = data};
    struct meta_op commit = {.kind = META_COMMIT,
                             .ino = ino,
                             .extents = &extent,
                             .extent_count = len > 0,
                             .flags = replace ? META_REPLACE : 0};
    if (replace) {
        commit.valid = META_SET_SIZE;
        commit.attr.size = len;
    }
    w.commits += !simple(&commit, NULL, NULL);
}

static void change(uint64_t parent, const char *name, uint64_t ino)
{
    struct meta_attr attr;
    struct meta_op cut = {
        .kind = META_SETATTR, .ino = ino, .valid = META_SET_SIZE, .attr.size = sim_below(2000)};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = parent, .name = name_of(name)};
    switch (sim_below(8)) {
    case 0:
    case 1:
        write_inline(ino, 0, true);
        break;
    case 2:
        write_inline(ino, sim_below(2500), false);
        break;
    case 3:
    case 4:
        write_object(ino, 0, true);
        break;
    case 5:
        write_object(ino, sim_below(2500), false);
        break;
    case 6:
        simple(&cut, NULL, NULL);
        break;
    default:
        if (!simple(&unlink, &attr, NULL) && !attr.nlink)
            drop(attr.ino);
        break;
    }
}

static void writer(void)
{
    while (!w.stop) {
        uint64_t parent = any_dir(true);
        const char *name = any_file();
        struct meta_attr attr;
        struct meta_op look = {.kind = META_LOOKUP, .parent = parent, .name = name_of(name)};
        struct meta_op make = {.kind = META_MKNOD,
                               .parent = parent,
                               .name = name_of(name),
                               .attr = {.mode = S_IFREG | 0644}};
        int rc = simple(&look, &attr, NULL);
        if (rc == -ENOENT)
            rc = simple(&make, &attr, NULL);
        if (!rc && S_ISREG(attr.mode))
            change(parent, name, attr.ino);
        sim_sleep_ms(sim_below(4) ? sim_below(10) : sim_below(150));
    }
}

/* --- The renamer */

static void renamer(void)
{
    while (!w.stop) {
        struct meta_attr attr, replaced = {0};
        struct meta_op op = {.kind = META_RENAME, .flags = sim_below(6) ? 0 : RENAME_EXCHANGE};
        if (sim_below(6)) {
            op.parent = any_dir(false);
            op.name = name_of(any_file());
            op.new_parent = any_dir(true);
            op.new_name = name_of(any_file());
        } else {
            op.parent = op.new_parent = META_ROOT_INO;
            op.name = name_of(dirs[sim_below(2)]);
            op.new_name = name_of(dirs[sim_below(2)]);
        }
        int rc = simple(&op, &attr, &replaced);
        w.renames += !rc;
        if (!rc && !(op.flags & RENAME_EXCHANGE) && replaced.ino && replaced.ino != attr.ino &&
            !replaced.nlink)
            drop(replaced.ino);
        sim_sleep_ms(sim_below(4) ? sim_below(15) : sim_below(200));
    }
}

/* --- Others */

static void outsider(void)
{
    while (!w.stop) {
        char key[64], text[128];
        unsigned dir = sim_below(ARRAY_LEN(dirs) + 1);
        snprintf(key, sizeof(key), "%s%s%s", dir < ARRAY_LEN(dirs) ? dirs[dir] : "",
                 dir < ARRAY_LEN(dirs) ? "/" : "", any_file());
        if (sim_below(3)) {
            int len =
                snprintf(text, sizeof(text), "content %u of somebody else at %s", w.foreign++, key);
            bucket_put_foreign(key, text, (size_t)len);
            w.puts++;
        } else {
            bucket_delete_foreign(key);
        }
        sim_sleep_ms(sim_below(300));
    }
}

/* --- Readers */

static int get_range(const struct meta_object *object, uint64_t offset, uint64_t len, void *out)
{
    struct store_op get = {.kind = STORE_GET,
                           .key = object->key,
                           .if_match = object->etag,
                           .offset = offset,
                           .length = len,
                           .buf = out,
                           .buf_len = len};
    int rc = store_wait(bucket_store(), &get);
    if (!rc && get.got != len)
        rc = -EIO;
    store_op_reset(&get);
    return rc;
}

static void noticed(struct meta_task *task)
{
    sem_post(task->arg);
}

static void tell_changed(uint64_t ino, uint64_t object)
{
    sem_t done;
    if (w.down)
        return;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = ino, .done = noticed, .arg = &done};
    meta_object_changed(w.meta, &task, object);
    sem_wait(&done);
}

/* All bytes, or NULL. */
static uint8_t *read_file(uint64_t ino, size_t *len)
{
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    struct meta_reply *reply = &request.reply;
    int rc = ask(&request);
    uint8_t *data = rc ? NULL : calloc(1, reply->attr.size + 1);
    uint64_t gone = 0;
    *len = rc ? 0 : reply->attr.size;
    for (size_t i = 0; !rc && i < reply->extent_count; i++) {
        const struct meta_extent *e = &reply->extents[i];
        if (e->kind == META_EXTENT_INLINE) {
            memcpy(data + e->offset, e->data, e->length);
            continue;
        }
        for (size_t j = 0; j < reply->object_count; j++) {
            if (reply->objects[j].id != e->object || !e->length)
                continue;
            rc = get_range(&reply->objects[j], e->object_offset, e->length, data + e->offset);
            if (rc == -EEXIST || rc == -ENOENT)
                gone = e->object;
        }
    }
    meta_reply_done(reply);
    if (gone)
        tell_changed(ino, gone);
    if (rc)
        free(TAKE_PTR(data));
    return data;
}

static void reader(void)
{
    while (!w.stop) {
        uint64_t ino = model_any_file();
        if (ino) {
            size_t len;
            struct model_reader *r = model_reader_begin(ino);
            cleanup(free_ptr) uint8_t *data = read_file(ino, &len);
            w.reads += data != NULL;
            model_reader_end(r, data, len);
        }
        sim_sleep_ms(sim_below(60));
    }
}

static void run_task(void (*start)(struct meta *meta, struct meta_task *task))
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = META_ROOT_INO, .done = noticed, .arg = &done};
    start(w.meta, &task);
    sem_wait(&done);
}

/* Removes what conflicts left, so that there is room for more. */
static void cleaner(void)
{
    while (!w.stop) {
        uint64_t dir = any_dir(false);
        struct meta_request request = {
            .op = {.kind = META_READDIR, .ino = dir, .count = 1000, .plus = true}};
        char names[16][META_NAME_MAX + 1];
        unsigned count = 0;
        if (!ask(&request))
            for (size_t i = 0; i < request.reply.entry_count && count < ARRAY_LEN(names); i++)
                if (strstr(request.reply.entries[i].name, META_CONFLICT_SUFFIX) && sim_below(2))
                    strcpy(names[count++], request.reply.entries[i].name);
        meta_reply_done(&request.reply);
        for (unsigned i = 0; i < count; i++) {
            struct meta_attr attr = {0};
            struct meta_op op = {.kind = META_UNLINK, .parent = dir, .name = name_of(names[i])};
            if (!simple(&op, &attr, NULL) && !attr.nlink)
                drop(attr.ino);
        }
        sim_sleep_ms(sim_below(400));
    }
}

static void refresher(void)
{
    while (!w.stop) {
        if (!w.down)
            run_task(sim_below(2) ? meta_refresh : meta_settle_wait);
        sim_sleep_ms(sim_below(800));
    }
}

/* --- The end: all work is done, and nothing is left behind */

/* An object of ours that no file uses. (A record of garbage may stay for as long as somebody else's
 * object is at its key.) */
static const struct bucket_object *left_behind(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next)
        if (!o->foreign && !o->late && strncmp(o->key, ".sluice/e/", 10) != 0 && !model_user_of(o))
            return o;
    return NULL;
}

/* An object of somebody else that no file shows: it is hidden. */
static const struct bucket_object *hidden(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next)
        if (o->foreign && strncmp(o->key, ".sluice/", 8) != 0 && !model_user_of(o))
            return o;
    return NULL;
}

static void violated(void *arg, const char *text)
{
    sim_violation("the records do not fit together: %s", text);
}

/* Everybody's, in a bounded number of steps and a bounded time. */
static void run_task_bounded(void (*start)(struct meta *meta, struct meta_task *task))
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = META_ROOT_INO, .done = noticed, .arg = &done};
    start(w.meta, &task);
    for (uint64_t end = sim_steps() + DRAIN_STEPS; sem_trywait(&done); sim_step())
        if (sim_steps() > end)
            sim_violation("liveness: %s does not end",
                          start == meta_refresh ? "a refresh" : "who waits for settle");
}

static struct meta_drift drift(void)
{
    struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
    struct meta_reply reply;
    meta_reply_init(&reply);
    if (engine_read(meta_engine(w.meta), &op, 0, &reply))
        sim_violation("the drift cannot be read");
    struct meta_drift now = reply.drift;
    meta_reply_done(&reply);
    return now;
}

/* What is not done yet of the work that nobody stands in the way of; NULL: nothing. */
static const char *backlog(void)
{
    static char text[2 * STORE_KEY_MAX];
    const struct bucket_object *o = left_behind();
    struct meta_drift now = drift();
    if (o)
        snprintf(text, sizeof(text), "I4: %s is left behind", o->key);
    else if (bucket_uploads_open())
        snprintf(text, sizeof(text), "I4: an upload is left behind");
    else if (now.garbage_objects)
        snprintf(text, sizeof(text), "%llu objects are garbage for ever",
                 (unsigned long long)now.garbage_objects);
    else if (now.files)
        snprintf(text, sizeof(text), "%llu files are not settled", (unsigned long long)now.files);
    else
        return NULL;
    return text;
}

/* By its path: "name" or "directory/name". */
static int remove_file(uint64_t ino)
{
    struct meta_op path = {.kind = META_PATH, .ino = ino};
    struct meta_reply reply;
    struct meta_attr dir = {.ino = META_ROOT_INO}, attr = {0};
    char text[META_KEY_MAX + 1] = "";
    meta_reply_init(&reply);
    if (!engine_read(meta_engine(w.meta), &path, 0, &reply))
        snprintf(text, sizeof(text), "%.*s", (int)reply.data_len, (const char *)reply.data);
    meta_reply_done(&reply);
    char *slash = strchr(text, '/'), *name = slash ? slash + 1 : text;
    struct meta_op look = {.kind = META_LOOKUP,
                           .parent = META_ROOT_INO,
                           .name = {text, slash ? (size_t)(slash - text) : 0}};
    int rc = slash ? simple(&look, &dir, NULL) : 0;
    struct meta_op op = {.kind = META_UNLINK, .parent = dir.ino, .name = name_of(name)};
    if (!rc)
        rc = simple(&op, &attr, NULL);
    if (!rc)
        drop(ino);
    return rc;
}

/* What others destroyed cannot be settled, and may stand in the way of the rest: a user removes it.
 */
static void remove_disturbed(void)
{
    unsigned tries = 0;
    for (uint64_t ino; (ino = model_disturbed()); tries++) {
        int rc = remove_file(ino);
        if ((rc && rc != -ENOENT) || tries == 1000)
            sim_violation("file %llu cannot be removed: %d", (unsigned long long)ino, rc);
    }
}

/* No more faults, no more changes: all that can be done is done soon. */
static void check_alive(void)
{
    for (uint64_t end = sim_steps() + DRAIN_STEPS; sim_actor_left(); sim_step())
        if (sim_steps() > end)
            sim_violation("liveness: the %s waits for ever", sim_actor_left());
    run_task_bounded(meta_refresh);
    run_task_bounded(meta_settle_wait); /* may fail: content is lost that others deleted */
    remove_disturbed();
    uint64_t end = sim_steps() + DRAIN_STEPS;
    uint64_t end_ns = clock_monotonic_ns() + DRAIN_NS;
    for (const char *what; (what = backlog());) {
        if (sim_steps() > end || clock_monotonic_ns() > end_ns)
            sim_violation("liveness: %s", what);
        for (unsigned i = 0; i < 20; i++)
            sim_step();
    }
    for (; !bucket_idle(); sim_step())
        if (sim_steps() > end)
            sim_violation("liveness: requests are not answered");
}

/* A user looks into every directory: until then a refresh leaves alone those of which nothing is
 * known. */
static void look_around(void)
{
    for (size_t i = 0; i <= ARRAY_LEN(dirs); i++) {
        struct meta_attr attr = {.ino = META_ROOT_INO};
        struct meta_op look = {.kind = META_LOOKUP, .parent = META_ROOT_INO};
        if (i < ARRAY_LEN(dirs))
            look.name = name_of(dirs[i]);
        if (i < ARRAY_LEN(dirs) && (simple(&look, &attr, NULL) || !S_ISDIR(attr.mode)))
            continue;
        struct meta_op list = {.kind = META_READDIR, .ino = attr.ino, .count = 1000};
        int rc = simple(&list, NULL, NULL);
        if (rc)
            sim_violation("directory %llu cannot be listed: %d", (unsigned long long)attr.ino, rc);
    }
}

static void check_end(void)
{
    bucket_calm(true);
    w.stop = true;
    check_alive();
    uint64_t end = sim_steps() + DRAIN_STEPS;
    /* What was hidden behind changes of ours has its name. */
    look_around();
    for (const struct bucket_object *o; (o = hidden()); look_around()) {
        if (sim_steps() > end)
            sim_violation("both kept: %s of somebody else is not shown", o->key);
        run_task_bounded(meta_refresh);
        run_task_bounded(meta_settle_wait);
    }
    model_check("the end");
    engine_check(meta_engine(w.meta), violated, NULL);
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(w.meta);
    test_dir_remove(w.dir);
}

static void run(uint64_t seed, uint64_t steps, enum bucket_fault fault, bool no_syncs)
{
    begin(seed, fault);
    if (no_syncs)
        sim_forget_syncs();
    static const struct {
        const char *name;
        void (*run)(void);
    } actors[] = {{"writer", writer},       {"writer", writer},     {"renamer", renamer},
                  {"outsider", outsider},   {"outsider", outsider}, {"reader", reader},
                  {"refresher", refresher}, {"cleaner", cleaner}};
    for (size_t i = 0; i < ARRAY_LEN(actors); i++)
        sim_actor_start(actors[i].name, actors[i].run);
    uint64_t next = CRASH_STEPS;
    for (uint64_t i = 0; i < steps; i++) {
        if (i == next) {
            next += 1 + sim_below(2 * CRASH_STEPS);
            crash();
            open_volume();
        }
        sim_step();
    }
    check_end();
    fprintf(stderr,
            "seed %llu: %llu steps, %u commits, %u renames, %u reads, %u objects by others, %u "
            "crashes\n",
            (unsigned long long)seed, (unsigned long long)sim_steps(), w.commits, w.renames,
            w.reads, w.puts, w.crashes);
    fflush(NULL);
}

static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t fork_child(void)
{
    fflush(NULL);
    pid_t pid = fork();
    if (!pid)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

/* In a process of its own: its exit code. */
static int child(uint64_t seed, uint64_t steps, enum bucket_fault fault, bool no_syncs)
{
    pid_t pid = fork_child();
    if (!pid) {
        run(seed, steps, fault, no_syncs);
        _exit(0);
    }
    return wait_for(pid);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

TEST(layout, invariants_hold_at_each_step)
{
    uint64_t seed = number_from("SLUICE_LAYOUT_SEED", 0);
    uint64_t steps = number_from("SLUICE_LAYOUT_STEPS", 40000);
    uint64_t runs = seed ? 1 : number_from("SLUICE_LAYOUT_RUNS", 6);
    for (uint64_t i = 0; i < runs; i++) {
        int code = child(seed ? seed : i + 1, steps, BUCKET_HEALTHY, false);
        if (code)
            test_fail("SLUICE_LAYOUT_SEED=%ju SLUICE_LAYOUT_STEPS=%ju ended with %d",
                      (uintmax_t)(seed ? seed : i + 1), (uintmax_t)steps, code);
    }
}

/* One of a few seeds sees that the guard is not there. */
static bool is_noticed(enum bucket_fault fault, bool no_syncs)
{
    for (uint64_t seed = 1; seed <= 8; seed++)
        if (child(seed, 30000, fault, no_syncs) == SIM_VIOLATED)
            return true;
    return false;
}

TEST(layout, notices_a_store_that_ignores_if_none_match)
{
    check(is_noticed(BUCKET_NO_IF_NONE_MATCH, false));
}

TEST(layout, notices_reads_without_if_match)
{
    check(is_noticed(BUCKET_NO_IF_MATCH, false));
}

TEST(layout, notices_writes_and_deletes_without_if_match)
{
    check(is_noticed(BUCKET_NO_IF_MATCH_WRITE, false));
}

TEST(layout, notices_what_is_not_synced)
{
    check(is_noticed(BUCKET_HEALTHY, true));
}

/* What the store refuses to delete is tried again after 1, 2, 4 … 64 s, then each 64 s. */
static void refuse_deletes(void)
{
    static const unsigned after_s[] = {1, 2, 4, 8, 16, 32, 64, 64};
    begin(1, BUCKET_HEALTHY);
    bucket_calm(true);
    struct meta_attr attr = {0};
    struct meta_name name = name_of("a");
    struct meta_op make = {.kind = META_MKNOD,
                           .parent = META_ROOT_INO,
                           .name = name,
                           .attr = {.mode = S_IFREG | 0644}};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = META_ROOT_INO, .name = name};
    if (simple(&make, &attr, NULL))
        sim_violation("cannot make a file");
    write_object(attr.ino, 0, true);
    bucket_refuse(1u << STORE_DELETE | 1u << STORE_DELETE_MANY);
    if (!w.commits || simple(&unlink, &attr, NULL))
        sim_violation("cannot remove the file");
    drop(attr.ino);
    uint64_t before = 0, now;
    for (unsigned i = 0; i <= ARRAY_LEN(after_s); i++) {
        while (bucket_refused(&now) == i)
            sim_step();
        uint64_t ms = (now - before) / NS_PER_MS, wanted = i ? after_s[i - 1] * 1000 : 0;
        if (i && (ms < wanted || ms > wanted + 100))
            sim_violation("try %u came %llu ms after the one before", i, (unsigned long long)ms);
        before = now;
    }
    bucket_refuse(0);
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(w.meta);
    test_dir_remove(w.dir);
}

TEST(layout, gc_tries_again_later_and_later)
{
    pid_t pid = fork_child();
    if (!pid) {
        refuse_deletes();
        _exit(0);
    }
    check_int(wait_for(pid), 0);
}
