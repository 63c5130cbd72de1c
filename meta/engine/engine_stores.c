#include "engine_stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine_impl.h"
#include "meta/engine.h"
#include "meta/stores.h"
#include "s3/mux.h"

#define EMPTY_DEFAULT 256
#define DEPTH_MAX (META_KEY_MAX / 2 + 1)

/* What is known of the stores */

static void set_known(struct engine *engine, unsigned number, struct meta_store *store)
{
    struct engine_stores *stores = &engine->stores;
    pthread_mutex_lock(&stores->lock);
    stores->count += (store != NULL) - (stores->known[number] != NULL);
    struct meta_store *former = stores->known[number];
    stores->known[number] = store;
    pthread_mutex_unlock(&stores->lock);
    free(former);
}

int engine_stores_load(struct engine *engine)
{
    struct record_key prefix;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    engine_stores_free(engine);
    record_key_text(&prefix, RECORD_STORE_PREFIX);
    engine_iter_init(&iter, engine, NULL, TABLE_SYSTEM, &prefix, NULL, prefix.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct meta_store *store = malloc(sizeof(*store));
        if (!store) {
            rc = -ENOMEM;
            break;
        }
        if (record_store_decode(v, v_len, store) < 0) {
            free(store);
            rc = -EIO;
            break;
        }
        set_known(engine, store->number, store);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

void engine_stores_free(struct engine *engine)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++)
        if (engine->stores.known[i])
            set_known(engine, i, NULL);
}

void engine_stores_note(struct engine *engine, const struct meta_op *op)
{
    if (op->kind == META_STORE_DROP)
        set_known(engine, (unsigned)op->length, NULL);
    if (op->kind != META_STORE_SET)
        return;
    /* Prepared by the apply, so that this cannot fail. */
    struct meta_store *store = TAKE_PTR(engine->store_new);
    set_known(engine, store->number, store);
}

int engine_stores(struct engine *engine, struct meta_store *out, int max)
{
    int count = 0;
    pthread_mutex_lock(&engine->stores.lock);
    for (unsigned i = 1; i <= META_STORES_MAX && count < max; i++)
        if (engine->stores.known[i])
            out[count++] = *engine->stores.known[i];
    pthread_mutex_unlock(&engine->stores.lock);
    return count;
}

void engine_store_name(struct engine *engine, unsigned number, char out[META_STORE_NAME_MAX + 1])
{
    pthread_mutex_lock(&engine->stores.lock);
    const struct meta_store *store = engine->stores.known[number];
    strcpy(out, store ? store->name : number ? "?" : META_STORE_OWN);
    pthread_mutex_unlock(&engine->stores.lock);
}

bool engine_key_is_internal(struct engine *engine, const char *key)
{
    static const char internal[] = ".sluice/";
    pthread_mutex_lock(&engine->stores.lock);
    size_t base = engine_key_base(engine, key, strlen(key));
    pthread_mutex_unlock(&engine->stores.lock);
    return strlen(key) > base && strncmp(key + base, internal, sizeof(internal) - 1) == 0;
}

const struct meta_store *engine_key_store(const struct engine *engine, const char *key, size_t len)
{
    size_t skip;
    return engine->stores.known[store_route(key, len, &skip)];
}

size_t engine_key_base(const struct engine *engine, const char *key, size_t len)
{
    size_t skip;
    unsigned number = store_route(key, len, &skip);
    const struct meta_store *store = engine->stores.known[number];
    size_t base = skip + strlen(store ? store->prefix : number ? "" : engine->volume.prefix);
    return base < len ? base : len;
}

bool engine_beside(const struct engine *engine, const char *key, size_t len)
{
    const struct meta_store *store = engine_key_store(engine, key, len);
    return store ? store->file_beside_directory : engine->volume.file_beside_directory;
}

int engine_store_base(const struct engine *engine, unsigned number, char out[META_KEY_MAX + 8])
{
    const struct meta_store *store = engine->stores.known[number];
    if (number && !store)
        return -ENOENT;
    size_t len = store_route_print(number, out);
    const char *prefix = store ? store->prefix : engine->volume.prefix;
    strcpy(out + len, prefix);
    return (int)(len + strlen(prefix));
}

/* Places */

int engine_place_get(struct engine_txn *t, const struct engine_node *dir, struct record_place *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    if (!(dir->now.flags & RECORD_PLACE))
        return 0;
    record_key_place(&key, dir->ino);
    int rc = engine_txn_get(t, TABLE_SYSTEM, &key, &value, &len);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return record_place_decode(value, len, out) < 0 ? -EIO : 1;
}

bool engine_place_binds(const struct engine_txn *t, const struct record_place *place,
                        const struct engine_node *node)
{
    return !place->after_s || (S_ISREG(node->now.mode) && t->time_ns / NS_PER_S >= place->after_s &&
                               node->now.mtime_ns <= t->time_ns - place->after_s * NS_PER_S);
}

static int place_put(struct engine_txn *t, struct engine_node *dir,
                     const struct record_place *place)
{
    struct record_key key;
    struct buf *b = engine_txn_scratch(t);
    record_place_encode(b, place);
    record_key_place(&key, dir->ino);
    dir->now.flags |= RECORD_PLACE;
    dir->dirty = true;
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_SYSTEM, &key, b->data, b->len);
}

int engine_place_drop(struct engine_txn *t, struct engine_node *dir)
{
    struct record_key key;
    if (!(dir->now.flags & RECORD_PLACE))
        return 0;
    dir->now.flags &= ~(uint32_t)RECORD_PLACE;
    dir->dirty = true;
    record_key_place(&key, dir->ino);
    return engine_txn_delete(t, TABLE_SYSTEM, &key);
}

int engine_home(struct engine_txn *t, struct engine_node *node, struct engine_home *out)
{
    const struct engine_node *self = node;
    *out = (struct engine_home){.top = META_ROOT_INO, .writable = true};
    if (t->engine->stores.count == 0)
        return 0;
    for (;;) {
        struct record_place place;
        int rc = engine_place_get(t, node, &place);
        if (rc < 0)
            return rc;
        if (rc > 0 && !place.class[0] && engine_place_binds(t, &place, self)) {
            const struct meta_store *store = t->engine->stores.known[place.store];
            out->store = (unsigned)place.store;
            out->paused = place.paused;
            out->writable = !place.store || (store && !store->read_only && !store->detaching);
            if (place.attached)
                out->top = node->ino;
            return 0;
        }
        if (node->ino == META_ROOT_INO || node->now.parent == 0)
            return 0;
        rc = engine_txn_inode(t, node->now.parent, &node);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
    }
}

/* Changes */

static bool name_is_free(const struct engine *engine, const struct meta_store *store)
{
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        const struct meta_store *other = engine->stores.known[i];
        if (other && i != store->number && strcmp(other->name, store->name) == 0)
            return false;
    }
    return true;
}

/* The directory's names come from the store from now on. */
static int attach(struct engine_txn *t, struct engine_node *dir, const struct meta_store *store)
{
    struct record_place place = {.store = store->number, .attached = true};
    char base[META_KEY_MAX + 8];
    uint64_t owner;
    size_t len = store_route_print(store->number, base);
    strcpy(base + len, store->prefix);
    len += strlen(store->prefix);
    if (len >= META_KEY_MAX)
        return -ENAMETOOLONG;
    int rc = engine_claim_get(t, base, len, &owner);
    if (rc == 0 && owner)
        rc = -EBUSY;
    if (rc == 0)
        rc = engine_settle_unqueue(t, dir);
    if (rc == 0)
        rc = engine_origin_drop(t, dir);
    if (rc == 0)
        rc = engine_origin_set(t, dir, arena_copy(&t->arena, base, len), len);
    if (rc == 0)
        rc = place_put(t, dir, &place);
    dir->now.listed_ns = 0;
    dir->now.flags |= RECORD_TOUCHED;
    if (rc == 0)
        engine_node_touch_dir(t, dir);
    return rc;
}

/* The directory that a store is attached at: 1; 0: it is attached at none (any more). */
static int attached_root(struct engine_txn *t, const struct meta_store *store,
                         struct engine_node **out)
{
    struct record_place place;
    int rc = store->root ? engine_txn_inode(t, store->root, out) : -ENOENT;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = S_ISDIR((*out)->now.mode) ? engine_place_get(t, *out, &place) : 0;
    return rc > 0 ? place.attached && place.store == store->number : rc;
}

/* Its names were being forgotten, and no longer are: they are listed anew. */
static int list_again(struct engine_txn *t, const struct meta_store *store)
{
    struct engine_node *root;
    char base[META_KEY_MAX + 8];
    int rc = attached_root(t, store, &root);
    if (rc <= 0 || root->now.flags & RECORD_ORIGIN)
        return rc < 0 ? rc : 0;
    size_t len = store_route_print(store->number, base);
    strcpy(base + len, store->prefix);
    len += strlen(store->prefix);
    root->now.listed_ns = 0;
    return engine_origin_set(t, root, arena_copy(&t->arena, base, len), len);
}

int engine_apply_store_set(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    const struct meta_store *store = op->store;
    struct engine_node *dir = NULL;
    struct record_key key;
    if (!store || store->number == 0 || store->number > META_STORES_MAX ||
        op->length != store->number)
        return -EINVAL;
    if (!name_is_free(t->engine, store))
        return -EEXIST;
    int rc = op->ino ? engine_txn_dir(t, op->ino, &dir) : 0;
    if (rc < 0)
        return rc;
    if (dir && (dir->ino == META_ROOT_INO || dir->now.flags & RECORD_PLACE ||
                t->engine->stores.known[store->number]))
        return -EBUSY;
    if (dir && dir->now.children > 0)
        return -ENOTEMPTY;
    struct buf *b = engine_txn_scratch(t);
    record_store_encode(b, store);
    record_key_store_row(&key, store->number);
    rc = buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_SYSTEM, &key, b->data, b->len);
    if (rc == 0 && dir)
        rc = attach(t, dir, store);
    else if (rc == 0 && !store->detaching)
        rc = list_again(t, store);
    if (rc < 0)
        return rc;
    free(t->engine->store_new);
    t->engine->store_new = malloc(sizeof(*store));
    if (!t->engine->store_new)
        return -ENOMEM;
    *t->engine->store_new = *store;
    if (dir)
        engine_attr(dir->ino, &dir->now, &reply->attr);
    return 0;
}

/* A key, a claim or a directory of the store: -EBUSY. */
static int check_unused(struct engine_txn *t, const struct meta_store *store, uint64_t root)
{
    static const enum engine_table tables[] = {TABLE_KEY, TABLE_CLAIM};
    char route[STORE_ROUTE_MAX + 1];
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len, len = store_route_print(store->number, route);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(tables); i++) {
        record_key_store(&key, route, len);
        engine_iter_init(&iter, t->engine, NULL, tables[i], &key, NULL, key.len);
        rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len);
        if (rc > 0)
            rc = i == 1 && v_len == 9 && record_get_u64(v + 1) == root ? 0 : -EBUSY;
        engine_iter_done(&iter);
    }
    record_key_text(&key, RECORD_PLACE_PREFIX);
    engine_iter_init(&iter, t->engine, NULL, TABLE_SYSTEM, &key, NULL, key.len);
    while (rc == 0 && (rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_place place;
        rc = k_len == key.len + 8 && record_place_decode(v, v_len, &place) == 0 ? 0 : -EIO;
        if (rc == 0 && place.store == store->number && record_get_u64(k + key.len) != root)
            rc = -EBUSY;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_apply_store_drop(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct engine_node *root = NULL;
    struct record_key key;
    if (op->length == 0 || op->length > META_STORES_MAX || !t->engine->stores.known[op->length])
        return -ENOENT;
    const struct meta_store *store = t->engine->stores.known[op->length];
    int rc = attached_root(t, store, &root);
    if (rc < 0)
        return rc;
    bool attached = rc > 0;
    if (attached && root->now.children > 0)
        return -ENOTEMPTY;
    rc = check_unused(t, store, attached ? root->ino : 0);
    if (rc == 0 && attached)
        rc = engine_place_drop(t, root);
    if (rc == 0 && attached)
        rc = engine_origin_drop(t, root);
    if (rc < 0)
        return rc;
    if (attached) {
        engine_node_touch_dir(t, root);
        engine_attr(root->ino, &root->now, &reply->attr);
    }
    record_key_store_row(&key, op->length);
    return engine_txn_delete(t, TABLE_SYSTEM, &key);
}

int engine_apply_store_place(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply)
{
    struct record_place place = {
        .store = op->length, .paused = (op->flags & META_PLACE_PAUSED) != 0, .after_s = op->offset};
    struct engine_node *dir;
    int rc = engine_txn_dir(t, op->ino, &dir);
    if (rc < 0)
        return rc;
    if (op->length > META_STORES_MAX || op->offset > RECORD_AFTER_MAX)
        return -EINVAL;
    if (op->data_len > META_CLASS_MAX || (op->data_len && op->length))
        return -EINVAL;
    if (op->data_len)
        memcpy(place.class, op->data, op->data_len);
    if (strlen(place.class) != op->data_len)
        return -EINVAL;
    const struct meta_store *store = t->engine->stores.known[op->length];
    bool none = op->flags & META_PLACE_NONE;
    if (!none && op->length && !store)
        return -ENOENT;
    if (!none && store && (store->read_only || store->detaching))
        return -EROFS;
    /* Its keys are those of the directory it is attached at. */
    if (!none && store && store->root)
        return -EXDEV;
    if (none && !(dir->now.flags & RECORD_PLACE))
        return -ENODATA;
    if (op->flags & META_PLACE_LOOK)
        return engine_settle_queue(t, dir, t->time_ns);
    rc = none ? engine_place_drop(t, dir) : place_put(t, dir, &place);
    if (rc == 0)
        rc = engine_settle_queue(t, dir, t->time_ns);
    if (rc < 0)
        return rc;
    engine_node_touch(t, dir);
    engine_attr(dir->ino, &dir->now, &reply->attr);
    return 0;
}

/* Emptying a directory that a store is attached at: nothing in the store is touched. */

struct emptying {
    struct engine_txn *t;
    const struct meta_store *store;
    struct meta_reply *reply;
    struct engine_node *dir;
    uint32_t max;
};

/* Nothing would be lost but the name: all of its bytes are in the store. */
static int is_kept_in_store(struct emptying *e, struct engine_node *node)
{
    struct record_object object;
    const struct record_inode *inode = &node->now;
    if (!S_ISREG(inode->mode) || inode->due_ns || inode->body != RECORD_BODY_OBJECT ||
        inode->object_offset || inode->object_length != inode->size)
        return 0;
    int rc = engine_object_get(e->t, inode->object, &object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return object.size == inode->size &&
           engine_key_store(e->t->engine, object.key, object.key_len) == e->store;
}

/* 1: a directory to look into first; 0: removed; -EBUSY: something that is nowhere else. */
static int empty_name(struct emptying *e, const char *name, size_t len, struct engine_node *node)
{
    struct meta_reply *reply = e->reply;
    if (S_ISDIR(node->now.mode)) {
        if (node->now.flags & RECORD_PLACE)
            return -EBUSY;
        if (node->now.children > 0 || node->now.flags & RECORD_ORIGIN)
            return 1;
    } else {
        int kept = is_kept_in_store(e, node);
        if (kept <= 0)
            return kept < 0 ? kept : -EBUSY;
    }
    struct meta_entry *entry = &reply->entries[reply->entry_count];
    char *copy = meta_reply_alloc(reply, len);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, name, len);
    int rc = engine_name_remove(e->t, e->dir, copy, len, node, false);
    if (rc < 0)
        return rc;
    *entry = (struct meta_entry){
        .name = copy, .name_len = len, .ino = node->ino, .is_dir = S_ISDIR(node->now.mode)};
    engine_attr(node->ino, &node->now, &entry->attr);
    reply->entry_count++;
    return 0;
}

/* One directory's names, until one must be looked into. 1 and that one; 0: all done, or enough. */
static int empty_dir(struct emptying *e, struct engine_node **into)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc = engine_origin_drop(e->t, e->dir);
    if (rc < 0 || e->dir->now.children == 0)
        return rc;
    record_key_named(&key, e->dir->ino, NULL, 0);
    engine_iter_init(&iter, e->t->engine, NULL, TABLE_DENTRY, &key, NULL, 8);
    while (e->reply->entry_count < e->max &&
           (rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_dentry dentry;
        struct engine_node *node;
        rc = k_len > 8 && record_dentry_decode(v, v_len, &dentry) == 0 ? 0 : -EIO;
        if (rc == 0)
            rc = engine_txn_inode(e->t, dentry.ino, &node);
        if (rc == 0)
            rc = empty_name(e, (const char *)k + 8, k_len - 8, node);
        if (rc > 0)
            *into = node;
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc < 0 ? rc : rc > 0 && *into != NULL;
}

/* What a read-only store has of deleted names is known only as long as it is attached. */
static int forget_garbage(struct engine_txn *t, const struct meta_store *store, uint32_t max,
                          uint32_t *forgotten)
{
    char route[STORE_ROUTE_MAX + 1];
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc = 0;
    *forgotten = 0;
    record_key_store(&key, route, store_route_print(store->number, route));
    engine_iter_init(&iter, t->engine, NULL, TABLE_KEY, &key, NULL, key.len);
    while (*forgotten < max && (rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_object object;
        uint64_t id = v_len == 9 ? record_get_u64(v + 1) : 0;
        rc = engine_object_get(t, id, &object);
        if (rc == 0 && object.state == META_OBJECT_GARBAGE && !object.due_ns) {
            rc = engine_object_forget(t, id, &object);
            ++*forgotten;
        }
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc < 0 ? rc : 0;
}

int engine_apply_store_empty(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply)
{
    struct emptying e = {.t = t, .reply = reply, .max = op->count ? op->count : EMPTY_DEFAULT};
    if (op->length == 0 || op->length > META_STORES_MAX || !t->engine->stores.known[op->length])
        return -ENOENT;
    e.store = t->engine->stores.known[op->length];
    if (!e.store->detaching)
        return -EINVAL;
    int rc = attached_root(t, e.store, &e.dir);
    reply->end = rc == 0;
    if (rc <= 0)
        return rc;
    reply->entries = meta_reply_alloc(reply, e.max * sizeof(*reply->entries));
    if (!reply->entries)
        return -ENOMEM;
    struct engine_node *into = NULL;
    for (int depth = 0; (rc = empty_dir(&e, &into)) > 0 && reply->entry_count == 0; depth++) {
        if (depth == DEPTH_MAX)
            return -ELOOP;
        e.dir = into;
        into = NULL;
    }
    reply->attr.ino = e.dir->ino;
    reply->end = rc == 0 && e.dir->ino == e.store->root && e.dir->now.children == 0;
    if (rc < 0 || !reply->end || !e.store->read_only)
        return rc < 0 ? rc : 0;
    uint32_t forgotten;
    rc = forget_garbage(t, e.store, e.max, &forgotten);
    reply->end = forgotten < e.max;
    return rc;
}

/* Reading: any thread */

/* Whether a directory at or below `top` still waits to have its files queued: 1 or 0. */
static int has_queued(struct engine *engine, uint64_t top)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int found = 0;
    record_key_work(&key, RECORD_WORK_SETTLE, 0);
    engine_iter_init(&iter, engine, NULL, TABLE_WORK, &key, NULL, 1);
    while (!found && engine_iter_get(&iter, &k, &k_len, &v, &v_len) > 0) {
        struct record_queue row;
        if (k_len == 17 && record_queue_decode(v, v_len, &row) == 0 && row.subtree)
            found = engine_read_below(engine, record_get_u64(k + 9), top) > 0;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return found;
}

static int read_places(struct engine *engine, struct buf *out)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    record_key_text(&key, RECORD_PLACE_PREFIX);
    engine_iter_init(&iter, engine, NULL, TABLE_SYSTEM, &key, NULL, key.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_place row;
        if (k_len != key.len + 8 || record_place_decode(v, v_len, &row) < 0) {
            rc = -EIO;
            break;
        }
        struct engine_place place = {.ino = record_get_u64(k + key.len),
                                     .store = (unsigned)row.store,
                                     .attached = row.attached,
                                     .paused = row.paused,
                                     .after_s = row.after_s};
        strcpy(place.class, row.class);
        place.queued = !row.attached && has_queued(engine, place.ino);
        buf_put(out, &place, sizeof(place));
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_places(struct engine *engine, struct engine_place **out)
{
    struct buf list;
    size_t len;
    buf_init(&list, 0);
    pthread_rwlock_rdlock(&engine->gate);
    int rc = engine->db ? read_places(engine, &list) : -EIO;
    pthread_rwlock_unlock(&engine->gate);
    if (rc == 0 && buf_error(&list))
        rc = -ENOMEM;
    *out = rc == 0 ? (struct engine_place *)(void *)buf_take(&list, &len) : NULL;
    buf_done(&list);
    return rc < 0 ? rc : *out ? (int)(len / sizeof(**out)) : 0;
}
