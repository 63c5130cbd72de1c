/*
 * Import: what of the bucket the namespace must know before a request can be served. Requests wait
 * here until a listing or the answer about one key is applied, then they are tried again. Rules:
 * docs/import.md.
 */
#include "import.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"

#define DIRS_MAX 65536
#define ANSWERS_MAX 65536
/* A directory whose last listing was no longer than this is listed anew for one name, too. */
#define SMALL_PAGES 4
/* So many names asked for one by one, and the directory is listed. */
#define SINGLES_MAX 16
#define REFETCH_MAX 20 /* times that a name is asked for again, as we changed its key meanwhile */

/* What the bucket said of one name, believed for a while. That a name is there is remembered here
 * only to ask again in time, as long as its directory was never listed. */
struct answer {
    uint64_t until_ns; /* monotonic */
    bool absent;
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[]; /* parent, name */
};

/* One name that is being asked for. */
struct single {
    struct importer *importer;
    char key[META_KEY_MAX + 1], below[META_KEY_MAX + 2];
    struct import_fetch head, list;
    unsigned pending, refetches;
    uint64_t asked_ns;
    struct meta_object ours; /* what HEAD spoke against */
    struct import_wait *waits;
    UT_hash_handle hh;
    uint64_t parent;
    size_t name_len, id_len;
    uint8_t *id; /* parent, name; owned */
};

/* A user's request that waits. */
struct request_wait {
    struct import_wait wait;
    struct meta *meta;
    struct meta_request *request;
};

/* Parent and name as a hash key. */
static size_t make_id(uint64_t parent, const char *name, size_t len,
                      uint8_t out[sizeof(uint64_t) + META_NAME_MAX])
{
    len = MIN(len, (size_t)META_NAME_MAX);
    memcpy(out, &parent, sizeof(parent));
    memcpy(out + sizeof(parent), name, len);
    return sizeof(parent) + len;
}

void import_failed(struct importer *importer, const struct error *error)
{
    static struct log_limit limit = LOG_LIMIT(5, 60000);
    importer->failures++;
    import_unreachable(importer, error);
    snprintf(importer->last_error, sizeof(importer->last_error), "%s", error_text(error));
    log_limited(&limit, LOG_WARN, "import failed", "error=\"%s\"", error_text(error));
}

bool import_is_internal(const struct importer *importer, const char *prefix, const char *name,
                        size_t len)
{
    size_t own = strlen(VOLUME_INTERNAL) - 1;
    char key[META_KEY_MAX + 16];
    if (len != own || memcmp(name, VOLUME_INTERNAL, own) != 0)
        return false;
    int key_len = snprintf(key, sizeof(key), "%s" VOLUME_INTERNAL "volume", prefix);
    return key_len < (int)sizeof(key) && engine_key_is_internal(importer->meta->engine, key);
}

struct import_dir *import_dir_get(struct importer *importer, uint64_t ino)
{
    struct import_dir *dir, *next;
    HASH_FIND(hh, importer->dirs, &ino, sizeof(ino), dir);
    if (dir)
        return dir;
    if (HASH_COUNT(importer->dirs) >= DIRS_MAX) {
        HASH_ITER(hh, importer->dirs, dir, next)
        {
            HASH_DEL(importer->dirs, dir);
            free(dir);
        }
    }
    dir = calloc(1, sizeof(*dir));
    if (!dir)
        return NULL;
    dir->ino = ino;
    HASH_ADD(hh, importer->dirs, ino, sizeof(dir->ino), dir);
    return dir;
}

/* Requests that watch for our own changes */

void import_fetch_submit(struct importer *importer, struct import_fetch *fetch)
{
    fetch->changes = NULL;
    DL_APPEND(importer->fetches, fetch);
    work_op_submit(importer->meta, &fetch->work);
}

void import_fetch_done(struct importer *importer, struct import_fetch *fetch)
{
    DL_DELETE(importer->fetches, fetch);
    struct import_change *c, *next;
    HASH_ITER(hh, fetch->changes, c, next)
    {
        HASH_DEL(fetch->changes, c);
        free(c);
    }
}

void importer_key_changed(struct importer *importer, const char *key, bool written)
{
    struct import_fetch *fetch;
    size_t len = strlen(key);
    DL_FOREACH(importer->fetches, fetch)
    {
        struct import_change *c;
        if (strncmp(key, fetch->watch, strlen(fetch->watch)))
            continue;
        HASH_FIND(hh, fetch->changes, key, len, c);
        if (!c) {
            c = malloc(sizeof(*c) + len + 1);
            if (!c)
                continue;
            memcpy(c->key, key, len + 1);
            HASH_ADD(hh, fetch->changes, key, len, c);
        }
        c->written = written;
    }
}

/* Answers about one name */

static struct answer *answer_find_locked(struct importer *importer, uint64_t parent,
                                         const struct meta_name *name)
{
    uint8_t id[sizeof(uint64_t) + META_NAME_MAX];
    size_t len = make_id(parent, name->bytes, name->len, id);
    struct answer *a;
    HASH_FIND(hh, importer->answers, id, len, a);
    return a;
}

static void answer_forget_locked(struct importer *importer, struct answer *a)
{
    if (!a->absent)
        atomic_fetch_sub(&importer->found_answers, 1);
    HASH_DEL(importer->answers, a);
    free(a);
}

static void answers_clear_locked(struct importer *importer)
{
    struct answer *a, *next;
    HASH_ITER(hh, importer->answers, a, next)
    {
        answer_forget_locked(importer, a);
    }
}

static void answer_set(struct importer *importer, uint64_t parent, const struct meta_name *name,
                       bool absent, uint64_t ttl_ns)
{
    uint8_t id[sizeof(uint64_t) + META_NAME_MAX];
    size_t id_len = make_id(parent, name->bytes, name->len, id);
    pthread_mutex_lock(&importer->lock);
    struct answer *a = answer_find_locked(importer, parent, name);
    if (a)
        answer_forget_locked(importer, a);
    if (HASH_COUNT(importer->answers) >= ANSWERS_MAX)
        answers_clear_locked(importer);
    a = absent || ttl_ns ? malloc(sizeof(*a) + id_len) : NULL;
    if (a) {
        a->until_ns = clock_monotonic_ns() + ttl_ns;
        a->absent = absent;
        a->key_len = id_len;
        memcpy(a->key, id, id_len);
        HASH_ADD(hh, importer->answers, key, id_len, a);
        if (!absent)
            atomic_fetch_add(&importer->found_answers, 1);
    }
    pthread_mutex_unlock(&importer->lock);
}

bool importer_is_absent(struct importer *importer, uint64_t parent, const struct meta_name *name,
                        bool now)
{
    pthread_mutex_lock(&importer->lock);
    const struct answer *a = answer_find_locked(importer, parent, name);
    bool absent = a && a->absent && (now || clock_monotonic_ns() < a->until_ns);
    pthread_mutex_unlock(&importer->lock);
    return absent;
}

bool importer_is_old(struct importer *importer, uint64_t parent, const struct meta_name *name)
{
    if (!atomic_load(&importer->found_answers))
        return false;
    pthread_mutex_lock(&importer->lock);
    struct answer *a = answer_find_locked(importer, parent, name);
    bool old = a && !a->absent && clock_monotonic_ns() >= a->until_ns;
    pthread_mutex_unlock(&importer->lock);
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns;
    if (!old || (!engine_origin(importer->meta->engine, parent, prefix, &listed_ns) && !listed_ns))
        return old;
    /* Its listing says more, or it comes from the bucket no more. */
    pthread_mutex_lock(&importer->lock);
    a = answer_find_locked(importer, parent, name);
    if (a && !a->absent)
        answer_forget_locked(importer, a);
    pthread_mutex_unlock(&importer->lock);
    return false;
}

/* One name */

static int look(struct meta *meta, uint64_t parent, const char *name, size_t len,
                struct meta_attr *attr)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = parent, .name = {name, len}};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    *attr = reply.attr;
    meta_reply_done(&reply);
    if (rc)
        *attr = (struct meta_attr){0};
    return rc;
}

int import_one(struct importer *importer, uint64_t parent, const struct import_question *question,
               const struct meta_name *name, const struct meta_entry *entry)
{
    struct meta *meta = importer->meta;
    struct meta_attr before, after;
    look(meta, parent, name->bytes, name->len, &before);
    struct meta_op op = {.kind = META_IMPORT_ONE,
                         .parent = parent,
                         .name = *name,
                         .data = question->prefix,
                         .data_len = strlen(question->prefix),
                         .attr.mtime_ns = question->asked_ns,
                         .entries = entry,
                         .entry_count = entry ? 1 : 0,
                         .flags = question->looked ? META_IMPORT_LOOKED : 0};
    struct meta_reply reply;
    int rc = volume_apply(meta, &op, &reply);
    if (!rc)
        volume_names_gone(meta, &reply);
    meta_reply_done(&reply);
    if (rc)
        return rc;
    answer_set(importer, parent, name, !entry, entry ? meta->import_ttl_ns : meta->negative_ttl_ns);
    look(meta, parent, name->bytes, name->len, &after);
    if (before.ino != after.ino)
        volume_entry_changed(meta, parent, name->bytes, name->len);
    else if (after.ino && (before.data_version != after.data_version ||
                           before.meta_version != after.meta_version))
        volume_inode_changed(meta, after.ino, before.data_version != after.data_version);
    return 0;
}

static void single_free(struct single *s)
{
    store_op_reset(&s->head.work.op);
    store_op_reset(&s->list.work.op);
    free(s->id);
    free(s);
}

static void single_end(struct single *s, int rc, const struct error *error)
{
    struct importer *importer = s->importer;
    struct meta *meta = importer->meta;
    HASH_DEL(importer->singles, s);
    if (rc)
        import_failed(importer, error);
    else
        import_reached(importer);
    struct import_wait *wait = s->waits;
    single_free(s);
    for (struct import_wait *next; wait; wait = next) {
        next = wait->next;
        wait->done(wait, rc, error);
    }
    work_end(meta);
}

static void single_ask(struct single *s);

/* "There is no such key" in the words of all stores. */
static bool is_absence(int result)
{
    return result == -ENOENT || result == -ENOTDIR || result == -EISDIR;
}

bool import_is_late(struct meta *meta, const struct store_op *head)
{
    uint64_t found = 0;
    if (tags_compare(head, &meta->format, 0, &found) == TAGS_NONE || !found)
        return false;
    struct meta_op op = {
        .kind = META_LATE, .object = found, .data = head->key, .data_len = strlen(head->key)};
    struct meta_reply reply;
    bool late = !volume_apply(meta, &op, &reply) && reply.end;
    meta_reply_done(&reply);
    return late;
}

bool import_speaks_against(const struct store_op *head, const struct meta_object *object)
{
    const struct store_info *info = &head->info;
    bool comparable = store_etag_is_weak(info->etag) == store_etag_is_weak(object->etag);
    return head->result || info->size != object->size ||
           (comparable && !store_etag_fits(info, object->etag));
}

bool import_shows(const struct store_op *list, const struct meta_object *object)
{
    const struct store_entry *e = list->out_list.count ? list->out_list.entries : NULL;
    return !list->result && e && !strcmp(e->name, object->key) && e->size == object->size &&
           !strcmp(e->etag, object->etag);
}

static int single_apply(struct single *s)
{
    const struct store_op *head = &s->head.work.op, *list = &s->list.work.op;
    struct meta_name name = {(const char *)s->id + sizeof(uint64_t), s->name_len};
    struct meta_entry entry = {.name = name.bytes, .name_len = name.len};
    char prefix[META_KEY_MAX + 1];
    struct import_question question = {prefix, s->asked_ns, .looked = true};
    snprintf(prefix, sizeof(prefix), "%.*s", (int)(strlen(s->key) - name.len), s->key);
    bool file = !head->result && s->key[0] && !import_is_late(s->importer->meta, head);
    if (list->out_list.count) {
        entry.is_dir = true;
        if (file)
            names_hidden_add(s->importer->hidden, s->parent, s->key, NAMES_BESIDE);
    } else if (file) {
        entry.size = head->info.size;
        entry.mtime_ns = head->info.mtime_ns;
        memcpy(entry.etag, head->info.etag, sizeof(entry.etag));
        entry.attr.size = head->info.size;
        entry.has_attr = tags_parse(head, &entry.attr);
    } else {
        return import_one(s->importer, s->parent, &question, &name, NULL);
    }
    return import_one(s->importer, s->parent, &question, &name, &entry);
}

static bool single_again(struct single *s, bool changed)
{
    if (!changed || s->refetches++ >= REFETCH_MAX || s->importer->stopped)
        return false;
    single_ask(s);
    return true;
}

/* A request of it failed. */
static void end_failed(struct single *s, const struct store_op *op)
{
    struct error error = op->error;
    if (!error.code)
        error_set(&error, op->result, "import of \"%s\": %s", s->key, strerror(-op->result));
    single_end(s, op->result, &error);
}

static void end_applied(struct single *s, int rc)
{
    struct error error = {0};
    rc = rc == -ESTALE ? 0 : rc; /* of another origin: who waits looks again */
    if (rc)
        error_set(&error, rc, "import of \"%s\": %s", s->key, strerror(-rc));
    single_end(s, rc, &error);
}

/* The listing of the one key says whether HEAD is to be believed. */
static void doubt_answered(struct work_op *work)
{
    struct single *s = work->arg;
    struct store_op *list = &work->op;
    bool changed = s->list.changes, failed = list->result && !is_absence(list->result);
    bool shown = import_shows(list, &s->ours);
    import_fetch_done(s->importer, &s->list);
    if (failed) {
        end_failed(s, list);
        return;
    }
    if (single_again(s, changed))
        return;
    store_op_reset(list);
    int rc = shown ? 0 : single_apply(s);
    struct meta_name name = {(const char *)s->id + sizeof(uint64_t), s->name_len};
    if (shown)
        answer_set(s->importer, s->parent, &name, false, s->importer->meta->import_ttl_ns);
    end_applied(s, rc);
}

/* HEAD speaks against an object of ours that a file has under this name. It may have been answered
 * by what was there before our last write, which may have been the same bytes: a file of ours must
 * not go by that alone. */
static bool is_doubtful(struct single *s)
{
    const struct store_op *head = &s->head.work.op;
    struct meta *meta = s->importer->meta;
    struct meta_attr attr;
    uint64_t found;
    if (s->list.work.op.out_list.count ||
        look(meta, s->parent, (const char *)s->id + sizeof(uint64_t), s->name_len, &attr) ||
        engine_key_object(meta->engine, s->key, &s->ours) <= 0 || s->ours.foreign ||
        s->ours.state != META_OBJECT_LIVE)
        return false;
    return import_speaks_against(head, &s->ours) ||
           tags_compare(head, &meta->format, s->ours.id, &found) != TAGS_SAME;
}

static void single_doubt(struct single *s)
{
    store_op_reset(&s->list.work.op);
    s->list.work.op = (struct store_op){.kind = STORE_LIST, .prefix = s->key, .max_keys = 1};
    s->list.work.done = doubt_answered;
    strcpy(s->list.watch, s->key);
    import_fetch_submit(s->importer, &s->list);
}

static void single_answered(struct work_op *work)
{
    struct single *s = work->arg;
    if (--s->pending)
        return;
    struct store_op *head = &s->head.work.op, *list = &s->list.work.op;
    bool changed = s->head.changes || s->list.changes;
    import_fetch_done(s->importer, &s->head);
    import_fetch_done(s->importer, &s->list);
    if (head->result && !is_absence(head->result))
        end_failed(s, head);
    else if (list->result && !is_absence(list->result))
        end_failed(s, list);
    else if (single_again(s, changed))
        return;
    else if (is_doubtful(s))
        single_doubt(s);
    else
        end_applied(s, single_apply(s));
}

static void single_ask(struct single *s)
{
    s->pending = 2;
    s->asked_ns = meta_time_ns(s->importer->meta);
    /* Asked again, they hold the answers of before. */
    store_op_reset(&s->head.work.op);
    store_op_reset(&s->list.work.op);
    s->head.work.op = (struct store_op){.kind = STORE_HEAD, .key = s->key};
    s->list.work.op = (struct store_op){.kind = STORE_LIST, .prefix = s->below, .max_keys = 1};
    s->head.work.done = s->list.work.done = single_answered;
    s->head.work.arg = s->list.work.arg = s;
    strcpy(s->head.watch, s->key);
    strcpy(s->list.watch, s->below);
    import_fetch_submit(s->importer, &s->head);
    import_fetch_submit(s->importer, &s->list);
}

/* A name that cannot be a key of the bucket is absent without asking. */
static bool cannot_be_key(const struct importer *importer, const char *prefix,
                          const struct meta_name *name)
{
    return names_check(name->bytes, name->len) || strlen(prefix) + name->len > META_KEY_MAX ||
           import_is_internal(importer, prefix, name->bytes, name->len);
}

static void end_wait(struct import_wait *wait, int rc)
{
    struct error error = {0};
    if (rc)
        error_set(&error, rc, "import: %s", strerror(-rc));
    wait->done(wait, rc, &error);
}

static struct single *single_new(struct importer *importer, uint64_t parent,
                                 const struct meta_name *name, const char *prefix)
{
    struct single *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->id = malloc(sizeof(uint64_t) + META_NAME_MAX);
    if (!s->id) {
        free(s);
        return NULL;
    }
    s->importer = importer;
    s->parent = parent;
    s->name_len = name->len;
    s->id_len = make_id(parent, name->bytes, name->len, s->id);
    snprintf(s->key, sizeof(s->key), "%s%.*s", prefix, (int)name->len, name->bytes);
    snprintf(s->below, sizeof(s->below), "%s/", s->key);
    return s;
}

void import_ask(struct importer *importer, uint64_t parent, const struct meta_name *name,
                struct import_wait *wait)
{
    uint8_t id[sizeof(uint64_t) + META_NAME_MAX];
    size_t len = make_id(parent, name->bytes, name->len, id);
    struct single *s;
    HASH_FIND(hh, importer->singles, id, len, s);
    wait->next = NULL;
    if (s) {
        LL_PREPEND(s->waits, wait);
        return;
    }
    char prefix[META_KEY_MAX + 1];
    uint64_t listed_ns;
    int rc = importer->stopped ? -ECANCELED
                               : engine_origin(importer->meta->engine, parent, prefix, &listed_ns);
    if (!rc && cannot_be_key(importer, prefix, name)) {
        struct import_question question = {.prefix = prefix};
        rc = import_one(importer, parent, &question, name, NULL);
        end_wait(wait, rc == -ESTALE ? 0 : rc);
        return;
    }
    s = rc ? NULL : single_new(importer, parent, name, prefix);
    if (!s) {
        end_wait(wait, rc ? rc : -ENOMEM);
        return;
    }
    LL_PREPEND(s->waits, wait);
    HASH_ADD_KEYPTR(hh, importer->singles, s->id, s->id_len, s);
    work_begin(importer->meta);
    importer->asked_names++;
    metric_add(importer->names, 1);
    struct import_dir *dir = import_dir_get(importer, parent);
    if (dir && ++dir->singles == SINGLES_MAX)
        listing_join(importer, parent, NULL);
    single_ask(s);
}

/* Requests */

/* What a request may lack, in the order to look for it. */
struct need {
    uint64_t dir;
    struct meta_name name; /* len 0: the whole listing */
};

static bool is_missing(struct meta *meta, const struct need *need)
{
    struct meta_op op = {.kind = META_LOOKUP, .parent = need->dir, .name = need->name};
    if (!need->name.len)
        op = (struct meta_op){.kind = META_READDIR, .ino = need->dir, .count = 1};
    struct meta_reply reply;
    int rc = volume_read(meta, &op, &reply);
    bool missing = rc == -EAGAIN && reply.need_import;
    meta_reply_done(&reply);
    return missing &&
           (!need->name.len || !importer_is_absent(meta->importer, need->dir, &need->name, false));
}

/* The directory that stands at a name, 0 if none. */
static uint64_t directory_at(struct meta *meta, uint64_t parent, const struct meta_name *name)
{
    struct meta_attr attr;
    return !look(meta, parent, name->bytes, name->len, &attr) && S_ISDIR(attr.mode) ? attr.ino : 0;
}

/* A change can lack names in one or two directories, or the listing of a directory that must be
 * empty. False: nothing that we know of. */
static bool find_need(struct meta *meta, const struct meta_op *op, struct need *out)
{
    struct need needs[4];
    unsigned count = 0;
    if (op->parent && op->name.len)
        needs[count++] = (struct need){op->parent, op->name};
    if (op->new_parent && op->new_name.len)
        needs[count++] = (struct need){op->new_parent, op->new_name};
    for (unsigned i = 0, names = count; i < names; i++) {
        uint64_t dir = directory_at(meta, needs[i].dir, &needs[i].name);
        if (dir)
            needs[count++] = (struct need){.dir = dir};
    }
    for (unsigned i = 0; i < count; i++) {
        if (is_missing(meta, &needs[i])) {
            *out = needs[i];
            return true;
        }
    }
    return false;
}

static void resume_request(struct import_wait *wait, int result, const struct error *error)
{
    struct request_wait *r = container_of(wait, struct request_wait, wait);
    struct meta *meta = r->meta;
    struct meta_request *request = r->request;
    free(r);
    if (result == -ECANCELED || result == -ETIMEDOUT || (result && is_absence(result)))
        result = -EIO;
    /* What is known must do. */
    if (result && importer_offline(meta->importer))
        result = 0;
    volume_resume(meta, request, result);
}

/* For one name in a directory: the whole listing if that is as cheap. */
static bool prefers_listing(struct importer *importer, uint64_t ino)
{
    struct import_dir *dir;
    HASH_FIND(hh, importer->dirs, &ino, sizeof(ino), dir);
    return dir && dir->pages && dir->pages <= SMALL_PAGES;
}

static void take_request(struct importer *importer, struct meta_request *request)
{
    const struct meta_op *op = &request->op;
    struct meta *meta = importer->meta;
    struct request_wait *r = calloc(1, sizeof(*r));
    if (!r) {
        volume_resume(meta, request, -ENOMEM);
        return;
    }
    r->meta = meta;
    r->request = request;
    r->wait.done = resume_request;
    struct need need = {0};
    if (op->kind == META_READDIR)
        need.dir = op->ino;
    else if (op->kind == META_LOOKUP)
        need = (struct need){op->parent, op->name};
    else if (!find_need(meta, op, &need)) {
        /* Somebody else's import has brought it. */
        end_wait(&r->wait, 0);
        return;
    }
    if (!need.name.len || prefers_listing(importer, need.dir))
        listing_join(importer, need.dir, &r->wait);
    else
        import_ask(importer, need.dir, &need.name, &r->wait);
}

static void take_incoming(struct loop_task *task)
{
    struct importer *importer = container_of(task, struct importer, take);
    pthread_mutex_lock(&importer->lock);
    struct meta_request *requests = importer->incoming;
    importer->incoming = NULL;
    importer->incoming_end = &importer->incoming;
    importer->take_posted = false;
    pthread_mutex_unlock(&importer->lock);
    for (struct meta_request *next; requests; requests = next) {
        next = requests->next;
        requests->next = NULL;
        take_request(importer, requests);
    }
}

void importer_wait(struct meta *meta, struct meta_request *request)
{
    struct importer *importer = meta->importer;
    request->next = NULL;
    pthread_mutex_lock(&importer->lock);
    *importer->incoming_end = request;
    importer->incoming_end = &request->next;
    bool post = !importer->take_posted;
    importer->take_posted = true;
    pthread_mutex_unlock(&importer->lock);
    if (post)
        loop_post(meta->work, &importer->take);
}

/* Life */

int importer_new(struct meta *meta, struct importer **out)
{
    struct importer *importer = calloc(1, sizeof(*importer));
    if (!importer)
        return -ENOMEM;
    if (names_hidden_new(&importer->hidden)) {
        free(importer);
        return -ENOMEM;
    }
    struct metrics *metrics = meta->config.metrics;
    importer->meta = meta;
    importer->incoming_end = &importer->incoming;
    importer->take.run = take_incoming;
    pthread_mutex_init(&importer->lock, NULL);
    importer->keys = metrics_counter(metrics, "sluice_meta_import_entries_total", "",
                                     "Entries of listings that were applied.");
    importer->listings_total = metrics_counter(metrics, "sluice_meta_import_listings_total", "",
                                               "Directories that were listed.");
    importer->names = metrics_counter(metrics, "sluice_meta_import_names_total", "",
                                      "Names that were asked for one by one.");
    *out = importer;
    return 0;
}

void importer_stop(struct importer *importer)
{
    importer->stopped = true;
}

void importer_free(struct importer *importer)
{
    if (!importer)
        return;
    assert(!importer->listings && !importer->singles && !importer->fetches);
    struct import_dir *dir, *next;
    HASH_ITER(hh, importer->dirs, dir, next)
    {
        HASH_DEL(importer->dirs, dir);
        free(dir);
    }
    answers_clear_locked(importer);
    names_hidden_free(importer->hidden);
    pthread_mutex_destroy(&importer->lock);
    free(importer);
}

void importer_status(struct importer *importer, json_t *out)
{
    struct meta *meta = importer->meta;
    json_object_set_new(out, "listed_directories", json_integer((json_int_t)importer->listed_dirs));
    json_object_set_new(out, "listed_entries", json_integer((json_int_t)importer->listed_keys));
    json_object_set_new(out, "asked_names", json_integer((json_int_t)importer->asked_names));
    json_object_set_new(out, "running_listings", json_integer(importer->running));
    json_object_set_new(out, "failures", json_integer((json_int_t)importer->failures));
    json_object_set_new(out, "last_error", json_string(importer->last_error));
    names_hidden_status(importer->hidden, out);
    if (atomic_load(&meta->inventory_runs)) {
        uint64_t bytes = atomic_load(&meta->inventory_bytes);
        uint64_t all = atomic_load(&meta->inventory_all_bytes);
        json_object_set_new(out, "inventory_bytes", json_integer((json_int_t)bytes));
        json_object_set_new(out, "inventory_all_bytes", json_integer((json_int_t)all));
    }
}
