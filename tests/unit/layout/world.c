#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "meta/check.h"
#include "model.h"
#include "sim.h"
#include "test.h"
#include "volume/stores_link.h"
#include "volume/volume.h"

#define VOLUME_ID "00112233445566778899aabbccddeeff"

int __wrap_stores_start(struct meta *meta, struct stores **out, struct error *error);

struct world world;

/* The stores are there: nothing has to connect to them. */
int __wrap_stores_start(struct meta *meta, struct stores **out, struct error *error)
{
    struct stores *stores = calloc(1, sizeof(*stores));
    if (!stores)
        return -ENOMEM;
    stores->meta = meta;
    pthread_mutex_init(&stores->lock, NULL);
    pthread_cond_init(&stores->wake, NULL);
    *out = stores;
    return 0;
}

static void add_store(void)
{
    struct meta_store store = {.number = 1, .name = "other", .url = "memory://other"};
    struct meta_op op = {.kind = META_STORE_SET, .length = 1, .store = &store};
    struct meta_reply reply;
    int rc = volume_apply(world.meta, &op, &reply);
    meta_reply_done(&reply);
    if (rc || engine_sync(meta_engine(world.meta)))
        sim_violation("another store cannot be added: %d", rc);
}

void world_open(void)
{
    struct error error = {0};
    model_dead(false);
    bucket_alive();
    bucket_calm(true); /* that a volume cannot be opened while the store fails is no news */
    int rc = meta_open(&world.config, &world.meta, &error);
    if (rc)
        sim_violation("the volume cannot be opened: %s", error.message);
    bucket_calm(false);
    model_engine(meta_engine(world.meta));
    bucket_engine(meta_engine(world.meta));
    world.down = false;
    model_check("opening");
}

/* The process dies. What it did is done; its memory is gone. */
void world_crash(void)
{
    world.crashes++;
    bucket_crash();
    model_dead(true);
    world.down = true;
    bucket_engine(NULL);
    model_engine(NULL);
    meta_close(TAKE_PTR(world.meta));
}

void world_begin(uint64_t seed, enum bucket_fault fault)
{
    log_init(LOG_ERROR, "/dev/null");
    test_dir_make(world.dir);
    sim_init(seed);
    bucket_init(VOLUME_ID, fault);
    snprintf(world.database, sizeof(world.database), "%s/meta", world.dir);
    meta_format_init(&world.format);
    memcpy(world.format.id, VOLUME_ID, sizeof(VOLUME_ID));
    world.format.settle_delay_ms = 20;
    world.format.gc_delay_ms = 30;
    meta_config_init(&world.config);
    world.config.directory = world.database;
    world.config.store = bucket_store();
    world.config.format = &world.format;
    world.config.memory_bytes = 16 << 20;
    world.config.import_ttl_ms = 300;
    world.config.negative_ttl_ms = 60;
    world.config.settle_parallel = 3;
    world.config.owner_text = "test";
    world_open();
    add_store();
}

int world_ask(struct meta_request *request)
{
    while (world.down && !world.stop)
        sim_sleep_ms(50);
    if (world.down) {
        meta_reply_init(&request->reply);
        return -ESHUTDOWN;
    }
    return meta_call(world.meta, request);
}

int world_call(const struct meta_op *op, struct meta_attr *attr, struct meta_attr *replaced)
{
    struct meta_request request = {.op = *op};
    int rc = world_ask(&request);
    if (!rc && attr)
        *attr = request.reply.attr;
    if (!rc && replaced)
        *replaced = request.reply.replaced;
    meta_reply_done(&request.reply);
    return rc;
}

struct meta_name world_name(const char *text)
{
    return (struct meta_name){text, strlen(text)};
}

static const char *const files[] = {"a", "b", "c"};
const char *const world_dirs[WORLD_DIRS] = {"d", "e"};

const char *world_any_file(void)
{
    return files[sim_below(ARRAY_LEN(files))];
}

uint64_t world_any_dir(bool make)
{
    unsigned which = sim_below(WORLD_DIRS + 1);
    if (which == WORLD_DIRS)
        return META_ROOT_INO;
    struct meta_attr attr = {0};
    struct meta_op look = {
        .kind = META_LOOKUP, .parent = META_ROOT_INO, .name = world_name(world_dirs[which])};
    int rc = world_call(&look, &attr, NULL);
    if (rc == -ENOENT && make) {
        struct meta_op mkdir = {.kind = META_MKNOD,
                                .parent = META_ROOT_INO,
                                .name = world_name(world_dirs[which]),
                                .attr = {.mode = S_IFDIR | 0755}};
        rc = world_call(&mkdir, &attr, NULL);
    }
    return rc || !S_ISDIR(attr.mode) ? META_ROOT_INO : attr.ino;
}

void world_drop(uint64_t ino)
{
    struct meta_op op = {.kind = META_DROP, .inos = &ino, .ino_count = 1};
    world_call(&op, NULL, NULL);
}

void world_noticed(struct meta_task *task)
{
    sem_post(task->arg);
}
