/* The background requests of a volume, paced beside its users. All on the work thread, but the
 * first and the last. */
#ifndef SLUICE_META_PACER_H
#define SLUICE_META_PACER_H

#include "volume.h"

int pacer_new(struct meta *meta, struct pacer **out);
/* As work_op_submit, when it is its turn, and not before a time (monotonic; 0: now). */
void pacer_submit(struct meta *meta, struct work_op *work, uint64_t not_before_ns);
/* worker.c, before work->done: it has ended. */
void pacer_ended(struct meta *meta, struct work_op *work);
/* How many files settle may have in work now. 0: ask again after *wait_ns. */
unsigned pacer_files(struct pacer *pacer, unsigned parallel, uint64_t *wait_ns);
/* No file is due. */
void pacer_idle(struct pacer *pacer);
/* Somebody waits for settle from now on. */
void pacer_kick(struct pacer *pacer);
void pacer_status(const struct pacer *pacer, json_t *out);
/* All that waits goes to the store now, and all that comes. */
void pacer_stop(struct pacer *pacer);
void pacer_free(struct pacer *pacer); /* after the work thread has ended */

#endif
