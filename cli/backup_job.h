/* Backups that a mount or a service makes by itself, on a thread of its own. */
#ifndef SLUICE_CLI_BACKUP_JOB_H
#define SLUICE_CLI_BACKUP_JOB_H

#include "mount_options.h"

struct backup_job;

struct backup_job_config {
    struct meta *meta;
    struct store *store; /* of the volume; unused with options->backup_to */
    struct loop *loop;   /* of stores */
    const struct mount_options *options;
    struct metrics *metrics;
    const char *volume; /* a label of the metrics; NULL: there is one volume only */
};

/* With options->backup_interval_ms of 0: *out is NULL. meta, store, loop and metrics are borrowed
 * until backup_job_free, the rest is copied. -errno with a sentence if backup_to cannot be used. */
int backup_job_start(const struct backup_job_config *config, struct backup_job **out,
                     struct error *error);
/* Ends a backup in progress after the file that is being sent. Before meta_close. NULL is allowed.
 */
void backup_job_free(struct backup_job *job);

#endif
