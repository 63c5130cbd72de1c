#include "volume_lib.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "late_store.h"
#include "meta/engine.h"

void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Events */

static void note(struct volume *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct volume *v, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&v->lock);
    buf_printf(&v->events, "%s;", text);
    pthread_mutex_unlock(&v->lock);
}

static void entry_changed(void *arg, uint64_t parent, const char *name, size_t len)
{
    note(arg, "entry %llu %.*s", (unsigned long long)parent, (int)len, name);
}

static void inode_changed(void *arg, uint64_t ino, bool data)
{
    note(arg, "inode %llu%s", (unsigned long long)ino, data ? " data" : "");
}

static void extents_changed(void *arg, uint64_t ino)
{
    note(arg, "extents %llu", (unsigned long long)ino);
}

bool event_seen(struct volume *v, const char *text)
{
    pthread_mutex_lock(&v->lock);
    bool seen = v->events.len && strstr((char *)v->events.data, text);
    pthread_mutex_unlock(&v->lock);
    return seen;
}

void events_clear(struct volume *v)
{
    pthread_mutex_lock(&v->lock);
    buf_reset(&v->events);
    pthread_mutex_unlock(&v->lock);
}

/* The volume */

static void begin(struct volume *v)
{
    pthread_mutex_init(&v->lock, NULL);
    buf_init(&v->events, 0);
    snprintf(v->database, sizeof(v->database), "%s/meta", v->dir);
    check_int(loop_new(&v->loop, "store"), 0);
    meta_format_init(&v->format);
    v->format.settle_delay_ms = 0;
    v->format.gc_delay_ms = 0;
    meta_config_init(&v->config);
    v->config.directory = v->database;
    v->config.format = &v->format;
    v->config.import_ttl_ms = 0;
    v->config.memory_bytes = 16 << 20;
    v->config.sync_interval_ms = 5;
    v->config.owner_text = "test:/mnt";
    v->config.events = (struct meta_events){.entry_changed = entry_changed,
                                            .inode_changed = inode_changed,
                                            .extents_changed = extents_changed,
                                            .arg = v};
}

void volume_begin(struct volume *v)
{
    *v = (struct volume){0};
    test_dir_make(v->dir);
    begin(v);
    check_int(store_memory_new(v->loop, &v->memory), 0);
    v->memory->caps.part_min = 1024;
    check_int(late_store_new(v->memory, &v->late), 0);
    check_int(store_fault_new(v->late, &v->store), 0);
    v->config.store = v->store;
}

void volume_begin_file(struct volume *v, const char *dir)
{
    char bucket[5000];
    struct error error = {0};
    *v = (struct volume){0};
    snprintf(v->dir, sizeof(v->dir), "%s", dir);
    begin(v);
    snprintf(bucket, sizeof(bucket), "%s/bucket", v->dir);
    mkdir(bucket, 0700);
    check_int(store_file_new(bucket, false, v->loop, &v->store, &error), 0);
    v->config.store = v->store;
}

int volume_try_open(struct volume *v, struct error *error)
{
    return meta_open(&v->config, &v->meta, error);
}

void volume_open(struct volume *v)
{
    struct error error = {0};
    int rc = volume_try_open(v, &error);
    if (rc)
        test_fail("meta_open: %d %s", rc, error.message);
}

void volume_close(struct volume *v)
{
    meta_close(TAKE_PTR(v->meta));
}

void volume_again(struct volume *v)
{
    volume_close(v);
    volume_open(v);
}

void volume_leave(struct volume *v)
{
    volume_close(v);
    store_free(v->store);
    loop_free(v->loop);
    buf_done(&v->events);
    pthread_mutex_destroy(&v->lock);
}

static void violated(void *arg, const char *text)
{
    fprintf(stderr, "violation: %s\n", text);
}

void volume_check(const char *database)
{
    struct engine_options options = {.path = database, .memory_bytes = 16 << 20};
    struct engine *engine;
    struct error error = {0};
    if (access(database, F_OK))
        return;
    check_int(engine_open(&options, &engine, &error), 0);
    int found = engine_check(engine, violated, NULL);
    engine_close(engine);
    if (found)
        abort(); /* also in a test's .fini, where a check fails nothing */
}

void volume_end(struct volume *v)
{
    volume_leave(v);
    volume_check(v->database);
    test_dir_remove(v->dir);
}

/* The bucket */

void bucket_put(struct volume *v, const char *key, const char *text)
{
    struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct store_op op = {.kind = STORE_PUT, .key = key, .iov = &iov, .iov_count = 1};
    check_int(store_wait(v->store, &op), 0);
    store_op_reset(&op);
}

void bucket_put_tagged(struct volume *v, struct store *store, const struct meta_object *object,
                       const char *text)
{
    struct meta_object_tags tags;
    struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct store_op put = {.kind = STORE_PUT,
                           .key = object->key,
                           .iov = &iov,
                           .iov_count = 1,
                           .meta = tags.pairs,
                           .meta_count =
                               meta_object_tags(meta_volume(v->meta), object, NULL, &tags)};
    check_int(store_wait(store, &put), 0);
    store_op_reset(&put);
}

void bucket_put_size(struct volume *v, const char *key, size_t size)
{
    char *text = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + i % 23);
    text[size] = '\0';
    bucket_put(v, key, text);
    free(text);
}

void bucket_delete(struct volume *v, const char *key)
{
    struct store_op op = {.kind = STORE_DELETE, .key = key};
    check_int(store_wait(v->store, &op), 0);
    store_op_reset(&op);
}

bool bucket_has(struct volume *v, const char *key)
{
    struct store_op op = {.kind = STORE_HEAD, .key = key};
    int rc = store_wait(v->store, &op);
    store_op_reset(&op);
    return !rc;
}

char *bucket_get(struct volume *v, const char *key)
{
    struct store_op op = {.kind = STORE_HEAD, .key = key};
    if (store_wait(v->store, &op)) {
        store_op_reset(&op);
        return NULL;
    }
    size_t size = op.info.size;
    char *text = calloc(1, size + 1);
    store_op_reset(&op);
    op = (struct store_op){
        .kind = STORE_GET, .key = key, .buf = text, .buf_len = size, .length = size};
    check_int(store_wait(v->store, &op), 0);
    store_op_reset(&op);
    return text;
}

static unsigned walk_keys(struct volume *v, const char *prefix, struct buf *out)
{
    cleanup(free_ptr) char *token = NULL;
    unsigned count = 0;
    do {
        struct store_op op = {.kind = STORE_LIST, .prefix = prefix, .token = token};
        check_int(store_wait(v->store, &op), 0);
        for (size_t i = 0; i < op.out_list.count; i++) {
            const char *name = op.out_list.entries[i].name;
            count++;
            if (out && !strstr(name, ".sluice/"))
                buf_printf(out, "%s%s", out->len ? "," : "", name);
        }
        free(token);
        token = op.out_list.next_token ? strdup(op.out_list.next_token) : NULL;
        store_op_reset(&op);
    } while (token);
    return count;
}

char *bucket_keys(struct volume *v, const char *prefix)
{
    struct buf out;
    buf_init(&out, 0);
    buf_printf(&out, "%s", "");
    walk_keys(v, prefix, &out);
    buf_put_u8(&out, 0);
    return (char *)buf_take(&out, &(size_t){0});
}

unsigned bucket_count(struct volume *v, const char *prefix)
{
    return walk_keys(v, prefix, NULL);
}

unsigned bucket_uploads(struct volume *v)
{
    struct store_op op = {.kind = STORE_MPU_LIST};
    check_int(store_wait(v->store, &op), 0);
    unsigned count = (unsigned)op.out_list.count;
    store_op_reset(&op);
    return count;
}

/* The namespace */

static struct meta_name name_of(const char *text)
{
    return (struct meta_name){text, strlen(text)};
}

static int call(struct volume *v, const struct meta_op *op, struct meta_attr *attr)
{
    struct meta_request request = {.op = *op};
    int rc = meta_call(v->meta, &request);
    if (attr)
        *attr = request.reply.attr;
    meta_reply_done(&request.reply);
    return rc;
}

int name_lookup(struct volume *v, uint64_t parent, const char *name, struct meta_attr *attr)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = parent, .name = name_of(name)};
    return call(v, &op, attr);
}

uint64_t name_ino(struct volume *v, uint64_t parent, const char *name)
{
    struct meta_attr attr;
    int rc = name_lookup(v, parent, name, &attr);
    if (rc)
        test_fail("lookup of %s: %d", name, rc);
    return attr.ino;
}

static int make(struct volume *v, uint64_t parent, const char *name, uint32_t mode, uint64_t *ino)
{
    struct meta_attr attr;
    struct meta_op op = {
        .kind = META_MKNOD, .parent = parent, .name = name_of(name), .attr = {.mode = mode}};
    int rc = call(v, &op, &attr);
    if (!rc && ino)
        *ino = attr.ino;
    return rc;
}

int name_mkdir(struct volume *v, uint64_t parent, const char *name, uint64_t *ino)
{
    return make(v, parent, name, S_IFDIR | 0755, ino);
}

int name_create(struct volume *v, uint64_t parent, const char *name, uint64_t *ino)
{
    return make(v, parent, name, S_IFREG | 0644, ino);
}

int name_unlink(struct volume *v, uint64_t parent, const char *name)
{
    struct meta_attr attr;
    struct meta_op op = {.kind = META_UNLINK, .parent = parent, .name = name_of(name)};
    int rc = call(v, &op, &attr);
    if (rc)
        return rc;
    struct meta_op drop = {.kind = META_DROP, .inos = &attr.ino, .ino_count = 1};
    return call(v, &drop, NULL);
}

int name_rmdir(struct volume *v, uint64_t parent, const char *name)
{
    struct meta_op op = {
        .kind = META_UNLINK, .parent = parent, .name = name_of(name), .flags = META_RMDIR};
    return call(v, &op, NULL);
}

int name_rename(struct volume *v, uint64_t parent, const char *name, uint64_t to,
                const char *new_name)
{
    struct meta_op op = {.kind = META_RENAME,
                         .parent = parent,
                         .name = name_of(name),
                         .new_parent = to,
                         .new_name = name_of(new_name)};
    return call(v, &op, NULL);
}

char *name_list(struct volume *v, uint64_t dir, int *rc)
{
    struct buf out;
    char after[META_NAME_MAX + 1] = "";
    bool end = false;
    buf_init(&out, 0);
    while (!end) {
        struct meta_request request = {
            .op = {.kind = META_READDIR, .ino = dir, .name = name_of(after), .count = 100}};
        int result = meta_call(v->meta, &request);
        if (rc)
            *rc = result;
        if (result) {
            meta_reply_done(&request.reply);
            buf_done(&out);
            return NULL;
        }
        for (size_t i = 0; i < request.reply.entry_count; i++) {
            const struct meta_entry *e = &request.reply.entries[i];
            buf_printf(&out, "%s%.*s%s", out.len ? "," : "", (int)e->name_len, e->name,
                       S_ISDIR(e->attr.mode) ? "/" : "");
            snprintf(after, sizeof(after), "%.*s", (int)e->name_len, e->name);
        }
        end = request.reply.end || !request.reply.entry_count;
        meta_reply_done(&request.reply);
    }
    buf_put_u8(&out, 0);
    return (char *)buf_take(&out, &(size_t){0});
}

/* Files */

int file_write_inline(struct volume *v, uint64_t ino, const char *text)
{
    size_t len = strlen(text);
    struct meta_extent extent = {.kind = META_EXTENT_INLINE, .length = len, .data = text};
    struct meta_op op = {.kind = META_COMMIT,
                         .ino = ino,
                         .extents = &extent,
                         .extent_count = len ? 1 : 0,
                         .attr = {.size = len},
                         .valid = META_SET_SIZE,
                         .flags = META_REPLACE};
    return call(v, &op, NULL);
}

uint64_t file_inline(struct volume *v, uint64_t parent, const char *name, const char *text)
{
    uint64_t ino = 0;
    check_int(name_create(v, parent, name, &ino), 0);
    check_int(file_write_inline(v, ino, text), 0);
    return ino;
}

int file_write_object(struct volume *v, uint64_t ino, uint64_t offset, const void *data, size_t len,
                      bool internal_key, bool replace, struct meta_object *out)
{
    struct meta_request reserve = {
        .op = {.kind = META_RESERVE, .ino = ino, .flags = internal_key ? META_INTERNAL_KEY : 0},
        .durable = true};
    int rc = meta_call(v->meta, &reserve);
    if (rc) {
        meta_reply_done(&reserve.reply);
        return rc;
    }
    struct meta_object object = reserve.reply.objects[0];
    meta_reply_done(&reserve.reply);
    struct meta_object_tags tags;
    struct meta_attr attr = {.mode = S_IFREG | 0644};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct store_op put = {.kind = STORE_PUT,
                           .key = object.key,
                           .iov = &iov,
                           .iov_count = 1,
                           .if_none_match = true,
                           .meta = tags.pairs,
                           .meta_count =
                               meta_object_tags(meta_volume(v->meta), &object, &attr, &tags)};
    rc = store_wait(v->store, &put);
    object.size = len;
    memcpy(object.etag, put.info.etag, sizeof(object.etag));
    store_op_reset(&put);
    if (rc)
        return rc;
    struct meta_extent extent = {
        .kind = META_EXTENT_OBJECT, .offset = offset, .length = len, .object = object.id};
    struct meta_op commit = {.kind = META_COMMIT,
                             .ino = ino,
                             .objects = &object,
                             .object_count = 1,
                             .extents = &extent,
                             .extent_count = 1,
                             .attr = {.size = offset + len},
                             .valid = META_SET_SIZE,
                             .flags = replace ? META_REPLACE : 0};
    if (out)
        *out = object;
    return call(v, &commit, NULL);
}

uint64_t file_object(struct volume *v, uint64_t parent, const char *name, const void *data,
                     size_t len, bool internal_key)
{
    struct meta_attr attr;
    if (name_lookup(v, parent, name, &attr))
        check_int(name_create(v, parent, name, &attr.ino), 0);
    check_int(file_write_object(v, attr.ino, 0, data, len, internal_key, true, NULL), 0);
    return attr.ino;
}

static const struct meta_object *object_of(const struct meta_reply *reply, uint64_t id)
{
    for (size_t i = 0; i < reply->object_count; i++)
        if (reply->objects[i].id == id)
            return &reply->objects[i];
    return NULL;
}

char *file_read(struct volume *v, uint64_t ino, size_t *len)
{
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino}};
    char *out = NULL;
    if (meta_call(v->meta, &request)) {
        meta_reply_done(&request.reply);
        return NULL;
    }
    struct meta_reply *reply = &request.reply;
    out = calloc(1, reply->attr.size + 1);
    for (size_t i = 0; i < reply->extent_count; i++) {
        const struct meta_extent *e = &reply->extents[i];
        if (e->kind == META_EXTENT_INLINE) {
            memcpy(out + e->offset, e->data, e->length);
            continue;
        }
        const struct meta_object *object = object_of(reply, e->object);
        struct store_op get = {.kind = STORE_GET,
                               .key = object ? object->key : "",
                               .if_match = object ? object->etag : NULL,
                               .offset = e->object_offset,
                               .length = e->length,
                               .buf = out + e->offset,
                               .buf_len = e->length};
        int rc = store_wait(v->store, &get);
        bool whole = get.got == e->length;
        store_op_reset(&get);
        if (rc || !whole) {
            free(TAKE_PTR(out));
            break;
        }
    }
    if (len)
        *len = reply->attr.size;
    meta_reply_done(reply);
    return out;
}

void file_key(struct volume *v, uint64_t ino, char key[META_KEY_MAX + 1])
{
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino}};
    key[0] = '\0';
    if (!meta_call(v->meta, &request) && request.reply.object_count)
        snprintf(key, META_KEY_MAX + 1, "%s", request.reply.objects[0].key);
    meta_reply_done(&request.reply);
}

/* Tasks */

static void task_done(struct meta_task *task)
{
    sem_post(task->arg);
}

static int run_task(struct volume *v, void (*start)(struct meta *meta, struct meta_task *task),
                    uint64_t ino, struct error *error)
{
    sem_t ended;
    sem_init(&ended, 0, 0);
    struct meta_task task = {.ino = ino, .done = task_done, .arg = &ended};
    start(v->meta, &task);
    while (sem_wait(&ended) < 0 && errno == EINTR)
        ;
    sem_destroy(&ended);
    if (error)
        *error = task.error;
    return task.result;
}

int volume_settle(struct volume *v, uint64_t ino, struct error *error)
{
    return run_task(v, meta_settle_wait, ino, error);
}

int volume_refresh_now(struct volume *v, uint64_t ino)
{
    return run_task(v, meta_refresh, ino, NULL);
}

int volume_object_changed(struct volume *v, uint64_t ino, uint64_t object)
{
    sem_t ended;
    sem_init(&ended, 0, 0);
    struct meta_task task = {.ino = ino, .done = task_done, .arg = &ended};
    meta_object_changed(v->meta, &task, object);
    while (sem_wait(&ended) < 0 && errno == EINTR)
        ;
    sem_destroy(&ended);
    return task.result;
}

char *volume_status(struct volume *v)
{
    struct buf out;
    buf_init(&out, 0);
    meta_status_json(v->meta, &out);
    buf_put_u8(&out, 0);
    return (char *)buf_take(&out, &(size_t){0});
}

void volume_fault(struct volume *v, struct store_fault_rule rule)
{
    store_fault_set(v->store, &rule, 1);
}

void volume_no_fault(struct volume *v)
{
    store_fault_set(v->store, NULL, 0);
}

void volume_dies_at(const char *point, void (*before)(void), void (*work)(void))
{
    pid_t pid = fork();
    if (!pid) {
        if (before)
            before();
        if (crash_setup(point, NULL))
            _exit(99);
        work();
        _exit(0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        test_fail("%s: not reached (status %d)", point, status);
}

void file_set_mtime(struct volume *v, uint64_t ino, uint64_t mtime_ns)
{
    struct meta_request request = {
        .op = {.kind = META_SETATTR, .ino = ino, .valid = META_SET_MTIME}};
    request.op.attr.mtime_ns = mtime_ns;
    check_int(meta_call(v->meta, &request), 0);
    meta_reply_done(&request.reply);
}
