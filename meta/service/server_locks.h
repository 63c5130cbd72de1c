/*
 * Private to meta: locks of sessions (docs/locks.md). A request that waits is kept with its
 * session, not as a job: it holds no place of the connection's. Loop thread "serve".
 */
#ifndef SLUICE_META_SERVER_LOCKS_H
#define SLUICE_META_SERVER_LOCKS_H

#include "server_impl.h"
#include "wire/wire_locks.h"

int server_locks_new(struct server_volume *volume);
void server_locks_free(struct server_volume *volume);
/* Messages. */
void lock_take(struct session *session, const struct wire_lock *m);
void lock_cancel(struct session *session, uint64_t id);
/* What it held before a restart of the service. */
int lock_claims_take(struct session *session, const uint8_t *data, size_t len);
/* The session is over, and has no connection. */
void session_locks_over(struct session *session);
/* All sessions of before a restart came back or are over: what came meanwhile is served. */
void volume_locks_recovered(struct server_volume *volume);

#endif
