/*
 * The key table and a flat listing stand in the same order: both are walked together. What a
 * listing shows wrongly (an object that was written a moment ago, by a mount that is gone) is
 * looked at once more before it is called a finding.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "bucket_list.h"
#include "check_stores.h"
#include "meta/check.h"
#include "s3/mux.h"
#include "volume.h"

#define STEP 512
#define DEEP_BUFFER (1u << 20)
#define DEEP_PARALLEL 8
#define PROGRESS_STEP 10000

struct walk {
    const struct check_config *config;
    struct check_counts *counts;
    struct meta_object *objects; /* owned, STEP of them */
    int object_count, object_at;
    bool objects_end;
    char after[META_KEY_MAX + 1], internal[META_KEY_MAX + 16];
    struct error *error;
};

const char *check_kind_name(enum check_kind kind)
{
    static const char *const names[] = {"missing", "changed", "content", "unreadable"};
    return names[kind];
}

/* The object in use with the next key: 1, 0 at the end. */
static int next_object(struct walk *w, struct meta_object **out)
{
    for (;;) {
        if (w->object_at < w->object_count) {
            *out = &w->objects[w->object_at];
            return 1;
        }
        if (w->objects_end)
            return 0;
        int count = engine_keys(w->config->engine, w->after[0] ? w->after : NULL, w->objects, STEP);
        if (count < 0)
            return error_set(w->error, count, "cannot read the key table: %s", strerror(-count));
        w->object_count = count;
        w->object_at = 0;
        w->objects_end = count < STEP;
        if (count)
            memcpy(w->after, w->objects[count - 1].key, sizeof(w->after));
    }
}

/* Repair: the file follows what the bucket holds, as if a reader had found it. */
static const char *repair(struct walk *w, const struct meta_object *object,
                          const struct store_op *head)
{
    const char *slash = strrchr(object->key, '/');
    const char *name = slash ? slash + 1 : object->key;
    struct meta_entry entry = {.name = name, .name_len = strlen(name)};
    struct meta_op op = {.kind = META_OUTSIDE, .object = object->id};
    if (!head->result) {
        entry.size = head->info.size;
        entry.mtime_ns = head->info.mtime_ns;
        memcpy(entry.etag, head->info.etag, sizeof(entry.etag));
        op.entries = &entry;
        op.entry_count = 1;
    }
    struct meta_reply reply;
    int rc = volume_apply(w->config->repair, &op, &reply);
    bool done = !rc && reply.end, both = !rc && reply.replaced.ino;
    if (!rc)
        volume_names_gone(w->config->repair, &reply);
    meta_reply_done(&reply);
    if (both) {
        w->counts->repaired++;
        return "the file has changes: it is beside what is in the bucket now";
    }
    if (!done)
        return "not repaired: the file has more than this object, or is not settled";
    w->counts->repaired++;
    return head->result ? "the name of the lost file was removed"
                        : "the file has the content that is in the bucket now";
}

static void find(struct walk *w, enum check_kind kind, const struct meta_object *object,
                 const char *text, const char *repaired)
{
    struct check_finding finding = {
        .kind = kind, .key = object->key, .text = text, .repaired = repaired};
    w->counts->found[kind]++;
    w->config->report(w->config->arg, &finding);
}

static bool is_absence(int result)
{
    return result == -ENOENT || result == -ENOTDIR || result == -EISDIR;
}

/* Of a living volume: the record that was read may be of the past. */
static bool is_in_use(struct walk *w, const struct meta_object *object)
{
    struct meta_op op = {.kind = META_OBJECT, .object = object->id};
    struct meta_reply reply;
    meta_reply_init(&reply);
    int rc = engine_read(w->config->engine, &op, 0, &reply);
    bool same = !rc && reply.object_count && reply.objects[0].state == META_OBJECT_LIVE &&
                !strcmp(reply.objects[0].etag, object->etag) &&
                !strcmp(reply.objects[0].key, object->key);
    meta_reply_done(&reply);
    return same;
}

/* It got another storage class, and that is not recorded yet: settle or a reader will know it. */
static bool is_own_copy(struct walk *w, const struct meta_object *object,
                        const struct store_op *head)
{
    struct meta_volume volume;
    return object->changing && !head->result && head->info.size == object->size &&
           !engine_volume(w->config->engine, &volume) && tags_change(head, &volume, object->id);
}

/* The listing says that the object is not as it is recorded: the store is asked for it alone. */
static int look_again(struct walk *w, const struct meta_object *object)
{
    char text[400];
    struct store_op head = {.kind = STORE_HEAD, .key = object->key};
    int rc = store_wait(w->config->store, &head);
    if (rc && !is_absence(rc)) {
        if (w->error)
            *w->error = head.error;
        store_op_reset(&head);
        return rc;
    }
    if (!is_in_use(w, object) || is_own_copy(w, object, &head)) {
        store_op_reset(&head);
        return 0;
    }
    if (rc) {
        snprintf(text, sizeof(text), "%llu bytes, ETag %s, are not in the bucket",
                 (unsigned long long)object->size, object->etag);
        find(w, CHECK_MISSING, object, text, w->config->repair ? repair(w, object, &head) : NULL);
    } else if (head.info.size != object->size ||
               (object->etag[0] && !store_etag_fits(&head.info, object->etag))) {
        snprintf(text, sizeof(text), "has %llu bytes, ETag %s; recorded are %llu, %s",
                 (unsigned long long)head.info.size, head.info.etag,
                 (unsigned long long)object->size, object->etag);
        find(w, CHECK_CHANGED, object, text, w->config->repair ? repair(w, object, &head) : NULL);
    }
    store_op_reset(&head);
    return 0;
}

static int compare(struct walk *w, const struct meta_object *object, const struct store_entry *e)
{
    if (object->state != META_OBJECT_LIVE)
        return 0;
    w->counts->objects++;
    bool same = e && e->size == object->size &&
                (!object->etag[0] || !e->etag[0] || !strcmp(e->etag, object->etag));
    return same ? 0 : look_again(w, object);
}

static int take_entry(struct walk *w, const struct store_entry *e)
{
    struct meta_object *object;
    size_t len = strlen(e->name);
    int rc;
    while ((rc = next_object(w, &object)) > 0) {
        int order = strcmp(object->key, e->name);
        if (order > 0)
            break;
        rc = compare(w, object, order == 0 ? e : NULL);
        w->object_at++;
        if (rc < 0 || order == 0)
            return rc;
    }
    if (rc >= 0 && len && e->name[len - 1] != '/' &&
        strncmp(e->name, w->internal, strlen(w->internal)) != 0)
        w->counts->unknown++;
    return rc < 0 ? rc : 0;
}

static bool is_stopped(const struct walk *w)
{
    return w->config->stop && w->config->stop(w->config->arg);
}

static int walk_bucket(struct walk *w, const char *prefix)
{
    struct bucket_list list;
    const struct store_list *page;
    struct meta_object *object;
    int rc;
    struct list_range range = {.prefix = prefix};
    bucket_list_init(&list, w->config->store, STORE_LIST, &range);
    while ((rc = bucket_list_next(&list, &page, w->error)) > 0) {
        for (size_t i = 0; rc >= 0 && i < page->count; i++)
            rc = take_entry(w, &page->entries[i]);
        if (rc < 0)
            break;
        w->counts->keys += page->count;
        if (w->config->progress)
            w->config->progress(w->config->arg, w->counts);
        if (is_stopped(w)) {
            rc = -ECANCELED;
            break;
        }
    }
    bucket_list_done(&list);
    while (rc >= 0 && (rc = next_object(w, &object)) > 0) {
        rc = compare(w, object, NULL);
        w->object_at++;
    }
    return rc < 0 ? rc : 0;
}

/* Deep: every byte is read, by some threads that each take the next object */

struct deep {
    struct walk *w;
    pthread_mutex_t lock;
    /* Under lock. */
    int rc;
    struct check_finding *differing; /* owned texts: MD5 other than the ETag */
    size_t differing_count;
};

static bool is_md5(const char *etag)
{
    return strlen(etag) == 32 && strspn(etag, "0123456789abcdefABCDEF") == 32;
}

static int deep_read(struct deep *d, const struct meta_object *object, uint8_t *buffer,
                     char digest[33], struct error *error)
{
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    int rc = sum && EVP_DigestInit_ex(sum, EVP_md5(), NULL) == 1 ? 0 : -ENOMEM;
    for (uint64_t at = 0; !rc && at < object->size;) {
        struct store_op get = {.kind = STORE_GET,
                               .key = object->key,
                               .if_match = object->etag[0] ? object->etag : NULL,
                               .offset = at,
                               .length = MIN(object->size - at, (uint64_t)DEEP_BUFFER),
                               .buf = buffer,
                               .buf_len = DEEP_BUFFER};
        rc = store_wait(d->w->config->store, &get);
        if (rc)
            *error = get.error;
        else if (!get.got)
            rc = error_set(error, -EIO, "ends after %llu bytes", (unsigned long long)at);
        else
            EVP_DigestUpdate(sum, buffer, get.got);
        at += get.got;
        store_op_reset(&get);
    }
    uint8_t raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (!rc)
        EVP_DigestFinal_ex(sum, raw, &len);
    if (!rc)
        hash_hex(raw, 16, digest);
    EVP_MD_CTX_free(sum);
    return rc;
}

/* Under lock: the object to read now, or false. */
static bool deep_next_locked(struct deep *d, struct meta_object *out)
{
    struct meta_object *object;
    while (!d->rc && (d->rc = next_object(d->w, &object)) > 0) {
        d->rc = is_stopped(d->w) ? -ECANCELED : 0;
        *out = *object;
        d->w->object_at++;
        if (out->state == META_OBJECT_LIVE)
            return true;
    }
    return false;
}

static void deep_note_locked(struct deep *d, const struct meta_object *object, int rc,
                             const char *digest, const struct error *error)
{
    struct walk *w = d->w;
    char text[700];
    if (is_absence(rc) || rc == -EEXIST)
        return; /* found by the listing */
    if (rc) {
        snprintf(text, sizeof(text), "cannot be read: %s", error_text(error));
        find(w, CHECK_READ, object, text, NULL);
        return;
    }
    w->counts->bytes += object->size;
    if (!is_md5(object->etag))
        return;
    if (strcasecmp(digest, object->etag) == 0) {
        w->counts->by_md5++;
        return;
    }
    struct check_finding *grown =
        reallocarray(d->differing, d->differing_count + 1, sizeof(*grown));
    if (!grown)
        return;
    d->differing = grown;
    snprintf(text, sizeof(text), "its bytes have the MD5 %s, its ETag says %s", digest,
             object->etag);
    grown[d->differing_count++] = (struct check_finding){
        .kind = CHECK_CONTENT, .key = strdup(object->key), .text = strdup(text)};
}

static void *deep_run(void *arg)
{
    struct deep *d = arg;
    cleanup(free_ptr) uint8_t *buffer = malloc(DEEP_BUFFER);
    cleanup(free_ptr) struct meta_object *object = malloc(sizeof(*object));
    pthread_mutex_lock(&d->lock);
    if (!buffer || !object)
        d->rc = d->rc ? d->rc : -ENOMEM;
    while (buffer && object && deep_next_locked(d, object)) {
        char digest[33] = "";
        struct error error = {0};
        pthread_mutex_unlock(&d->lock);
        int rc = deep_read(d, object, buffer, digest, &error);
        pthread_mutex_lock(&d->lock);
        deep_note_locked(d, object, rc, digest, &error);
        if (d->w->config->progress)
            d->w->config->progress(d->w->config->arg, d->w->counts);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static int read_everything(struct walk *w)
{
    struct deep d = {.w = w};
    unsigned parallel = w->config->parallel ? w->config->parallel : DEEP_PARALLEL, started = 0;
    cleanup(free_ptr) pthread_t *threads = calloc(parallel, sizeof(*threads));
    pthread_mutex_init(&d.lock, NULL);
    while (threads && started < parallel &&
           pthread_create(&threads[started], NULL, deep_run, &d) == 0)
        started++;
    if (!started)
        d.rc = -EAGAIN;
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < d.differing_count; i++) {
        struct check_finding *f = &d.differing[i];
        /* Where no ETag is the MD5 (a bucket encrypted with KMS keys), none says anything. */
        if (w->counts->by_md5 && f->key && f->text) {
            w->counts->found[CHECK_CONTENT]++;
            w->config->report(w->config->arg, f);
        }
        free((char *)f->key);
        free((char *)f->text);
    }
    free(d.differing);
    pthread_mutex_destroy(&d.lock);
    return d.rc < 0 ? d.rc : 0;
}

/* The next store. */
static void begin(struct walk *w, const struct check_place *place)
{
    w->object_count = w->object_at = 0;
    w->objects_end = false;
    store_route_print(place->number, w->after);
    snprintf(w->internal, sizeof(w->internal), "%s" VOLUME_INTERNAL, place->base);
}

int meta_check_bucket(const struct check_config *config, struct check_counts *counts,
                      struct error *error)
{
    struct error own = {0};
    struct walk w = {.config = config, .counts = counts, .error = error ? error : &own};
    cleanup(free_ptr) struct check_place *places = NULL;
    memset(counts, 0, sizeof(*counts));
    error_clear(w.error);
    int count = check_places(config->engine, config->store, &places), rc = MIN(count, 0);
    w.objects = calloc(STEP, sizeof(*w.objects));
    if (!rc && !w.objects)
        rc = -ENOMEM;
    for (int i = 0; !rc && i < count; i++) {
        begin(&w, &places[i]);
        rc = walk_bucket(&w, places[i].base);
    }
    for (int i = 0; !rc && config->deep && i < count; i++) {
        begin(&w, &places[i]);
        rc = read_everything(&w);
    }
    free(w.objects);
    if (rc && !w.error->code)
        error_set(w.error, rc, "%s", strerror(-rc));
    return rc;
}

struct engine *meta_engine(struct meta *meta)
{
    return meta->engine;
}
