#include "remote_attrs.h"

#include "base/hash.h"

static size_t row_of(uint64_t ino)
{
    return hash_u64(ino) % (REMOTE_ATTRS / REMOTE_ATTRS_WAYS);
}

/* REMOTE_ATTRS_WAYS: it is not there. */
static unsigned place_of(const struct remote_attrs_row *row, uint64_t ino)
{
    unsigned at = 0;
    while (at < REMOTE_ATTRS_WAYS && row->places[at].attr.ino != ino)
        at++;
    return at;
}

void remote_attrs_touch(struct remote_attrs *attrs, uint64_t ino)
{
    if (!ino)
        return;
    struct remote_attrs_row *row = &attrs->rows[row_of(ino)];
    unsigned at = place_of(row, ino);
    row->touched = ++attrs->touches;
    if (at < REMOTE_ATTRS_WAYS)
        row->places[at].attr.ino = 0;
}

void remote_attrs_touch_all(struct remote_attrs *attrs)
{
    attrs->floor = ++attrs->touches;
}

bool remote_attrs_touched(const struct remote_attrs *attrs, uint64_t ino, uint64_t since)
{
    return attrs->floor > since || attrs->rows[row_of(ino)].touched > since;
}

void remote_attrs_keep(struct remote_attrs *attrs, const struct meta_attr *attr, uint64_t since)
{
    if (!attr->ino || remote_attrs_touched(attrs, attr->ino, since))
        return;
    struct remote_attrs_row *row = &attrs->rows[row_of(attr->ino)];
    unsigned at = place_of(row, attr->ino);
    if (at == REMOTE_ATTRS_WAYS)
        at = place_of(row, 0);
    if (at == REMOTE_ATTRS_WAYS)
        at = row->next++ % REMOTE_ATTRS_WAYS;
    row->places[at].attr = *attr;
    row->places[at].kept = attrs->touches;
}

bool remote_attrs_find(const struct remote_attrs *attrs, uint64_t ino, struct meta_attr *out)
{
    const struct remote_attrs_row *row = &attrs->rows[row_of(ino)];
    unsigned at = place_of(row, ino);
    if (!ino || at == REMOTE_ATTRS_WAYS || row->places[at].kept < attrs->floor)
        return false;
    *out = row->places[at].attr;
    return true;
}

void remote_attrs_asked(struct remote_attrs *attrs, const struct meta_op *op)
{
    if (!meta_kind_changes(op->kind))
        return;
    remote_attrs_touch(attrs, op->ino);
    remote_attrs_touch(attrs, op->new_ino);
    remote_attrs_touch(attrs, op->parent);
    remote_attrs_touch(attrs, op->new_parent);
}

void remote_attrs_answered(struct remote_attrs *attrs, const struct meta_op *op,
                           const struct meta_reply *reply, uint64_t since)
{
    struct meta_attr parent = reply->parent;
    switch (op->kind) {
    case META_UNLINK:
    case META_RENAME:
        remote_attrs_touch(attrs, reply->attr.ino);
        remote_attrs_touch(attrs, reply->replaced.ino);
        break;
    case META_MKNOD:
    case META_LINK:
        if (op->flags & META_NAMELESS)
            return; /* the service does not note these */
        remote_attrs_keep(attrs, &reply->attr, since);
        break;
    case META_EXTENTS:
        if (op->flags & META_APPLYING)
            return; /* not every client has confirmed them */
        remote_attrs_keep(attrs, &reply->attr, since);
        break;
    case META_LOOKUP:
    case META_GETATTR:
    case META_SETATTR:
    case META_COMMIT:
    case META_PUNCH:
        remote_attrs_keep(attrs, &reply->attr, since);
        break;
    default:
        return;
    }
    /* By the number that it was asked with: the root of a subtree has another one at the service.
     */
    if (parent.ino) {
        parent.ino = op->parent;
        remote_attrs_keep(attrs, &parent, since);
    }
}
