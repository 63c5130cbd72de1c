#include "durability.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/blocking.h"
#include "base/cleanup.h"
#include "base/crash.h"
#include "base/log.h"
#include "passthrough.h"
#include "staging.h"
#include "upload.h"

#define SYNC_THREADS 4
#define SYNCS_IN_PLACE 2 /* by threads that may wait; the others serve on */
#define RULES_MAX 64
#define LINKS_MAX 65536

/* ---- which class ---- */

struct durability_rule {
    char *pattern; /* of a component of the path */
    enum data_durability durability;
};

struct durability_rules {
    struct durability_rule items[RULES_MAX];
    unsigned count;
};

int data_durability_parse(const char *name, enum data_durability *out)
{
    static const char *const names[] = {"store", "local", "scratch"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum data_durability)i;
            return 0;
        }
    return -EINVAL;
}

static void rules_free(struct durability_rules *rules)
{
    for (unsigned i = 0; rules && i < rules->count; i++)
        free(rules->items[i].pattern);
    free(rules);
}

static int add_rule(struct durability_rules *rules, char *text, struct error *error)
{
    char *equal = strrchr(text, '=');
    if (!equal || equal == text)
        return error_set(error, -EINVAL, "\"%s\" is not PATTERN=store|local|scratch", text);
    if (rules->count == RULES_MAX)
        return error_set(error, -EINVAL, "more than %d patterns of durability", RULES_MAX);
    struct durability_rule *rule = &rules->items[rules->count];
    *equal = 0;
    if (data_durability_parse(equal + 1, &rule->durability))
        return error_set(error, -EINVAL,
                         "durability \"%s\" of \"%s\" is not store, local or "
                         "scratch",
                         equal + 1, text);
    if (strchr(text, '/'))
        return error_set(error, -EINVAL,
                         "\"%s\": a pattern is of one component of a path, without '/'", text);
    rule->pattern = strdup(text);
    if (!rule->pattern)
        return error_set(error, -ENOMEM, "no memory");
    rules->count++;
    return 0;
}

static int rules_parse(const char *text, struct durability_rules **out, struct error *error)
{
    cleanup(free_ptr) char *list = strdup(text);
    struct durability_rules *rules = calloc(1, sizeof(*rules));
    int rc = list && rules ? 0 : error_set(error, -ENOMEM, "no memory");
    char *rest = NULL;
    for (char *item = rc ? NULL : strtok_r(list, ":", &rest); item && !rc;
         item = strtok_r(NULL, ":", &rest))
        rc = add_rule(rules, item, error);
    if (rc)
        rules_free(rules);
    else
        *out = rules;
    return rc;
}

int data_durability_check(const char *rules, struct error *error)
{
    struct durability_rules *parsed = NULL;
    int rc = rules_parse(rules, &parsed, error);
    if (!rc)
        rules_free(parsed);
    return rc;
}

int durability_open(struct data *data, struct error *error)
{
    const struct data_config *config = &data->config;
    int rc = config->durability_for ? rules_parse(config->durability_for, &data->rules, error) : 0;
    data->config.durability_for = NULL;
    if (!rc && pool_new(&data->sync_pool, "data-sync", SYNC_THREADS))
        rc = error_set(error, -ENOMEM, "data path: no threads");
    return rc;
}

void durability_close(struct data *data)
{
    pool_free(data->sync_pool);
    rules_free(data->rules);
}

static const struct durability_rule *match(const struct durability_rules *rules, const char *path,
                                           size_t len)
{
    char name[META_NAME_MAX + 1];
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(path + at, '/', len - at);
        size_t n = slash ? (size_t)(slash - path) - at : len - at;
        memcpy(name, path + at, MIN(n, (size_t)META_NAME_MAX));
        name[MIN(n, (size_t)META_NAME_MAX)] = 0;
        for (unsigned i = 0; i < rules->count; i++)
            if (fnmatch(rules->items[i].pattern, name, 0) == 0)
                return &rules->items[i];
        at += n + 1;
    }
    return NULL;
}

enum data_durability durability_of(struct data *data, uint64_t ino, bool created)
{
    enum data_durability durability = data->config.durability;
    if (data->rules) {
        struct meta_request request = {.op = {.kind = META_PATH, .ino = ino}};
        const struct durability_rule *rule = NULL;
        if (meta_call(data->meta, &request) == 0)
            rule = match(data->rules, request.reply.data, request.reply.data_len);
        meta_reply_done(&request.reply);
        durability = rule ? rule->durability : durability;
    }
    return durability == DATA_SCRATCH && !created ? DATA_STORE : durability;
}

/* ---- scratch ---- */

static void mark_done(struct meta_request *request)
{
    meta_reply_done(&request->reply);
    free(request);
}

void durability_hold(struct data *data, uint64_t ino, bool held)
{
    struct meta_request *request = calloc(1, sizeof(*request));
    if (!request)
        return;
    request->op = (struct meta_op){
        .kind = META_SETATTR, .ino = ino, .valid = held ? META_SET_HELD : META_CLEAR_HELD};
    request->done = mark_done;
    if (meta_submit(data->meta, request) != -EINPROGRESS)
        mark_done(request);
}

/* The name at the end of a path. */
static int unlink_path(struct meta *meta, const char *path, size_t len)
{
    uint64_t parent = META_ROOT_INO;
    for (size_t at = 0;;) {
        const char *slash = memchr(path + at, '/', len - at);
        struct meta_name name = {.bytes = path + at,
                                 .len = slash ? (size_t)(slash - path) - at : len - at};
        struct meta_request request = {
            .op = {.kind = slash ? META_LOOKUP : META_UNLINK, .parent = parent, .name = name}};
        int rc = meta_call(meta, &request);
        parent = request.reply.attr.ino;
        meta_reply_done(&request.reply);
        if (rc || !slash)
            return rc;
        at += name.len + 1;
    }
}

void durability_drop_scratch(struct data *data, uint64_t ino)
{
    int rc = 0;
    for (unsigned links = 0; !rc && links < LINKS_MAX; links++) {
        struct meta_request request = {.op = {.kind = META_PATH, .ino = ino}};
        rc = meta_call(data->meta, &request);
        if (!rc && request.reply.data_len == 0)
            rc = -ENOENT;
        if (!rc)
            rc = unlink_path(data->meta, request.reply.data, request.reply.data_len);
        meta_reply_done(&request.reply);
    }
    if (rc && rc != -ENOENT && rc != -ESTALE)
        log_warn("the name of a scratch file could not be removed", "ino=%llu error=%s",
                 (unsigned long long)ino, strerror(-rc));
    struct meta_request drop = {.op = {.kind = META_DROP, .inos = &ino, .ino_count = 1}};
    meta_call(data->meta, &drop);
    meta_reply_done(&drop.reply);
}

/* One that is dirty, of this class; a reference. */
static struct file *next_dirty(struct data *data, enum data_durability durability,
                               struct file *after)
{
    struct file *found = NULL;
    pthread_mutex_lock(&data->lock);
    for (struct file *f = after && after->in_dirty ? after->dirty_next : data->dirty; f && !found;
         f = f->dirty_next) {
        pthread_mutex_lock(&f->lock);
        if (f->durability == durability && f->staging)
            found = file_ref(f);
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&data->lock);
    return found;
}

void durability_drop_all(struct data *data)
{
    unsigned count = 0;
    for (struct file *file; (file = next_dirty(data, DATA_SCRATCH, NULL)); file_put(file)) {
        durability_drop_scratch(data, file->ino);
        pthread_mutex_lock(&file->lock);
        file->unlinked = true;
        staging_free(TAKE_PTR(file->staging));
        file_quota_update_locked(file);
        pthread_mutex_unlock(&file->lock);
        file_dirty_update(file);
        count++;
    }
    if (count)
        log_info("scratch files removed", "files=%u", count);
}

static void reclass_one(struct file *file)
{
    struct data *data = file->data;
    enum data_durability durability = durability_of(data, file->ino, true);
    if (durability == DATA_SCRATCH)
        return;
    pthread_mutex_lock(&file->lock);
    bool change = file->staging && file->durability == DATA_SCRATCH && !file->unlinked;
    if (change) {
        file->durability = durability;
        int rc = staging_set_flags(file->staging, durability == DATA_LOCAL ? STAGING_LOCAL : 0);
        if (rc)
            log_warn("a staging cannot be written", "ino=%llu error=%s",
                     (unsigned long long)file->ino, strerror(-rc));
    }
    pthread_mutex_unlock(&file->lock);
    if (!change)
        return;
    durability_hold(data, file->ino, false);
    durability_written(file);
}

static void reclass_all(struct data *data)
{
    struct file *file = next_dirty(data, DATA_SCRATCH, NULL);
    while (file) {
        reclass_one(file);
        struct file *next = next_dirty(data, DATA_SCRATCH, file);
        file_put(file);
        file = next;
    }
}

static void run_reclass(struct pool_task *task)
{
    struct data *data = container_of(task, struct data, reclass_task);
    unsigned wanted = atomic_load(&data->reclass_wanted);
    do {
        pthread_mutex_lock(&data->wait_lock);
        struct data_request *waiters = TAKE_PTR(data->reclass_waiters);
        pthread_mutex_unlock(&data->wait_lock);
        crash_point("durability.moved");
        reclass_all(data);
        while (waiters) {
            struct data_request *request = waiters;
            LL_DELETE(waiters, request);
            request->result = 0;
            request->done(request);
        }
    } while (!atomic_compare_exchange_strong(&data->reclass_wanted, &wanted, 0));
    data_tend(data);
}

/* It is a scratch file, or a directory, or nobody knows. */
static bool may_leave_scratch(struct data *data, uint64_t ino)
{
    struct file *file = ino ? file_get(data, ino) : NULL;
    bool scratch = !ino;
    if (file) {
        pthread_mutex_lock(&file->lock);
        scratch = file->staging && file->durability == DATA_SCRATCH;
        pthread_mutex_unlock(&file->lock);
        file_put(file);
    }
    return scratch;
}

int data_renamed(struct data *data, uint64_t ino, struct data_request *request)
{
    if (!data->rules || data->config.read_only || !data->area ||
        atomic_load(&data->scratch_files) == 0 || !may_leave_scratch(data, ino))
        return 0;
    if (!request) {
        reclass_all(data);
        return 0;
    }
    request->next = NULL;
    pthread_mutex_lock(&data->wait_lock);
    LL_APPEND(data->reclass_waiters, request);
    pthread_mutex_unlock(&data->wait_lock);
    if (atomic_fetch_add(&data->reclass_wanted, 1) == 0) {
        data->reclass_task.run = run_reclass;
        pool_submit(data->pool, &data->reclass_task);
    }
    return -EINPROGRESS;
}

/* ---- local ---- */

/* What the staging knows of. */
static int sync_staged(struct file *file)
{
    for (;;) {
        struct staging_sync sync;
        pthread_mutex_lock(&file->lock);
        bool needed = file->staging && !file->unlinked;
        int rc = needed ? staging_sync_begin(file->staging, &sync) : 0;
        pthread_mutex_unlock(&file->lock);
        if (!needed || rc)
            return rc;
        rc = staging_sync_data(&sync);
        if (!rc) {
            pthread_mutex_lock(&file->lock);
            rc = staging_sync_note(file->staging, &sync);
            pthread_mutex_unlock(&file->lock);
        }
        if (!rc)
            rc = staging_sync_log(&sync);
        if (!rc) {
            pthread_mutex_lock(&file->lock);
            staging_sync_end(file->staging, &sync);
            pthread_mutex_unlock(&file->lock);
        }
        staging_sync_done(&sync);
        if (rc != -EAGAIN)
            return rc;
    }
}

int durability_sync(struct file *file)
{
    pthread_mutex_lock(&file->lock);
    int rc = pass_take_bytes_locked(file);
    pthread_mutex_unlock(&file->lock);
    return rc && rc != -EDQUOT ? rc : sync_staged(file);
}

struct sync_task {
    struct pool_task task;
    struct file *file; /* a reference */
    struct data_request *request;
};

/* The kernel tells of lost bytes once, and takes the next sync of them for a good one. */
static int sync_once(struct file *file)
{
    int rc = sync_staged(file);
    pthread_mutex_lock(&file->lock);
    if (rc)
        file->sync_failed = file->staging != NULL;
    else if (file->sync_failed && file->staging)
        rc = -EIO; /* somebody else was told meanwhile */
    pthread_mutex_unlock(&file->lock);
    return rc;
}

static int sync_and_say(struct file *file)
{
    int rc = sync_once(file);
    if (rc)
        log_error("written data cannot be synced to the local disk", "ino=%llu error=%s",
                  (unsigned long long)file->ino, strerror(-rc));
    return rc == 0 || rc == -ENOSPC || rc == -EDQUOT ? rc : -EIO;
}

static void run_sync(struct pool_task *task)
{
    struct sync_task *sync = container_of(task, struct sync_task, task);
    struct data_request *request = sync->request;
    request->result = sync_and_say(sync->file);
    file_put(sync->file);
    free(sync);
    request->done(request);
}

/* Who may wait for the disk does it himself: that saves the way over another thread and back. */
static int flush_local(struct file *file, struct data_request *request)
{
    _Atomic unsigned *in_place = &file->data->syncs_in_place;
    if (request->may_wait && atomic_fetch_add(in_place, 1) < SYNCS_IN_PLACE) {
        blocking_begin();
        int rc = sync_and_say(file);
        atomic_fetch_sub(in_place, 1);
        return rc;
    }
    if (request->may_wait)
        atomic_fetch_sub(in_place, 1);
    struct sync_task *sync = calloc(1, sizeof(*sync));
    if (!sync)
        return -ENOMEM;
    *sync = (struct sync_task){.task.run = run_sync, .file = file_ref(file), .request = request};
    pool_submit(file->data->sync_pool, &sync->task);
    return -EINPROGRESS;
}

int durability_flush(struct file *file, struct data_request *request)
{
    pthread_mutex_lock(&file->lock);
    int rc = pass_take_bytes_locked(file);
    bool none = !file->staging || file->unlinked || file->durability == DATA_SCRATCH ||
                pass_is_clean_locked(file);
    /* A few bytes go into the metadata, which is on this disk, too. */
    bool local = !none && file->durability == DATA_LOCAL && !file->sync_failed &&
                 (file->upload || !upload_is_inline(file) || pass_was_committed_locked(file) ||
                  (staging_in_file(file->staging) && file->size > file->data->inline_max));
    bool hold = local && !file->held && !file->upload && file->committed_size == 0;
    file->held |= hold;
    pthread_mutex_unlock(&file->lock);
    if (none || rc)
        return rc == 0 || rc == -EDQUOT || rc == -ENOSPC ? rc : -EIO;
    if (hold)
        durability_hold(file->data, file->ino, true);
    return local ? flush_local(file, request) : upload_flush(file, request);
}

void durability_written(struct file *file)
{
    pthread_mutex_lock(&file->lock);
    bool now = file->durability == DATA_STORE && file->writers == 0;
    pthread_mutex_unlock(&file->lock);
    if (now)
        upload_flush(file, NULL);
}

bool durability_must_wait(const struct file *file)
{
    return file->durability == DATA_LOCAL && atomic_load(&file->data->backlog_late);
}

bool durability_has_hope(const struct file *file)
{
    struct staging_area *area = file->data->area;
    return file->durability == DATA_LOCAL && !atomic_load(&file->data->stopping) &&
           staging_area_bytes(area) > staging_area_scratch(area);
}

void data_stop_waiting(struct data *data)
{
    atomic_store(&data->stopping, true);
    if (data->area)
        data_tend(data);
}

void data_keep_backlog(struct data *data)
{
    atomic_store(&data->keep, true);
}
