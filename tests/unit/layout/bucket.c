#include "bucket.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "meta/engine.h"
#include "model.h"
#include "s3/mux.h"
#include "sim.h"

#define HELD_MAX 128
#define WRITTEN_MAX 1024
#define INTERNAL ".sluice/"
#define FAIL_ONE_IN 60
#define LATE_MAX 16
#define PART_MIN 1024
#define LAG_NS (50 * NS_PER_MS) /* for so long HEAD may show what was there before */
#define LAG_ONE_IN 4

struct held {
    struct store_op *op;
    struct store_op sub;
    bool done; /* took effect: the answer is on its way */
};

struct past {
    char name[STORE_KEY_MAX + STORE_ETAG_MAX];
    uint8_t *data;
    size_t len;
    UT_hash_handle hh;
};

struct taken {
    UT_hash_handle hh;
    char name[];
};

/* What HEAD said of a key before it was changed last. */
struct view {
    char *key; /* owned */
    struct store_op head;
    uint8_t *data; /* owned */
    uint64_t changed_ns;
    UT_hash_handle hh;
};

static struct {
    struct store store; /* what the volume has */
    struct store *memory;
    struct loop *loop;
    char volume_id[33];
    enum bucket_fault fault;
    struct engine *engine;
    struct held *held[HELD_MAX];
    unsigned held_count;
    struct bucket_object *objects;
    struct past *past;
    struct taken *taken;
    struct view *views;
    struct {
        uint64_t object, sequence;
        uint8_t *data;
        size_t len;
    } written[WRITTEN_MAX];
    struct late {
        struct store_op op;
        uint64_t due_ns;
    } late[LATE_MAX]; /* writes of a process that is dead: the store has not seen them yet */
    unsigned late_count;
    bool dead, calm, lag;
    unsigned refuse, refused;
    uint64_t refused_ns;
} b;

/* The memory store, now */

static void ignore_done(struct store_op *op)
{
}

static int call(struct store_op *op)
{
    struct loop *before = sim_loop_enter(b.loop);
    op->done = ignore_done;
    sim_capture_begin(b.loop);
    store_submit(b.memory, op);
    sim_capture_end();
    sim_loop_enter(before);
    return op->result;
}

/* What is at the keys */

const struct bucket_object *bucket_find(const char *key)
{
    struct bucket_object *o;
    HASH_FIND_STR(b.objects, key, o);
    return o;
}

struct bucket_object *bucket_all(void)
{
    return b.objects;
}

static void make_name(const char *key, const char *etag, char out[STORE_KEY_MAX + STORE_ETAG_MAX])
{
    snprintf(out, STORE_KEY_MAX + STORE_ETAG_MAX, "%s %s", etag, key);
}

/* It counts as put by others: who imports it need not know better. */
static void note_past(const char *key, const char *etag, const void *data, size_t len)
{
    struct past *past = calloc(1, sizeof(*past)), *before;
    make_name(key, etag, past->name);
    HASH_FIND_STR(b.past, past->name, before);
    if (before) {
        free(past);
        return;
    }
    past->data = malloc(len + 1);
    memcpy(past->data, data, len);
    past->len = len;
    HASH_ADD_STR(b.past, name, past);
}

/* It is about to be changed. */
static void remember_view(const char *key)
{
    struct view *v;
    HASH_FIND_STR(b.views, key, v);
    if (!v) {
        v = calloc(1, sizeof(*v));
        v->key = strdup(key);
        HASH_ADD_KEYPTR(hh, b.views, v->key, strlen(v->key), v);
    }
    store_op_reset(&v->head);
    v->head = (struct store_op){.kind = STORE_HEAD, .key = v->key};
    v->changed_ns = clock_monotonic_ns();
    call(&v->head);
    const struct bucket_object *o = bucket_find(key);
    free(TAKE_PTR(v->data));
    if (o) {
        v->data = malloc(o->len + 1);
        memcpy(v->data, o->data, o->len);
    }
}

static void forget(const char *key)
{
    struct bucket_object *o;
    HASH_FIND_STR(b.objects, key, o);
    if (!o)
        return;
    HASH_DEL(b.objects, o);
    free(o->key);
    free(o->data);
    free(o);
}

/* Looks at the memory store. */
static struct bucket_object *look(const char *key)
{
    struct store_op head = {.kind = STORE_HEAD, .key = key};
    forget(key);
    if (call(&head)) {
        store_op_reset(&head);
        return NULL;
    }
    struct bucket_object *o = calloc(1, sizeof(*o));
    o->key = strdup(key);
    o->len = head.info.size;
    o->data = malloc(o->len + 1);
    memcpy(o->etag, head.info.etag, sizeof(o->etag));
    const char *volume = store_op_meta(&head, "sluice-volume");
    const char *id = store_op_meta(&head, "sluice-object");
    o->foreign = !volume || strcmp(volume, b.volume_id) != 0 || !id;
    o->id = o->foreign ? 0 : strtoull(id, NULL, 10);
    const char *change = o->foreign ? NULL : store_op_meta(&head, "sluice-change");
    o->change = change ? strtoull(change, NULL, 10) : 0;
    const char *mode = store_op_meta(&head, "sluice-mode");
    o->mode = mode ? (uint32_t)strtoul(mode, NULL, 8) : 0644;
    memcpy(o->storage_class, head.info.storage_class, sizeof(o->storage_class));
    store_op_reset(&head);
    struct store_op get = {
        .kind = STORE_GET, .key = key, .buf = o->data, .buf_len = o->len, .length = o->len};
    if (o->len && call(&get))
        abort();
    store_op_reset(&get);
    HASH_ADD_KEYPTR(hh, b.objects, o->key, strlen(o->key), o);
    return o;
}

/* Checks */

unsigned bucket_store_of(const char *key, const char **own)
{
    size_t skip;
    unsigned store = store_route(key, strlen(key), &skip);
    *own = key + skip;
    return store;
}

bool bucket_is_internal(const char *key)
{
    bucket_store_of(key, &key);
    return !strncmp(key, INTERNAL, strlen(INTERNAL));
}

bool bucket_is_control(const char *key)
{
    bucket_store_of(key, &key);
    return !strcmp(key, INTERNAL "volume") || !strncmp(key, INTERNAL "e/", 10);
}

void bucket_recorded(uint64_t object, uint64_t sequence)
{
    unsigned at = object % WRITTEN_MAX;
    if (b.written[at].object != object)
        free(TAKE_PTR(b.written[at].data));
    b.written[at].object = object;
    b.written[at].sequence = sequence;
}

static void note_written(const struct bucket_object *o)
{
    unsigned at = o->id % WRITTEN_MAX;
    if (b.written[at].object != o->id)
        return;
    free(b.written[at].data);
    b.written[at].data = malloc(o->len + 1);
    b.written[at].len = o->len;
    memcpy(b.written[at].data, o->data, o->len);
}

const uint8_t *bucket_written(uint64_t object, size_t *len)
{
    unsigned at = object % WRITTEN_MAX;
    if (b.written[at].object != object)
        return NULL;
    *len = b.written[at].len;
    return b.written[at].data;
}

/* The volume made `now`. */
static void check_made(const struct store_op *op, const struct bucket_object *now)
{
    if (now->foreign)
        sim_violation("I2: %s was written without our tags", op->key);
    uint64_t record = now->change ? now->change : now->id;
    unsigned at = record % WRITTEN_MAX;
    if (b.written[at].object != record)
        sim_violation("I4: %s was written as object %llu, which was never recorded", op->key,
                      (unsigned long long)record);
    if (b.written[at].sequence > sim_synced_to())
        sim_violation("I4: %s was written before the record of object %llu was synced", op->key,
                      (unsigned long long)record);
    if (!bucket_is_internal(op->key) && !op->if_match && !op->if_none_match)
        sim_violation("I2: the natural key %s was written without a condition", op->key);
    if (!now->change)
        note_written(now);
}

/* The same object in another storage class. */
static bool is_class_copy(const struct bucket_object *before, const struct bucket_object *now)
{
    return now && now->change && (before->foreign || before->id == now->id) &&
           now->len == before->len && !memcmp(now->data, before->data, now->len);
}

/* `before` is no more, by the volume's doing. */
static void check_destroyed(const struct bucket_object *before, const char *how)
{
    uint64_t user = model_user_of(before);
    if (user)
        sim_violation("I1: %s, which file %llu uses, was %s", before->key, (unsigned long long)user,
                      how);
    if (before->foreign && !before->released)
        sim_violation("I2: the foreign object %s was %s (file %llu)", before->key, how,
                      (unsigned long long)before->adopter);
    if (before->referenced_seq >= sim_synced_to())
        sim_violation("I4: %s was %s before its last reference went for good", before->key, how);
}

struct watch {
    const char *key;
    struct bucket_object before;
    bool there;
};

static void watch_begin(struct watch *w, const char *key)
{
    remember_view(key);
    const struct bucket_object *o = bucket_find(key);
    w->key = key;
    w->there = o != NULL;
    if (!o)
        return;
    w->before = *o;
    w->before.key = strdup(o->key);
    w->before.data = malloc(o->len + 1);
    memcpy(w->before.data, o->data, o->len);
}

static void watch_done(struct watch *w)
{
    if (!w->there)
        return;
    free(w->before.key);
    free(w->before.data);
}

static void watch_end(struct watch *w, const struct store_op *op, bool writes)
{
    struct bucket_object *now = look(w->key);
    if (!bucket_is_control(w->key)) {
        if (w->there && (writes || !now) && !is_class_copy(&w->before, now))
            check_destroyed(&w->before, writes ? "overwritten" : "deleted");
        if (writes && now)
            check_made(op, now);
    }
    if (b.engine)
        model_check("the bucket was changed");
}

/* Requests */

static void drop_conditions(struct store_op *op)
{
    bool reads = op->kind == STORE_GET || op->kind == STORE_COPY || op->kind == STORE_MPU_PART_COPY;
    if (op->key && bucket_is_control(op->key))
        return;
    if (b.fault == BUCKET_NO_IF_NONE_MATCH ||
        (b.fault == BUCKET_OTHER_NO_IF_NONE_MATCH && op->key && op->key[0] == '/'))
        op->if_none_match = false;
    if (b.fault == BUCKET_NO_IF_MATCH && reads)
        op->if_match = op->source_if_match = NULL;
    if (b.fault == BUCKET_NO_IF_MATCH_WRITE && !reads)
        op->if_match = NULL;
}

static void run_checked(struct store_op *op, struct store_op *wanted)
{
    struct watch *watches = NULL;
    unsigned count = 0;
    bool writes = op->kind == STORE_PUT || op->kind == STORE_COPY || op->kind == STORE_MPU_COMPLETE;
    if (writes || op->kind == STORE_DELETE || op->kind == STORE_DELETE_MANY) {
        count = op->kind == STORE_DELETE_MANY ? op->key_count : 1;
        watches = calloc(count + 1, sizeof(*watches));
        for (unsigned i = 0; i < count; i++)
            watch_begin(&watches[i], op->kind == STORE_DELETE_MANY ? op->keys[i] : op->key);
    }
    int rc = call(op);
    sim_trace("  %s %s = %d%s", store_kind_name(op->kind), op->key ? op->key : "", rc,
              op->if_none_match ? " if-none-match"
              : op->if_match    ? " if-match"
                                : "");
    for (unsigned i = 0; i < count; i++) {
        if (!rc)
            watch_end(&watches[i], wanted, writes);
        watch_done(&watches[i]);
    }
    free(watches);
}

static void take_effect(struct held *h)
{
    store_op_copy_request(&h->sub, h->op);
    drop_conditions(&h->sub);
    h->done = true;
    run_checked(&h->sub, h->op);
}

/* HEAD does not see the last change yet: it is answered by what was there before. */
static bool answer_of_before(struct held *h)
{
    struct view *v;
    HASH_FIND_STR(b.views, h->op->key, v);
    if (!v || clock_monotonic_ns() > v->changed_ns + LAG_NS || (!b.lag && sim_below(LAG_ONE_IN)))
        return false;
    h->done = true;
    h->sub.result = v->head.result;
    h->sub.error = v->head.error;
    h->sub.info = v->head.info;
    for (unsigned i = 0; i < v->head.out_meta_count; i++)
        store_op_add_meta(&h->sub, v->head.out_meta[i].name, v->head.out_meta[i].value);
    sim_trace("  head %s = %d of before", h->op->key, h->sub.result);
    if (v->data)
        note_past(v->key, v->head.info.etag, v->data, v->head.info.size);
    /* gc may believe that it is done with what is there now. */
    struct bucket_object *o = (struct bucket_object *)bucket_find(h->op->key);
    if (o)
        o->lagging = true;
    if (o && b.engine)
        model_check("HEAD lags behind");
    return true;
}

static void fail(struct held *h, int code)
{
    store_op_reset(&h->sub);
    h->sub.result = error_set(&h->sub.error, code, "made to fail");
}

static void answer(struct held *h)
{
    struct store_op *op = h->op;
    struct loop *before = sim_loop_enter(b.loop);
    store_op_move_result(op, &h->sub);
    free(h);
    store_complete(op, op->result);
    sim_loop_enter(before);
}

static struct held *take(unsigned which)
{
    struct held *h = b.held[which];
    b.held[which] = b.held[--b.held_count];
    return h;
}

/* Late writes */

static char *copy_text(const char *text)
{
    return text ? strdup(text) : NULL;
}

/* A PUT in flight when its process died: it arrives some time later. */
static void keep_late(const struct store_op *op)
{
    if (op->kind != STORE_PUT || !op->if_none_match || bucket_is_internal(op->key) ||
        b.late_count == LATE_MAX)
        return;
    struct late *late = &b.late[b.late_count++];
    size_t len = 0, at = 0;
    for (unsigned i = 0; i < op->iov_count; i++)
        len += op->iov[i].iov_len;
    uint8_t *data = malloc(len + 1);
    for (unsigned i = 0; i < op->iov_count; i++) {
        memcpy(data + at, op->iov[i].iov_base, op->iov[i].iov_len);
        at += op->iov[i].iov_len;
    }
    struct iovec *iov = malloc(sizeof(*iov));
    *iov = (struct iovec){.iov_base = data, .iov_len = len};
    struct store_meta *meta = calloc(op->meta_count + 1, sizeof(*meta));
    for (unsigned i = 0; i < op->meta_count; i++)
        meta[i] = (struct store_meta){copy_text(op->meta[i].name), copy_text(op->meta[i].value)};
    late->op = (struct store_op){.kind = STORE_PUT,
                                 .key = copy_text(op->key),
                                 .storage_class = copy_text(op->storage_class),
                                 .if_none_match = true,
                                 .iov = iov,
                                 .iov_count = 1,
                                 .meta = meta,
                                 .meta_count = op->meta_count};
    late->due_ns = clock_monotonic_ns() + sim_below(2000) * NS_PER_MS;
}

static void arrive(struct late *late)
{
    struct store_op op = late->op;
    *late = b.late[--b.late_count];
    remember_view(op.key);
    int rc = call(&op);
    sim_trace("  late put %s = %d", op.key, rc);
    store_op_reset(&op);
    struct bucket_object *o = rc ? NULL : look(op.key);
    if (o)
        o->late = true;
    if (o && b.engine)
        model_check("a write came late");
    for (unsigned i = 0; i < op.meta_count; i++) {
        free((char *)op.meta[i].name);
        free((char *)op.meta[i].value);
    }
    free((void *)op.meta);
    free(op.iov->iov_base);
    free((void *)op.iov);
    free((char *)op.storage_class);
    free((char *)op.key);
}

static unsigned late_ready(void *arg)
{
    unsigned count = 0;
    for (unsigned i = 0; i < b.late_count; i++)
        count += b.late[i].due_ns <= clock_monotonic_ns();
    return count;
}

static void late_run(void *arg, unsigned which)
{
    for (unsigned i = 0; i < b.late_count; i++)
        if (b.late[i].due_ns <= clock_monotonic_ns() && !which--) {
            arrive(&b.late[i]);
            return;
        }
}

/* Another conditional write of the key is under way, for longer than it is tried (409). */
static bool refuses(const struct store_op *op)
{
    bool writes = op->kind == STORE_PUT || op->kind == STORE_MPU_COMPLETE;
    return writes && (op->if_none_match || op->if_match);
}

static unsigned ready(void *arg)
{
    return b.held_count;
}

static void run(void *arg, unsigned which)
{
    struct held *h = b.held[which];
    if (h->done) {
        answer(take(which));
        return;
    }
    if (b.refuse & 1u << h->op->kind) {
        b.refused++;
        b.refused_ns = clock_monotonic_ns();
        h->done = true;
        fail(h, -EACCES);
        return;
    }
    bool faults = !b.calm && !(h->op->key && bucket_is_control(h->op->key));
    if (faults && sim_below(FAIL_ONE_IN) == 0) {
        if (sim_below(2))
            keep_late(h->op);
        h->done = true;
        fail(h, -EIO);
        return;
    }
    if (faults && refuses(h->op) && sim_below(FAIL_ONE_IN) == 0) {
        h->done = true;
        fail(h, -EEXIST);
        return;
    }
    if ((faults || b.lag) && h->op->kind == STORE_HEAD && answer_of_before(h))
        return;
    take_effect(h);
    if (faults && sim_below(FAIL_ONE_IN) == 0)
        fail(h, -EIO);
}

static void bucket_submit(struct store *store, struct store_op *op)
{
    if (b.dead) {
        store_complete(op, -ECANCELED);
        return;
    }
    struct held *h = calloc(1, sizeof(*h));
    h->op = op;
    if (b.held_count == HELD_MAX)
        sim_violation("more than %d requests at once", HELD_MAX);
    b.held[b.held_count++] = h;
}

static void bucket_cancel(struct store *store, struct store_op *op)
{
}

static void bucket_free(struct store *store)
{
}

void bucket_crash(void)
{
    while (b.held_count) {
        struct held *h = take(sim_below(b.held_count));
        if (!h->done && sim_below(2))
            take_effect(h);
        else if (!h->done)
            keep_late(h->op);
        fail(h, -ECANCELED);
        answer(h);
    }
    b.dead = true;
}

void bucket_alive(void)
{
    b.dead = false;
}

void bucket_calm(bool calm)
{
    b.calm = calm;
}

bool bucket_idle(void)
{
    return !b.held_count && !b.late_count;
}

void bucket_lag(bool always)
{
    b.lag = always;
}

void bucket_refuse(unsigned kinds)
{
    b.refuse = kinds;
}

unsigned bucket_refused(uint64_t *last_ns)
{
    *last_ns = b.refused_ns;
    return b.refused;
}

void bucket_engine(struct engine *engine)
{
    b.engine = engine;
}

/* Others */

static void note_taken(const struct bucket_object *o)
{
    char name[STORE_KEY_MAX + STORE_ETAG_MAX];
    struct taken *t;
    make_name(o->key, o->etag, name);
    model_disturb(o);
    HASH_FIND_STR(b.taken, name, t);
    if (t)
        return;
    t = malloc(sizeof(*t) + strlen(name) + 1);
    strcpy(t->name, name);
    HASH_ADD_STR(b.taken, name, t);
}

bool bucket_taken_by_others(const char *key, const char *etag)
{
    char name[STORE_KEY_MAX + STORE_ETAG_MAX];
    struct taken *t;
    make_name(key, etag, name);
    HASH_FIND_STR(b.taken, name, t);
    return t != NULL;
}

void bucket_put_foreign(const char *key, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct store_op op = {.kind = STORE_PUT, .key = key, .iov = &iov, .iov_count = 1};
    const struct bucket_object *before = bucket_find(key);
    sim_trace("  others put %s", key);
    remember_view(key);
    if (before)
        note_taken(before);
    if (call(&op))
        abort();
    store_op_reset(&op);
    const struct bucket_object *o = look(key);
    note_past(key, o->etag, data, len);
}

void bucket_delete_foreign(const char *key)
{
    struct store_op op = {.kind = STORE_DELETE, .key = key};
    const struct bucket_object *before = bucket_find(key);
    sim_trace("  others delete %s", key);
    remember_view(key);
    if (before)
        note_taken(before);
    call(&op);
    store_op_reset(&op);
    forget(key);
}

const uint8_t *bucket_history(const char *key, const char *etag, size_t *len)
{
    char name[STORE_KEY_MAX + STORE_ETAG_MAX];
    struct past *past;
    make_name(key, etag, name);
    HASH_FIND_STR(b.past, name, past);
    if (past)
        *len = past->len;
    return past ? past->data : NULL;
}

unsigned bucket_uploads_open(void)
{
    static const char *const stores[] = {"", "/1/"};
    unsigned count = 0;
    for (size_t i = 0; i < ARRAY_LEN(stores); i++) {
        struct store_op op = {.kind = STORE_MPU_LIST, .prefix = stores[i]};
        call(&op);
        count += (unsigned)op.out_list.count;
        store_op_reset(&op);
    }
    return count;
}

static const struct store_backend backend = {
    .kind = "bucket",
    .submit = bucket_submit,
    .cancel = bucket_cancel,
    .free = bucket_free,
};

void bucket_init(const char *volume_id, enum bucket_fault fault)
{
    static const struct sim_source source = {.ready = ready, .run = run};
    static const struct sim_source late_writes = {.ready = late_ready, .run = late_run};
    memcpy(b.volume_id, volume_id, 33);
    b.fault = fault;
    struct store *own, *other;
    if (loop_new(&b.loop, "store") || store_memory_new(b.loop, &own) ||
        store_memory_new(b.loop, &other))
        abort();
    own->caps.part_min = other->caps.part_min = PART_MIN;
    if (store_mux_new(own, &b.memory) || store_mux_set(b.memory, 1, "other", other, NULL))
        abort();
    store_init(&b.store, &backend, b.loop, NULL, "memory://");
    b.store.caps = own->caps;
    sim_source_add(&source);
    sim_source_add(&late_writes);
}

struct store *bucket_store(void)
{
    return &b.store;
}
