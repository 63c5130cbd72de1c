#include "engine_test.h"

static void report(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "engine_check: %s\n", text);
}

void world_init_raw(struct world *w)
{
    memset(w, 0, sizeof(*w));
    test_dir_make(w->dir);
    snprintf(w->db, sizeof(w->db), "%s/db", w->dir);
    w->now = 1000 * SECOND;
    snprintf(w->volume.id, sizeof(w->volume.id), "0123456789abcdef0123456789abcdef");
    snprintf(w->volume.store, sizeof(w->volume.store), "memory");
    snprintf(w->volume.prefix, sizeof(w->volume.prefix), "p/");
    snprintf(w->volume.staging, sizeof(w->volume.staging), "_temporary*:.hive-staging*:.trash*");
    w->volume.inline_max = 32 << 10;
    w->volume.settle_delay_ms = 5000;
    w->volume.gc_delay_ms = 60000;
    w->volume.root_mode = 0755;
    meta_reply_init(&w->reply);
    world_reopen(w);
}

int world_format(struct world *w)
{
    struct meta_op op = {.kind = META_FORMAT, .volume = &w->volume};
    return world_apply(w, &op);
}

void world_init(struct world *w)
{
    world_init_raw(w);
    check_int(world_format(w), 0);
    struct meta_op op = {.kind = META_IMPORT_DIR, .ino = META_ROOT_INO, .flags = META_IMPORT_LAST};
    check_int(world_apply(w, &op), 0);
}

void world_close(struct world *w)
{
    engine_close(w->engine);
    w->engine = NULL;
}

void world_reopen(struct world *w)
{
    struct error error = {0};
    if (w->engine)
        world_close(w);
    struct engine_options options = {.path = w->db, .memory_bytes = 16 << 20, .rebuild_note = true};
    int rc = engine_open(&options, &w->engine, &error);
    if (rc < 0)
        test_fail("engine_open: %s", error_text(&error));
}

void world_done(struct world *w)
{
    check_int(engine_check(w->engine, report, NULL), 0);
    meta_reply_done(&w->reply);
    world_close(w);
    test_dir_remove(w->dir);
}

int world_apply(struct world *w, struct meta_op *op)
{
    meta_reply_done(&w->reply);
    w->now += MS;
    op->time_ns = w->now;
    return engine_apply(w->engine, op, &w->reply);
}

int world_read(struct world *w, struct meta_op *op)
{
    meta_reply_done(&w->reply);
    op->time_ns = w->now;
    return engine_read(w->engine, op, 0, &w->reply);
}

struct meta_name name_of(const char *text)
{
    return (struct meta_name){.bytes = text, .len = strlen(text)};
}

int64_t make(struct world *w, uint64_t parent, const char *name, uint32_t mode)
{
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = parent,
                         .name = name_of(name),
                         .attr = {.mode = mode, .uid = 1000, .gid = 100},
                         .data = "target",
                         .data_len = 6};
    int rc = world_apply(w, &op);
    return rc < 0 ? rc : (int64_t)w->reply.attr.ino;
}

int64_t lookup(struct world *w, uint64_t parent, const char *name)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = parent, .name = name_of(name)};
    int rc = world_read(w, &op);
    return rc < 0 ? rc : (int64_t)w->reply.attr.ino;
}

int64_t walk(struct world *w, const char *path)
{
    int64_t ino = META_ROOT_INO;
    while (*path && ino > 0) {
        size_t len = strcspn(path, "/");
        struct meta_op op = {
            .kind = META_LOOKUP, .parent = (uint64_t)ino, .name = {.bytes = path, .len = len}};
        int rc = world_read(w, &op);
        ino = rc < 0 ? rc : (int64_t)w->reply.attr.ino;
        path += len + (path[len] == '/');
    }
    return ino;
}

int unlink_at(struct world *w, uint64_t parent, const char *name, uint32_t flags)
{
    struct meta_op op = {
        .kind = META_UNLINK, .parent = parent, .name = name_of(name), .flags = flags};
    return world_apply(w, &op);
}

int rename_at(struct world *w, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, uint32_t flags)
{
    struct meta_op op = {.kind = META_RENAME,
                         .parent = parent,
                         .name = name_of(name),
                         .new_parent = new_parent,
                         .new_name = name_of(new_name),
                         .flags = flags};
    return world_apply(w, &op);
}

int link_at(struct world *w, uint64_t ino, uint64_t parent, const char *name)
{
    struct meta_op op = {.kind = META_LINK, .ino = ino, .parent = parent, .name = name_of(name)};
    return world_apply(w, &op);
}

int drop(struct world *w, uint64_t ino)
{
    struct meta_op op = {.kind = META_DROP, .inos = &ino, .ino_count = 1};
    return world_apply(w, &op);
}

struct meta_attr attr_of(struct world *w, uint64_t ino)
{
    struct meta_op op = {.kind = META_GETATTR, .ino = ino};
    int rc = world_read(w, &op);
    if (rc < 0)
        test_fail("getattr of %ju: %s", (uintmax_t)ino, strerror(-rc));
    return w->reply.attr;
}

struct meta_usage usage_of(struct world *w, uint64_t ino)
{
    struct meta_op op = {.kind = META_USAGE, .ino = ino};
    check_int(world_read(w, &op), 0);
    return w->reply.usage;
}

int truncate_to(struct world *w, uint64_t ino, uint64_t size)
{
    struct meta_op op = {
        .kind = META_SETATTR, .ino = ino, .valid = META_SET_SIZE, .attr = {.size = size}};
    return world_apply(w, &op);
}

int write_inline(struct world *w, uint64_t ino, uint64_t offset, const void *data, size_t len)
{
    struct meta_extent e = {
        .kind = META_EXTENT_INLINE, .offset = offset, .length = len, .data = data};
    struct meta_op op = {.kind = META_COMMIT, .ino = ino, .extents = &e, .extent_count = 1};
    return world_apply(w, &op);
}

int64_t write_object(struct world *w, uint64_t ino, uint64_t size, uint32_t reserve_flags)
{
    struct meta_op op = {.kind = META_RESERVE, .ino = ino, .flags = reserve_flags};
    int rc = world_apply(w, &op);
    if (rc < 0)
        return rc;
    struct meta_object object = w->reply.objects[0];
    object.size = size;
    snprintf(object.etag, sizeof(object.etag), "etag-%ju", (uintmax_t)object.id);
    struct meta_extent e = {.kind = META_EXTENT_OBJECT, .length = size, .object = object.id};
    op = (struct meta_op){.kind = META_COMMIT,
                          .ino = ino,
                          .flags = META_REPLACE,
                          .objects = &object,
                          .object_count = 1,
                          .extents = &e,
                          .extent_count = 1};
    rc = world_apply(w, &op);
    return rc < 0 ? rc : (int64_t)object.id;
}

int extents(struct world *w, uint64_t ino, uint64_t offset, uint64_t length)
{
    struct meta_op op = {.kind = META_EXTENTS, .ino = ino, .offset = offset, .length = length};
    return world_read(w, &op);
}

struct meta_object object_of(struct world *w, uint64_t ino)
{
    check_int(extents(w, ino, 0, 0), 0);
    check_uint(w->reply.object_count, 1);
    return w->reply.objects[0];
}
