/* A new volume, attributes and extended attributes. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "engine_impl.h"

/* What an object's tags say. */
#define CARRIED_ATTRS                                                                              \
    (META_SET_MODE | META_SET_UID | META_SET_GID | META_SET_MTIME | META_KILL_SUID)
#define PREFIX_MAX 900 /* leaves room for internal keys */

int engine_apply_format(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    const struct meta_volume *v = op->volume;
    struct engine_node *root;
    struct record_key key;
    if (atomic_load(&t->engine->formatted))
        return -EEXIST;
    size_t prefix_len = v ? strlen(v->prefix) : 0;
    if (!v || !v->id[0] || prefix_len > PREFIX_MAX ||
        (prefix_len > 0 && v->prefix[prefix_len - 1] != '/'))
        return -EINVAL;
    t->counters = (struct record_counters){.next_ino = META_ROOT_INO, .next_object = 1};
    int rc = engine_txn_inode_new(t, &root);
    if (rc < 0)
        return rc;
    root->now.mode = S_IFDIR | (v->root_mode & 07777);
    root->now.uid = v->root_uid;
    root->now.gid = v->root_gid;
    root->now.nlink = 2;
    root->now.atime_ns = root->now.mtime_ns = root->now.ctime_ns = root->now.btime_ns = t->time_ns;
    root->now.data_version = root->now.meta_version = 1;
    rc = engine_origin_set(t, root, v->prefix, prefix_len);
    if (rc < 0)
        return rc;
    struct buf *b = engine_txn_scratch(t);
    record_volume_encode(b, v);
    if (buf_error(b) < 0)
        return -ENOMEM;
    record_key_text(&key, "volume");
    rc = engine_txn_put(t, TABLE_SYSTEM, &key, b->data, b->len);
    engine_attr(root->ino, &root->now, &reply->attr);
    return rc;
}

void engine_kill_suid(struct engine_node *node)
{
    if (S_ISDIR(node->now.mode))
        return; /* there the bits are about what is made in it */
    node->now.mode &= ~(uint32_t)S_ISUID;
    if (node->now.mode & S_IXGRP)
        node->now.mode &= ~(uint32_t)S_ISGID;
}

/* No change that anybody can see. */
static int set_held(struct engine_txn *t, struct engine_node *node, bool held)
{
    if (!S_ISREG(node->now.mode))
        return -EINVAL;
    if (!(node->now.flags & RECORD_HELD) == !held)
        return 0;
    node->now.flags ^= RECORD_HELD;
    node->dirty = true;
    return engine_settle_changed(t, node);
}

int engine_apply_setattr(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    const struct meta_attr *a = &op->attr;
    int rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    if (op->valid & (META_SET_HELD | META_CLEAR_HELD)) {
        rc = set_held(t, node, op->valid & META_SET_HELD);
        engine_attr(node->ino, &node->now, &reply->attr);
        return rc;
    }
    if (op->valid & META_SET_SIZE) {
        if (!S_ISREG(node->now.mode))
            return S_ISDIR(node->now.mode) ? -EISDIR : -EINVAL;
        rc = engine_truncate(t, node, a->size);
        if (rc < 0)
            return rc;
    }
    if (op->valid & META_SET_MODE) {
        node->now.mode = (node->now.mode & S_IFMT) | (a->mode & 07777);
        rc = engine_acl_chmod(t, node);
        if (rc < 0)
            return rc;
    }
    if (op->valid & META_SET_UID)
        node->now.uid = a->uid;
    if (op->valid & META_SET_GID)
        node->now.gid = a->gid;
    if (op->valid & META_KILL_SUID)
        engine_kill_suid(node);
    if (op->valid & META_SET_ATIME)
        node->now.atime_ns = op->valid & META_ATIME_NOW ? t->time_ns : a->atime_ns;
    if (op->valid & META_SET_MTIME)
        node->now.mtime_ns = op->valid & META_MTIME_NOW ? t->time_ns : a->mtime_ns;
    if (S_ISDIR(node->now.mode))
        node->now.flags |= RECORD_TOUCHED;
    /* Inline bytes are settled later, with the attributes of then. */
    if (op->valid & CARRIED_ATTRS && node->now.body != RECORD_BODY_INLINE) {
        rc = engine_carry_queue(t, node);
        if (rc < 0)
            return rc;
    }
    engine_node_touch(t, node);
    if (op->valid & META_SET_CTIME)
        node->now.ctime_ns = a->ctime_ns;
    engine_attr(node->ino, &node->now, &reply->attr);
    return 0;
}

static int xattr_name_check(const struct meta_name *name)
{
    if (name->len == 0 || name->len > META_XATTR_NAME_MAX)
        return -ERANGE;
    if (engine_xattr_is_virtual(name))
        return -EPERM;
    return memchr(name->bytes, '\0', name->len) ? -EINVAL : 0;
}

static int xattr_get(struct engine_txn *t, const struct meta_op *op, struct engine_node *node,
                     struct record_key *key)
{
    const uint8_t *value;
    size_t len;
    record_key_named(key, op->ino, op->name.bytes, op->name.len);
    return node->now.xattrs ? engine_txn_get(t, TABLE_XATTR, key, &value, &len) : -ENOENT;
}

static int xattr_put(struct engine_txn *t, const struct meta_op *op, struct engine_node *node,
                     const struct record_key *key, bool is_new)
{
    struct buf *b = engine_txn_scratch(t);
    node->now.xattrs += is_new;
    buf_put_u8(b, 1);
    buf_put(b, op->data, op->data_len);
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_XATTR, key, b->data, b->len);
}

/* The end of a change with this result. */
static int xattr_changed(struct engine_txn *t, struct engine_node *node, int rc,
                         struct meta_reply *reply)
{
    if (rc == 0)
        rc = engine_carry_queue(t, node);
    engine_node_touch(t, node);
    engine_attr(node->ino, &node->now, &reply->attr);
    return rc;
}

int engine_apply_setxattr(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply)
{
    struct engine_node *node;
    struct record_key key;
    int rc = xattr_name_check(&op->name);
    if (rc == 0 && op->data_len > META_XATTR_VALUE_MAX)
        rc = -E2BIG;
    if (rc == 0 && op->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        rc = -EINVAL;
    if (rc == 0)
        rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    rc = xattr_get(t, op, node, &key);
    if (rc == 0 && op->flags & XATTR_CREATE)
        return -EEXIST;
    if (rc == -ENOENT && op->flags & XATTR_REPLACE)
        return -ENODATA;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    rc = engine_acl_is_name(&op->name) ? engine_acl_set(t, node, op)
                                       : xattr_put(t, op, node, &key, rc == -ENOENT);
    return xattr_changed(t, node, rc, reply);
}

int engine_apply_removexattr(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply)
{
    struct engine_node *node;
    struct record_key key;
    int rc = xattr_name_check(&op->name);
    if (rc == 0)
        rc = engine_txn_inode(t, op->ino, &node);
    if (rc < 0)
        return rc;
    if (engine_acl_is_name(&op->name))
        return xattr_changed(t, node, engine_acl_remove(t, node, &op->name), reply);
    rc = xattr_get(t, op, node, &key);
    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    node->now.xattrs--;
    return xattr_changed(t, node, engine_txn_delete(t, TABLE_XATTR, &key), reply);
}
