/* Names: making, linking, removing and moving them, with what hangs on them: link counts, the
 * parents' times and number of children, recursive usage. */
#include <errno.h>
#include <stdio.h> /* RENAME_ */
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"

int engine_name_check(const struct meta_name *name)
{
    if (name->len == 0)
        return -ENOENT;
    if (name->len > META_NAME_MAX)
        return -ENAMETOOLONG;
    if (memchr(name->bytes, '/', name->len) || memchr(name->bytes, '\0', name->len))
        return -EINVAL;
    if (name->bytes[0] == '.' && (name->len == 1 || (name->len == 2 && name->bytes[1] == '.')))
        return -EINVAL;
    return 0;
}

void engine_attr(uint64_t ino, const struct record_inode *inode, struct meta_attr *out)
{
    *out = (struct meta_attr){
        .ino = ino,
        .mode = inode->mode,
        .uid = inode->uid,
        .gid = inode->gid,
        .nlink = inode->nlink,
        .rdev = inode->rdev,
        .size = inode->size,
        .atime_ns = inode->atime_ns,
        .mtime_ns = inode->mtime_ns,
        .ctime_ns = inode->ctime_ns,
        .btime_ns = inode->btime_ns,
        .data_version = inode->data_version,
        .meta_version = inode->meta_version,
        .has_xattr = inode->xattrs > 0,
        .listed = S_ISDIR(inode->mode) && inode->flags & RECORD_ORIGIN,
    };
}

int engine_dentry_get(struct engine_txn *t, uint64_t parent, const void *name, size_t len,
                      struct record_dentry *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t value_len;
    record_key_named(&key, parent, name, len);
    int rc = engine_txn_get(t, TABLE_DENTRY, &key, &value, &value_len);
    if (rc < 0)
        return rc;
    return record_dentry_decode(value, value_len, out) < 0 ? -EIO : 0;
}

int engine_dentry_put(struct engine_txn *t, uint64_t parent, const void *name, size_t len,
                      uint64_t ino, uint32_t mode)
{
    struct record_key key;
    uint8_t value[RECORD_DENTRY_LEN];
    record_key_named(&key, parent, name, len);
    record_dentry_encode(value, &(struct record_dentry){.ino = ino, .type = mode & S_IFMT});
    return engine_txn_put(t, TABLE_DENTRY, &key, value, sizeof(value));
}

int engine_dentry_delete(struct engine_txn *t, uint64_t parent, const void *name, size_t len)
{
    struct record_key key;
    record_key_named(&key, parent, name, len);
    return engine_txn_delete(t, TABLE_DENTRY, &key);
}

int engine_txn_dir(struct engine_txn *t, uint64_t ino, struct engine_node **out)
{
    struct engine_node *node;
    int rc = engine_txn_inode(t, ino, &node);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(node->now.mode))
        return -ENOTDIR;
    if (node->now.nlink == 0)
        return -ENOENT;
    *out = node;
    return 0;
}

void engine_node_touch(struct engine_txn *t, struct engine_node *node)
{
    node->now.ctime_ns = t->time_ns;
    node->now.meta_version++;
    node->dirty = true;
}

void engine_node_touch_dir(struct engine_txn *t, struct engine_node *node)
{
    node->now.mtime_ns = t->time_ns;
    node->now.data_version++;
    engine_node_touch(t, node);
}

void engine_usage_of(const struct record_inode *inode, struct meta_usage *out)
{
    if (S_ISDIR(inode->mode)) {
        *out = inode->usage;
        out->directories++;
    } else {
        *out = (struct meta_usage){.bytes = S_ISREG(inode->mode) ? inode->size : 0, .files = 1};
    }
}

int engine_usage_add(struct engine_txn *t, uint64_t dir, const struct meta_usage *delta, int sign)
{
    uint64_t s = (uint64_t)sign;
    if (delta->bytes == 0 && delta->files == 0 && delta->directories == 0)
        return 0;
    while (dir != 0) {
        struct engine_node *node;
        int rc = engine_txn_inode(t, dir, &node);
        if (rc < 0)
            return rc == -ENOENT ? -EIO : rc;
        node->now.usage.bytes += s * delta->bytes;
        node->now.usage.files += s * delta->files;
        node->now.usage.directories += s * delta->directories;
        node->dirty = true;
        dir = node->now.parent;
    }
    return 0;
}

static int resize_above(struct engine_txn *t, uint64_t dir, const struct meta_usage *delta,
                        int64_t reserved)
{
    int rc = engine_usage_add(t, dir, delta, 1);
    return rc < 0 ? rc : engine_quota_shift(t, dir, reserved);
}

int engine_usage_resize(struct engine_txn *t, struct engine_node *node, uint64_t from, uint64_t to)
{
    struct meta_usage delta = {.bytes = to - from};
    int64_t reserved = engine_quota_resized(t, node->ino, from, to);
    int rc = 0;
    if (from == to || node->now.nlink == 0)
        return 0;
    rc = resize_above(t, node->now.parent, &delta, reserved);
    if (rc < 0 || node->now.nlink == 1)
        return rc;
    struct record_key key;
    struct engine_iter iter;
    record_key_u64(&key, node->ino);
    engine_iter_init(&iter, t->engine, NULL, TABLE_LINK, &key, NULL, key.len);
    const uint8_t *k;
    size_t k_len;
    while (rc == 0 && (rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        rc = k_len > 16 ? resize_above(t, record_get_u64(k + 8), &delta, reserved) : -EIO;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

static bool is_first_link(const struct engine_node *node, uint64_t parent, const void *name,
                          size_t len)
{
    return node->now.parent == parent && node->now.name_len == len &&
           memcmp(node->now.name, name, len) == 0;
}

static void set_first_link(struct engine_node *node, uint64_t parent, const void *name, size_t len)
{
    node->now.parent = parent;
    memset(node->now.name, 0, sizeof(node->now.name));
    if (len)
        memcpy(node->now.name, name, len);
    node->now.name_len = (uint16_t)len;
    node->dirty = true;
}

static int link_row(struct engine_txn *t, uint64_t ino, uint64_t parent, const void *name,
                    size_t len, bool put)
{
    struct record_key key;
    record_key_link(&key, ino, parent, name, len);
    return put ? engine_txn_put(t, TABLE_LINK, &key, "\x01", 1)
               : engine_txn_delete(t, TABLE_LINK, &key);
}

/* The first link goes: another one becomes the first, one that this apply did not take away. */
static int promote_link(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k, *value;
    size_t k_len, len;
    int rc, found = -ENOENT;
    record_key_u64(&key, node->ino);
    engine_iter_init(&iter, t->engine, NULL, TABLE_LINK, &key, NULL, key.len);
    while (found == -ENOENT && (rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        if (k_len <= 16 || k_len > 16 + META_NAME_MAX) {
            rc = -EIO;
            break;
        }
        record_key_link(&key, node->ino, record_get_u64(k + 8), k + 16, k_len - 16);
        found = engine_txn_get(t, TABLE_LINK, &key, &value, &len);
        if (found == 0)
            set_first_link(node, record_get_u64(k + 8), k + 16, k_len - 16);
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    if (found < 0)
        return rc < 0 ? rc : found == -ENOENT ? -EIO : found;
    return link_row(t, node->ino, node->now.parent, node->now.name, node->now.name_len, false);
}

/* One name is in a directory more (sign 1) or less (-1). */
static int count_name(struct engine_txn *t, struct engine_node *parent,
                      const struct engine_node *node, int sign)
{
    struct meta_usage usage;
    engine_usage_of(&node->now, &usage);
    parent->now.children += (uint64_t)sign;
    if (S_ISDIR(node->now.mode))
        parent->now.nlink += (uint32_t)sign;
    engine_node_touch_dir(t, parent);
    int rc = engine_usage_add(t, parent->ino, &usage, sign);
    return rc < 0 ? rc : engine_quota_name(t, parent->ino, node, sign);
}

static int sustain(struct engine_txn *t, struct engine_node *node)
{
    struct record_key key;
    node->now.flags |= RECORD_SUSTAINED;
    node->dirty = true;
    record_key_u64(&key, node->ino);
    return engine_txn_put(t, TABLE_SUSTAINED, &key, "\x01", 1);
}

static int lost_last_link(struct engine_txn *t, struct engine_node *node, bool purge)
{
    set_first_link(node, 0, NULL, 0);
    int rc = engine_settle_unqueue(t, node);
    if (rc == 0)
        rc = engine_carry_changed(t, node);
    if (rc == 0)
        rc = engine_origin_marker_discard(t, node);
    if (rc == 0)
        rc = engine_origin_drop(t, node);
    if (rc == 0)
        rc = engine_quota_drop(t, node);
    if (rc == 0)
        rc = engine_place_drop(t, node);
    if (rc < 0)
        return rc;
    if (purge)
        return engine_inode_purge(t, node);
    return sustain(t, node);
}

int engine_name_remove(struct engine_txn *t, struct engine_node *parent, const void *name,
                       size_t len, struct engine_node *node, bool purge)
{
    int rc = engine_dentry_delete(t, parent->ino, name, len);
    if (rc == 0)
        rc = count_name(t, parent, node, -1);
    /* A directory that is empty now has nothing else in the bucket. */
    if (rc == 0 && parent->now.children == 0 && parent->now.flags & RECORD_TOUCHED)
        rc = engine_carry_queue(t, parent);
    if (rc < 0)
        return rc;
    bool first = is_first_link(node, parent->ino, name, len);
    node->now.nlink = S_ISDIR(node->now.mode) ? 0 : node->now.nlink - 1;
    engine_node_touch(t, node);
    if (node->now.nlink == 0)
        return lost_last_link(t, node, purge);
    rc = engine_carry_queue(t, node);
    if (rc < 0)
        return rc;
    if (!first)
        return link_row(t, node->ino, parent->ino, name, len, false);
    rc = promote_link(t, node);
    return rc < 0 ? rc : engine_settle_changed(t, node);
}

static int xattrs_drop(struct engine_txn *t, uint64_t ino)
{
    struct record_key key;
    struct engine_iter iter;
    const uint8_t *k;
    size_t k_len;
    int rc;
    record_key_u64(&key, ino);
    engine_iter_init(&iter, t->engine, NULL, TABLE_XATTR, &key, NULL, key.len);
    while ((rc = engine_iter_get(&iter, &k, &k_len, NULL, NULL)) > 0) {
        record_key_named(&key, ino, k + 8, k_len - 8);
        rc = engine_txn_delete(t, TABLE_XATTR, &key);
        if (rc < 0)
            break;
        engine_iter_next(&iter);
    }
    engine_iter_done(&iter);
    return rc;
}

int engine_inode_purge(struct engine_txn *t, struct engine_node *node)
{
    int rc = engine_settle_abandon(t, node);
    if (rc == 0)
        rc = engine_settle_unqueue(t, node);
    if (rc == 0)
        rc = engine_carry_purge(t, node);
    if (rc == 0 && S_ISREG(node->now.mode) && node->now.body == RECORD_BODY_INLINE) {
        struct record_key key;
        record_key_u64x2(&key, node->ino, 0);
        rc = engine_txn_delete(t, TABLE_EXTENT, &key);
    } else if (rc == 0 && S_ISREG(node->now.mode) && node->now.body != RECORD_BODY_EMPTY) {
        struct engine_edit edit;
        rc = engine_edit_begin(&edit, t, node);
        if (rc == 0)
            rc = engine_edit_cut(&edit, 0);
        if (rc == 0)
            rc = engine_edit_end(&edit);
    }
    if (rc == 0 && node->now.xattrs)
        rc = xattrs_drop(t, node->ino);
    if (rc == 0 && node->now.flags & RECORD_SUSTAINED) {
        struct record_key key;
        record_key_u64(&key, node->ino);
        rc = engine_txn_delete(t, TABLE_SUSTAINED, &key);
    }
    node->exists = false;
    node->dirty = true;
    return rc;
}

static int mknod_check(const struct meta_op *op, uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFLNK:
        if (op->data_len == 0)
            return -ENOENT;
        return op->data_len > META_SYMLINK_MAX ? -ENAMETOOLONG : 0;
    case S_IFREG:
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        return 0;
    default:
        return -EINVAL;
    }
}

static int new_inode(struct engine_txn *t, const struct meta_op *op,
                     const struct engine_node *parent, uint32_t mode, struct engine_node **out)
{
    struct engine_node *node;
    int rc = engine_txn_inode_new(t, &node);
    if (rc < 0)
        return rc;
    struct record_inode *inode = &node->now;
    inode->mode = mode;
    inode->uid = op->attr.uid;
    inode->gid = op->attr.gid;
    if (parent->now.mode & S_ISGID) {
        inode->gid = parent->now.gid;
        if (S_ISDIR(mode))
            inode->mode |= S_ISGID;
    }
    inode->nlink = S_ISDIR(mode) ? 2 : 1;
    inode->atime_ns = inode->mtime_ns = inode->ctime_ns = inode->btime_ns = t->time_ns;
    inode->data_version = inode->meta_version = 1;
    if (S_ISCHR(mode) || S_ISBLK(mode))
        inode->rdev = op->attr.rdev;
    if (S_ISLNK(mode)) {
        inode->target = arena_copy(&t->arena, op->data, op->data_len);
        inode->target_len = (uint16_t)op->data_len;
        inode->size = op->data_len;
        if (!inode->target)
            return -ENOMEM;
    }
    set_first_link(node, parent->ino, op->name.bytes, op->name.len);
    *out = node;
    return engine_acl_inherit(t, parent, op->valid, node);
}

static int make_nameless(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    uint32_t mode = S_IFREG | (op->attr.mode & 07777);
    struct engine_node *parent = NULL, *node = NULL;
    if (op->attr.mode & S_IFMT && !S_ISREG(op->attr.mode))
        return -EINVAL;
    int rc = engine_txn_dir(t, op->parent, &parent);
    if (rc == 0)
        rc = new_inode(t, op, parent, mode, &node);
    if (rc < 0)
        return rc;
    set_first_link(node, 0, NULL, 0);
    node->now.nlink = 0;
    node->now.flags |= RECORD_NAMELESS;
    rc = sustain(t, node);
    if (rc == 0)
        engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}

int engine_apply_mknod(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    if (op->flags & META_NAMELESS)
        return make_nameless(t, op, reply);
    uint32_t mode = op->attr.mode & (S_IFMT | 07777);
    struct engine_node *parent = NULL, *node = NULL;
    struct record_dentry dentry;
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    int rc = engine_name_check(&op->name);
    if (rc == 0)
        rc = mknod_check(op, mode);
    if (rc == 0)
        rc = engine_txn_dir(t, op->parent, &parent);
    if (rc < 0)
        return rc;
    rc = parent->now.children == 0
             ? -ENOENT
             : engine_dentry_get(t, op->parent, op->name.bytes, op->name.len, &dentry);
    if (rc != -ENOENT)
        return rc == 0 ? -EEXIST : rc;
    if (S_ISDIR(mode) && parent->now.nlink >= ENGINE_SUBDIRS_MAX)
        return -EMLINK;
    parent->now.flags |= RECORD_TOUCHED;
    rc = new_inode(t, op, parent, mode, &node);
    if (rc == 0)
        rc = engine_dentry_put(t, op->parent, op->name.bytes, op->name.len, node->ino, mode);
    if (rc == 0)
        rc = count_name(t, parent, node, 1);
    if (rc == 0)
        rc = S_ISREG(mode) ? engine_settle_changed(t, node) : engine_carry_queue(t, node);
    if (rc == 0 && S_ISREG(mode) && node->now.xattrs)
        rc = engine_carry_queue(t, node);
    if (rc < 0)
        return rc;
    engine_attr(node->ino, &node->now, &reply->attr);
    return 0;
}

/* The first name of a file that was made without one. */
static int name_nameless(struct engine_txn *t, const struct meta_op *op, struct engine_node *node)
{
    struct record_key key;
    set_first_link(node, op->parent, op->name.bytes, op->name.len);
    node->now.flags &= ~(uint32_t)(RECORD_SUSTAINED | RECORD_NAMELESS);
    record_key_u64(&key, node->ino);
    return engine_txn_delete(t, TABLE_SUSTAINED, &key);
}

int engine_apply_link(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *parent = NULL, *node = NULL;
    struct record_dentry dentry;
    int rc = engine_name_check(&op->name);
    if (rc == 0)
        rc = engine_txn_dir(t, op->parent, &parent);
    if (rc == 0)
        rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    if (S_ISDIR(node->now.mode))
        return -EPERM;
    bool nameless = node->now.nlink == 0;
    if (nameless && !(node->now.flags & RECORD_NAMELESS))
        return -ENOENT;
    rc = engine_dentry_get(t, op->parent, op->name.bytes, op->name.len, &dentry);
    if (rc != -ENOENT)
        return rc == 0 ? -EEXIST : rc;
    if (node->now.nlink >= META_LINK_MAX)
        return -EMLINK;
    parent->now.flags |= RECORD_TOUCHED;
    rc = engine_dentry_put(t, op->parent, op->name.bytes, op->name.len, node->ino, node->now.mode);
    if (rc == 0)
        rc = count_name(t, parent, node, 1);
    if (rc == 0)
        rc = nameless ? name_nameless(t, op, node)
                      : link_row(t, node->ino, op->parent, op->name.bytes, op->name.len, true);
    if (rc < 0)
        return rc;
    node->now.nlink++;
    rc = engine_carry_queue(t, node);
    if (rc < 0)
        return rc;
    engine_node_touch(t, node);
    rc = nameless ? engine_settle_changed(t, node) : 0;
    if (rc < 0)
        return rc;
    engine_attr(node->ino, &node->now, &reply->attr);
    return 0;
}

/* A directory that is to go away: 0, -ENOTEMPTY, -EBUSY if a store is attached there, or -EAGAIN if
 * its listing is not here. */
static int check_empty(struct engine_txn *t, const struct engine_node *dir,
                       struct meta_reply *reply)
{
    struct record_place place;
    int rc = engine_place_get(t, dir, &place);
    if (rc < 0)
        return rc;
    if (rc > 0 && place.attached)
        return -EBUSY;
    if (dir->now.children > 0)
        return -ENOTEMPTY;
    if (dir->now.flags & RECORD_ORIGIN && dir->now.listed_ns == 0) {
        reply->need_import = true;
        reply->attr.ino = dir->ino;
        return -EAGAIN;
    }
    return 0;
}

int engine_apply_unlink(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *parent = NULL, *node = NULL;
    struct record_dentry dentry;
    int rc = engine_name_check(&op->name);
    if (rc == 0)
        rc = engine_txn_dir(t, op->parent, &parent);
    if (rc == 0)
        rc = engine_dentry_get(t, op->parent, op->name.bytes, op->name.len, &dentry);
    if (rc == 0)
        rc = engine_txn_inode(t, dentry.ino, &node);
    if (rc < 0)
        return rc;
    if (!(op->flags & META_RMDIR) != !S_ISDIR(node->now.mode))
        return S_ISDIR(node->now.mode) ? -EISDIR : -ENOTDIR;
    if (S_ISDIR(node->now.mode))
        rc = check_empty(t, node, reply);
    if (rc == 0) {
        parent->now.flags |= RECORD_TOUCHED;
        rc = engine_name_remove(t, parent, op->name.bytes, op->name.len, node, false);
    }
    if (rc == 0)
        engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}

/* One side of a rename: `node` goes from a name to another. */
struct side {
    struct engine_node *parent, *node;
    const struct meta_name *name;
};

/* -EINVAL if directory `node` is `below` or above it. */
static int check_no_cycle(struct engine_txn *t, const struct engine_node *node, uint64_t below)
{
    if (!S_ISDIR(node->now.mode))
        return 0;
    while (below != 0) {
        struct engine_node *dir;
        if (below == node->ino)
            return -EINVAL;
        int rc = engine_txn_inode(t, below, &dir);
        if (rc < 0)
            return rc;
        below = dir->now.parent;
    }
    return 0;
}

static int rename_check(struct engine_txn *t, const struct side *from, const struct side *to,
                        uint32_t flags, struct meta_reply *reply)
{
    struct engine_node *node = from->node, *other = to->node;
    int rc = check_no_cycle(t, node, to->parent->ino);
    if (rc < 0)
        return rc;
    bool dir = S_ISDIR(node->now.mode), other_dir = other && S_ISDIR(other->now.mode);
    if (flags & RENAME_EXCHANGE)
        rc = check_no_cycle(t, other, from->parent->ino);
    else if (other && dir != other_dir)
        rc = dir ? -ENOTDIR : -EISDIR;
    else if (other_dir)
        rc = check_empty(t, other, reply);
    if (rc < 0)
        return rc;
    bool grows = dir && !other_dir && from->parent != to->parent;
    if (grows && to->parent->now.nlink >= ENGINE_SUBDIRS_MAX)
        return -EMLINK;
    return 0;
}

/* The name of `from` in its directory is already gone, the one of `to` free. */
static int place(struct engine_txn *t, struct engine_node *node, const struct side *from,
                 const struct side *to)
{
    int rc = engine_dentry_put(t, to->parent->ino, to->name->bytes, to->name->len, node->ino,
                               node->now.mode);
    if (rc < 0)
        return rc;
    if (is_first_link(node, from->parent->ino, from->name->bytes, from->name->len)) {
        set_first_link(node, to->parent->ino, to->name->bytes, to->name->len);
    } else {
        rc = link_row(t, node->ino, from->parent->ino, from->name->bytes, from->name->len, false);
        if (rc == 0)
            rc = link_row(t, node->ino, to->parent->ino, to->name->bytes, to->name->len, true);
    }
    if (rc == 0)
        rc = count_name(t, to->parent, node, 1);
    if (rc < 0)
        return rc;
    engine_node_touch(t, node);
    if (S_ISREG(node->now.mode))
        return engine_settle_changed(t, node);
    rc = engine_carry_queue(t, node);
    if (rc < 0)
        return rc;
    if (S_ISDIR(node->now.mode) &&
        (node->now.usage.files || node->now.flags & RECORD_ORIGIN || node->now.usage.directories))
        return engine_settle_queue(
            t, node, t->time_ns + (uint64_t)t->engine->volume.settle_delay_ms * 1000000);
    return 0;
}

int engine_apply_rename(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct side from = {.name = &op->name}, to = {.name = &op->new_name};
    struct record_dentry dentry;
    if (op->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
        op->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int rc = engine_name_check(&op->name);
    if (rc == 0)
        rc = engine_name_check(&op->new_name);
    if (rc == 0)
        rc = engine_txn_dir(t, op->parent, &from.parent);
    if (rc == 0)
        rc = engine_txn_dir(t, op->new_parent, &to.parent);
    if (rc == 0)
        rc = engine_dentry_get(t, op->parent, op->name.bytes, op->name.len, &dentry);
    if (rc == 0)
        rc = engine_txn_inode(t, dentry.ino, &from.node);
    if (rc < 0)
        return rc;
    rc = engine_dentry_get(t, op->new_parent, op->new_name.bytes, op->new_name.len, &dentry);
    if (rc == 0)
        rc = engine_txn_inode(t, dentry.ino, &to.node);
    else if (rc == -ENOENT && !(op->flags & RENAME_EXCHANGE))
        rc = 0;
    if (rc < 0)
        return rc;
    if (to.node && op->flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (from.node == to.node) {
        engine_attr(from.node->ino, &from.node->now, &reply->attr);
        return 0;
    }
    rc = rename_check(t, &from, &to, op->flags, reply);
    if (rc < 0)
        return rc;
    struct engine_node *node = from.node, *other = to.node;
    from.parent->now.flags |= RECORD_TOUCHED;
    to.parent->now.flags |= RECORD_TOUCHED;
    rc = engine_dentry_delete(t, op->parent, op->name.bytes, op->name.len);
    if (rc == 0)
        rc = count_name(t, from.parent, node, -1);
    if (rc == 0 && from.parent->now.children == 0)
        rc = engine_carry_queue(t, from.parent);
    if (rc == 0 && other && op->flags & RENAME_EXCHANGE) {
        rc = count_name(t, to.parent, other, -1);
        if (rc == 0)
            rc = place(t, other, &to, &from);
    } else if (rc == 0 && other) {
        rc = engine_name_remove(t, to.parent, op->new_name.bytes, op->new_name.len, other, false);
    }
    if (rc == 0)
        rc = place(t, node, &from, &to);
    if (rc < 0)
        return rc;
    engine_attr(node->ino, &node->now, &reply->attr);
    if (other)
        engine_attr(other->ino, &other->now, &reply->replaced);
    return 0;
}

int engine_name_change(struct engine_txn *t, struct engine_node *parent, struct engine_node *node,
                       const struct meta_name *name)
{
    size_t len = node->now.name_len;
    struct meta_name old = {arena_copy(&t->arena, node->now.name, len), len};
    struct side from = {parent, node, &old}, to = {parent, node, name};
    if (!old.bytes)
        return -ENOMEM;
    parent->now.flags |= RECORD_TOUCHED;
    int rc = engine_dentry_delete(t, parent->ino, old.bytes, len);
    if (rc == 0)
        rc = count_name(t, parent, node, -1);
    return rc < 0 ? rc : place(t, node, &from, &to);
}

int engine_apply_drop(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    for (size_t i = 0; i < op->ino_count; i++) {
        struct engine_node *node;
        int rc = engine_txn_inode(t, op->inos[i], &node);
        if (rc == -ENOENT)
            continue;
        if (rc == 0 && node->now.flags & RECORD_SUSTAINED && node->now.nlink == 0)
            rc = engine_inode_purge(t, node);
        if (rc < 0)
            return rc;
    }
    return 0;
}
