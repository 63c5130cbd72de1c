/*
 * What is in the bucket as this volume's own and is in no table. A key is looked up after it was
 * listed: whatever this volume writes has its record before it is written, and an internal key is
 * never used twice, so that what has no record then is nobody's. Natural keys may be written again
 * at any time: they are only deleted with the ETag that was seen, and if their tags are ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bucket_list.h"
#include "carry_entry.h"
#include "check_stores.h"
#include "many.h"
#include "meta/check.h"
#include "volume.h"

#define OBJECTS_FOLDER "o/"
#define PARALLEL_DEFAULT 32

struct hunt {
    const struct orphan_config *config;
    struct orphan_counts *counts;
    struct meta_volume volume;
    const struct check_place *place;
    char internal[META_KEY_MAX + 16];
    char **keys; /* to be deleted; owned */
    uint64_t *sizes;
    size_t key_count, key_cap;
    struct error *error;
};

const char *orphan_kind_name(enum orphan_kind kind)
{
    static const char *const names[] = {"objects", "entries", "strays", "uploads", "former"};
    return names[kind];
}

static int remember(struct hunt *h, const char *key, uint64_t size)
{
    if (h->key_count == h->key_cap) {
        size_t cap = h->key_cap ? 2 * h->key_cap : 256;
        char **keys = reallocarray(h->keys, cap, sizeof(*keys));
        if (keys)
            h->keys = keys;
        uint64_t *sizes = keys ? reallocarray(h->sizes, cap, sizeof(*sizes)) : NULL;
        if (!sizes)
            return -ENOMEM;
        h->sizes = sizes;
        h->key_cap = cap;
    }
    h->keys[h->key_count] = strdup(key);
    h->sizes[h->key_count] = size;
    return h->keys[h->key_count] ? (h->key_count++, 0) : -ENOMEM;
}

static uint64_t age_of(const struct hunt *h, uint64_t mtime_ns)
{
    return h->config->now_ns > mtime_ns ? h->config->now_ns - mtime_ns : 0;
}

/* Counts and reports; true if it is old enough. */
static bool note(struct hunt *h, enum orphan_kind kind, const struct store_entry *e)
{
    uint64_t age = age_of(h, e->mtime_ns);
    struct orphan orphan = {.kind = kind,
                            .key = e->name,
                            .size = e->size,
                            .age_s = age / NS_PER_S,
                            .young = age < h->config->older_than_ns};
    if (orphan.young) {
        h->counts->young++;
    } else {
        h->counts->found[kind]++;
        h->counts->bytes[kind] += e->size;
    }
    if (h->config->report)
        h->config->report(h->config->arg, &orphan);
    return !orphan.young;
}

/* The inode that an entry's key names: 0 if it is no such key. */
static uint64_t entry_ino(const char *name)
{
    char *end;
    uint64_t ino = strtoull(name, &end, 16);
    return *end || strlen(name) != 16 ? 0 : ino;
}

/* 1: an orphan of this kind; 0: in use or not ours to judge; -errno. */
static int judge_internal(struct hunt *h, const char *key, enum orphan_kind *kind)
{
    const char *rest = key + strlen(h->internal);
    bool object = !strncmp(rest, OBJECTS_FOLDER, strlen(OBJECTS_FOLDER));
    bool entry = !strncmp(rest, CARRY_FOLDER, strlen(CARRY_FOLDER));
    if (!object && !entry)
        return 0;
    rest += 2;
    if (strlen(rest) < 10 || rest[8] != '/')
        return 0;
    if (strncmp(rest, h->volume.id, 8) != 0) {
        *kind = ORPHAN_FORMER;
        return 1;
    }
    *kind = object ? ORPHAN_OBJECT : ORPHAN_ENTRY;
    if (object) {
        int known = engine_key_known(h->config->engine, key);
        return known < 0 ? known : !known;
    }
    if (h->place->number)
        return 0; /* entries are in the volume's own store */
    struct engine_carry_facts facts;
    uint64_t ino = entry_ino(rest + 9);
    int rc = ino ? engine_carry_look(h->config->engine, ino, &facts) : 0;
    if (!ino || (rc && rc != -ENOENT))
        return rc;
    return rc == -ENOENT || !facts.carried;
}

static int take_internal(struct hunt *h, const struct store_entry *e)
{
    enum orphan_kind kind;
    int rc = judge_internal(h, e->name, &kind);
    if (rc <= 0 || !note(h, kind, e))
        return rc < 0 ? rc : 0;
    bool wanted = h->config->remove && (kind != ORPHAN_FORMER || h->config->former) &&
                  (kind != ORPHAN_ENTRY || !h->config->living);
    return wanted ? remember(h, e->name, e->size) : 0;
}

/* Natural keys whose tags say that this volume wrote them, and that it does not know */

static int delete_stray(struct hunt *h, const struct store_entry *e, const char *etag)
{
    int known = engine_key_known(h->config->engine, e->name);
    if (known)
        return known < 0 ? known : 0;
    struct store_op op = {.kind = STORE_DELETE, .key = e->name, .if_match = etag};
    int rc = store_wait(h->config->store, &op);
    if (!rc) {
        h->counts->deleted++;
        h->counts->deleted_bytes += e->size;
        log_info("stray object deleted", "key=%s", e->name);
    } else {
        h->counts->failed += rc != -ENOENT && rc != -EEXIST;
    }
    store_op_reset(&op);
    return 0;
}

static int take_strays(struct hunt *h, const struct store_list *page)
{
    unsigned parallel = h->config->parallel ? h->config->parallel : PARALLEL_DEFAULT;
    cleanup(free_ptr) struct store_op *heads = calloc(page->count + 1, sizeof(*heads));
    int rc = heads ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < page->count; i++) {
        const char *key = page->entries[i].name;
        if (!strncmp(key, h->internal, strlen(h->internal)))
            continue;
        int known = engine_key_known(h->config->engine, key);
        if (known < 0)
            rc = known;
        else if (!known)
            heads[i] = (struct store_op){.kind = STORE_HEAD, .key = key};
    }
    if (!rc)
        many_run(h->config->store, heads, page->count, parallel);
    for (size_t i = 0; !rc && i < page->count; i++) {
        uint64_t object = 0;
        if (!heads[i].key || heads[i].result ||
            tags_compare(&heads[i], &h->volume, 0, &object) == TAGS_NONE)
            continue;
        if (engine_is_earlier(h->config->engine, object))
            continue; /* a file that is not imported yet, if the metadata was restored since */
        if (note(h, ORPHAN_STRAY, &page->entries[i]) && h->config->remove)
            rc = delete_stray(h, &page->entries[i], heads[i].info.etag);
    }
    for (size_t i = 0; heads && i < page->count; i++)
        if (heads[i].key && heads[i].store)
            store_op_reset(&heads[i]);
    return rc;
}

static int walk_keys(struct hunt *h)
{
    struct bucket_list list;
    const struct store_list *page;
    int rc;
    struct list_range range = {.prefix = h->config->strays ? h->place->base : h->internal};
    bucket_list_init(&list, h->config->store, STORE_LIST, &range);
    while ((rc = bucket_list_next(&list, &page, h->error)) > 0) {
        for (size_t i = 0; rc >= 0 && i < page->count; i++)
            if (!strncmp(page->entries[i].name, h->internal, strlen(h->internal)))
                rc = take_internal(h, &page->entries[i]);
        if (rc >= 0 && h->config->strays)
            rc = take_strays(h, page);
        if (rc < 0)
            break;
        h->counts->keys += page->count;
        if (h->config->progress)
            h->config->progress(h->config->arg, h->counts);
        if (h->config->stop && h->config->stop(h->config->arg)) {
            rc = -ECANCELED;
            break;
        }
    }
    bucket_list_done(&list);
    return rc;
}

/* Uploads */

static int abort_upload(struct hunt *h, const struct store_entry *e)
{
    struct store_op op = {.kind = STORE_MPU_ABORT,
                          .key = e->name,
                          .upload_id = e->upload_id ? e->upload_id : e->etag};
    int rc = store_wait(h->config->store, &op);
    h->counts->deleted += rc == 0;
    h->counts->failed += rc && rc != -ENOENT;
    store_op_reset(&op);
    return 0;
}

static int take_upload(struct hunt *h, const struct store_entry *e)
{
    enum orphan_kind kind;
    h->counts->uploads++;
    if (strncmp(e->name, h->internal, strlen(h->internal)) != 0) {
        int known = engine_key_known(h->config->engine, e->name);
        h->counts->foreign_uploads += known == 0;
        return known < 0 ? known : 0;
    }
    int rc = judge_internal(h, e->name, &kind);
    if (rc <= 0)
        return rc;
    if (kind != ORPHAN_FORMER)
        kind = ORPHAN_UPLOAD;
    bool old = note(h, kind, e);
    bool wanted = h->config->remove && (kind != ORPHAN_FORMER || h->config->former);
    return old && wanted ? abort_upload(h, e) : 0;
}

static int walk_uploads(struct hunt *h)
{
    struct bucket_list list;
    const struct store_list *page;
    int rc;
    struct list_range range = {.prefix = h->place->base};
    bucket_list_init(&list, h->config->store, STORE_MPU_LIST, &range);
    while ((rc = bucket_list_next(&list, &page, h->error)) > 0)
        for (size_t i = 0; rc >= 0 && i < page->count; i++) {
            rc = take_upload(h, &page->entries[i]);
            if (rc < 0)
                break;
        }
    bucket_list_done(&list);
    return rc == -EOPNOTSUPP ? 0 : rc;
}

static int delete_all(struct hunt *h)
{
    uint64_t failed = 0;
    int rc = h->key_count ? many_delete(h->config->store, (const char *const *)h->keys,
                                        h->key_count, &failed, h->error)
                          : 0;
    h->counts->failed += failed;
    if (rc)
        return rc;
    h->counts->deleted += h->key_count - failed;
    for (size_t i = 0; i < h->key_count; i++)
        h->counts->deleted_bytes += h->sizes[i];
    return 0;
}

static void forget_all(struct hunt *h)
{
    for (size_t i = 0; i < h->key_count; i++)
        free(h->keys[i]);
    h->key_count = 0;
}

static int hunt_in(struct hunt *h, const struct check_place *place)
{
    h->place = place;
    snprintf(h->internal, sizeof(h->internal), "%s" VOLUME_INTERNAL, place->base);
    int rc = walk_keys(h);
    if (!rc)
        rc = walk_uploads(h);
    if (!rc)
        rc = delete_all(h); /* of one store, as a request is */
    forget_all(h);
    return rc;
}

int meta_find_orphans(const struct orphan_config *config, struct orphan_counts *counts,
                      struct error *error)
{
    struct error own = {0};
    struct hunt h = {.config = config, .counts = counts, .error = error ? error : &own};
    cleanup(free_ptr) struct check_place *places = NULL;
    memset(counts, 0, sizeof(*counts));
    error_clear(h.error);
    int rc = engine_volume(config->engine, &h.volume);
    int count = rc ? rc : check_places(config->engine, config->store, &places);
    rc = MIN(count, 0);
    for (int i = 0; !rc && i < count; i++)
        rc = places[i].read_only ? 0 : hunt_in(&h, &places[i]);
    free(h.keys);
    free(h.sizes);
    if (rc && !h.error->code)
        error_set(h.error, rc, "%s", strerror(-rc));
    return rc;
}
