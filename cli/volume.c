/* sluice volume: makes, shows, changes and deletes the volumes of a service, whether it runs or
 * not. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "places.h"
#include "volume_config.h"
#include "volume_tokens.h"

struct volume_options {
    char *data_dir;
    bool data_dir_given;
    bool force, no_check, if_missing;
    struct token_options token;
};

#define AT(field) offsetof(struct volume_options, field)
static const struct option_spec specs[] = {
    {"data-dir", 0, OPTION_STRING, AT(data_dir), "DIR", "Of the service (/var/lib/sluice/serve)"},
    {"force", 0, OPTION_FLAG, AT(force), NULL,
     "delete: also if there are files that are not in the bucket yet", .cli_only = true},
    {"if-missing", 0, OPTION_FLAG, AT(if_missing), NULL,
     "create: a volume that is there with this URL gets the options given, as by set",
     .cli_only = true},
    {"no-check", 0, OPTION_FLAG, AT(no_check), NULL, "create, set: do not try the bucket",
     .cli_only = true},
    {"rights", 0, OPTION_CHOICE, AT(token.rights), "RIGHTS",
     "token create: read, write, or admin, who also sets limits (write)",
     .choices = "read|write|admin", .cli_only = true},
    {"path", 0, OPTION_STRING, AT(token.path), "DIR",
     "token create: only for what is below this directory of the volume (all of it)",
     .cli_only = true},
    {"expires", 0, OPTION_STRING, AT(token.expires), "TIME",
     "token create: good for so long, as 12h or 90d (for ever)", .cli_only = true},
    {"squash", 0, OPTION_CHOICE, AT(token.squash), "WHOM",
     "token create: what root, or everybody, makes belongs to the anonymous user (none)",
     .choices = "none|root|all", .cli_only = true},
    {"anonymous", 0, OPTION_STRING, AT(token.anonymous), "UID:GID",
     "token create: who that is (65534:65534)", .cli_only = true},
    {"uid-map", 0, OPTION_STRING, AT(token.uid_map), "LIST",
     "token create: users of the client and those of the volume, CLIENT:VOLUME[:COUNT],…; others "
     "are anonymous (the same)",
     .cli_only = true},
    {"gid-map", 0, OPTION_STRING, AT(token.gid_map), "LIST", "token create: the same for groups",
     .cli_only = true},
};

static const struct option_set volume_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage =
        "create NAME URL [OPTION=VALUE…]\nset NAME OPTION=VALUE…\nshow NAME\nlist\ndelete NAME\n"
        "token create NAME\ntoken list NAME\ntoken revoke NAME ID",
    .doc = "The volumes of `sluice serve`. A volume is a bucket or a prefix of one, with a "
           "namespace that the service keeps. OPTION is one of `sluice mount`: endpoint, region, "
           "profile, addressing, storage-class, sse, staging-patterns, inline-max, settle-delay, "
           "gc-delay, sync, import-ttl, backup-interval, backup-to and others; or quota-bytes and "
           "quota-inodes, limits of the whole volume. An empty VALUE is the default again; "
           "those of new volumes (sluice mount --help) stay what they were at the first open. "
           "credentials=service: mounts need no keys of the bucket, the service gives them keys "
           "that sign for a day (with keys-lifetime, and reader-profile for read-only tokens). "
           "Keys are "
           "not kept: the service takes them from its environment, from profile=NAME, or from the "
           "host's role. A service that runs takes over what was changed at once."
           "\vExamples:\n"
           "  sluice volume create logs s3://logs/2026 region=eu-central-1\n"
           "  sluice volume set logs import-ttl=10m\n"
           "  sluice volume list\n"
           "  sluice volume token create logs --rights read --expires 90d > token\n"
           "  sluice volume token revoke logs 5d1f0c2a77e3b940\n"
           "  sluice volume delete logs      # its settled files stay in the bucket\n\n"
           "Ends with 0, 1 if it failed (then nothing was changed), 2 for a wrong call.",
    .args_min = 1,
    .args_max = OPTIONS_ARGS_MAX,
    .reads_config = true,
};

/* The service, if it runs */

static int connect_admin(const char *data_dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/admin.sock", data_dir) >=
        (int)sizeof(address.sun_path))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* 1: it did; 0: it does not run; -errno with its words. */
static int ask_service(const char *data_dir, const char *request, struct error *error)
{
    struct buf reply;
    cleanup(close_fd) int fd = connect_admin(data_dir);
    if (fd < 0)
        return 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        return error_set(error, -errno, "the service: %s", strerror(errno));
    buf_init(&reply, 1u << 20);
    for (ssize_t n = 1; n > 0;) {
        uint8_t *room = buf_extend(&reply, 4096);
        n = room ? recv(fd, room, 4096, 0) : 0;
        if (room)
            reply.len -= 4096 - (size_t)MAX(n, 0);
    }
    json_t *root = json_loadb((const char *)reply.data, reply.len, 0, NULL);
    const char *why = json_string_value(json_object_get(root, "error"));
    int r = 1;
    if (!root)
        r = error_set(error, -EIO, "the service gave no answer");
    else if (why)
        r = error_set(error, -EIO, "%s", why);
    json_decref(root);
    buf_done(&reply);
    return r;
}

static int ask_to(const char *data_dir, const char *what, const char *name, const char *flag,
                  struct error *error)
{
    char line[256];
    snprintf(line, sizeof(line), "%s %s %s\n", what, name, flag);
    return ask_service(data_dir, line, error);
}

static int probe_place(const char *text, const struct mount_options *options, struct loop *loop,
                       struct error *error)
{
    struct store_options store_options;
    struct store_url url = {0};
    struct store *store = NULL;
    int r = store_url_parse(text, &url, error);
    mount_options_store(options, &store_options);
    log_set_level(LOG_ERROR); /* a request that failed is in the command's own line */
    if (r == 0)
        r = store_open(&url, &store_options, loop, NULL, &store, error);
    if (r == 0)
        r = store_probe(store, url.prefix, NULL, NULL, error);
    store_free(store);
    store_url_done(&url);
    return r;
}

static int probe_places(const struct volume_config *config, const struct mount_options *options,
                        struct error *error)
{
    struct loop *loop;
    int r = loop_new(&loop, "store");
    if (r < 0)
        return error_set(error, r, "cannot start: %s", strerror(-r));
    r = probe_place(config->url, options, loop, error);
    if (r == 0 && options->backup_to &&
        (r = probe_place(options->backup_to, options, loop, error)) < 0)
        error_prefix(error, "backup-to");
    loop_free(loop);
    return r;
}

/* Before anything is written: options make sense, and the buckets can be used. */
static int check_config(const struct volume_config *config, bool probe, struct error *error)
{
    struct mount_options options;
    struct store_url url = {0};
    mount_options_init(&options);
    int r = volume_config_options(config, &options, error);
    if (r == 0)
        r = store_url_parse(config->url, &url, error);
    if (r == 0 && probe)
        r = probe_places(config, &options, error);
    store_url_done(&url);
    mount_options_free(&options);
    return r;
}

static int set_words(struct volume_config *config, char **words, unsigned count,
                     struct error *error)
{
    for (unsigned i = 0; i < count; i++) {
        int r = volume_config_set(config, words[i], error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set(const struct volume_options *o, char **words, unsigned count, struct error *error)
{
    struct volume_config config;
    if (count < 2)
        return error_set(error, -EINVAL, "set needs NAME and OPTION=VALUE");
    int r = volume_config_load(o->data_dir, words[0], &config, error);
    if (r < 0)
        return r;
    r = set_words(&config, words + 1, count - 1, error);
    if (r == 0)
        r = check_config(&config, !o->no_check, error);
    if (r == 0)
        r = volume_config_save(o->data_dir, &config, false, error);
    if (r == 0)
        r = ask_to(o->data_dir, "open", config.name, "", error);
    volume_config_done(&config);
    return MIN(r, 0);
}

/* 1: it was there, and has the options now; 0: there is none. */
static int set_if_there(const struct volume_options *o, char **words, unsigned count,
                        struct error *error)
{
    struct volume_config config;
    if (volume_name_check(words[0], NULL) < 0)
        return 0; /* create says what is wrong */
    int r = volume_config_load(o->data_dir, words[0], &config, error);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    if (strcmp(config.url, words[1]) != 0)
        r = error_set(error, -EEXIST, "volume %s is there at %s, not at %s", words[0], config.url,
                      words[1]);
    volume_config_done(&config);
    if (r == 0 && count > 2) {
        char *again[OPTIONS_ARGS_MAX];
        again[0] = words[0];
        memcpy(again + 1, words + 2, (count - 2) * sizeof(*again));
        r = set(o, again, count - 1, error);
    }
    return r < 0 ? r : 1;
}

static int create(const struct volume_options *o, char **words, unsigned count, struct error *error)
{
    if (count < 2)
        return error_set(error, -EINVAL, "create needs NAME and URL");
    int there = o->if_missing ? set_if_there(o, words, count, error) : 0;
    if (there)
        return MIN(there, 0);
    struct volume_config config = {
        .name = strdup(words[0]), .url = strdup(words[1]), .options = json_object()};
    int r = config.name && config.url ? 0 : error_set(error, -ENOMEM, "out of memory");
    if (r == 0)
        r = volume_name_check(config.name, error);
    if (r == 0)
        r = set_words(&config, words + 2, count - 2, error);
    if (r == 0)
        r = check_config(&config, !o->no_check, error);
    if (r == 0)
        r = places_make(o->data_dir, error);
    if (r == 0)
        r = volume_config_save(o->data_dir, &config, true, error);
    if (r == 0)
        r = ask_to(o->data_dir, "open", config.name, "", error);
    if (r < 0 && error->code != -EEXIST && volume_name_check(words[0], NULL) == 0)
        error_prefix(error, "volume %s", words[0]);
    volume_config_done(&config);
    return MIN(r, 0);
}

static int show(const struct volume_options *o, char **words, unsigned count, struct error *error)
{
    struct volume_config config;
    if (count != 1)
        return error_set(error, -EINVAL, "show needs one NAME");
    int r = volume_config_load(o->data_dir, words[0], &config, error);
    if (r < 0)
        return r;
    json_t *root = json_pack("{s:s, s:s, s:O}", "name", config.name, "url", config.url, "options",
                             config.options);
    cleanup(free_ptr) char *text = json_dumps(root, JSON_INDENT(2));
    if (text)
        printf("%s\n", text);
    json_decref(root);
    volume_config_done(&config);
    return 0;
}

static int list_one(void *arg, const char *name)
{
    struct volume_config config;
    struct error error = {0};
    if (volume_config_load(arg, name, &config, &error) < 0) {
        printf("%-20s ? %s\n", name, error_text(&error));
        return 0;
    }
    printf("%-20s %s\n", config.name, config.url);
    volume_config_done(&config);
    return 0;
}

static int delete (const struct volume_options *o, char **words, unsigned count,
                   struct error *error)
{
    struct volume_config config;
    if (count != 1)
        return error_set(error, -EINVAL, "delete needs one NAME");
    int r = volume_config_load(o->data_dir, words[0], &config, error);
    if (r < 0)
        return r;
    volume_config_done(&config);
    r = ask_to(o->data_dir, "delete", words[0], o->force ? "force" : "", error);
    if (r != 0)
        return MIN(r, 0);
    int64_t left = o->force ? 0 : volume_unsettled(o->data_dir, words[0], error);
    if (left < 0)
        return (int)left;
    if (left)
        return error_set(error, -EBUSY,
                         "%lld files of '%s' are not in the bucket yet; settle them, or lose them "
                         "with --force",
                         (long long)left, words[0]);
    return volume_remove(o->data_dir, words[0], error);
}

/* The service takes them over now; if it does not run, when it starts. */
static int tell_tokens(const char *data_dir, const char *name, struct error *error)
{
    return MIN(ask_to(data_dir, "tokens", name, "", error), 0);
}

static int run(const struct volume_options *o, char **args, unsigned count, struct error *error)
{
    const char *verb = args[0];
    args++;
    count--;
    if (strcmp(verb, "create") == 0)
        return create(o, args, count, error);
    if (strcmp(verb, "set") == 0)
        return set(o, args, count, error);
    if (strcmp(verb, "show") == 0)
        return show(o, args, count, error);
    if (strcmp(verb, "delete") == 0)
        return delete (o, args, count, error);
    if (strcmp(verb, "token") == 0)
        return volume_token(o->data_dir, &o->token, args, count, tell_tokens, error);
    if (strcmp(verb, "list") == 0 && count == 0)
        return !o->data_dir_given && access(o->data_dir, F_OK) < 0
                   ? 0
                   : volume_config_each(o->data_dir, list_one, o->data_dir, error);
    return error_set(error, -EINVAL, "'%s': create, set, show, list, delete or token is needed",
                     verb);
}

int cli_volume(int argc, char **argv)
{
    struct volume_options options = {0};
    struct option_result result;
    struct error error = {0};
    int r = options_parse(&volume_option_set, "sluice volume", argc, argv, &options, &result);
    if (r) {
        options_free(&volume_option_set, &options);
        return r - 1;
    }
    options.data_dir_given = options.data_dir != NULL;
    if (!options.data_dir_given)
        options.data_dir = volume_default_dir();
    r = options.data_dir ? run(&options, result.args, result.arg_count, &error)
                         : error_set(&error, -ENOMEM, "out of memory");
    if (r < 0)
        cli_fail("volume", &error);
    options_free(&volume_option_set, &options);
    return r < 0;
}
