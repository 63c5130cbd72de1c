/*
 * Attributes that the service gave to this client, kept as long as it may: until the service takes
 * them back, a change of our own touches them, or the lease is over. The kernel asks for those of a
 * directory after each change in it, and for those of a file that it has just made.
 *
 * A fixed table: an inode's attributes are in one row, which has room for some, and those that came
 * last are there. An answer is kept only if nothing touched that row since its question was asked:
 * it may be older than what was touched.
 */
#ifndef SLUICE_META_REMOTE_ATTRS_H
#define SLUICE_META_REMOTE_ATTRS_H

#include "meta/op.h"

#define REMOTE_ATTRS 65536 /* memory only for those that are used */
#define REMOTE_ATTRS_WAYS 4

struct remote_attrs {
    uint64_t touches; /* so far */
    uint64_t floor;   /* of the touch of all */
    struct remote_attrs_row {
        uint64_t touched;
        struct {
            uint64_t kept;         /* when there were so many touches: none from before `floor` */
            struct meta_attr attr; /* ino 0: none */
        } places[REMOTE_ATTRS_WAYS];
        unsigned next; /* to be used, if none is free */
    } rows[REMOTE_ATTRS / REMOTE_ATTRS_WAYS];
};

/* Attributes of `ino` may be others now. 0: none. */
void remote_attrs_touch(struct remote_attrs *attrs, uint64_t ino);
void remote_attrs_touch_all(struct remote_attrs *attrs);
/* `since`: attrs->touches when it was asked for. */
/* It, or what shares its row, was touched after `since`. */
bool remote_attrs_touched(const struct remote_attrs *attrs, uint64_t ino, uint64_t since);
void remote_attrs_keep(struct remote_attrs *attrs, const struct meta_attr *attr, uint64_t since);
bool remote_attrs_find(const struct remote_attrs *attrs, uint64_t ino, struct meta_attr *out);

/* A change was submitted: what it will touch. */
void remote_attrs_asked(struct remote_attrs *attrs, const struct meta_op *op);
/* An operation has succeeded. */
void remote_attrs_answered(struct remote_attrs *attrs, const struct meta_op *op,
                           const struct meta_reply *reply, uint64_t since);

#endif
