#include "volume_config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "meta/engine.h"

/* Less than an embedded mount has: these bytes cross the network, and one log has those of all. */
#define INLINE_MAX (128u << 10)

#define CONFIG_VERSION 1
#define NAME_MAX_LEN 64

#define KEYS_DEFAULT_MS 3600000
#define KEYS_MIN_MS 2000

/* What a volume can be told, and whether its clients need it as well. Secrets are not among them:
 * they come from the environment, a profile or the host's role. `own`: not an option of a mount. */
static const struct {
    const char *name;
    bool for_clients, own;
} known[] = {
    {"endpoint", true},
    {"region", true},
    {"profile", false},
    {"anonymous", true},
    {"addressing", true},
    {"ca-file", false},
    {"no-verify-tls", true},
    {"storage-class", true},
    {"sse", true},
    {"request-payer", true},
    {"connections", false},
    {"deadline", false},
    {"hedge-after", false},
    {"inline-max", false},
    {"settle-delay", false},
    {"gc-delay", false},
    {"sync", false},
    {"sync-interval", false},
    {"staging-patterns", false},
    {"import-ttl", false},
    {"negative-ttl", false},
    {"no-settle", false},
    {"memory", false},
    {"settle-requests", false},
    {"settle-bandwidth", false},
    {"backup-interval", false},
    {"backup-keep", false},
    {"backup-to", false},
    {"credentials", true, true},
    {"reader-profile", false, true},
    {"keys-lifetime", false, true},
    {"durability", false, true},
    {"quota-bytes", false, true},
    {"quota-inodes", false, true},
};

int volume_name_check(const char *name, struct error *error)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (len == 0 || len > NAME_MAX_LEN || name[len] || name[0] == '.')
        return error_set(error, -EINVAL,
                         "'%.80s': a volume's name has 1 to %d letters, digits, '.', '_' and '-', "
                         "and does not begin with '.'",
                         name, NAME_MAX_LEN);
    return 0;
}

int volume_config_set(struct volume_config *config, const char *word, struct error *error)
{
    const char *value = strchr(word, '=');
    size_t len = value ? (size_t)(value - word) : strlen(word);
    for (size_t i = 0; i < ARRAY_LEN(known) && value; i++) {
        if (strlen(known[i].name) != len || strncmp(known[i].name, word, len) != 0)
            continue;
        if (value[1])
            json_object_set_new(config->options, known[i].name, json_string(value + 1));
        else
            json_object_del(config->options, known[i].name);
        return 0;
    }
    if (strncmp(word, "access-key", len) == 0 || strncmp(word, "secret-key", len) == 0 ||
        strncmp(word, "session-token", len) == 0)
        return error_set(error, -EINVAL,
                         "%.*s is not kept: give the service AWS_… variables, or profile=NAME of "
                         "its credentials file",
                         (int)len, word);
    return error_set(error, -EINVAL, "'%.*s' is no option of a volume (NAME=VALUE)", (int)len,
                     word);
}

static const char *option(const struct volume_config *config, const char *name)
{
    return json_string_value(json_object_get(config->options, name));
}

int volume_config_keys(const struct volume_config *config, struct volume_keys *out,
                       struct error *error)
{
    const char *who = option(config, "credentials"), *lifetime = option(config, "keys-lifetime");
    uint32_t ms = KEYS_DEFAULT_MS;
    *out = (struct volume_keys){.reader_profile = option(config, "reader-profile")};
    if (who && strcmp(who, "service") != 0 && strcmp(who, "client") != 0)
        return error_set(error, -EINVAL, "credentials=%.40s: service or client is needed", who);
    if (lifetime && (options_parse_duration_ms(lifetime, &ms) < 0 || ms < KEYS_MIN_MS))
        return error_set(error, -EINVAL, "keys-lifetime=%.40s: a time of 2s or more is needed",
                         lifetime);
    out->service = who && strcmp(who, "service") == 0;
    out->lifetime_s = ms / 1000;
    if (!out->service && (lifetime || out->reader_profile))
        return error_set(error, -EINVAL, "%s needs credentials=service",
                         lifetime ? "keys-lifetime" : "reader-profile");
    if (out->service && strncmp(config->url, "s3://", 5) != 0)
        return error_set(error, -EINVAL, "credentials=service: only S3 has credentials");
    if (out->service && option(config, "anonymous"))
        return error_set(error, -EINVAL, "credentials=service: an anonymous volume has none");
    return 0;
}

static int read_limit(const struct volume_config *config, const char *name, bool *has,
                      uint64_t *out, struct error *error)
{
    const char *text = option(config, name);
    *has = text != NULL;
    *out = META_QUOTA_NONE;
    if (!text || strcmp(text, "none") == 0)
        return 0;
    if (options_parse_size(text, out) < 0 || *out > INT64_MAX)
        return error_set(error, -EINVAL, "%s=%.40s: a number (then K, M, G or T) or none is needed",
                         name, text);
    return 0;
}

int volume_config_quota(const struct volume_config *config, struct volume_quota *out,
                        struct error *error)
{
    int r = read_limit(config, "quota-bytes", &out->has_bytes, &out->bytes, error);
    return r < 0 ? r : read_limit(config, "quota-inodes", &out->has_inodes, &out->inodes, error);
}

static int check_durability(const struct volume_config *config, struct error *error)
{
    const char *class = option(config, "durability");
    if (!class || strcmp(class, "store") == 0)
        return 0;
    return error_set(error, -EINVAL,
                     "durability=%.40s: a volume of a service has only store: other mounts see "
                     "what was closed",
                     class);
}

int volume_config_options(const struct volume_config *config, struct mount_options *out,
                          struct error *error)
{
    struct volume_keys keys;
    struct volume_quota quota;
    int r = volume_config_keys(config, &keys, error);
    if (r == 0)
        r = check_durability(config, error);
    if (r == 0)
        r = volume_config_quota(config, &quota, error);
    if (r < 0)
        return r;
    out->inline_max = INLINE_MAX;
    cleanup(free_ptr) bool *seen = calloc(mount_option_set.count, sizeof(*seen));
    json_t *mounts = json_copy(config->options);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].own)
            json_object_del(mounts, known[i].name);
    cleanup(free_ptr) char *text = json_dumps(mounts, JSON_COMPACT);
    json_decref(mounts);
    if (!seen || !text)
        return error_set(error, -ENOMEM, "out of memory");
    return options_from_json(&mount_option_set, out, text, strlen(text), config->name, seen, error);
}

char *volume_config_for_clients(const struct volume_config *config, const char *region)
{
    json_t *out = json_object();
    if (region)
        json_object_set_new(out, "region", json_string(region));
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        json_t *value = json_object_get(config->options, known[i].name);
        if (value && known[i].for_clients)
            json_object_set(out, known[i].name, value);
    }
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}

static void adopt_text(char **mine, char **theirs)
{
    if (!*mine)
        *mine = TAKE_PTR(*theirs);
}

int volume_options_adopt(struct mount_options *mine, const char *text, struct error *error)
{
    struct mount_options theirs;
    json_t *root = json_loads(text, 0, NULL);
    const char *who = json_string_value(json_object_get(root, "credentials"));
    bool of_service = who && strcmp(who, "service") == 0;
    cleanup(free_ptr) bool *seen = calloc(mount_option_set.count, sizeof(*seen));
    json_object_del(root, "credentials");
    cleanup(free_ptr) char *rest = root ? json_dumps(root, JSON_COMPACT) : strdup(text);
    json_decref(root);
    if (!seen || !rest)
        return error_set(error, -ENOMEM, "out of memory");
    mount_options_init(&theirs);
    int r = options_from_json(&mount_option_set, &theirs, rest, strlen(rest), "the service", seen,
                              error);
    if (r == 0) {
        mine->keys_of_service = of_service;
        adopt_text(&mine->endpoint, &theirs.endpoint);
        adopt_text(&mine->region, &theirs.region);
        adopt_text(&mine->addressing, &theirs.addressing);
        adopt_text(&mine->storage_class, &theirs.storage_class);
        adopt_text(&mine->sse, &theirs.sse);
        mine->anonymous |= theirs.anonymous;
        mine->no_verify_tls |= theirs.no_verify_tls;
        mine->request_payer |= theirs.request_payer;
    }
    mount_options_free(&theirs);
    return r;
}

/* The file */

static char *path_of(const char *data_dir, const char *name, const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s%s%s", data_dir, name, *file ? "/" : "", file) < 0 ? NULL : path;
}

int volume_config_load(const char *data_dir, const char *name, struct volume_config *out,
                       struct error *error)
{
    json_error_t problem;
    int version = 0;
    const char *url = NULL;
    json_t *options = NULL;
    *out = (struct volume_config){0};
    int r = volume_name_check(name, error);
    if (r < 0)
        return r;
    cleanup(free_ptr) char *path = path_of(data_dir, name, "volume.json");
    if (!path)
        return error_set(error, -ENOMEM, "out of memory");
    if (access(path, F_OK) < 0)
        return error_set(error, -errno, "there is no volume '%s' in %s", name, data_dir);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &problem);
    if (!root)
        return error_set(error, -EINVAL, "%s:%d: %s", path, problem.line, problem.text);
    if (json_unpack(root, "{s:i, s:s, s:o}", "version", &version, "url", &url, "options",
                    &options) < 0 ||
        !json_is_object(options))
        r = error_set(error, -EINVAL, "%s: version, url and options are needed", path);
    else if (version != CONFIG_VERSION)
        r = error_set(error, -EPROTO, "%s was written by a newer version (%d)", path, version);
    if (r == 0) {
        out->name = strdup(name);
        out->url = strdup(url);
        out->options = json_incref(options);
        if (!out->name || !out->url) {
            volume_config_done(out);
            r = error_set(error, -ENOMEM, "out of memory");
        }
    }
    json_decref(root);
    return r;
}

static int write_file(const char *path, const struct volume_config *config, struct error *error)
{
    json_t *root = json_pack("{s:i, s:s, s:O}", "version", CONFIG_VERSION, "url", config->url,
                             "options", config->options);
    cleanup(free_ptr) char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return error_set(error, -EINVAL, "the options are no UTF-8 text");
    cleanup(close_fd) int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    size_t len = strlen(text);
    text[len++] = '\n';
    if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

int volume_config_save(const char *data_dir, const struct volume_config *config, bool create,
                       struct error *error)
{
    cleanup(free_ptr) char *final = path_of(data_dir, config->name, create ? "" : "volume.json");
    cleanup(free_ptr) char *work = NULL;
    cleanup(free_ptr) char *file = NULL;
    if (asprintf(&work, "%s/.new-%s", data_dir, config->name) < 0 || !final ||
        asprintf(&file, create ? "%s/volume.json" : "%s", work) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    if (create && access(final, F_OK) == 0)
        return error_set(error, -EEXIST, "there is a volume '%s' already", config->name);
    if (create && mkdir(work, 0700) < 0 && errno != EEXIST)
        return error_set(error, -errno, "%s: %s", work, strerror(errno));
    int r = write_file(file, config, error);
    if (r == 0 && rename(work, final) < 0)
        r = error_set(error, -errno, "%s: %s", final, strerror(errno));
    if (r < 0) {
        unlink(file);
        rmdir(work);
    }
    return r;
}

void volume_config_done(struct volume_config *config)
{
    free(config->name);
    free(config->url);
    json_decref(config->options);
    *config = (struct volume_config){0};
}

static int is_volume(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && entry->d_type == DT_DIR;
}

int volume_config_each(const char *data_dir, int (*each)(void *arg, const char *name), void *arg,
                       struct error *error)
{
    struct dirent **list;
    int count = scandir(data_dir, &list, is_volume, alphasort), r = 0;
    if (count < 0)
        return error_set(error, -errno, "%s: %s", data_dir, strerror(errno));
    for (int i = 0; i < count; i++) {
        cleanup(free_ptr) char *path = path_of(data_dir, list[i]->d_name, "volume.json");
        if (r == 0 && path && access(path, F_OK) == 0)
            r = each(arg, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return r;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

int volume_remove(const char *data_dir, const char *name, struct error *error)
{
    cleanup(free_ptr) char *path = path_of(data_dir, name, "");
    cleanup(free_ptr) char *aside = NULL;
    if (!path || asprintf(&aside, "%s/.deleted-%s", data_dir, name) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    nftw(aside, remove_entry, 16, FTW_DEPTH | FTW_PHYS); /* of a delete that was cut off */
    if (rename(path, aside) < 0 || nftw(aside, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

int64_t volume_unsettled(const char *data_dir, const char *name, struct error *error)
{
    struct engine *engine = NULL;
    struct meta_op op = {.kind = META_DRIFT, .ino = META_ROOT_INO};
    struct meta_reply reply;
    cleanup(free_ptr) char *path = path_of(data_dir, name, "meta");
    if (!path)
        return error_set(error, -ENOMEM, "out of memory");
    if (access(path, F_OK) < 0)
        return 0;
    struct engine_options options = {.path = path, .read_only = true};
    int r = engine_open(&options, &engine, error);
    if (r < 0)
        return r;
    meta_reply_init(&reply);
    r = engine_read(engine, &op, 0, &reply);
    int64_t files = (int64_t)reply.drift.files;
    meta_reply_done(&reply);
    engine_close(engine);
    return r < 0 ? error_set(error, r, "%s: %s", path, strerror(-r)) : files;
}

char *volume_default_dir(void)
{
    char *path = NULL;
    const char *home = getenv("HOME");
    if (geteuid() == 0)
        return strdup("/var/lib/sluice/serve");
    return asprintf(&path, "%s/.local/state/sluice/serve", home ? home : "/tmp") < 0 ? NULL : path;
}
