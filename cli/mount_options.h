/* What `sluice mount` can be told: one struct, one table. `doctor` uses the store's part too. */
#ifndef SLUICE_CLI_MOUNT_OPTIONS_H
#define SLUICE_CLI_MOUNT_OPTIONS_H

#include "meta/meta.h"
#include "options.h"
#include "s3/open.h"

struct mount_options {
    /* store */
    char *endpoint, *region, *profile, *access_key, *secret_key, *session_token, *ca_file;
    char *storage_class, *sse, *sse_key, *addressing;
    bool anonymous, no_verify_tls, request_payer;
    unsigned connections;
    uint32_t deadline_ms, hedge_after_ms;
    uint64_t upload_limit, download_limit;
    /* places */
    char *meta_dir, *cache_dir;
    /* volume */
    char *staging_patterns, *sync;
    uint64_t inline_max;
    uint32_t settle_delay_ms, gc_delay_ms, sync_interval_ms;
    bool take_over, no_settle;
    unsigned settle_requests;
    uint64_t settle_bandwidth;
    char *backup_to;
    uint32_t backup_interval_ms;
    unsigned backup_keep;
    /* listing */
    uint32_t import_ttl_ms, negative_ttl_ms, offline_ms;
    /* mount */
    bool read_only, allow_other, foreground, writeback, posix_acl;
    char *selinux_context;
    char *transport;
    unsigned busy_poll_us;
    unsigned max_threads;
    /* memory and data */
    uint64_t memory, staging_max, part_size, readahead, cache_size;
    unsigned cache_free; /* percent */
    uint32_t cache_ttl_ms;
    bool no_cache, no_passthrough;
    char *durability, *durability_for;
    uint32_t upload_delay_ms, backlog_age_ms;
    unsigned upload_parallel;
    /* of the connection to a service */
    char *tls_ca, *tls_cert, *tls_key, *tls_server_name, *token_file;
    bool keys_of_service; /* no option: the service says so */
    /* log */
    char *log_file, *log_level, *metrics_address;
};

extern const struct option_set mount_option_set;
/* The options of the store alone, for `doctor`. Its `specs` can be the first of another command's,
 * whose struct then begins with a struct mount_options. */
extern const struct option_set store_option_set;

void mount_options_init(struct mount_options *options);
void mount_options_free(struct mount_options *options);
void mount_options_store(const struct mount_options *options, struct store_options *out);
/* The settings of a new volume. -EINVAL with a sentence. */
int mount_options_format(const struct mount_options *options, struct meta_volume *out,
                         struct error *error);

#endif
