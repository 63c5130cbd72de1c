#include "mount_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

enum {
    GROUP_MOUNT = 1,
    GROUP_STORE,
    GROUP_VOLUME,
    GROUP_DATA,
    GROUP_SERVICE,
    GROUP_LOG,
    GROUP_FILE
};

static const struct option_group groups[] = {
    {GROUP_MOUNT, "The mount:"},
    {GROUP_STORE, "The object store:"},
    {GROUP_VOLUME, "The volume:"},
    {GROUP_DATA, "Memory, local disk and transfer:"},
    {GROUP_SERVICE, "The metadata service:"},
    {GROUP_LOG, "Log:"},
    {0, NULL},
};

#define AT(field) offsetof(struct mount_options, field)

/* The store's rows come first: `doctor` takes only these. */
static const struct option_spec specs[] = {
    {"endpoint", 0, OPTION_STRING, AT(endpoint), "URL",
     "The S3 server, http[s]://host[:port] (AWS_ENDPOINT_URL; Amazon's for the region)",
     .group = GROUP_STORE},
    {"region", 0, OPTION_STRING, AT(region), "NAME",
     "Region for signatures (AWS_REGION, the profile's, us-east-1)", .group = GROUP_STORE},
    {"profile", 0, OPTION_STRING, AT(profile), "NAME",
     "Profile of ~/.aws/config and ~/.aws/credentials (AWS_PROFILE, default)",
     .group = GROUP_STORE},
    {"access-key", 0, OPTION_SECRET, AT(access_key), "ID",
     "Access key id (AWS_ACCESS_KEY_ID, the profile's, the host's role)", .group = GROUP_STORE},
    {"secret-key", 0, OPTION_SECRET, AT(secret_key), "KEY",
     "Secret key. Better in the environment or a profile: other users can see command lines",
     .group = GROUP_STORE},
    {"session-token", 0, OPTION_SECRET, AT(session_token), "TOKEN",
     "Session token of temporary credentials", .group = GROUP_STORE},
    {"anonymous", 0, OPTION_FLAG, AT(anonymous), NULL, "Send unsigned requests (public buckets)",
     .group = GROUP_STORE},
    {"addressing", 0, OPTION_CHOICE, AT(addressing), "STYLE",
     "auto, path (host/bucket/key) or virtual (bucket.host/key)", .choices = "auto|path|virtual",
     .group = GROUP_STORE},
    {"ca-file", 0, OPTION_STRING, AT(ca_file), "FILE", "Certificates to trust, PEM (the system's)",
     .group = GROUP_STORE},
    {"no-verify-tls", 0, OPTION_FLAG, AT(no_verify_tls), NULL,
     "Accept any certificate: only for tests", .group = GROUP_STORE},
    {"storage-class", 0, OPTION_STRING, AT(storage_class), "NAME",
     "Storage class of new objects (the bucket's default)", .group = GROUP_STORE},
    {"sse", 0, OPTION_CHOICE, AT(sse), "KIND", "Encryption at the server: AES256, aws:kms or SSE-C",
     .choices = "AES256|aws:kms|SSE-C", .group = GROUP_STORE},
    {"sse-key", 0, OPTION_SECRET, AT(sse_key), "KEY", "KMS key id, or the SSE-C key in base64",
     .group = GROUP_STORE},
    {"request-payer", 0, OPTION_FLAG, AT(request_payer), NULL,
     "Pay for requests to somebody else's bucket", .group = GROUP_STORE},
    {"connections", 0, OPTION_UINT, AT(connections), "N", "Connections to the store at once (64)",
     .min = 1, .max = 1024, .group = GROUP_STORE},
    {"deadline", 0, OPTION_DURATION, AT(deadline_ms), "TIME",
     "A request is retried for so long, then it is an I/O error (60s)", .min = 1000,
     .group = GROUP_STORE},
    {"hedge-after", 0, OPTION_DURATION, AT(hedge_after_ms), "TIME",
     "A read slower than this is asked a second time (500ms)", .min = 1, .group = GROUP_STORE},
    {"upload-limit", 0, OPTION_SIZE, AT(upload_limit), "SIZE",
     "Send this many bytes per second to the S3 server, at most (no limit)", .min = 64u << 10,
     .group = GROUP_STORE},
    {"download-limit", 0, OPTION_SIZE, AT(download_limit), "SIZE",
     "Fetch this many bytes per second from the S3 server, at most (no limit)", .min = 64u << 10,
     .group = GROUP_STORE},

    {"read-only", 'r', OPTION_FLAG, AT(read_only), NULL,
     "Change nothing, own nothing: any number of read-only mounts may stand beside one writer",
     .group = GROUP_MOUNT},
    {"allow-other", 0, OPTION_FLAG, AT(allow_other), NULL,
     "Other users may use the mount (always so for root); permissions are checked as usual",
     .group = GROUP_MOUNT},
    {"selinux-context", 0, OPTION_STRING, AT(selinux_context), "CONTEXT",
     "Give all files this SELinux context, as system_u:object_r:container_file_t:s0",
     .group = GROUP_MOUNT},
    {"foreground", 'f', OPTION_FLAG, AT(foreground), NULL, "Stay in the foreground, log to stderr",
     .cli_only = true, .group = GROUP_MOUNT},
    {"transport", 0, OPTION_CHOICE, AT(transport), "KIND",
     "To the kernel: auto, classic, uring (FUSE over io_uring)", .choices = "auto|classic|uring",
     .group = GROUP_MOUNT},
    {"writeback", 0, OPTION_FLAG, AT(writeback), NULL,
     "Let the kernel collect writes: for streams of tiny writes", .group = GROUP_MOUNT},
    {"posix-acl", 0, OPTION_FLAG, AT(posix_acl), NULL,
     "Keep access control lists (setfacl, getfacl), also those that directories hand down. Costs "
     "one request more for each file that somebody else than its owner uses",
     .group = GROUP_MOUNT},
    {"busy-poll", 0, OPTION_UINT, AT(busy_poll_us), "MICROSECONDS",
     "Look for the next request so long before sleeping, while requests come as fast: halves the "
     "time of small ones for processor time (50; 0: never, as with less than two processors)",
     .max = 1000, .group = GROUP_MOUNT},
    {"max-threads", 0, OPTION_UINT, AT(max_threads), "N",
     "Threads that serve the kernel (processors + 2, at most 10)", .min = 1, .max = 256,
     .group = GROUP_MOUNT},

    {"meta-dir", 0, OPTION_STRING, AT(meta_dir), "DIR",
     "Metadata of this volume, on a local disk (/var/lib/sluice/NAME, or under ~/.local/state)",
     .group = GROUP_VOLUME},
    {"sync", 0, OPTION_CHOICE, AT(sync), "WHEN",
     "interval: close, fsync and rename wait for the disk, other calls reach it within "
     "--sync-interval; always: every call waits",
     .choices = "interval|always", .group = GROUP_VOLUME},
    {"sync-interval", 0, OPTION_DURATION, AT(sync_interval_ms), "TIME", "(100ms)", .min = 1,
     .max = 60000, .group = GROUP_VOLUME},
    {"settle-delay", 0, OPTION_DURATION, AT(settle_delay_ms), "TIME",
     "A file that was quiet for so long becomes one object at its own path (5s). New volumes",
     .max = 86400000, .group = GROUP_VOLUME},
    {"gc-delay", 0, OPTION_DURATION, AT(gc_delay_ms), "TIME",
     "An object that nothing uses any more is deleted so much later (10s). New volumes",
     .max = 86400000, .group = GROUP_VOLUME},
    {"inline-max", 0, OPTION_SIZE, AT(inline_max), "SIZE",
     "Files up to this size are committed with their metadata (512K); those over 128K while not "
     "many of them come. New volumes",
     .max = 1 << 20, .group = GROUP_VOLUME},
    {"staging-patterns", 0, OPTION_STRING, AT(staging_patterns), "LIST",
     "Path components, divided by ':', whose files are not brought to their own keys "
     "(_temporary*:.hive-staging*:…). New volumes",
     .group = GROUP_VOLUME},
    {"import-ttl", 0, OPTION_DURATION, AT(import_ttl_ms), "TIME",
     "A listing of the bucket is believed for so long (60s); 0: until `sluice refresh`",
     .group = GROUP_VOLUME},
    {"negative-ttl", 0, OPTION_DURATION, AT(negative_ttl_ms), "TIME",
     "That a key does not exist is believed for so long (1s)", .group = GROUP_VOLUME},
    {"offline", 0, OPTION_DURATION, AT(offline_ms), "TIME",
     "When the bucket cannot be reached, names and listings that are known are believed for so "
     "long, "
     "so that cached files stay readable (0: no longer than --import-ttl)",
     .group = GROUP_VOLUME},
    {"take-over", 0, OPTION_FLAG, AT(take_over), NULL,
     "Take the prefix from a mount that is gone for good. Two writers at once would lose data",
     .cli_only = true, .group = GROUP_VOLUME},
    {"backup-interval", 0, OPTION_DURATION, AT(backup_interval_ms), "TIME",
     "Copy the metadata to the bucket so often (never); see `sluice backup`", .min = 1000,
     .group = GROUP_VOLUME},
    {"backup-to", 0, OPTION_STRING, AT(backup_to), "URL",
     "Copy it there (PREFIX.sluice/backup/ in the volume's own bucket)", .group = GROUP_VOLUME},
    {"backup-keep", 0, OPTION_UINT, AT(backup_keep), "N", "Keep the newest N backups (24)",
     .min = 1, .max = 100000, .group = GROUP_VOLUME},
    {"settle-requests", 0, OPTION_UINT, AT(settle_requests), "N",
     "Settle asks the store at most so often in a second (no limit)", .min = 1, .max = 1000000,
     .group = GROUP_VOLUME},
    {"settle-bandwidth", 0, OPTION_SIZE, AT(settle_bandwidth), "SIZE",
     "Settle moves at most this many bytes in a second through this host; what the store copies by "
     "itself does not count (no limit)",
     .min = 64u << 10, .group = GROUP_VOLUME},
    {"no-settle", 0, OPTION_FLAG, AT(no_settle), NULL, "Settle only when `sluice settle` asks",
     .group = GROUP_VOLUME},

    {"cache-dir", 0, OPTION_STRING, AT(cache_dir), "DIR[:DIR…]",
     "Local disks for what was read and written: the cache is spread over all of them, data on its "
     "way to the store is on the first (beside the metadata)",
     .group = GROUP_DATA},
    {"cache-size", 0, OPTION_SIZE, AT(cache_size), "SIZE",
     "Room for cached data, on all disks together (16G; none for file:// unless it or --cache-dir "
     "is given)",
     .min = 16u << 20, .group = GROUP_DATA},
    {"cache-free", 0, OPTION_UINT, AT(cache_free), "PERCENT",
     "Of each disk of the cache, leave so much to others: below it, cached data is dropped (10)",
     .min = 1, .max = 95, .group = GROUP_DATA},
    {"cache-ttl", 0, OPTION_DURATION, AT(cache_ttl_ms), "TIME",
     "Drop what nobody read for so long (never: only when room is needed)", .min = 1000,
     .group = GROUP_DATA},
    {"no-cache", 0, OPTION_FLAG, AT(no_cache), NULL,
     "Keep nothing of what was read on a local disk", .group = GROUP_DATA},
    {"no-passthrough", 0, OPTION_FLAG, AT(no_passthrough), NULL,
     "Let every read come to the mount, also of files that the kernel could read from the cache by "
     "itself",
     .group = GROUP_DATA},
    {"memory", 0, OPTION_SIZE, AT(memory), "SIZE", "Memory the process may use (256M)",
     .min = 128u << 20, .group = GROUP_DATA},
    {"durability", 0, OPTION_CHOICE, AT(durability), "CLASS",
     "When close and fsync return: store, when the data is in the store or the metadata; local, "
     "when "
     "it is on this disk, uploaded later; scratch, at once, never uploaded, gone with the mount "
     "(store)",
     .choices = "store|local|scratch", .group = GROUP_DATA},
    {"durability-for", 0, OPTION_STRING, AT(durability_for), "LIST",
     "PATTERN=CLASS, divided by ':': another class for files below path components that fit "
     "(_temporary*=local:spill-*=scratch). The first that fits counts",
     .group = GROUP_DATA},
    {"upload-delay", 0, OPTION_DURATION, AT(upload_delay_ms), "TIME",
     "With local: a closed file waits so long for its upload; deleted before, it costs no request "
     "(1s)",
     .max = 86400000, .group = GROUP_DATA},
    {"backlog-age", 0, OPTION_DURATION, AT(backlog_age_ms), "TIME",
     "With local: writers wait while a file has waited longer than this to be uploaded (1h)",
     .min = 1000, .group = GROUP_DATA},
    {"staging-max", 0, OPTION_SIZE, AT(staging_max), "SIZE",
     "Written data on the local disk; writers wait beyond (16G)", .min = 64u << 20,
     .group = GROUP_DATA},
    {"part-size", 0, OPTION_SIZE, AT(part_size), "SIZE", "Parts of multipart uploads (8M)",
     .min = 5u << 20, .max = 1u << 30, .group = GROUP_DATA},
    {"upload-parallel", 0, OPTION_UINT, AT(upload_parallel), "N", "Parts on their way at once (8)",
     .min = 1, .max = 256, .group = GROUP_DATA},
    {"readahead", 0, OPTION_SIZE, AT(readahead), "SIZE",
     "Largest window of one sequential stream (32M)", .min = 128u << 10, .max = 1u << 30,
     .group = GROUP_DATA},

    {"token-file", 0, OPTION_STRING, AT(token_file), "FILE",
     "Has the token of the volume, and is read with each connection (the variable SLUICE_TOKEN is "
     "the token itself)",
     .group = GROUP_SERVICE},
    {"tls-ca", 0, OPTION_STRING, AT(tls_ca), "FILE",
     "sluices://: who may vouch for the service, PEM (whom the system trusts)",
     .group = GROUP_SERVICE},
    {"tls-cert", 0, OPTION_STRING, AT(tls_cert), "FILE",
     "sluices://: the certificate to show to the service, PEM (none)", .group = GROUP_SERVICE},
    {"tls-key", 0, OPTION_STRING, AT(tls_key), "FILE", "Its key, PEM", .group = GROUP_SERVICE},
    {"tls-server-name", 0, OPTION_STRING, AT(tls_server_name), "NAME",
     "sluices://: who the service must prove to be (the host of the URL)", .group = GROUP_SERVICE},

    {"log-file", 0, OPTION_STRING, AT(log_file), "FILE",
     "Append the log there (the journal or stderr in the foreground; log in the metadata directory "
     "otherwise, which a read-only mount has not)",
     .group = GROUP_LOG},
    {"metrics-address", 0, OPTION_STRING, AT(metrics_address), "ADDRESS",
     "Serve /metrics (Prometheus), /healthz and /readyz there, as 127.0.0.1:9180 (nowhere)",
     .group = GROUP_LOG},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), "LEVEL", "error, warn, info or debug (info)",
     .choices = "error|warn|info|debug", .group = GROUP_LOG},
};

enum { STORE_SPECS = 17 };

const struct option_set mount_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .groups = groups,
    .usage = "URL MOUNTPOINT",
    .doc = "Mounts a bucket, or a directory in place of one, as a filesystem. URL is "
           "s3://BUCKET[/PREFIX] or file:///DIRECTORY; or sluice://HOST:PORT/VOLUME[/DIRECTORY] "
           "(sluices:// with TLS) or sluice+unix:///SOCKET:VOLUME[/DIRECTORY], a volume of `sluice "
           "serve` that many hosts mount, or one directory of it."
           "\vExamples:\n"
           "  sluice mount file:///srv/bucket /mnt\n"
           "  sluice mount s3://logs/2026 /mnt --region eu-central-1\n"
           "  sluice mount s3://data /mnt --endpoint http://127.0.0.1:7070 --read-only\n"
           "In /etc/fstab:\n"
           "  s3://data  /mnt  fuse.sluice  _netdev,region=eu-central-1  0 0\n\n"
           "Every option can also be an environment variable (SLUICE_IMPORT_TTL=10s for "
           "--import-ttl 10s) or a key of the configuration file. "
           "Sizes take K, M, G, T; times take ms, s, m, h, d.\n"
           "Ends with 0 when the mount is ready (or, with --foreground, was unmounted), 1 when it "
           "failed, 2 for a wrong call.",
    .args_min = 2,
    .args_max = 2,
    .reads_config = true,
};

const struct option_set store_option_set = {
    .specs = specs,
    .count = STORE_SPECS,
    .groups = groups,
    .usage = "[URL]\nspark|hive|flink --conf FILE",
    .doc = "Checks what a mount needs: kernel, FUSE, limits, and with a URL the credentials, the "
           "clock, the rights and the conditional writes of that bucket. "
           "Says what to do about each finding. Writes only objects of its own under "
           ".sluice/probe/, and removes them. With an engine's name it reads that engine's "
           "configuration instead (sluice doctor spark --help)."
           "\vA request is tried for 10 s here, unless --deadline says another time. Ends with 0 "
           "if all is well, 1 if something will not work.",
    .args_min = 0,
    .args_max = 1,
    .reads_config = true,
};

_Static_assert(ARRAY_LEN(specs) > STORE_SPECS, "the store's rows come first");

void mount_options_init(struct mount_options *options)
{
    *options = (struct mount_options){
        .connections = 64,
        .deadline_ms = 60000,
        .hedge_after_ms = 500,
        .inline_max = 512u << 10,
        .settle_delay_ms = META_SETTLE_DELAY_MS,
        .gc_delay_ms = META_GC_DELAY_MS,
        .sync_interval_ms = 100,
        .busy_poll_us = 50,
        .import_ttl_ms = 60000,
        .cache_free = 10,
        .negative_ttl_ms = 1000,
        .memory = 256u << 20,
        .staging_max = 16ull << 30,
        .upload_delay_ms = 1000,
        .backlog_age_ms = 3600000,
        .part_size = 8u << 20,
        .readahead = 32u << 20,
        .upload_parallel = 8,
        .backup_keep = 24,
    };
}

void mount_options_free(struct mount_options *options)
{
    options_free(&mount_option_set, options);
}

void mount_options_store(const struct mount_options *options, struct store_options *out)
{
    store_options_init(out);
    out->endpoint = options->endpoint;
    out->region = options->region;
    out->profile = options->profile;
    out->access_key = options->access_key;
    out->secret_key = options->secret_key;
    out->session_token = options->session_token;
    out->anonymous = options->anonymous;
    if (options->addressing && strcmp(options->addressing, "auto") != 0)
        out->path_style = strcmp(options->addressing, "path") == 0;
    out->ca_file = options->ca_file;
    out->no_verify_tls = options->no_verify_tls;
    out->storage_class = options->storage_class;
    out->sse = options->sse;
    out->sse_key = options->sse_key;
    out->request_payer = options->request_payer;
    out->connections = options->connections;
    out->deadline_ms = options->deadline_ms;
    out->hedge_after_ms = options->hedge_after_ms;
    out->upload_limit = options->upload_limit;
    out->download_limit = options->download_limit;
    out->read_only = options->read_only;
}

int mount_options_format(const struct mount_options *options, struct meta_volume *out,
                         struct error *error)
{
    meta_format_init(out);
    out->inline_max = (uint32_t)options->inline_max;
    out->settle_delay_ms = options->settle_delay_ms;
    out->gc_delay_ms = options->gc_delay_ms;
    if (!options->staging_patterns)
        return 0;
    if (strlen(options->staging_patterns) >= sizeof(out->staging))
        return error_set(error, -EINVAL, "--staging-patterns is longer than %zu bytes",
                         sizeof(out->staging) - 1);
    snprintf(out->staging, sizeof(out->staging), "%s", options->staging_patterns);
    return 0;
}
