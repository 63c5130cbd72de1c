/*
 * What the bucket holds becomes names: a page of a listing, one looked-up key, an object that
 * somebody else changed.
 *
 * Rules, in this order (docs/data-model.md tells them with examples):
 * - a key that an object of ours holds shows nothing new: it is the file that references the
 * object, wherever its name is now, or waits for gc;
 * - a common prefix below which only such keys (or a claim of a directory that moved away) are
 * makes no directory;
 * - a name that is there and is not what was imported under it stays as it is: what was made or
 *   changed here wins, and settle will not overwrite the foreign object;
 * - what was imported and is still untouched follows the bucket: changed, or removed if a complete
 *   listing does not show it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "s3/store.h"

#define NS ((uint64_t)1000000000)
#define LISTED_LONG_AGO 1

struct import {
    struct engine_txn *t;
    struct engine_node *dir;
    const char *prefix;
    size_t prefix_len;
    struct meta_reply *reply;
    size_t removed_cap;
    struct meta_usage added; /* to be added to the directory and those above it */
    uint64_t names_added;
    uint64_t asked_ns; /* when the bucket was asked; 0: not known */
    bool no_keys;      /* no object of ours holds a key in the range: need not be asked for each */
    bool old;          /* what is shown was so some time ago: what is known here stays */
    bool late;         /* something late of ours may be among the keys */
};

static int import_begin(struct import *im, struct engine_txn *t, uint64_t ino,
                        const struct meta_op *op, struct meta_reply *reply)
{
    *im = (struct import){.t = t, .reply = reply, .asked_ns = op->attr.mtime_ns};
    int rc = engine_txn_dir(t, ino, &im->dir);
    if (rc < 0)
        return rc;
    if (!(im->dir->now.flags & RECORD_ORIGIN)) {
        rc = engine_origin_at_home(t, im->dir);
        if (rc <= 0)
            return rc < 0 ? rc : -ENODATA;
    }
    rc = engine_origin_prefix(t, ino, &im->prefix, &im->prefix_len);
    if (rc < 0 || !op->data)
        return rc;
    /* It was moved and settled while the bucket was asked: the answer is about other keys, and
     * would take away files that are here. */
    bool same = op->data_len == im->prefix_len && !memcmp(op->data, im->prefix, im->prefix_len);
    if (!same || op->flags & (META_IMPORT_OLD | META_IMPORT_LOOKED))
        return same ? 0 : -ESTALE;
    rc = engine_late_below(t, im->prefix, im->prefix_len);
    im->late = rc > 0;
    return MIN(rc, 0);
}

/* The whole key of a name; its length, or 0 if it would be too long. */
static size_t key_of(const struct import *im, const char *name, size_t len, bool dir,
                     char key[META_KEY_MAX + 1])
{
    if (im->prefix_len + len + dir > META_KEY_MAX)
        return 0;
    memcpy(key, im->prefix, im->prefix_len);
    memcpy(key + im->prefix_len, name, len);
    if (dir)
        key[im->prefix_len + len] = '/';
    return im->prefix_len + len + dir;
}

/* What the object says of mode and owner, or what stands for one that says nothing. */
static void fill_access(const struct import *im, const struct meta_entry *e,
                        struct record_inode *inode)
{
    const struct meta_volume *volume = &im->t->engine->volume;
    inode->mode = e->is_dir ? S_IFDIR | 0755 : S_IFREG | 0644;
    inode->uid = volume->root_uid;
    inode->gid = volume->root_gid;
    if (e->has_attr) {
        inode->mode = (inode->mode & S_IFMT) | (e->attr.mode & 07777);
        inode->uid = e->attr.uid;
        inode->gid = e->attr.gid;
    }
}

static void fill_inode(struct import *im, const struct meta_entry *e, struct record_inode *inode)
{
    uint64_t mtime = e->mtime_ns ? e->mtime_ns : im->t->time_ns;
    memset(inode, 0, sizeof(*inode));
    fill_access(im, e, inode);
    inode->atime_ns = inode->mtime_ns = inode->ctime_ns = inode->btime_ns = mtime;
    if (e->has_attr && e->attr.mtime_ns)
        inode->mtime_ns = e->attr.mtime_ns;
    inode->nlink = e->is_dir ? 2 : 1;
    inode->size = e->is_dir ? 0 : e->size;
    inode->data_version = inode->meta_version = 1;
    inode->changed_ns = mtime;
    inode->parent = im->dir->ino;
    memcpy(inode->name, e->name, e->name_len);
    inode->name_len = (uint16_t)e->name_len;
}

static struct record_object foreign_object(struct import *im, const struct meta_entry *e,
                                           const char *key, size_t len, uint64_t id, uint64_t ino)
{
    return (struct record_object){.state = META_OBJECT_LIVE,
                                  .foreign = true,
                                  .natural = true,
                                  .size = e->size,
                                  .mtime_ns = e->mtime_ns,
                                  .cid = id,
                                  .ino = ino,
                                  .key = key,
                                  .key_len = len,
                                  .etag = e->etag,
                                  .etag_len = strnlen(e->etag, META_ETAG_MAX - 1)};
}

static int import_end(struct import *im);
static int tell(struct import *im, const char *name, size_t len, const struct engine_node *node);

/* An object of ours that came late may be what stands at the key: 1, the caller looks, and nothing
 * changes. */
static int left_to_look(struct import *im, const struct meta_entry *e, const char *key, size_t len)
{
    uint64_t id;
    int rc = im->late ? engine_late_at(im->t, key, len, &id) : 0;
    if (rc <= 0)
        return rc;
    rc = tell(im, e->name, e->name_len, NULL);
    return rc < 0 ? rc : 1;
}

/* A new file: nothing of it is read again in this apply, so all goes straight into the batch. */
static int add_file(struct import *im, const struct meta_entry *e, const char *key, size_t len,
                    uint64_t *ino_out)
{
    struct engine_txn *t = im->t;
    struct record_inode inode;
    struct record_key k;
    uint64_t ino = t->counters.next_ino++, id = t->counters.next_object++;
    fill_inode(im, e, &inode);
    inode.body = RECORD_BODY_OBJECT;
    inode.object = id;
    inode.object_length = e->size;
    struct buf *b = engine_txn_scratch(t);
    record_inode_encode(b, &inode);
    record_key_u64(&k, ino);
    if (buf_error(b))
        return -ENOMEM;
    engine_txn_put_raw(t, TABLE_INODE, &k, b->data, b->len);

    struct record_object object = foreign_object(im, e, key, len, id, ino);
    object.refs = 1;
    b = engine_txn_scratch(t);
    record_object_encode(b, &object);
    record_key_u64(&k, id);
    if (buf_error(b))
        return -ENOMEM;
    engine_txn_put_raw(t, TABLE_OBJECT, &k, b->data, b->len);

    uint8_t value[9] = {1};
    uint64_t be = __builtin_bswap64(id);
    memcpy(value + 1, &be, sizeof(be));
    record_key_store(&k, key, len);
    engine_txn_put_raw(t, TABLE_KEY, &k, value, sizeof(value));

    t->counters.inodes++;
    im->added.bytes += e->size;
    im->added.files++;
    im->names_added++;
    *ino_out = ino;
    return engine_dentry_put(t, im->dir->ino, e->name, e->name_len, ino, S_IFREG);
}

int engine_import_file(struct engine_txn *t, struct engine_node *dir, const struct meta_entry *e,
                       const char *key, size_t len, struct engine_node **out)
{
    struct import im = {.t = t, .dir = dir};
    struct engine_node *node;
    int rc = dir->now.flags & RECORD_ORIGIN ? 0 : engine_origin_at_home(t, dir);
    if (rc > 0)
        dir->now.listed_ns = LISTED_LONG_AGO;
    if (rc >= 0)
        rc = engine_txn_inode_new(t, &node);
    if (rc < 0)
        return rc;
    uint64_t id = t->counters.next_object++;
    fill_inode(&im, e, &node->now);
    node->now.body = RECORD_BODY_OBJECT;
    node->now.object = id;
    node->now.object_length = e->size;
    struct record_object object = foreign_object(&im, e, key, len, id, node->ino);
    object.refs = 1;
    rc = engine_object_put(t, id, &object);
    if (rc == 0)
        rc = engine_key_put(t, key, len, id);
    if (rc == 0)
        rc = engine_dentry_put(t, dir->ino, e->name, e->name_len, node->ino, S_IFREG);
    if (rc < 0)
        return rc;
    im.added = (struct meta_usage){.bytes = e->size, .files = 1};
    im.names_added = 1;
    *out = node;
    return import_end(&im);
}

static int add_dir(struct import *im, const struct meta_entry *e, const char *key, size_t len,
                   uint64_t *ino_out)
{
    struct engine_txn *t = im->t;
    struct engine_node *node;
    if (im->dir->now.nlink >= ENGINE_SUBDIRS_MAX)
        return -EMLINK;
    int rc = engine_txn_inode_new(t, &node);
    if (rc < 0)
        return rc;
    fill_inode(im, e, &node->now);
    im->dir->now.nlink++;
    im->added.directories++;
    im->names_added++;
    *ino_out = node->ino;
    rc = engine_origin_set(t, node, key, len);
    return rc < 0 ? rc
                  : engine_dentry_put(t, im->dir->ino, e->name, e->name_len, node->ino, S_IFDIR);
}

/* A name that is not there yet. */
static int import_new(struct import *im, const struct meta_entry *e, uint64_t *ino)
{
    char key[META_KEY_MAX + 1];
    uint64_t owner = 0;
    size_t len = key_of(im, e->name, e->name_len, e->is_dir, key);
    if (len == 0)
        return 0;
    if (e->is_dir) {
        int rc = im->no_keys ? 0 : engine_key_below(im->t, key, len, &owner);
        if (rc == 0)
            rc = engine_claim_get(im->t, key, len, &owner);
        if (rc != 0 || owner)
            return rc < 0 ? rc : 0;
        return add_dir(im, e, key, len, ino);
    }
    int rc = im->no_keys ? 0 : engine_key_holder(im->t, key, len, &owner);
    if (rc == 0 && !owner)
        rc = left_to_look(im, e, key, len);
    if (rc != 0 || owner)
        return MIN(rc, 0);
    return add_file(im, e, key, len, ino);
}

/* It is in the queue, but its content is where it belongs: its object gets another storage class.
 * What lost the key to others does not have it back by being named so again: what stands there may
 * be somebody else's by now, and about to be deleted. */
static int waits_at_home(struct import *im, struct engine_node *node, const char *key, size_t len)
{
    char own[META_KEY_MAX + 1];
    uint64_t holder;
    size_t own_len;
    if (node->now.flags & RECORD_EVICT)
        return 0;
    int rc = engine_key_natural(im->t, node, own, &own_len);
    if (rc <= 0 || own_len != len || memcmp(own, key, len) != 0)
        return MIN(rc, 0);
    rc = engine_key_holder(im->t, key, len, &holder);
    return rc < 0 ? rc : holder == node->now.object;
}

/* The file is nothing but the object at this key, under this name: as it was imported or settled,
 * and not since the bucket was asked (the answer may be from before). 1 with the object, or 0.
 */
static int is_untouched(struct import *im, struct engine_node *node, const char *key, size_t len,
                        struct record_object *object)
{
    const struct record_inode *inode = &node->now;
    if (!S_ISREG(inode->mode) || inode->nlink != 1 || inode->body != RECORD_BODY_OBJECT ||
        inode->object_offset || inode->object_length != inode->size)
        return 0;
    int rc = inode->due_ns ? waits_at_home(im, node, key, len) : 1;
    if (rc <= 0)
        return rc;
    rc = engine_object_get(im->t, inode->object, object);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    /* Of theirs it may be older than what it follows already (changed_ns may be a time of theirs).
     */
    uint64_t since_ns = object->foreign ? inode->changed_ns : object->mtime_ns;
    bool newer =
        im->asked_ns && since_ns >= im->asked_ns + object->foreign && since_ns <= im->t->time_ns;
    return !newer && object->key_len == len && memcmp(object->key, key, len) == 0 &&
           object->size == inode->size;
}

/* The key now holds other bytes: they become the file's. The old object's record goes without gc,
 * as the key is not its any more. */
static int follow_change(struct import *im, struct engine_node *node, const struct meta_entry *e,
                         const char *key, size_t len)
{
    struct engine_txn *t = im->t;
    struct engine_edit edit;
    uint64_t id = t->counters.next_object++;
    struct record_object object = foreign_object(im, e, key, len, id, node->ino);
    int rc = engine_object_lost(t, node->now.object);
    if (rc == 0)
        rc = engine_object_put(t, id, &object);
    if (rc == 0)
        rc = engine_key_put(t, key, len, id);
    if (rc == 0)
        rc = engine_edit_begin(&edit, t, node);
    if (rc == 0)
        rc = engine_edit_whole_object(&edit, id, e->size);
    if (rc == 0)
        rc = engine_usage_resize(t, node, node->now.size, e->size);
    if (rc < 0)
        return rc;
    node->now.size = e->size;
    node->now.data_version++;
    engine_node_touch(t, node);
    node->now.mtime_ns = e->mtime_ns ? e->mtime_ns : t->time_ns;
    /* Mode and owner stay those of the file, and their object may not say them. */
    struct record_inode said;
    fill_access(im, e, &said);
    if (said.mode != node->now.mode || said.uid != node->now.uid || said.gid != node->now.gid)
        rc = engine_carry_queue(t, node);
    return rc < 0 ? rc : engine_settle_changed(t, node);
}

/* A server may give ETags in one kind of answer and not in the other: only two weak ones or two
 * others say that the content changed. Who reads finds out by itself (`strict`). */
static bool is_changed(const struct record_object *object, const struct meta_entry *e, bool strict)
{
    size_t etag_len = strnlen(e->etag, META_ETAG_MAX - 1);
    if (object->size != e->size)
        return true;
    bool was_weak = object->etag_len && store_etag_is_weak(object->etag);
    if (!strict && etag_len && was_weak != store_etag_is_weak(e->etag))
        return false;
    return etag_len && object->etag_len &&
           (etag_len != object->etag_len || memcmp(e->etag, object->etag, etag_len) != 0);
}

/* A name that is there, and the bucket shows something under it too. */
static int import_known(struct import *im, const struct meta_entry *e, uint64_t ino)
{
    struct engine_node *node;
    struct record_object object;
    char key[META_KEY_MAX + 1];
    size_t len = key_of(im, e->name, e->name_len, e->is_dir, key);
    int rc = len ? engine_txn_inode(im->t, ino, &node) : 0;
    if (rc < 0 || !len || im->old || e->is_dir != S_ISDIR(node->now.mode))
        return rc == -ENOENT ? -EIO : rc;
    if (e->is_dir) {
        /* Made here, and the bucket has keys below it: somebody else's may be among them. (It stays
         * when they go again.) */
        if (node->now.flags & RECORD_ORIGIN)
            return 0;
        rc = engine_origin_at_home(im->t, node);
        if (rc > 0) {
            node->now.listed_ns = LISTED_LONG_AGO;
            node->now.flags |= RECORD_TOUCHED;
        }
        return rc < 0 ? rc : 0;
    }
    rc = is_untouched(im, node, key, len, &object);
    /* While it is given another class, what stands there may be its copy: settle looks. */
    if (rc <= 0 || object.changing || !is_changed(&object, e, false))
        return rc < 0 ? rc : 0;
    /* A listing from before our own last write of the key. */
    if (!object.foreign && e->mtime_ns && e->mtime_ns / NS < object.mtime_ns / NS)
        return 0;
    rc = left_to_look(im, e, key, len);
    if (rc != 0)
        return MIN(rc, 0);
    return follow_change(im, node, e, key, len);
}

/* Tells the caller what he may have to forget; without a node, what he has to look at. */
static int tell(struct import *im, const char *name, size_t len, const struct engine_node *node)
{
    struct meta_reply *reply = im->reply;
    if (reply->entry_count == im->removed_cap) {
        size_t cap = im->removed_cap ? im->removed_cap * 2 : 8;
        struct meta_entry *bigger = meta_reply_alloc(reply, cap * sizeof(*bigger));
        if (!bigger)
            return -ENOMEM;
        if (reply->entry_count)
            memcpy(bigger, reply->entries, reply->entry_count * sizeof(*bigger));
        reply->entries = bigger;
        im->removed_cap = cap;
    }
    char *copy = meta_reply_alloc(reply, len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, name, len);
    copy[len] = '\0';
    struct meta_entry *e = &reply->entries[reply->entry_count++];
    memset(e, 0, sizeof(*e));
    e->name = copy;
    e->name_len = len;
    if (!node)
        return 0;
    e->ino = node->ino;
    e->is_dir = S_ISDIR(node->now.mode);
    engine_attr(node->ino, &node->now, &e->attr);
    return 0;
}

/* A name that a complete listing does not show: it goes if it came from there and is untouched.
 * `name` must not point into what removal changes. */
static int import_gone(struct import *im, const char *name, size_t name_len, uint64_t ino,
                       bool ours_too)
{
    struct engine_txn *t = im->t;
    struct engine_node *node;
    struct record_object object;
    char key[META_KEY_MAX + 1];
    int rc = engine_txn_inode(t, ino, &node);
    if (rc < 0)
        return rc == -ENOENT ? -EIO : rc;
    bool dir = S_ISDIR(node->now.mode);
    size_t len = key_of(im, name, name_len, dir, key);
    if (len == 0)
        return 0;
    if (dir) {
        const char *prefix;
        size_t prefix_len;
        if (!(node->now.flags & RECORD_ORIGIN) || node->now.flags & RECORD_TOUCHED)
            return 0;
        rc = engine_origin_prefix(t, ino, &prefix, &prefix_len);
        if (rc < 0 || prefix_len != len || memcmp(prefix, key, len) != 0)
            return rc;
        if (node->now.children > 0) {
            /* Its own next listing empties it; the next one of this directory removes it. */
            if (node->now.listed_ns > LISTED_LONG_AGO) {
                node->now.listed_ns = LISTED_LONG_AGO;
                node->dirty = true;
            }
            return 0;
        }
        rc = engine_origin_marker(t, node, NULL); /* it is gone, too */
        if (rc < 0)
            return rc;
    } else {
        rc = is_untouched(im, node, key, len, &object);
        if (rc <= 0 || (!object.foreign && !ours_too))
            return rc < 0 ? rc : 0;
        rc = engine_object_lost(t, node->now.object);
        if (rc < 0)
            return rc;
    }
    rc = engine_name_remove(t, im->dir, name, name_len, node, false);
    return rc < 0 ? rc : tell(im, name, name_len, node);
}

static int import_end(struct import *im)
{
    if (im->names_added == 0)
        return 0;
    im->dir->now.children += im->names_added;
    im->dir->now.meta_version++;
    im->dir->now.data_version++;
    im->dir->dirty = true;
    return engine_usage_add(im->t, im->dir->ino, &im->added, 1);
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int c = memcmp(a, b, MIN(a_len, b_len));
    return c ? c : a_len < b_len ? -1 : a_len > b_len;
}

static int entry_order(const void *a, const void *b)
{
    const struct meta_entry *x = *(const struct meta_entry *const *)a;
    const struct meta_entry *y = *(const struct meta_entry *const *)b;
    return compare(x->name, x->name_len, y->name, y->name_len);
}

/* The page's entries by name. */
static int sort_entries(struct import *im, const struct meta_op *op, const struct meta_entry ***out)
{
    size_t n = op->entry_count;
    const struct meta_entry **list = arena_alloc(&im->t->arena, (n + 1) * sizeof(const void *));
    if (!list)
        return -ENOMEM;
    bool sorted = true;
    for (size_t i = 0; i < n; i++) {
        struct meta_name name = {op->entries[i].name, op->entries[i].name_len};
        int rc = engine_name_check(&name);
        if (rc < 0)
            return rc;
        list[i] = &op->entries[i];
        sorted = sorted && (i == 0 || entry_order(&list[i - 1], &list[i]) < 0);
    }
    if (!sorted)
        qsort(list, n, sizeof(const void *), entry_order);
    for (size_t i = 1; i < n; i++) {
        if (entry_order(&list[i - 1], &list[i]) == 0)
            return -EINVAL;
    }
    *out = list;
    return 0;
}

/* Whether any key of ours lies where the page's entries are: not so when a prefix is listed for the
 * first time. */
static int look_for_keys(struct import *im, const struct meta_entry **list, size_t n)
{
    char first[META_KEY_MAX + 1], last[META_KEY_MAX + 1];
    struct record_key lower, upper;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    if (n == 0)
        return 0;
    size_t first_len = key_of(im, list[0]->name, list[0]->name_len, false, first);
    size_t last_len = key_of(im, list[n - 1]->name, list[n - 1]->name_len, true, last);
    if (!first_len || !last_len)
        return 0;
    record_key_store(&lower, first, first_len);
    record_key_store(&upper, last, last_len);
    if (record_key_next_prefix(&upper) < 0)
        return 0;
    engine_iter_init(&iter, im->t->engine, NULL, TABLE_KEY, &lower, &upper, 0);
    int rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL);
    engine_iter_done(&iter);
    im->no_keys = rc == 0;
    return rc < 0 ? rc : 0;
}

/* Walks the page and the directory's names together. */
static int merge(struct import *im, const struct meta_op *op, const struct meta_entry **list)
{
    struct record_key key;
    struct engine_iter iter;
    size_t i = 0, n = op->entry_count;
    const char *from = op->name.bytes;
    size_t from_len = op->name.len;
    if (n > 0 && from_len && compare(list[0]->name, list[0]->name_len, from, from_len) < 0) {
        from = list[0]->name;
        from_len = list[0]->name_len;
    }
    bool names = im->dir->now.children > 0;
    int rc = 0;
    record_key_named(&key, im->dir->ino, from, from_len);
    if (names)
        engine_iter_init(&iter, im->t->engine, NULL, TABLE_DENTRY, &key, NULL, 8);
    while (rc == 0) {
        const uint8_t *k = NULL, *v = NULL;
        size_t k_len = 0, v_len = 0;
        struct record_dentry dentry = {0};
        uint64_t ino;
        int there = names ? engine_iter_get(&iter, &k, &k_len, &v, &v_len) : 0;
        if (there > 0 && (k_len <= 8 || record_dentry_decode(v, v_len, &dentry) < 0))
            there = -EIO;
        if (there < 0) {
            rc = there;
            break;
        }
        const char *name = there ? (const char *)k + 8 : NULL;
        size_t len = there ? k_len - 8 : 0;
        bool past = !there || (op->new_name.len &&
                               compare(name, len, op->new_name.bytes, op->new_name.len) > 0);
        if (i == n && past)
            break;
        int order = !there ? -1 : i == n ? 1 : compare(list[i]->name, list[i]->name_len, name, len);
        if (order < 0) {
            rc = import_new(im, list[i++], &ino);
        } else if (order == 0) {
            rc = import_known(im, list[i++], dentry.ino);
            engine_iter_next(&iter);
        } else {
            bool before = op->name.len && compare(name, len, op->name.bytes, op->name.len) <= 0;
            if (!before && !past)
                rc = import_gone(im, name, len, dentry.ino, false);
            engine_iter_next(&iter);
        }
    }
    if (names)
        engine_iter_done(&iter);
    return rc;
}

/* An old listing says nothing of a directory that was listed, or changed here, since then. */
static bool is_outdated(const struct import *im)
{
    const struct record_inode *dir = &im->dir->now;
    return im->old && (dir->listed_ns > im->asked_ns ||
                       (dir->flags & RECORD_TOUCHED && dir->ctime_ns >= im->asked_ns));
}

int engine_apply_import_dir(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct import im;
    const struct meta_entry **list;
    if (op->name.len > META_NAME_MAX || op->new_name.len > META_NAME_MAX)
        return -EINVAL;
    int rc = import_begin(&im, t, op->ino, op, reply);
    im.old = op->flags & META_IMPORT_OLD;
    if (rc == 0 && is_outdated(&im))
        return 0;
    if (rc == 0)
        rc = sort_entries(&im, op, &list);
    if (rc == 0)
        rc = look_for_keys(&im, list, op->entry_count);
    if (rc == 0)
        rc = merge(&im, op, list);
    if (rc == 0)
        rc = import_end(&im);
    bool to_end = op->flags & META_IMPORT_LAST && op->new_name.len == 0;
    if (rc == 0 && (op->object_count || to_end))
        rc = engine_origin_marker(t, im.dir, op->object_count ? op->objects : NULL);
    if (rc < 0)
        return rc;
    if (op->flags & META_IMPORT_LAST) {
        im.dir->now.listed_ns = MAX(im.old ? im.asked_ns : t->time_ns, LISTED_LONG_AGO + 1);
        im.dir->dirty = true;
    }
    engine_attr(im.dir->ino, &im.dir->now, &reply->attr);
    return 0;
}

/* A file that is nothing but somebody else's object, where keys of an old listing make a directory:
 * the directory is shown. Clears the dentry if the file went. */
static int make_way(struct import *im, const struct meta_entry *e, struct record_dentry *dentry)
{
    struct engine_node *node;
    int rc = engine_txn_inode(im->t, dentry->ino, &node);
    if (rc < 0 || !S_ISREG(node->now.mode) || is_outdated(im))
        return rc == -ENOENT ? -EIO : rc;
    rc = import_gone(im, e->name, e->name_len, dentry->ino, false);
    if (rc == 0 && node->now.nlink == 0)
        *dentry = (struct record_dentry){0};
    return rc;
}

int engine_apply_import_one(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply)
{
    struct import im;
    struct record_dentry dentry = {0};
    struct engine_node *node;
    int rc = engine_name_check(&op->name);
    if (rc == 0 && op->entry_count > 1)
        rc = -EINVAL;
    if (rc == 0)
        rc = import_begin(&im, t, op->parent, op, reply);
    if (rc < 0)
        return rc;
    im.old = op->flags & META_IMPORT_OLD;
    rc = engine_dentry_get(t, op->parent, op->name.bytes, op->name.len, &dentry);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (op->entry_count == 1) {
        struct meta_entry entry = op->entries[0];
        entry.name = op->name.bytes;
        entry.name_len = op->name.len;
        if (rc == 0 && im.old && entry.is_dir)
            rc = make_way(&im, &entry, &dentry);
        if (rc < 0 && rc != -ENOENT)
            return rc;
        if (!dentry.ino && is_outdated(&im))
            return 0;
        rc = dentry.ino ? import_known(&im, &entry, dentry.ino)
                        : import_new(&im, &entry, &dentry.ino);
        if (rc == 0)
            rc = import_end(&im);
    } else if (rc == 0) {
        rc = import_gone(&im, op->name.bytes, op->name.len, dentry.ino, true);
    } else {
        return 0;
    }
    if (rc < 0 || dentry.ino == 0)
        return rc;
    /* What was put straight into the batch is not to be read here: its attributes are known. */
    if (im.added.files > 0) {
        struct record_inode inode;
        struct meta_entry entry = op->entries[0];
        entry.name = op->name.bytes;
        entry.name_len = op->name.len;
        fill_inode(&im, &entry, &inode);
        engine_attr(dentry.ino, &inode, &reply->attr);
        return 0;
    }
    rc = engine_txn_inode(t, dentry.ino, &node);
    if (rc == 0 && node->now.nlink > 0)
        engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}

/* The directory whose origin and the name that give an object's key for a file. */
static int outside_place(struct import *im, struct engine_node *node, struct record_object *object)
{
    char key[META_KEY_MAX + 1];
    size_t len;
    int rc = engine_key_natural(im->t, node, key, &len);
    if (rc <= 0)
        return rc < 0 ? rc : -ESTALE;
    rc = engine_txn_dir(im->t, node->now.parent, &im->dir);
    if (rc < 0)
        return rc;
    im->prefix = arena_copy(&im->t->arena, key, len);
    im->prefix_len = len - node->now.name_len;
    if (!im->prefix)
        return -ENOMEM;
    rc = is_untouched(im, node, key, len, object);
    return rc < 0 ? rc : rc ? 0 : -ESTALE;
}

/* What uses the object is not what it was when it was imported or settled. The object is gone all
 * the same: its key is not ours any more, so that what stands there now is seen. A file with
 * changes at that very key stays, beside theirs. */
static int outside_changed(struct engine_txn *t, const struct meta_op *op,
                           const struct record_object *object, struct meta_reply *reply)
{
    struct engine_node *node = NULL;
    char key[META_KEY_MAX + 1];
    size_t len = 0;
    if (op->entry_count && !is_changed(object, op->entries, true))
        return -ESTALE;
    if (object->lost)
        return -ESTALE; /* it is known */
    int rc = engine_txn_inode(t, object->ino, &node);
    bool there = rc == 0 && S_ISREG(node->now.mode) && node->now.nlink > 0;
    rc = there ? engine_key_natural(t, node, key, &len) : rc;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool at_home = rc > 0 && len == object->key_len && memcmp(key, object->key, len) == 0;
    rc = engine_object_lost(t, op->object);
    if (rc < 0 || !there)
        return rc;
    if (at_home && op->entry_count) {
        rc = engine_settle_abandon(t, node);
        return rc < 0 ? rc : engine_conflict_part(t, node, op->entries, key, len, reply);
    }
    engine_attr(node->ino, &node->now, &reply->attr);
    return 0;
}

int engine_apply_outside(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct import im = {.t = t, .reply = reply};
    struct record_object object, same;
    struct engine_node *node;
    int rc = engine_object_get(t, op->object, &object);
    if (rc < 0)
        return rc;
    if (object.state != META_OBJECT_LIVE)
        return -ENOENT;
    rc = engine_txn_inode(t, object.ino, &node);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && node->now.body == RECORD_BODY_OBJECT && node->now.object == op->object)
        rc = outside_place(&im, node, &same);
    else
        rc = -ESTALE;
    if (rc == -ESTALE || rc == -ENOENT)
        return outside_changed(t, op, &object, reply);
    if (rc < 0)
        return rc;
    if (op->entry_count == 0) {
        const void *name = arena_copy(&t->arena, node->now.name, node->now.name_len);
        rc = name ? import_gone(&im, name, node->now.name_len, node->ino, true) : -ENOMEM;
    } else if (is_changed(&object, op->entries, true)) {
        rc = follow_change(&im, node, op->entries, object.key, object.key_len);
    }
    reply->end = true;
    if (rc == 0)
        engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}
