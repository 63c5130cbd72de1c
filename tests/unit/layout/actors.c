#include "actors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "meta/check.h"
#include "meta/stores.h"
#include "model.h"
#include "sim.h"
#include "volume/volume.h"
#include "world.h"

#define LARGE (300u << 10)

/* --- The writer */

/* Few different contents, so that equal ones (with equal ETags) meet. */
static void fill(uint8_t *data, size_t len)
{
    unsigned start = sim_below(3);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)('a' + (i / 7 + start) % 26);
}

/* With the attributes that the file has when it begins, as an upload does it. */
static int put_object(uint64_t ino, const struct meta_object *object, const void *data, size_t len)
{
    struct meta_object_tags tags;
    struct meta_attr attr = {.mode = S_IFREG | 0644};
    struct meta_op get = {.kind = META_GETATTR, .ino = ino};
    world_call(&get, &attr, NULL);
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct store_op put = {.kind = STORE_PUT,
                           .key = object->key,
                           .iov = &iov,
                           .iov_count = 1,
                           .if_none_match = true,
                           .meta = tags.pairs,
                           .meta_count = meta_object_tags(&world.format, object, &attr, &tags)};
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
    world_call(&op, NULL, NULL);
}

void actors_write_object(uint64_t ino, uint64_t offset, bool replace)
{
    size_t len = sim_below(40) == 0 ? LARGE + sim_below(3) * 1000 : sim_below(3000);
    cleanup(free_ptr) uint8_t *data = malloc(len + 1);
    fill(data, len);
    struct meta_request reserve = {
        .op = {.kind = META_RESERVE, .ino = ino, .flags = sim_below(3) ? 0 : META_INTERNAL_KEY},
        .durable = true};
    int rc = world_ask(&reserve);
    struct meta_object object = {0};
    if (!rc)
        object = reserve.reply.objects[0];
    meta_reply_done(&reserve.reply);
    struct meta *meta = world.meta;
    if (rc || world.down)
        return;
    rc = put_object(ino, &object, data, len);
    if (world.meta != meta || world.down)
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
    rc = world_call(&commit, NULL, NULL);
    world.commits += !rc;
    if (rc && world.meta == meta)
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
    world.commits += !world_call(&commit, NULL, NULL);
}

static void change(uint64_t parent, const char *name, uint64_t ino)
{
    struct meta_attr attr;
    struct meta_op cut = {
        .kind = META_SETATTR, .ino = ino, .valid = META_SET_SIZE, .attr.size = sim_below(2000)};
    struct meta_op unlink = {.kind = META_UNLINK, .parent = parent, .name = world_name(name)};
    struct meta_op mode = {.kind = META_SETATTR,
                           .ino = ino,
                           .valid = META_SET_MODE,
                           .attr.mode = 0600 + sim_below(64)};
    switch (sim_below(9)) {
    case 8:
        world_call(&mode, NULL, NULL);
        break;
    case 0:
    case 1:
        write_inline(ino, 0, true);
        break;
    case 2:
        write_inline(ino, sim_below(2500), false);
        break;
    case 3:
    case 4:
        actors_write_object(ino, 0, true);
        break;
    case 5:
        actors_write_object(ino, sim_below(2500), false);
        break;
    case 6:
        world_call(&cut, NULL, NULL);
        break;
    default:
        if (!world_call(&unlink, &attr, NULL) && !attr.nlink)
            world_drop(attr.ino);
        break;
    }
}

static void writer(void)
{
    while (!world.stop) {
        uint64_t parent = world_any_dir(true);
        const char *name = world_any_file();
        struct meta_attr attr;
        struct meta_op look = {.kind = META_LOOKUP, .parent = parent, .name = world_name(name)};
        struct meta_op make = {.kind = META_MKNOD,
                               .parent = parent,
                               .name = world_name(name),
                               .attr = {.mode = S_IFREG | 0644}};
        int rc = world_call(&look, &attr, NULL);
        if (rc == -ENOENT)
            rc = world_call(&make, &attr, NULL);
        if (!rc && S_ISREG(attr.mode))
            change(parent, name, attr.ino);
        sim_sleep_ms(sim_below(4) ? sim_below(10) : sim_below(150));
    }
}

/* --- The renamer */

static void renamer(void)
{
    while (!world.stop) {
        struct meta_attr attr, replaced = {0};
        struct meta_op op = {.kind = META_RENAME, .flags = sim_below(6) ? 0 : RENAME_EXCHANGE};
        if (sim_below(6)) {
            op.parent = world_any_dir(false);
            op.name = world_name(world_any_file());
            op.new_parent = world_any_dir(true);
            op.new_name = world_name(world_any_file());
        } else {
            op.parent = op.new_parent = META_ROOT_INO;
            op.name = world_name(world_dirs[sim_below(2)]);
            op.new_name = world_name(world_dirs[sim_below(2)]);
        }
        int rc = world_call(&op, &attr, &replaced);
        world.renames += !rc;
        if (!rc && !(op.flags & RENAME_EXCHANGE) && replaced.ino && replaced.ino != attr.ino &&
            !replaced.nlink)
            world_drop(replaced.ino);
        sim_sleep_ms(sim_below(4) ? sim_below(15) : sim_below(200));
    }
}

/* --- Others */

static void outsider(void)
{
    while (!world.stop) {
        char key[64], text[128];
        unsigned dir = sim_below(WORLD_DIRS + 1);
        snprintf(key, sizeof(key), "%s%s%s%s", sim_below(6) ? "" : "/1/",
                 dir < WORLD_DIRS ? world_dirs[dir] : "", dir < WORLD_DIRS ? "/" : "",
                 world_any_file());
        if (sim_below(3)) {
            int len = snprintf(text, sizeof(text), "content %u of somebody else at %s",
                               world.foreign++, key);
            bucket_put_foreign(key, text, (size_t)len);
            world.puts++;
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

static void tell_changed(uint64_t ino, uint64_t object)
{
    sem_t done;
    if (world.down)
        return;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = ino, .done = world_noticed, .arg = &done};
    meta_object_changed(world.meta, &task, object);
    sem_wait(&done);
}

/* All bytes, or NULL. */
static uint8_t *read_file(uint64_t ino, size_t *len)
{
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    struct meta_reply *reply = &request.reply;
    int rc = world_ask(&request);
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
    while (!world.stop) {
        uint64_t ino = model_any_file();
        if (ino) {
            size_t len;
            struct model_reader *r = model_reader_begin(ino);
            cleanup(free_ptr) uint8_t *data = read_file(ino, &len);
            world.reads += data != NULL;
            model_reader_end(r, data, len);
        }
        sim_sleep_ms(sim_below(60));
    }
}

static void run_task(void (*start)(struct meta *meta, struct meta_task *task))
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct meta_task task = {.ino = META_ROOT_INO, .done = world_noticed, .arg = &done};
    start(world.meta, &task);
    sem_wait(&done);
}

/* Removes what conflicts left, so that there is room for more. */
static void cleaner(void)
{
    while (!world.stop) {
        uint64_t dir = world_any_dir(false);
        struct meta_request request = {
            .op = {.kind = META_READDIR, .ino = dir, .count = 1000, .plus = true}};
        char names[16][META_NAME_MAX + 1];
        unsigned count = 0;
        if (!world_ask(&request))
            for (size_t i = 0; i < request.reply.entry_count && count < ARRAY_LEN(names); i++)
                if (strstr(request.reply.entries[i].name, META_CONFLICT_SUFFIX) && sim_below(2))
                    strcpy(names[count++], request.reply.entries[i].name);
        meta_reply_done(&request.reply);
        for (unsigned i = 0; i < count; i++) {
            struct meta_attr attr = {0};
            struct meta_op op = {.kind = META_UNLINK, .parent = dir, .name = world_name(names[i])};
            if (!world_call(&op, &attr, NULL) && !attr.nlink)
                world_drop(attr.ino);
        }
        sim_sleep_ms(sim_below(400));
    }
}

static void refresher(void)
{
    while (!world.stop) {
        if (!world.down)
            run_task(sim_below(2) ? meta_refresh : meta_settle_wait);
        sim_sleep_ms(sim_below(800));
    }
}

/* --- Who gives the files of a directory another storage class, or another store */

static const char *const classes[] = {"STANDARD", "STANDARD_IA"};

void actors_place(uint64_t dir, unsigned store, uint32_t flags)
{
    struct meta_op op = {.kind = META_STORE_PLACE, .ino = dir, .length = store, .flags = flags};
    struct meta_reply reply;
    world.moves += !volume_apply(world.meta, &op, &reply);
    meta_reply_done(&reply);
    engine_sync(meta_engine(world.meta));
    settler_places_changed(world.meta->settler);
    volume_kick(world.meta);
}

static void mover(void)
{
    while (!world.stop) {
        uint64_t dir = world_any_dir(true);
        struct error error = {0};
        unsigned what = world.down ? 4 : sim_below(4);
        if (what == 0)
            world.moves += !meta_migrate(world.meta, dir, META_MIGRATE_TO, NULL,
                                         classes[sim_below(2)], 0, &error);
        else if (what == 1)
            meta_migrate(world.meta, dir, META_MIGRATE_CANCEL, NULL, NULL, 0, &error);
        else if (what < 4)
            actors_place(dir, sim_below(2), sim_below(4) ? 0 : META_PLACE_PAUSED);
        sim_sleep_ms(sim_below(600));
    }
}

void actors_start(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } actors[] = {{"writer", writer},       {"writer", writer},     {"renamer", renamer},
                  {"outsider", outsider},   {"outsider", outsider}, {"reader", reader},
                  {"refresher", refresher}, {"cleaner", cleaner},   {"mover", mover}};
    for (size_t i = 0; i < ARRAY_LEN(actors); i++)
        sim_actor_start(actors[i].name, actors[i].run);
}
