/*
 * Sizes that mounts have reserved for files which they write (docs/quota.md): what the engine keeps
 * for one file (engine_quota.h) is the largest that any session has for it. In memory.
 *
 * A mount that asks again for a file gets more than it asked for, so that a stream asks seldom.
 * What it does not use counts as reserved, so before anybody is refused all sessions that may have
 * such a rest are asked for it: a *round*. In a round of all sessions each says anew what it has:
 * when a volume gets its first quota, and when a session comes back. While a round is under way, or
 * sessions of before a restart may still come back, reservations wait.
 *
 * Loop thread "serve".
 */
#ifndef SLUICE_META_SERVER_QUOTA_H
#define SLUICE_META_SERVER_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct server_volume;
struct session;
struct job;

int server_quota_new(struct server_volume *volume);
void server_quota_free(struct server_volume *volume);

/* A task RESERVE or RESERVED (with an inode): true: it is answered later, by job_ended. */
bool quota_take(struct job *job, uint64_t size);
/* The answer to a round. */
void quota_answered(struct session *session, uint64_t round);
/* After anything: the last limit may have gone, with its directory. */
void quota_look(struct server_volume *volume);
/* A limit was set, the answer to it is ready: true: it waits for a round. */
bool quota_was_set(struct job *job);
/* The session has a connection. `again`: it had one before. */
void quota_welcome(struct session *session, bool again);
/* It has ended. */
void quota_session_over(struct session *session);
/* What waited may go on: no session of before the restart is left out. */
void quota_recovered(struct server_volume *volume);

#endif
