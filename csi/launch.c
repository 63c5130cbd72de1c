#include "launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "check.h"
#include "records.h"
#include "spawn.h"

#define PREFIX_DIR "prefix."  /* in the state directory, while a helper runs */
#define DEFAULT_MEMORY "128M" /* of a mount for which nothing is said */
#define DEFAULT_GC_DELAY "2s" /* NodeUnstageVolume waits for it */

/* Names in a Secret, and the variables that they become. */
static const struct {
    const char *name, *variable;
} credentials[] = {
    {"access-key", "AWS_ACCESS_KEY_ID"},     {"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"},
    {"secret-key", "AWS_SECRET_ACCESS_KEY"}, {"AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"},
    {"session-token", "AWS_SESSION_TOKEN"},  {"AWS_SESSION_TOKEN", "AWS_SESSION_TOKEN"},
    {"sse-key", "SLUICE_SSE_KEY"},           {"token", "SLUICE_TOKEN"},
};

static const char *secret(const struct launch *l, const char *name)
{
    return pair_value(l->secret_count, l->secrets, name);
}

static bool is_proxy(const char *variable)
{
    static const char *const names[] = {
        "http_proxy=", "https_proxy=",   "HTTPS_PROXY=",  "no_proxy=",
        "NO_PROXY=",   "SSL_CERT_FILE=", "SSL_CERT_DIR=", "TZ="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Little of the driver's own environment: its credentials only for a volume that has none, and may
 * use them. */
static void make_env(const struct launch *l, struct words *env)
{
    bool own = l->own_credentials || l->token_file;
    words_add(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    words_add(env, "HOME=/root");
    for (size_t i = 0; i < ARRAY_LEN(credentials); i++) {
        const char *value = secret(l, credentials[i].name);
        if (!value || (l->token_file && strncmp(credentials[i].variable, "AWS_", 4) == 0))
            continue;
        own = true;
        words_add(env, "%s=%s", credentials[i].variable, value);
    }
    if (l->token_file) {
        words_add(env, "AWS_WEB_IDENTITY_TOKEN_FILE=%s", l->token_file);
        words_add(env, "AWS_ROLE_ARN=%s", l->source->role);
        if (l->source->sts)
            words_add(env, "AWS_ENDPOINT_URL_STS=%s", l->source->sts);
    }
    for (char **e = environ; *e; e++)
        if (is_proxy(*e) || (!own && strncmp(*e, "AWS_", 4) == 0))
            words_add(env, "%s", *e);
    if (own)
        words_add(env, "AWS_EC2_METADATA_DISABLED=true"); /* that would be the node's role */
}

static void add_place(const struct launch *l, struct words *argv)
{
    const struct source *s = l->source;
    const char *endpoint = s->endpoint ? s->endpoint : secret(l, "endpoint");
    const char *region = s->region ? s->region : secret(l, "region");
    if (s->kind != SOURCE_S3)
        return;
    if (endpoint)
        words_add(argv, "--endpoint=%s", endpoint);
    if (region)
        words_add(argv, "--region=%s", region);
}

static bool is_store_option(const char *option)
{
    static const char *const names[] = {
        "--addressing=",   "--anonymous",    "--storage-class=", "--sse=",
        "--request-payer", "--connections=", "--deadline="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(option, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* The last line that says something, without the "sluice X: " before it. */
static const char *reason(char *text)
{
    size_t len = strlen(text);
    while (len && text[len - 1] == '\n')
        text[--len] = 0;
    char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    if (strncmp(line, "sluice ", 7) == 0 && strstr(line, ": "))
        line = strstr(line, ": ") + 2;
    return *line ? line : "it ended without a reason; see its log";
}

static int code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return CSI_NOT_FOUND;
    case EEXIST:
        return CSI_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
        return CSI_PERMISSION_DENIED;
    case EINVAL:
    case ENAMETOOLONG:
        return CSI_INVALID_ARGUMENT;
    case EBUSY:
        return CSI_FAILED_PRECONDITION;
    case ENOSPC:
    case EDQUOT:
        return CSI_RESOURCE_EXHAUSTED;
    default:
        return CSI_UNAVAILABLE;
    }
}

static int start_failed(struct csi_call *call, int r, const struct error *error, const char *late)
{
    return r == -ETIMEDOUT ? csi_fail_late(call, late)
                           : csi_fail(call, CSI_INTERNAL, "%s", error_text(error));
}

static int read_reply(struct csi_call *call, struct spawned *result, json_t **reply)
{
    json_t *json = json_loads(result->out, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        int code = result->exit_code == 2 ? CSI_INVALID_ARGUMENT : CSI_INTERNAL;
        return csi_fail(call, code, "%s", reason(result->err));
    }
    if (json_is_true(json_object_get(json, "ok"))) {
        *reply = json;
        return CSI_OK;
    }
    const char *text = json_string_value(json_object_get(json, "message"));
    int number = (int)json_integer_value(json_object_get(json, "errno"));
    int code = csi_fail(call, code_of_errno(number), "%s", text ? text : "");
    json_decref(json);
    return code;
}

/* What comes as text in a Secret and is given as a file. */
static const struct {
    const char *secret, *option;
    enum source_kind kind; /* of the service only, or of any */
} files[] = {
    {"ca-cert", "ca-file", SOURCE_S3},
    {"service-ca", "tls-ca", SOURCE_SERVICE},
    {"service-cert", "tls-cert", SOURCE_SERVICE},
    {"service-key", "tls-key", SOURCE_SERVICE},
};

static bool is_given(const struct launch *l, size_t i)
{
    return secret(l, files[i].secret) &&
           (files[i].kind == SOURCE_S3 || files[i].kind == l->source->kind);
}

static int write_file(const char *path, const char *text)
{
    cleanup(close_fd) int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    return n == (ssize_t)strlen(text) ? 0 : n < 0 ? -errno : -ENOSPC;
}

/* Files in `dir`, and the options that name them. */
static int add_files(struct csi_call *call, const struct launch *l, const char *dir,
                     struct words *argv)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[4096];
        if (!is_given(l, i))
            continue;
        snprintf(path, sizeof(path), "%s/%s.pem", dir, files[i].secret);
        int r = write_file(path, secret(l, files[i].secret));
        if (r < 0)
            return csi_fail(call, r == -ENOSPC ? CSI_RESOURCE_EXHAUSTED : CSI_INTERNAL,
                            "%s of the Secret could not be stored: %s", files[i].secret,
                            strerror(-r));
        words_add(argv, "--%s=%s", files[i].option, path);
    }
    return CSI_OK;
}

/* For a helper that has no directory of a volume: one of its own while it runs. NULL in *dir: it
 * needs none. */
static int make_files(struct csi *csi, struct csi_call *call, const struct launch *l,
                      struct words *argv, char **dir)
{
    bool any = false;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        any = any || is_given(l, i);
    *dir = NULL;
    if (!any)
        return CSI_OK;
    if (asprintf(dir, "%s/" PREFIX_DIR "XXXXXX", csi->config.state_dir) < 0) {
        *dir = NULL;
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    }
    if (!mkdtemp(*dir)) {
        int code = errno == ENOSPC ? CSI_RESOURCE_EXHAUSTED : CSI_INTERNAL;
        csi_fail(call, code, "%s: %s", *dir, strerror(errno));
        free(*dir);
        *dir = NULL;
        return code;
    }
    return add_files(call, l, *dir, argv);
}

void launch_clean_up(const char *state_dir)
{
    DIR *list = opendir(state_dir);
    for (struct dirent *e; list && (e = readdir(list));) {
        cleanup(free_ptr) char *path = NULL;
        if (strncmp(e->d_name, PREFIX_DIR, strlen(PREFIX_DIR)) == 0 &&
            asprintf(&path, "%s/%s", state_dir, e->d_name) >= 0)
            records_remove(path);
    }
    if (list)
        closedir(list);
}

int launch_prefix(struct csi *csi, struct csi_call *call, const struct launch *launch,
                  const char *const *words, json_t **reply)
{
    struct words argv = {0}, env = {0};
    struct spawned result = {0};
    struct error error = {0};
    words_add(&argv, "%s", csi->config.sluice);
    words_add(&argv, "prefix");
    words_add(&argv, "%s", launch->source->url);
    words_add(&argv, "--json");
    for (; *words; words++)
        words_add(&argv, "%s", *words);
    add_place(launch, &argv);
    for (unsigned i = 0; i < launch->source->option_count; i++)
        if (is_store_option(launch->source->options[i]))
            words_add(&argv, "%s", launch->source->options[i]);
    make_env(launch, &env);
    cleanup(free_ptr) char *dir = NULL;
    int code = make_files(csi, call, launch, &argv, &dir);
    if (code == CSI_OK) {
        int r = spawn_run(&argv, &env, NULL, call, &result, &error);
        code = r < 0
                   ? start_failed(call, r, &error, "the store or the service has not answered yet")
                   : read_reply(call, &result, reply);
    }
    if (dir)
        records_remove(dir);
    spawned_done(&result);
    words_done(&argv);
    words_done(&env);
    return code;
}

int launch_settle(struct csi *csi, struct csi_call *call, const char *path, bool *settled)
{
    struct words argv = {0}, env = {0};
    struct spawned result = {0};
    struct error error = {0};
    const struct launch none = {.own_credentials = true};
    words_add(&argv, "%s", csi->config.sluice);
    words_add(&argv, "settle");
    words_add(&argv, "%s", path);
    make_env(&none, &env);
    int r = spawn_run(&argv, &env, NULL, call, &result, &error);
    int code =
        r < 0 ? start_failed(call, r, &error, "what was written is not in the bucket yet") : CSI_OK;
    *settled = r == 0 && result.exit_code == 0;
    if (r == 0 && !*settled) {
        char text[700];
        log_warn("not all files could be settled", "path=%s reason=%s", path,
                 log_quote(reason(result.err), text, sizeof(text)));
    }
    spawned_done(&result);
    words_done(&argv);
    words_done(&env);
    return code;
}

static bool has_option(const struct source *s, const char *name)
{
    for (unsigned i = 0; i < s->option_count; i++)
        if (strncmp(s->options[i], name, strlen(name)) == 0)
            return true;
    return false;
}

static int mount_argv(struct csi *csi, struct csi_call *call, const struct launch *l,
                      const char *staging, const char *dir, struct words *argv)
{
    const struct source *s = l->source;
    words_add(argv, "%s", csi->config.sluice);
    words_add(argv, "mount"); /* daemons.c knows a mount by the order of these words */
    words_add(argv, "%s", s->url);
    words_add(argv, "%s", staging);
    words_add(argv, "--meta-dir=%s/meta", dir);
    if (csi->config.cache_dir)
        words_add(argv, "--cache-dir=%s/%s", csi->config.cache_dir, strrchr(dir, '/') + 1);
    words_add(argv, "--log-file=%s/log", dir);
    words_add(argv, "--allow-other");
    if (s->read_only)
        words_add(argv, "--read-only");
    if (s->take_over)
        words_add(argv, "--take-over");
    if (s->selinux_context)
        words_add(argv, "--selinux-context=%s", s->selinux_context);
    if (!has_option(s, "--memory="))
        words_add(argv, "--memory=" DEFAULT_MEMORY);
    if (!has_option(s, "--gc-delay="))
        words_add(argv, "--gc-delay=" DEFAULT_GC_DELAY);
    for (unsigned i = 0; i < s->option_count; i++)
        words_add(argv, "%s", s->options[i]);
    add_place(l, argv);
    return add_files(call, l, dir, argv);
}

/* Runs what was put together; its last line is the reason of a failure. */
static int run(struct csi *csi, struct csi_call *call, const struct launch *launch, const char *dir,
               struct words *argv, bool outlives, const char *late)
{
    struct words env = {0};
    struct spawned result = {0};
    struct error error = {0};
    int code = CSI_OK;
    make_env(launch, &env);
    words_add(&env, "TMPDIR=%s", dir); /* a container's /tmp may be read-only, and goes with it */
    int r = spawn_run(argv, &env, outlives ? (const char *const *)csi->cgroups : NULL, call,
                      &result, &error);
    if (r < 0)
        code = start_failed(call, r, &error, late);
    else if (result.exit_code == 2)
        code = csi_fail(call, CSI_INVALID_ARGUMENT, "%s", reason(result.err));
    else if (result.exit_code) {
        /* Programs end with a sentence, which has the words of the error. */
        const char *why = reason(result.err);
        code = strstr(why, strerror(ENOSPC)) ? CSI_RESOURCE_EXHAUSTED : CSI_INTERNAL;
        code = csi_fail(call, code, "%s", why);
    }
    spawned_done(&result);
    words_done(&env);
    return code;
}

/* Options that rebuild has too: of the store, and of a volume's making. */
static bool is_rebuild_option(const char *option)
{
    static const char *const names[] = {
        "--settle-delay=", "--gc-delay=", "--inline-max=", "--staging-patterns="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(option, names[i], strlen(names[i])) == 0)
            return true;
    return is_store_option(option);
}

int launch_rebuild(struct csi *csi, struct csi_call *call, const struct launch *launch,
                   const char *dir)
{
    struct words argv = {0};
    const struct source *s = launch->source;
    words_add(&argv, "%s", csi->config.sluice);
    words_add(&argv, "rebuild");
    words_add(&argv, "%s", s->url);
    words_add(&argv, "--meta-dir=%s/meta", dir);
    if (s->take_over)
        words_add(&argv, "--take-over");
    if (!has_option(s, "--gc-delay="))
        words_add(&argv, "--gc-delay=" DEFAULT_GC_DELAY);
    for (unsigned i = 0; i < s->option_count; i++)
        if (is_rebuild_option(s->options[i]))
            words_add(&argv, "%s", s->options[i]);
    add_place(launch, &argv);
    int code = add_files(call, launch, dir, &argv);
    if (code == CSI_OK)
        code = run(csi, call, launch, dir, &argv, false, "the metadata is not read back yet");
    words_done(&argv);
    return code;
}

int launch_mount(struct csi *csi, struct csi_call *call, const struct launch *launch,
                 const char *staging, const char *dir)
{
    struct words argv = {0};
    int code = mount_argv(csi, call, launch, staging, dir, &argv);
    if (code == CSI_OK)
        code = run(csi, call, launch, dir, &argv, true, "the mount was not ready");
    words_done(&argv);
    return code;
}
