/*
 * The other stores of a volume of a service, as its mounts reach them: each mount opens them by
 * itself, with credentials of its own, in the mux that it gives (docs/stores.md).
 */
#ifndef SLUICE_META_REMOTE_STORES_H
#define SLUICE_META_REMOTE_STORES_H

#include "meta/stores.h"

struct remote;
struct remote_stores;

/* Blocking: asks the service to do it, or for the list. As meta/stores.h. */
int remote_store_attach(struct remote *remote, const struct meta_store_request *request,
                        struct error *error);
int remote_store_detach(struct remote *remote, const char *name, struct error *error);
int remote_migrate(struct remote *remote, uint64_t ino, enum meta_migrate what, const char *to,
                   const char *class, uint64_t after_s, struct error *error);
json_t *remote_stores_json(struct remote *remote);
/* Any request of the kind (docs/protocol.md, "Stores"), which is consumed. `once`: not asked again
 * over another connection. NULL with the reason. */
json_t *remote_ask_json(struct remote *remote, json_t *request, bool once, struct error *error);

/* Loop thread: the service may have other stores now: what comes after this waits until they are
 * known and open. NULL is allowed. */
void remote_stores_changed(struct remote_stores *stores);
/* After the link is gone. NULL is allowed. */
void remote_stores_free(struct remote_stores *stores);

#endif
