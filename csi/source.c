#include "source.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "check.h"

#define NAME_PLAIN_MAX 48 /* longer names of volumes get a hash in place of their end */

/* Options of `sluice mount` that a StorageClass, a volume or a pod may set: none that names a file
 * of the host, a credential or another process. */
static const char *const mount_options[] = {
    "addressing",
    "storage-class",
    "sse",
    "request-payer",
    "anonymous",
    "connections",
    "deadline",
    "hedge-after",
    "upload-limit",
    "download-limit",
    "transport",
    "writeback",
    "posix-acl",
    "busy-poll",
    "max-threads",
    "sync",
    "sync-interval",
    "settle-delay",
    "gc-delay",
    "inline-max",
    "import-ttl",
    "negative-ttl",
    "staging-patterns",
    "no-settle",
    "memory",
    "staging-max",
    "part-size",
    "upload-parallel",
    "readahead",
    "log-level",
    "settle-requests",
    "settle-bandwidth",
    "offline",
    "durability",
    "durability-for",
    "upload-delay",
    "backlog-age",
    "backup-interval",
    "backup-keep",
    "cache-size",
    "no-cache",
    "no-passthrough",
};

/* Parameters that say where the volume is. */
static const char *const place_keys[] = {"url",    "bucket", "prefix", "endpoint",
                                         "region", "server", "volume", "tls"};

static bool is_mount_option(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(mount_options); i++)
        if (strlen(mount_options[i]) == len && strncmp(mount_options[i], name, len) == 0)
            return true;
    return false;
}

static bool is_place_key(const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(place_keys); i++)
        if (strcmp(place_keys[i], key) == 0)
            return true;
    return false;
}

/* What may stand in a URL of ours: no space, no ';' (it divides ids), nothing outside of ASCII. */
static bool is_plain(const char *text)
{
    for (const char *p = text; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == ';' || *p == '"' || *p == '\\')
            return false;
    return true;
}

static int out_of_memory(struct csi_call *call)
{
    return csi_fail(call, CSI_INTERNAL, "out of memory");
}

static int add_option(struct csi_call *call, struct source *s, const char *name, size_t len,
                      const char *value)
{
    char *text = NULL;
    if (s->option_count == SOURCE_OPTIONS_MAX)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "more than %d mount options",
                        SOURCE_OPTIONS_MAX);
    int n = value ? asprintf(&text, "--%.*s=%s", (int)len, name, value)
                  : asprintf(&text, "--%.*s", (int)len, name);
    if (n < 0)
        return out_of_memory(call);
    s->options[s->option_count++] = text;
    if (len == 9 && strncmp(name, "anonymous", 9) == 0)
        s->anonymous = true;
    return CSI_OK;
}

static bool is_flag_option(const char *name)
{
    static const char *const flags[] = {"request-payer", "anonymous", "writeback",     "posix-acl",
                                        "no-settle",     "no-cache",  "no-passthrough"};
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (strcmp(flags[i], name) == 0)
            return true;
    return false;
}

static int choose(struct csi_call *call, const char *key, const char *value, const char *no,
                  const char *yes, bool *out)
{
    if (strcmp(value, no) != 0 && strcmp(value, yes) != 0)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s must be %s or %s, not '%s'", key, no, yes,
                        value);
    *out = strcmp(value, yes) == 0;
    return CSI_OK;
}

static int set_directory(struct csi_call *call, struct source *s, const char *value)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof(path), "/%s", value) >= sizeof(path) ||
        check_path(call, "directory", path) != CSI_OK)
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "directory must be a plain path below the volume's root, not '%s'", value);
    free(s->directory);
    s->directory = strdup(value);
    return s->directory ? CSI_OK : out_of_memory(call);
}

static int copy_plain(struct csi_call *call, const char *key, const char *value, char **out)
{
    if (!is_plain(value) || strlen(value) > 300)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s holds spaces, ';' or quotes", key);
    free(*out);
    *out = strdup(value);
    return *out ? CSI_OK : out_of_memory(call);
}

/* Others see what was closed on a volume of a service, and its metadata is not here. */
static int check_for_service(struct csi_call *call, const struct source *s)
{
    static const char *const others[] = {"--durability-for=", "--backup-", "--writeback"};
    static const char name[] = "--durability=";
    for (unsigned i = 0; s->kind == SOURCE_SERVICE && i < s->option_count; i++) {
        const char *option = s->options[i];
        bool bad =
            strncmp(option, name, strlen(name)) == 0 && strcmp(option + strlen(name), "store") != 0;
        for (size_t k = 0; k < ARRAY_LEN(others); k++)
            bad = bad || strncmp(option, others[k], strlen(others[k])) == 0;
        if (bad)
            return csi_fail(call, CSI_INVALID_ARGUMENT,
                            "a volume of a service cannot have %.60s: it is for a bucket that one "
                            "node mounts",
                            option);
    }
    return CSI_OK;
}

/* A key that is not one of the place. */
static int set_other(struct csi_call *call, struct source *s, const char *key, const char *value)
{
    if (strncmp(key, "csi.storage.k8s.io/", 19) == 0 || strstr(key, "kubernetes.io/"))
        return CSI_OK;
    if (strcmp(key, "onDelete") == 0)
        return choose(call, key, value, "retain", "delete", &s->delete_data);
    if (strcmp(key, "topology") == 0)
        return choose(call, key, value, "any", "node", &s->pin);
    if (strcmp(key, "onMove") == 0)
        return choose(call, key, value, "rebuild", "import", &s->import_only);
    if (strcmp(key, "readOnly") == 0)
        return choose(call, key, value, "false", "true", &s->read_only);
    if (strcmp(key, "managed") == 0)
        return choose(call, key, value, "false", "true", &s->managed);
    if (strcmp(key, "identity") == 0)
        return choose(call, key, value, "driver", "pod", &s->pod_identity);
    if (strcmp(key, "roleArn") == 0)
        return copy_plain(call, key, value, &s->role);
    if (strcmp(key, "stsEndpoint") == 0)
        return copy_plain(call, key, value, &s->sts);
    if (strcmp(key, "tokenAudience") == 0)
        return copy_plain(call, key, value, &s->token_audience);
    if (strcmp(key, "directory") == 0)
        return set_directory(call, s, value);
    if (!is_mount_option(key, strlen(key)))
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "there is no parameter '%.64s'; docs/csi.md lists them", key);
    if (is_flag_option(key)) {
        bool on = false;
        int code = choose(call, key, value, "false", "true", &on);
        return code == CSI_OK && on ? add_option(call, s, key, strlen(key), NULL) : code;
    }
    return add_option(call, s, key, strlen(key), value);
}

static int set_url(struct csi_call *call, struct source *s, const char *url, bool allow_file)
{
    if (strncmp(url, "s3://", 5) == 0 && url[5])
        s->kind = SOURCE_S3;
    else if ((strncmp(url, "sluice://", 9) == 0 && url[9]) ||
             (strncmp(url, "sluices://", 10) == 0 && url[10]))
        s->kind = SOURCE_SERVICE;
    else if (strncmp(url, "file:///", 8) == 0 && url[8])
        s->kind = SOURCE_FILE;
    else
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "a volume is s3://BUCKET[/PREFIX] or "
                        "sluice://HOST:PORT/VOLUME[/DIRECTORY], not '%.200s'",
                        url);
    if (s->kind == SOURCE_FILE && !allow_file)
        return csi_fail(call, CSI_PERMISSION_DENIED,
                        "file:// is a directory of the host; the driver allows it only with "
                        "--allow-file");
    char path[4096];
    const char *after = strstr(url, "://") + 3;
    snprintf(path, sizeof(path), "%s%s", s->kind == SOURCE_FILE ? "" : "/", after);
    size_t len = strlen(path);
    if (len > 1 && path[len - 1] == '/')
        path[len - 1] = 0; /* prefixes may end so */
    if (strlen(after) > 2000 || check_path(call, "url", path) != CSI_OK || !is_plain(url))
        return csi_fail(
            call, CSI_INVALID_ARGUMENT,
            "'%.200s' holds what no volume's URL can: '.', '..', spaces, ';', quotes or "
            "empty components",
            url);
    free(s->url);
    s->url = strdup(url);
    if (s->url && s->url[strlen(s->url) - 1] == '/')
        s->url[strlen(s->url) - 1] = 0;
    return s->url ? CSI_OK : out_of_memory(call);
}

static int set_bucket(struct csi_call *call, struct source *s, const char *bucket,
                      const char *prefix)
{
    cleanup(free_ptr) char *url = NULL;
    if (strchr(bucket, '/'))
        return csi_fail(call, CSI_INVALID_ARGUMENT, "bucket '%.200s' is no bucket's name", bucket);
    if (asprintf(&url, "s3://%s%s%s", bucket, prefix ? "/" : "", prefix ? prefix : "") < 0)
        return out_of_memory(call);
    return set_url(call, s, url, false);
}

static int set_service(struct csi_call *call, struct source *s, const char *server,
                       const char *volume, size_t count, Csi__V1__Pair *const *pairs)
{
    cleanup(free_ptr) char *url = NULL;
    const char *tls = pair_value(count, pairs, "tls");
    const char *prefix = pair_value(count, pairs, "prefix");
    bool encrypted = false;
    if (tls && choose(call, "tls", tls, "false", "true", &encrypted) != CSI_OK)
        return CSI_INVALID_ARGUMENT;
    if (!volume || strchr(server, '/'))
        return csi_fail(
            call, CSI_INVALID_ARGUMENT,
            "server (HOST:PORT) and volume go together: the volume of a metadata service");
    if (asprintf(&url, "%s://%s/%s%s%s", encrypted ? "sluices" : "sluice", server, volume,
                 prefix ? "/" : "", prefix ? prefix : "") < 0)
        return out_of_memory(call);
    return set_url(call, s, url, false);
}

bool source_in_pairs(size_t count, Csi__V1__Pair *const *pairs)
{
    return pair_value(count, pairs, "url") || pair_value(count, pairs, "bucket") ||
           pair_value(count, pairs, "server");
}

static int set_place(struct csi_call *call, struct source *s, size_t count,
                     Csi__V1__Pair *const *pairs, bool allow_file)
{
    const char *url = pair_value(count, pairs, "url"), *bucket = pair_value(count, pairs, "bucket");
    const char *server = pair_value(count, pairs, "server");
    const char *endpoint = pair_value(count, pairs, "endpoint");
    const char *region = pair_value(count, pairs, "region");
    if (!!url + !!bucket + !!server != 1)
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "say where the volume is by one of: url, bucket (and prefix), server and "
                        "volume");
    int code = url ? set_url(call, s, url, allow_file)
               : bucket
                   ? set_bucket(call, s, bucket, pair_value(count, pairs, "prefix"))
                   : set_service(call, s, server, pair_value(count, pairs, "volume"), count, pairs);
    if (code == CSI_OK && endpoint)
        code = copy_plain(call, "endpoint", endpoint, &s->endpoint);
    if (code == CSI_OK && region)
        code = copy_plain(call, "region", region, &s->region);
    return code;
}

/* sluice://host:7700/volume/directory */
bool source_is_made(const struct source *source)
{
    const char *volume = strchr(strstr(source->url, "://") + 3, '/');
    return source->kind != SOURCE_SERVICE || (volume && strchr(volume + 1, '/'));
}

int source_from_pairs(struct csi_call *call, size_t count, Csi__V1__Pair *const *pairs,
                      bool allow_file, struct source *out)
{
    *out = (struct source){0};
    int code = set_place(call, out, count, pairs, allow_file);
    for (size_t i = 0; i < count && code == CSI_OK; i++)
        if (!is_place_key(pairs[i]->key))
            code = set_other(call, out, pairs[i]->key, pairs[i]->value);
    if (code == CSI_OK && out->pod_identity != (out->role && *out->role))
        code = csi_fail(call, CSI_INVALID_ARGUMENT,
                        "identity: pod and roleArn, the role that pods take, go together");
    if (code == CSI_OK)
        code = check_for_service(call, out);
    if (code != CSI_OK)
        source_done(out);
    return code;
}

int source_from_id(struct csi_call *call, const char *id, bool allow_file, struct source *out)
{
    *out = (struct source){0};
    cleanup(free_ptr) char *copy = strdup(id);
    if (!copy)
        return out_of_memory(call);
    char *rest = copy, *url = strsep(&rest, ";");
    int code = set_url(call, out, url, allow_file);
    while (code == CSI_OK && rest) {
        char *part = strsep(&rest, ";");
        if (strncmp(part, "endpoint=", 9) == 0)
            code = copy_plain(call, "endpoint", part + 9, &out->endpoint);
        else if (strncmp(part, "region=", 7) == 0)
            code = copy_plain(call, "region", part + 7, &out->region);
        else
            code = csi_fail(call, CSI_INVALID_ARGUMENT, "the volume id is none of this driver");
    }
    if (code != CSI_OK)
        source_done(out);
    return code;
}

static bool is_kernel_flag(const char *flag)
{
    static const char *const known[] = {"ro",     "rw",      "nosuid",   "nodev",
                                        "noexec", "noatime", "relatime", "nodiratime"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i], flag) == 0)
            return true;
    return false;
}

/* context="system_u:object_r:container_file_t:s0:c1,c2", as the kubelet gives it with or without
 * the quotes. */
static int set_context(struct csi_call *call, struct source *s, const char *value)
{
    size_t len = strlen(value);
    if (len > 1 && value[0] == '"' && value[len - 1] == '"') {
        value++;
        len -= 2;
    }
    if (!len || len > 255 ||
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-:.,") < len)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "context= is followed by no SELinux context");
    free(s->selinux_context);
    s->selinux_context = strndup(value, len);
    return s->selinux_context ? CSI_OK : out_of_memory(call);
}

int source_add_flags(struct csi_call *call, struct source *source, size_t count, char *const *flags)
{
    for (size_t i = 0; i < count; i++) {
        const char *flag = flags[i], *equal = strchr(flag, '=');
        size_t len = equal ? (size_t)(equal - flag) : strlen(flag);
        int code = CSI_OK;
        if (strcmp(flag, "take-over") == 0) {
            source->take_over = true;
        } else if (strcmp(flag, "read-only") == 0) {
            source->read_only = true;
        } else if (equal && len == 7 && strncmp(flag, "context", len) == 0) {
            code = set_context(call, source, equal + 1);
        } else if (is_mount_option(flag, len)) {
            code = add_option(call, source, flag, len, equal ? equal + 1 : NULL);
        } else if (!is_kernel_flag(flag)) {
            code = csi_fail(call, CSI_INVALID_ARGUMENT,
                            "'%.100s' is no mount option that a volume may set; docs/csi.md lists "
                            "them",
                            flag);
        }
        if (code != CSI_OK)
            return code;
    }
    return check_for_service(call, source);
}

void source_done(struct source *source)
{
    free(source->url);
    free(source->endpoint);
    free(source->region);
    free(source->directory);
    free(source->role);
    free(source->sts);
    free(source->token_audience);
    free(source->selinux_context);
    for (unsigned i = 0; i < source->option_count; i++)
        free(source->options[i]);
    *source = (struct source){0};
}

int source_descend(struct csi_call *call, struct source *source, const char *name)
{
    uint8_t digest[32];
    char hex[65], plain[NAME_PLAIN_MAX + 1], *url = NULL;
    bool same = strlen(name) <= NAME_PLAIN_MAX && name[0] != '.';
    size_t len = 0;
    for (const char *p = name; *p && len < NAME_PLAIN_MAX; p++) {
        bool good = isascii(*p) && (isalnum((unsigned char)*p) || strchr("-_.", *p));
        plain[len++] = good ? *p : '-';
        same = same && good;
    }
    plain[len] = 0;
    if (plain[0] == '.')
        plain[0] = '-';
    hash_sha256(name, strlen(name), digest);
    hash_hex(digest, sizeof(digest), hex);
    int n = same ? asprintf(&url, "%s/%s", source->url, plain)
                 : asprintf(&url, "%s/%.24s-%.16s", source->url, plain, hex);
    if (n < 0)
        return out_of_memory(call);
    free(source->url);
    source->url = url;
    return CSI_OK;
}

char *source_id(const struct source *source)
{
    struct buf b;
    buf_init(&b, CHECK_NAME_MAX + 1);
    buf_printf(&b, "%s", source->url);
    if (source->endpoint)
        buf_printf(&b, ";endpoint=%s", source->endpoint);
    if (source->region)
        buf_printf(&b, ";region=%s", source->region);
    buf_put_u8(&b, 0);
    char *id = buf_error(&b) == 0 ? (char *)buf_take(&b, NULL) : NULL;
    buf_done(&b);
    return id;
}

int source_allows(struct csi_call *call, const struct source *source,
                  const Csi__V1__VolumeCapability *capability)
{
    if (mode_is_shared(capability) && source->kind != SOURCE_SERVICE)
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "a bucket that is mounted without a metadata service has one writing node: "
                        "ReadWriteOnce, ReadWriteOncePod or ReadOnlyMany. For ReadWriteMany use a "
                        "metadata service (server, volume)");
    return CSI_OK;
}
