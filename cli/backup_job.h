/* Backups that a mount makes by itself, on a thread of its own. */
#ifndef SLUICE_CLI_BACKUP_JOB_H
#define SLUICE_CLI_BACKUP_JOB_H

#include "mount_options.h"

struct backup_job;

/* With options->backup_interval_ms of 0: *out is NULL. `store`: the mount's. Everything is borrowed
 * until backup_job_free. */
int backup_job_start(struct meta *meta, struct store *store, struct loop *loop,
                     const struct mount_options *options, struct metrics *metrics,
                     struct backup_job **out, struct error *error);
/* Ends a backup in progress after the file that is being sent. Before meta_close. NULL is allowed.
 */
void backup_job_free(struct backup_job *job);

#endif
