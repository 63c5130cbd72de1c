#include "end.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "meta/check.h"
#include "model.h"
#include "sim.h"
#include "test.h"
#include "world.h"

#define DRAIN_STEPS 200000
#define DRAIN_NS (60 * NS_PER_S)

/* --- The end: all work is done, and nothing is left behind */

/* An object of ours that no file uses. (A record of garbage may stay for as long as somebody else's
 * object is at its key.) */
static const struct bucket_object *left_behind(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next)
        if (!o->foreign && !o->late && !o->lagging && strncmp(o->key, ".sluice/e/", 10) != 0 &&
            !model_user_of(o))
            return o;
    return NULL;
}

/* The directory of a key. */
static uint64_t dir_of(const char *own)
{
    struct meta_attr attr = {0};
    const char *slash = strchr(own, '/');
    struct meta_op look = {.kind = META_LOOKUP,
                           .parent = META_ROOT_INO,
                           .name = {own, slash ? (size_t)(slash - own) : 0}};
    return slash && !world_call(&look, &attr, NULL) ? attr.ino : META_ROOT_INO;
}

/* Its directory has its files in this store. (Not looked at: what is in the other store only, of
 * which no listing of the volume's own one tells.) */
static bool is_to_be_shown(const struct bucket_object *o)
{
    const char *own;
    unsigned store = bucket_store_of(o->key, &own);
    return !store && !model_home(dir_of(own));
}

/* An object of somebody else that no file shows: it is hidden. */
static const struct bucket_object *hidden(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next)
        if (o->foreign && !bucket_is_internal(o->key) && !model_user_of(o) && is_to_be_shown(o))
            return o;
    return NULL;
}

/* A file of ours whose object has not the class that its directory is to have. */
static const struct bucket_object *wrong_class(void)
{
    struct engine *engine = meta_engine(world.meta);
    struct engine_place *places = NULL;
    const struct bucket_object *wrong = NULL;
    int count = engine_places(engine, &places);
    for (const struct bucket_object *o = bucket_all(); o && !wrong; o = o->hh.next) {
        uint64_t ino = o->foreign ? 0 : model_user_of(o);
        const char *nearest = NULL, *top = NULL;
        for (int i = 0; ino && i < count; i++)
            if (places[i].ino == META_ROOT_INO)
                top = places[i].class;
            else if (engine_below(engine, ino, places[i].ino) > 0)
                nearest = places[i].class;
        const char *wanted = nearest ? nearest : top;
        if (wanted && wanted[0] && strcmp(wanted, o->storage_class) != 0)
            wrong = o;
    }
    free(places);
    return wrong;
}

/* A file of ours at the key of another path, or in another store than its directory's. */
static const struct bucket_object *misplaced(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next) {
        uint64_t ino = model_user_of(o);
        if (ino && model_is_elsewhere(ino, o->key))
            return o;
    }
    return NULL;
}

/* One whose mode is not what its tags say, and no entry says it either. */
static const struct bucket_object *without_entry(void)
{
    for (const struct bucket_object *o = bucket_all(); o; o = o->hh.next) {
        struct meta_attr attr = {0};
        char key[64];
        struct meta_op get = {.kind = META_GETATTR, .ino = model_user_of(o)};
        if (!get.ino || world_call(&get, &attr, NULL) || (attr.mode & 07777) == o->mode)
            continue;
        snprintf(key, sizeof(key), ".sluice/e/%.8s/%016llx", world.format.id,
                 (unsigned long long)get.ino);
        if (!bucket_find(key))
            return o;
    }
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
    struct meta_task task = {.ino = META_ROOT_INO, .done = world_noticed, .arg = &done};
    start(world.meta, &task);
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
    if (engine_read(meta_engine(world.meta), &op, 0, &reply))
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
    else if ((o = misplaced()))
        snprintf(text, sizeof(text), "%s is not where its file is", o->key);
    else if ((o = without_entry()))
        snprintf(text, sizeof(text), "%s has another mode than its file, and no entry", o->key);
    else if ((o = wrong_class()))
        snprintf(text, sizeof(text), "%s is still %s", o->key, o->storage_class);
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
    if (!engine_read(meta_engine(world.meta), &path, 0, &reply))
        snprintf(text, sizeof(text), "%.*s", (int)reply.data_len, (const char *)reply.data);
    meta_reply_done(&reply);
    char *slash = strchr(text, '/'), *name = slash ? slash + 1 : text;
    struct meta_op look = {.kind = META_LOOKUP,
                           .parent = META_ROOT_INO,
                           .name = {text, slash ? (size_t)(slash - text) : 0}};
    int rc = slash ? world_call(&look, &dir, NULL) : 0;
    struct meta_op op = {.kind = META_UNLINK, .parent = dir.ino, .name = world_name(name)};
    if (!rc)
        rc = world_call(&op, &attr, NULL);
    if (!rc)
        world_drop(ino);
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
    for (size_t i = 0; i <= WORLD_DIRS; i++) {
        struct meta_attr attr = {.ino = META_ROOT_INO};
        struct meta_op look = {.kind = META_LOOKUP, .parent = META_ROOT_INO};
        if (i < WORLD_DIRS)
            look.name = world_name(world_dirs[i]);
        if (i < WORLD_DIRS && (world_call(&look, &attr, NULL) || !S_ISDIR(attr.mode)))
            continue;
        struct meta_op list = {.kind = META_READDIR, .ino = attr.ino, .count = 1000};
        int rc = world_call(&list, NULL, NULL);
        if (rc)
            sim_violation("directory %llu cannot be listed: %d", (unsigned long long)attr.ino, rc);
    }
}

/* What was migrated and held goes on. */
static void resume(void)
{
    struct engine_place *places = NULL;
    int count = engine_places(meta_engine(world.meta), &places);
    for (int i = 0; i < count; i++)
        if (places[i].paused)
            actors_place(places[i].ino, places[i].store, 0);
    free(places);
}

void end_check(void)
{
    bucket_calm(true);
    world.stop = true;
    resume();
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
    engine_check(meta_engine(world.meta), violated, NULL);
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(world.meta);
    test_dir_remove(world.dir);
}
