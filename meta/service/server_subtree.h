/*
 * Private to meta: sessions that see one directory of a volume as its root (docs/service.md,
 * "Subtrees"). In all messages of such a session inode 1 is that directory. Loop thread "serve".
 */
#ifndef SLUICE_META_SERVER_SUBTREE_H
#define SLUICE_META_SERVER_SUBTREE_H

#include "server_impl.h"

/* Looks the directory of a HELLO up, then begins the session, or refuses. */
void subtree_hello(struct conn *conn, struct server_volume *volume, const struct wire_hello *hello,
                   const struct wire_text *path);
/* The connection is closed while that is under way. */
void subtree_walk_lost(struct subtree_walk *walk);

/* An operation as the client means it → as the volume has it. 0; -EACCES: it names something that
 * is not below the session's root (any more), or does what only a session of all may; -errno. */
int subtree_take(const struct session *session, struct meta_op *op);
/* An inode of a request. */
int subtree_take_ino(const struct session *session, uint64_t *ino);
/* An answer as the volume gave it → as the client sees it. 0 or -errno. */
int subtree_give(const struct session *session, const struct meta_op *op, struct meta_reply *reply);
/* The object was reserved for something that the session sees. */
bool subtree_may_claim(const struct session *session, uint64_t object);
/* The volume's status, as JSON: who sees one directory is told numbers, but no names of what lies
 * elsewhere. */
void subtree_hide_names(struct buf *text);
static inline uint64_t subtree_give_ino(const struct session *session, uint64_t ino)
{
    return session->root && ino == session->root ? META_ROOT_INO : ino;
}

#endif
