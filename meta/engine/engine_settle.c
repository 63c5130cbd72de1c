/*
 * Settling: which step brings a file nearer to being one object at its desired key, and what
 * becomes of the tables when the step was done.
 *
 * A step never writes a key that an object in use stands at (I1), and nothing but a free key or our
 * own recorded garbage (I2). So a file whose key is held by another file's object waits until that
 * file has moved on; when files hold each other's keys in a ring, or the holder cannot move, the
 * holder is told to leave for an internal key (RECORD_EVICT). A file that was changed in the middle
 * of its own settled object leaves for an internal key too, and comes back by its next step.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "s3/mux.h"

#define MS ((uint64_t)1000000)
#define WAIT_NS (200 * MS)          /* for another file, or for gc */
#define CLAIMED_WAIT_NS (5000 * MS) /* for a renamed directory's subtree */
#define LISTED_LONG_AGO 1
#define CHAIN_MAX 64
#define UPLOAD_MAX ((uint64_t)5 << 20)
#define SUBTREE_DEFAULT 256

/* What a step would write. */
struct target {
    bool natural, replaces;
    char key[META_KEY_MAX + 1];
    char class[META_CLASS_MAX + 1]; /* if natural */
    size_t len;
    uint64_t old; /* replaces: the garbage */
    struct record_object old_object;
};

static bool is_quiet(const struct engine_txn *t, const struct engine_node *node)
{
    return node->now.flags & (RECORD_HURRY | RECORD_EVICT) ||
           t->time_ns >= node->now.changed_ns + engine_settle_delay_ns(t->engine);
}

static int wait_with_reason(struct engine_txn *t, struct engine_node *node, uint64_t ns,
                            const char *reason)
{
    return engine_settle_requeue(t, node, t->time_ns + ns, reason, strlen(reason));
}

/* Whether a file's extents use an object: 1 or 0. */
static int uses_object(struct engine_txn *t, uint64_t ino, uint64_t object,
                       struct engine_node **out)
{
    struct meta_extent *list = NULL;
    size_t count;
    int rc = engine_txn_inode(t, ino, out);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!S_ISREG((*out)->now.mode))
        return 0;
    if ((*out)->now.body == RECORD_BODY_OBJECT)
        return (*out)->now.object == object;
    if ((*out)->now.body != RECORD_BODY_MANY)
        return 0;
    rc = engine_extents_load(t->engine, NULL, ino, &(*out)->now, 0, UINT64_MAX, &t->arena, &list,
                             &count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (list[i].kind == META_EXTENT_OBJECT && list[i].object == object)
            return 1;
    }
    return rc;
}

/* A file that uses an object: 1, or 0 if there is none to be found. */
static int find_user(struct engine_txn *t, uint64_t id, const struct record_object *object,
                     struct engine_node **out)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc = uses_object(t, object->ino, id, out);
    if (rc != 0 || !object->shared)
        return rc;
    record_key_u64(&key, id);
    engine_iter_init(&iter, t->engine, NULL, TABLE_OBJECT, &key, NULL, key.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len == 16 ? uses_object(t, record_get_u64(k + 8), id, out) : 0;
        if (rc != 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

static int evict(struct engine_txn *t, struct engine_node *node)
{
    node->now.flags |= RECORD_EVICT;
    return engine_settle_requeue(t, node, t->time_ns, NULL, 0);
}

/* Its last try failed, and the next one is not due yet. */
static bool has_failed(struct engine_txn *t, const struct engine_node *node)
{
    struct record_key key;
    struct record_queue row;
    const uint8_t *value;
    size_t len;
    if (node->now.due_ns <= t->time_ns)
        return false;
    record_key_work2(&key, RECORD_WORK_SETTLE, node->now.due_ns, node->ino);
    return engine_txn_get(t, TABLE_WORK, &key, &value, &len) == 0 &&
           record_queue_decode(value, len, &row) == 0 && row.reason_len > 0;
}

/* The file in front of `node` is to move on: it is queued if it was not. One that failed has its
 * time, however often somebody else needs its place. */
static int urge(struct engine_txn *t, struct engine_node *node)
{
    if (node->now.nlink && has_failed(t, node))
        return 0;
    if (!is_quiet(t, node) || node->now.nlink == 0)
        return evict(t, node);
    return node->now.due_ns && node->now.due_ns <= t->time_ns
               ? 0
               : engine_settle_requeue(t, node, t->time_ns, NULL, 0);
}

/* The object that is in the way of a key: at it, above or below it. 1, or 0 if there is none. */
static int in_the_way(struct engine_txn *t, const char *key, size_t len, uint64_t *id,
                      struct record_object *object)
{
    int rc = engine_key_holder(t, key, len, id);
    if (rc == 0 && !*id)
        rc = engine_key_neighbour(t, key, len, id);
    if (rc < 0 || !*id)
        return rc;
    rc = engine_object_get(t, *id, object);
    return rc < 0 ? (rc == -ENOENT ? -EIO : rc) : 1;
}

/* A file's object is in the way of the desired key of `node`. Follows who waits for whom: at the
 * end stands a file that can move, or a ring. */
static int blocked(struct engine_txn *t, struct engine_node *node, uint64_t id,
                   struct record_object *object)
{
    struct engine_node *first = NULL, *at = NULL;
    for (int i = 0; i < CHAIN_MAX; i++) {
        char key[META_KEY_MAX + 1];
        size_t len;
        int rc = find_user(t, id, object, &at);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        if (!first)
            first = at;
        if (at->now.flags & RECORD_EVICT && at->now.due_ns)
            break; /* it is on its way: the ring is being opened already */
        if (at == node) {
            rc = evict(t, first);
            if (rc < 0 || first == node)
                return rc;
            return wait_with_reason(t, node, WAIT_NS, "files hold each other's keys");
        }
        rc = at->now.nlink ? engine_key_natural(t, at, key, &len) : 0;
        if (rc > 0)
            rc = in_the_way(t, key, len, &id, object);
        if (rc < 0)
            return rc;
        if (rc == 0 || object->state != META_OBJECT_LIVE) {
            rc = urge(t, at);
            if (rc < 0)
                return rc;
            break;
        }
    }
    uint64_t wait_ns = at && has_failed(t, at) ? CLAIMED_WAIT_NS : WAIT_NS;
    return wait_with_reason(t, node, wait_ns, "another file's object is in the way of its key");
}

/* Our garbage is at the key: it is replaced, if what is there is known. 1, or 0 to wait. */
static int replace_garbage(struct engine_txn *t, struct engine_node *node, struct target *target,
                           uint64_t id)
{
    if (target->old_object.due_ns && target->old_object.etag_len && !target->old_object.changing) {
        target->natural = target->replaces = true;
        target->old = id;
        return 1;
    }
    /* A step before may yet write there: gc finds out. */
    int rc = 0;
    if (target->old_object.due_ns > t->time_ns)
        rc = engine_object_requeue(t, id, &target->old_object, t->time_ns);
    return rc < 0 ? rc : wait_with_reason(t, node, WAIT_NS, "its old object is to be deleted");
}

/* The natural key is free or ours to replace, or the file must go by an internal key: 1. 0: the
 * file was put back into the queue. */
static int natural_target(struct engine_txn *t, struct engine_node *node, struct target *target)
{
    uint64_t id;
    struct engine_node *self;
    int rc = engine_key_claimed(t, node, target->key, target->len);
    if (rc != 0)
        return rc < 0 ? rc
                      : wait_with_reason(t, node, CLAIMED_WAIT_NS,
                                         "a renamed directory still has keys there");
    rc = engine_key_neighbour(t, target->key, target->len, &id);
    bool neighbour = rc > 0;
    if (rc == 0)
        rc = engine_key_holder(t, target->key, target->len, &id);
    if (rc < 0)
        return rc;
    if (!id) {
        target->natural = true;
        return 1;
    }
    rc = engine_object_get(t, id, &target->old_object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    switch (target->old_object.state) {
    case META_OBJECT_RESERVED:
        return wait_with_reason(t, node, engine_settle_delay_ns(t->engine) + WAIT_NS,
                                "its key is being written");
    case META_OBJECT_GARBAGE:
        return neighbour ? wait_with_reason(t, node, WAIT_NS, "an old object is to be deleted")
                         : replace_garbage(t, node, target, id);
    case META_OBJECT_LIVE:
        break;
    }
    rc = uses_object(t, node->ino, id, &self);
    if (rc != 0)
        return rc; /* its own: by way of an internal key */
    return blocked(t, node, id, &target->old_object);
}

/* Chooses where the step writes: 1, or 0 if there is none now (and the queue is as it should be).
 */
static int choose_target(struct engine_txn *t, struct engine_node *node, struct target *target)
{
    memset(target, 0, offsetof(struct target, old_object));
    int rc = node->now.nlink
                 ? engine_key_and_class(t, node, target->key, &target->len, target->class)
                 : 0;
    if (rc <= 0)
        return rc < 0 ? rc : 1;
    if (!(node->now.flags & RECORD_EVICT))
        return natural_target(t, node, target);
    /* It must leave: to its own key if that is free, else to an internal one. */
    uint64_t holder;
    rc = engine_key_holder(t, target->key, target->len, &holder);
    if (rc == 0 && holder == 0)
        rc = engine_key_free(t, node, target->key, target->len);
    target->natural = rc > 0;
    return rc < 0 ? rc : 1;
}

static int choose_action(struct engine_txn *t, struct engine_node *node,
                         enum meta_settle_action *action, uint64_t *cid)
{
    struct meta_extent *list = NULL;
    struct record_object object;
    size_t count;
    const struct record_inode *inode = &node->now;
    *cid = 0;
    if (inode->body == RECORD_BODY_OBJECT && inode->object_offset == 0 &&
        inode->object_length == inode->size) {
        int rc = engine_object_get(t, inode->object, &object);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
        *action = object.size == inode->size ? META_SETTLE_COPY : META_SETTLE_JOIN;
        *cid = *action == META_SETTLE_COPY ? object.cid : 0;
        return 0;
    }
    int rc = engine_extents_load(t->engine, NULL, node->ino, inode, 0, UINT64_MAX, &t->arena, &list,
                                 &count);
    *action = inode->size <= UPLOAD_MAX ? META_SETTLE_UPLOAD : META_SETTLE_JOIN;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (list[i].kind == META_EXTENT_OBJECT)
            *action = META_SETTLE_JOIN;
    }
    return rc;
}

static void fill_settle(const struct engine_node *node, const struct record_step *step,
                        const struct record_object *target, struct meta_settle *out)
{
    memset(out, 0, sizeof(*out));
    out->action = step->action;
    out->ino = node->ino;
    out->data_version = step->data_version;
    out->size = node->now.size;
    out->target_is_natural = step->natural;
    out->replaces = step->replaces;
    if (step->old_etag_len)
        memcpy(out->old_etag, step->old_etag, step->old_etag_len);
    engine_object_export(step->target, target, &out->target);
    engine_attr(node->ino, &node->now, &out->attr);
    if (target->class_len)
        memcpy(out->storage_class, target->class, target->class_len);
}

/* The recorded step if it is still the right one: 1; else it is abandoned: 0. */
static int take_recorded(struct engine_txn *t, struct engine_node *node, struct meta_settle *out)
{
    struct record_step step;
    struct record_object target;
    char key[META_KEY_MAX + 1];
    size_t len = 0;
    int rc = engine_step_get(t, node, &step);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = engine_object_get(t, step.target, &target);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool fits = rc == 0 && target.state == META_OBJECT_RESERVED &&
                step.action != META_SETTLE_CLASS && step.data_version == node->now.data_version;
    if (fits && step.natural) {
        rc = node->now.nlink ? engine_key_natural(t, node, key, &len) : 0;
        if (rc < 0)
            return rc;
        fits = rc > 0 && target.key_len == len && memcmp(target.key, key, len) == 0;
    }
    if (!fits) {
        rc = engine_settle_abandon(t, node);
        return rc < 0 ? rc : 0;
    }
    fill_settle(node, &step, &target, out);
    out->resumed = true;
    return 1;
}

static int record_new_step(struct engine_txn *t, struct engine_node *node, struct target *target,
                           struct meta_settle *out)
{
    struct record_step step = {.natural = target->natural,
                               .replaces = target->replaces,
                               .old_object = target->old,
                               .data_version = node->now.data_version};
    struct record_object object;
    uint64_t cid;
    int rc = choose_action(t, node, &step.action, &cid);
    if (rc == 0)
        rc = engine_object_reserve(t, node, target->natural ? target->key : NULL, target->len,
                                   &step.target, &object);
    if (rc < 0)
        return rc;
    object.cid = cid;
    object.replaces = target->old;
    object.class = target->class;
    object.class_len = target->natural ? strlen(target->class) : 0;
    rc = engine_object_put(t, step.target, &object);
    if (rc == 0 && target->replaces) {
        step.old_etag = target->old_object.etag;
        step.old_etag_len = target->old_object.etag_len;
        rc = engine_object_requeue(t, target->old, &target->old_object, 0);
    } else if (rc == 0) {
        rc = engine_key_put(t, object.key, object.key_len, step.target);
    }
    if (rc == 0)
        rc = engine_step_put(t, node, &step);
    if (rc == 0)
        fill_settle(node, &step, &object, out);
    return rc;
}

/* Its object is to have another storage class, where it is: 1. */
static int take_class(struct engine_txn *t, struct engine_node *node, struct meta_settle *out)
{
    struct record_step step;
    struct record_object object;
    int rc = engine_class_step(t, node, &step, &object);
    if (rc <= 0)
        return rc;
    fill_settle(node, &step, &object, out);
    out->target.id = step.old_object;
    out->change = step.target;
    out->resumed = object.changing != step.target;
    memset(out->storage_class, 0, sizeof(out->storage_class));
    memcpy(out->storage_class, object.next_class, object.next_class_len);
    return 1;
}

/* It is one object of another store than its directory's, and is to stay there until its migration
 * goes on, which queues it again: 1. */
static int is_held(struct engine_txn *t, struct engine_node *node)
{
    struct engine_home home;
    struct record_object object;
    size_t skip;
    int rc = engine_home(t, node, &home);
    if (rc < 0 || !home.paused || node->now.body != RECORD_BODY_OBJECT)
        return rc;
    rc = engine_object_get(t, node->now.object, &object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    return store_route(object.key, object.key_len, &skip) != home.store;
}

int engine_apply_settle_begin(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply)
{
    struct engine_node *node;
    struct target target;
    reply->settle.ino = op->ino;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc == -ENOENT || (rc == 0 && !S_ISREG(node->now.mode)))
        return 0;
    if (rc < 0)
        return rc;
    if (node->now.nlink == 0 && !(node->now.flags & RECORD_EVICT)) {
        rc = engine_settle_abandon(t, node);
        return rc < 0 ? rc : engine_settle_unqueue(t, node);
    }
    rc = take_recorded(t, node, &reply->settle);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (!(node->now.flags & RECORD_EVICT)) {
        rc = engine_settle_is_done(t, node);
        if (rc != 0)
            return rc < 0 ? rc : engine_settle_unqueue(t, node);
    }
    if (!is_quiet(t, node))
        return engine_settle_requeue(
            t, node, node->now.changed_ns + engine_settle_delay_ns(t->engine), NULL, 0);
    rc = is_held(t, node);
    if (rc != 0)
        return rc < 0 ? rc : engine_settle_unqueue(t, node);
    rc = take_class(t, node, &reply->settle);
    if (rc != 0)
        return MIN(rc, 0);
    rc = choose_target(t, node, &target);
    if (rc > 0)
        rc = record_new_step(t, node, &target, &reply->settle);
    return rc;
}

/* The step came too late, or was abandoned: what it wrote is garbage. */
static int throw_away(struct engine_txn *t, const struct meta_op *op)
{
    struct record_object object;
    uint64_t id = op->settle->target.id;
    int rc = engine_object_get(t, id, &object);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (object.state == META_OBJECT_LIVE)
        return 0;
    if (op->object_count) {
        object.etag = op->objects[0].etag;
        object.etag_len = strnlen(op->objects[0].etag, META_ETAG_MAX - 1);
    }
    if (object.state == META_OBJECT_GARBAGE)
        return engine_object_put(t, id, &object);
    return engine_object_discard(t, id, &object);
}

/* The target takes the place of all the file was made of. */
static int swap(struct engine_txn *t, const struct meta_op *op, struct engine_node *node,
                const struct record_step *step)
{
    struct record_object target, old;
    struct engine_edit edit;
    int rc = engine_object_get(t, step->target, &target);
    if (rc == 0) {
        target.replaces = 0;
        rc = engine_object_written(t, &op->objects[0], node->ino, &target);
    }
    if (rc == 0 && step->replaces) {
        rc = engine_key_put(t, target.key, target.key_len, step->target);
        int got = rc < 0 ? rc : engine_object_get(t, step->old_object, &old);
        if (got == 0)
            rc = engine_object_forget(t, step->old_object, &old);
        else if (got != -ENOENT)
            rc = got;
    }
    if (rc == 0)
        rc = engine_edit_begin(&edit, t, node);
    t->kept_cid = target.cid; /* of a copy: what it was made of goes, the bytes do not */
    if (rc == 0)
        rc = engine_edit_whole_object(&edit, step->target, node->now.size);
    t->kept_cid = 0;
    if (rc == 0)
        rc = engine_carry_settled(t, node, op->settle->attr.meta_version == node->now.meta_version);
    return rc < 0 ? rc : engine_step_drop(t, node);
}

int engine_apply_settle_done(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply)
{
    struct engine_node *node;
    struct record_step step;
    if (!op->settle || op->object_count != 1 || op->objects[0].id != op->settle->target.id)
        return -EINVAL;
    int rc = engine_txn_inode(t, op->settle->ino, &node);
    if (rc == 0)
        rc = engine_step_get(t, node, &step);
    if (rc == -ENOENT || (rc == 0 && step.target != op->settle->target.id))
        return throw_away(t, op);
    if (rc < 0)
        return rc;
    if (step.data_version != node->now.data_version) {
        rc = throw_away(t, op);
        if (rc == 0)
            rc = engine_step_drop(t, node);
        if (rc == 0 && node->now.nlink)
            rc = engine_settle_requeue(t, node, t->time_ns, NULL, 0);
        return rc;
    }
    if (op->objects[0].size != node->now.size)
        return -EINVAL;
    rc = swap(t, op, node, &step);
    if (rc < 0)
        return rc;
    node->now.flags &= ~(uint32_t)RECORD_EVICT;
    rc = node->now.nlink ? engine_settle_is_done(t, node) : 1;
    if (rc >= 0)
        rc = rc ? engine_settle_unqueue(t, node)
                : engine_settle_requeue(t, node, t->time_ns, NULL, 0);
    reply->end = true;
    engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}

int engine_apply_settle_retry(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply)
{
    struct engine_node *node;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0 || !node->now.due_ns)
        return rc == -ENOENT ? 0 : rc;
    return engine_settle_requeue(t, node, op->attr.mtime_ns, op->data, op->data_len);
}

/* One name below a renamed directory. */
static int queue_name(struct engine_txn *t, uint64_t dir, const uint8_t *name, size_t len,
                      const struct record_dentry *dentry)
{
    struct engine_node *node;
    int rc = engine_txn_inode(t, dentry->ino, &node);
    if (rc == 0)
        rc = engine_carry_changed(t, node);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    if (!S_ISDIR(dentry->type) && !S_ISREG(dentry->type))
        return 0;
    if (S_ISDIR(dentry->type))
        return engine_settle_queue(t, node, t->time_ns);
    /* Settle goes by the first link. */
    if (node->now.due_ns || node->now.parent != dir || node->now.name_len != len ||
        memcmp(node->now.name, name, len) != 0)
        return 0;
    rc = engine_settle_is_done(t, node);
    return rc == 0 ? engine_settle_queue(t, node, t->time_ns) : rc < 0 ? rc : 0;
}

/* The root is in no listing that could give it an origin again: its store's prefix is. */
static int root_origin(struct engine_txn *t, struct engine_node *root)
{
    char base[META_KEY_MAX + 8];
    const char *prefix;
    size_t prefix_len;
    struct engine_home home;
    uint64_t owner;
    int rc = engine_home(t, root, &home);
    int len = rc < 0 ? rc : engine_store_base(t->engine, home.store, base);
    if (len < 0)
        return len;
    rc = engine_origin_prefix(t, root->ino, &prefix, &prefix_len);
    if (rc < 0 || (prefix_len == (size_t)len && memcmp(prefix, base, prefix_len) == 0))
        return rc;
    rc = engine_claim_get(t, base, (size_t)len, &owner);
    if (rc < 0 || owner)
        return rc;
    rc = engine_origin_drop(t, root);
    if (rc == 0)
        rc = engine_origin_set(t, root, arena_copy(&t->arena, base, (size_t)len), (size_t)len);
    root->now.listed_ns = LISTED_LONG_AGO;
    return rc;
}

/* All names of the directory itself are queued: it has nothing at its origin any more that is not
 * in the tables, if it has moved away from there. */
static int subtree_end(struct engine_txn *t, struct engine_node *dir)
{
    char key[META_KEY_MAX + 1];
    size_t len, prefix_len;
    const char *prefix;
    int rc = engine_settle_unqueue(t, dir);
    if (rc < 0 || !(dir->now.flags & RECORD_ORIGIN))
        return rc;
    struct record_place place;
    rc = engine_place_get(t, dir, &place);
    if (rc < 0 || (rc > 0 && place.attached))
        return rc < 0 ? rc : 0;
    if (dir->ino == META_ROOT_INO)
        return root_origin(t, dir);
    rc = engine_origin_prefix(t, dir->ino, &prefix, &prefix_len);
    if (rc == 0)
        rc = engine_key_natural(t, dir, key, &len);
    if (rc < 0)
        return rc;
    bool home = rc > 0 && prefix_len == len + 1 && memcmp(prefix, key, len) == 0;
    if (home)
        return 0;
    rc = engine_origin_marker_discard(t, dir);
    return rc < 0 ? rc : engine_origin_drop(t, dir);
}

int engine_apply_settle_subtree(struct engine_txn *t, const struct meta_op *op,
                                struct meta_reply *reply)
{
    struct engine_node *dir;
    struct record_key key, cursor;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    reply->end = true;
    int rc = engine_txn_inode(t, op->ino, &dir);
    if (rc < 0 || !S_ISDIR(dir->now.mode) || !dir->now.due_ns)
        return rc == -ENOENT ? 0 : rc;
    if (dir->now.flags & RECORD_ORIGIN && dir->now.listed_ns == 0) {
        reply->need_import = true;
        reply->attr.ino = op->ino;
        return -EAGAIN;
    }
    record_key_work(&cursor, RECORD_WORK_CURSOR, op->ino);
    rc = engine_txn_get(t, TABLE_WORK, &cursor, &v, &v_len);
    if (rc == -ENOENT)
        v_len = 1;
    else if (rc < 0)
        return rc;
    else if (v_len < 1 || v_len > META_NAME_MAX + 1)
        return -EIO;
    record_key_named(&key, op->ino, rc == 0 ? v + 1 : NULL, v_len - 1);
    if (rc == 0)
        key.bytes[key.len++] = 0; /* the first behind it */
    uint32_t max = op->count ? op->count : SUBTREE_DEFAULT, done = 0;
    uint8_t last[META_NAME_MAX + 1] = {1};
    size_t last_len = 0;
    engine_iter_init(&iter, t->engine, NULL, TABLE_DENTRY, &key, NULL, 8);
    while (dir->now.children && (rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_dentry dentry;
        if (done++ == max)
            break;
        rc = k_len > 8 && k_len <= 8 + META_NAME_MAX && record_dentry_decode(v, v_len, &dentry) == 0
                 ? queue_name(t, op->ino, k + 8, k_len - 8, &dentry)
                 : -EIO;
        if (rc < 0)
            break;
        last_len = k_len - 8;
        memcpy(last + 1, k + 8, last_len);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc > 0) {
        reply->end = false;
        return engine_txn_put(t, TABLE_WORK, &cursor, last, last_len + 1);
    }
    return subtree_end(t, dir);
}

int engine_apply_settle_hurry(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *v;
    size_t k_len, v_len;
    int rc;
    record_key_work(&key, RECORD_WORK_SETTLE, 0);
    engine_iter_init(&iter, t->engine, NULL, TABLE_WORK, &key, NULL, 1);
    while ((rc = engine_iter_get(&iter, &k, &k_len, &v, &v_len)) > 0) {
        struct record_queue row;
        struct engine_node *node;
        uint64_t ino = k_len == 17 ? record_get_u64(k + 9) : 0;
        rc = ino && record_queue_decode(v, v_len, &row) == 0
                 ? engine_read_below(t->engine, ino, op->ino)
                 : -EIO;
        if (rc == 0 && row.subtree)
            rc = engine_read_below(t->engine, op->ino, ino);
        if (rc > 0)
            rc = engine_txn_inode(t, ino, &node) < 0 ? -EIO : 1;
        if (rc > 0) {
            node->now.flags |= RECORD_HURRY;
            rc = engine_settle_requeue(t, node, t->time_ns, row.reason, row.reason_len);
        }
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}
