/* Access control lists in the state machine: kept as extended attributes, in step with the mode. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "engine_impl.h"
#include "meta/acl.h"

static void acl_key(struct record_key *key, uint64_t ino, const char *name)
{
    record_key_named(key, ino, name, strlen(name));
}

static bool is_name(const struct meta_name *name, const char *text)
{
    return name->len == strlen(text) && memcmp(name->bytes, text, name->len) == 0;
}

bool engine_acl_is_name(const struct meta_name *name)
{
    return is_name(name, ACL_ACCESS) || is_name(name, ACL_DEFAULT);
}

static int get(struct engine_txn *t, const struct engine_node *node, const char *name,
               struct acl *out)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    out->count = 0;
    if (node->now.xattrs == 0)
        return 0;
    acl_key(&key, node->ino, name);
    int rc = engine_txn_get(t, TABLE_XATTR, &key, &value, &len);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return len < 1 || acl_parse(value + 1, len - 1, out) < 0 ? -EUCLEAN : 0;
}

/* A list without entries removes the one that is there. */
static int put(struct engine_txn *t, struct engine_node *node, const char *name,
               const struct acl *acl)
{
    struct record_key key;
    const uint8_t *value;
    size_t len;
    acl_key(&key, node->ino, name);
    int rc = node->now.xattrs ? engine_txn_get(t, TABLE_XATTR, &key, &value, &len) : -ENOENT;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (acl->count == 0) {
        if (rc == -ENOENT)
            return 0;
        node->now.xattrs--;
        return engine_txn_delete(t, TABLE_XATTR, &key);
    }
    node->now.xattrs += rc == -ENOENT;
    struct buf *b = engine_txn_scratch(t);
    cleanup(free_ptr) uint8_t *bytes = malloc(acl_size(acl));
    if (!bytes)
        return -ENOMEM;
    acl_write(acl, bytes);
    buf_put_u8(b, 1);
    buf_put(b, bytes, acl_size(acl));
    return buf_error(b) ? -ENOMEM : engine_txn_put(t, TABLE_XATTR, &key, b->data, b->len);
}

/* The bits follow the list; a list that says no more than they do is not kept. */
static int put_access(struct engine_txn *t, struct engine_node *node, struct acl *acl)
{
    bool same = false;
    if (acl->count)
        node->now.mode = (node->now.mode & ~0777u) | acl_mode(acl, &same);
    if (same)
        acl->count = 0;
    return put(t, node, ACL_ACCESS, acl);
}

int engine_acl_set(struct engine_txn *t, struct engine_node *node, const struct meta_op *op)
{
    cleanup(free_ptr) struct acl *acl = malloc(sizeof(*acl));
    if (!acl)
        return -ENOMEM;
    int rc = acl_parse(op->data, op->data_len, acl);
    if (rc < 0)
        return rc;
    if (S_ISLNK(node->now.mode))
        return -EOPNOTSUPP;
    if (is_name(&op->name, ACL_ACCESS)) {
        if (op->valid & META_KILL_SGID)
            node->now.mode &= ~(uint32_t)S_ISGID;
        return put_access(t, node, acl);
    }
    if (!S_ISDIR(node->now.mode))
        return acl->count ? -EACCES : 0;
    return put(t, node, ACL_DEFAULT, acl);
}

int engine_acl_remove(struct engine_txn *t, struct engine_node *node, const struct meta_name *name)
{
    static const struct acl none;
    return put(t, node, is_name(name, ACL_ACCESS) ? ACL_ACCESS : ACL_DEFAULT, &none);
}

int engine_acl_chmod(struct engine_txn *t, struct engine_node *node)
{
    if (node->now.xattrs == 0)
        return 0;
    cleanup(free_ptr) struct acl *acl = malloc(sizeof(*acl));
    if (!acl)
        return -ENOMEM;
    int rc = get(t, node, ACL_ACCESS, acl);
    if (rc < 0 || acl->count == 0)
        return rc;
    acl_chmod(acl, node->now.mode);
    return put(t, node, ACL_ACCESS, acl);
}

int engine_acl_inherit(struct engine_txn *t, const struct engine_node *parent, uint32_t umask,
                       struct engine_node *node)
{
    cleanup(free_ptr) struct acl *acl = NULL;
    if (S_ISLNK(node->now.mode))
        return 0;
    if (parent->now.xattrs) {
        acl = malloc(sizeof(*acl));
        int rc = acl ? get(t, parent, ACL_DEFAULT, acl) : -ENOMEM;
        if (rc < 0)
            return rc;
    }
    if (!acl || acl->count == 0) {
        node->now.mode &= ~(umask & 0777u);
        return 0;
    }
    int rc = S_ISDIR(node->now.mode) ? put(t, node, ACL_DEFAULT, acl) : 0;
    if (rc < 0)
        return rc;
    node->now.mode = acl_inherit(acl, node->now.mode);
    return put_access(t, node, acl);
}
