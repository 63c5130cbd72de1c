/*
 * The check of a volume's bucket, the search for what nobody owns and the import of an inventory,
 * asked for by a mount. One at a time for a volume, on a thread of its own, which is made for it;
 * mounts ask whether it is done.
 */
#ifndef SLUICE_META_SERVER_EXAMINE_H
#define SLUICE_META_SERVER_EXAMINE_H

#include <jansson.h>

#include "server_impl.h"

/* The thread that does requests about stores: `op` is examine, examined or examine-stop. The answer
 * is new; NULL: -errno with its words. */
json_t *examine_take(struct server_volume *volume, struct meta *meta, uint64_t session,
                     const json_t *request, struct error *error);
/* Loop thread: nobody waits for it any more. */
void examine_session_over(struct server_volume *volume, uint64_t session);
/* Ends it, before the volume is closed. Blocking. NULL is allowed. */
void examine_end(struct server_volume *volume);

#endif
