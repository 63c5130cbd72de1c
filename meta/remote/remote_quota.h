/*
 * Sizes that this mount has reserved with its service for files which it writes (docs/quota.md).
 * The service gives more than was asked for to who asks again; what is not used of it goes back
 * when it asks for that (server_quota.h).
 */
#ifndef SLUICE_META_REMOTE_QUOTA_H
#define SLUICE_META_REMOTE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct remote;

/* As meta_quota_active, _reserve, _release. Any thread. */
bool remote_quota_active(struct remote *remote);
int remote_quota_reserve(struct remote *remote, uint64_t ino, uint64_t size, bool force);
void remote_quota_release(struct remote *remote, uint64_t ino);

/* Loop thread. A message QUOTA; the session is over, or the volume is closed. */
void remote_quota_round(struct remote *remote, uint64_t number);
void remote_quota_forget(struct remote *remote);

#endif
