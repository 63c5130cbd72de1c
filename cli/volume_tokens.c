#include "volume_tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "options.h"
#include "volume_config.h"

#define FILE_MAX (16u << 20)

/* The file */

static char *path_of(const char *data_dir, const char *name, const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s/%s", data_dir, name, file) < 0 ? NULL : path;
}

static int read_all(int fd, char **out, size_t *len)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size > FILE_MAX)
        return -EFBIG;
    cleanup(free_ptr) char *text = malloc((size_t)st.st_size + 1);
    ssize_t n = text ? read(fd, text, (size_t)st.st_size) : -1;
    if (n < 0)
        return text ? -errno : -ENOMEM;
    *len = (size_t)n;
    *out = TAKE_PTR(text);
    return 0;
}

int volume_tokens_load(const char *data_dir, const char *name, struct token_set *out,
                       struct error *error)
{
    cleanup(free_ptr) char *path = path_of(data_dir, name, "tokens.json");
    cleanup(free_ptr) char *text = NULL;
    size_t len = 0;
    *out = (struct token_set){0};
    if (!path)
        return error_set(error, -ENOMEM, "out of memory");
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    int r = fd < 0 ? -errno : read_all(fd, &text, &len);
    if (r < 0)
        return error_set(error, r, "%s: %s", path, strerror(-r));
    r = token_set_parse(text, len, out, error);
    return r < 0 ? error_prefix(error, "%s", path) : 0;
}

int volume_tokens_save(const char *data_dir, const char *name, const struct token_set *set,
                       struct error *error)
{
    cleanup(free_ptr) char *path = path_of(data_dir, name, "tokens.json");
    cleanup(free_ptr) char *work = path_of(data_dir, name, ".tokens.json");
    cleanup(free_ptr) char *text = token_set_print(set);
    if (!path || !work || !text)
        return error_set(error, -ENOMEM, "out of memory");
    size_t len = strlen(text);
    text[len++] = '\n';
    cleanup(close_fd) int fd = open(work, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) < 0 || rename(work, path) < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

/* One command at a time changes them. */
static int lock_volume(const char *data_dir, const char *name, struct error *error)
{
    struct volume_config config;
    int r = volume_config_load(data_dir, name, &config, error);
    if (r < 0)
        return r;
    volume_config_done(&config);
    cleanup(free_ptr) char *path = path_of(data_dir, name, "");
    int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0 || flock(fd, LOCK_EX) < 0) {
        r = error_set(error, -errno, "volume %s: %s", name, strerror(errno));
        close_fd(&fd);
    }
    return r < 0 ? r : fd;
}

/* What the command line says */

static int parse_anonymous(const char *text, struct token_ids *out)
{
    struct token_range ranges[TOKEN_MAP_MAX];
    unsigned count = 0;
    /* Two numbers, as in a map. */
    if (token_map_parse(text, ranges, &count) < 0 || count != 1 || ranges[0].count != 1)
        return -EINVAL;
    out->anonymous_uid = ranges[0].client;
    out->anonymous_gid = ranges[0].volume;
    return 0;
}

static int parse_ids(const struct token_options *o, struct token_ids *out, struct error *error)
{
    if (o->squash && strcmp(o->squash, "root") == 0)
        out->squash = TOKEN_SQUASH_ROOT;
    if (o->squash && strcmp(o->squash, "all") == 0)
        out->squash = TOKEN_SQUASH_ALL;
    if (o->anonymous && parse_anonymous(o->anonymous, out) < 0)
        return error_set(error, -EINVAL, "--anonymous: '%s' is not UID:GID", o->anonymous);
    if (o->uid_map && token_map_parse(o->uid_map, out->uids, &out->uid_count) < 0)
        return error_set(error, -EINVAL,
                         "--uid-map: '%s' is not CLIENT:VOLUME[:COUNT],… (at most %d that do not "
                         "overlap)",
                         o->uid_map, TOKEN_MAP_MAX);
    if (o->gid_map && token_map_parse(o->gid_map, out->gids, &out->gid_count) < 0)
        return error_set(error, -EINVAL,
                         "--gid-map: '%s' is not CLIENT:VOLUME[:COUNT],… (at most %d that do not "
                         "overlap)",
                         o->gid_map, TOKEN_MAP_MAX);
    return 0;
}

static int parse_expiry(const char *text, uint64_t *out, struct error *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    const char *unit = end ? end : "";
    uint64_t seconds = strcmp(unit, "s") == 0   ? 1
                       : strcmp(unit, "m") == 0 ? 60
                       : strcmp(unit, "h") == 0 ? 3600
                       : strcmp(unit, "d") == 0 ? 86400
                                                : 0;
    if (number == 0 || seconds == 0 || errno || number > 100ull * 366 * 86400 / seconds)
        return error_set(error, -EINVAL,
                         "--expires: '%s' is not a time (a number, then s, m, h or d)", text);
    *out = clock_wall_ns() / NS_PER_S + number * seconds;
    return 0;
}

static int fill(const struct token_options *o, struct token *token, struct error *error)
{
    token->rights = TOKEN_WRITE;
    if (o->rights)
        token_rights_parse(o->rights, &token->rights);
    if (o->path && token_path(o->path, &token->path) < 0)
        return error_set(error, -EINVAL, "--path: '%s' cannot be a directory of the volume",
                         o->path);
    int r = o->expires ? parse_expiry(o->expires, &token->expires_s, error) : 0;
    return r < 0 ? r : parse_ids(o, &token->ids, error);
}

/* The verbs */

static int create(const char *data_dir, const struct token_options *o, struct token_set *set,
                  const char *name, char text[TOKEN_LEN + 1], struct error *error)
{
    struct token token;
    token_make(&token, text);
    int r = fill(o, &token, error);
    if (r == 0 && (r = token_set_add(set, &token)) < 0)
        error_set(error, r, "volume %s has %d tokens already", name, TOKENS_MAX);
    token_done(&token);
    return r < 0 ? r : volume_tokens_save(data_dir, name, set, error);
}

static int take_back(const char *data_dir, struct token_set *set, const char *name, const char *id,
                     struct error *error)
{
    if (!token_set_remove(set, id))
        return error_set(error, -ENOENT, "volume %s has no token %.40s", name, id);
    return volume_tokens_save(data_dir, name, set, error);
}

static void print_time(uint64_t time_s, const char *none)
{
    char text[32];
    struct tm tm;
    time_t t = (time_t)time_s;
    if (!time_s || !gmtime_r(&t, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(text, sizeof(text), "%s", none);
    printf(" %-20s", text);
}

static void list(const struct token_set *set)
{
    uint64_t now_s = clock_wall_ns() / NS_PER_S;
    if (set->count)
        printf("%-16s %-6s %-20s %-20s %s\n", "ID", "RIGHTS", "CREATED", "EXPIRES", "DIRECTORY");
    for (size_t i = 0; i < set->count; i++) {
        const struct token *token = &set->tokens[i];
        printf("%s %-6s", token->id, token_rights_name(token->rights));
        print_time(token->created_s, "?");
        print_time(token->expires_s, "never");
        printf(" /%s%s\n", token->path ? token->path : "",
               token->expires_s && token->expires_s <= now_s ? " (expired)" : "");
    }
}

int volume_token(const char *data_dir, const struct token_options *options, char **args,
                 unsigned count,
                 int (*tell)(const char *data_dir, const char *name, struct error *error),
                 struct error *error)
{
    struct token_set set = {0};
    char text[TOKEN_LEN + 1] = "";
    const char *verb = count ? args[0] : "", *name = count > 1 ? args[1] : "";
    bool creates = strcmp(verb, "create") == 0, revokes = strcmp(verb, "revoke") == 0;
    if ((!creates && !revokes && strcmp(verb, "list") != 0) || count != (revokes ? 3 : 2))
        return error_set(error, -EINVAL,
                         "token create NAME, token list NAME or token revoke NAME ID is needed");
    cleanup(close_fd) int lock = lock_volume(data_dir, name, error);
    if (lock < 0)
        return lock;
    int r = volume_tokens_load(data_dir, name, &set, error);
    if (r == 0 && creates)
        r = create(data_dir, options, &set, name, text, error);
    else if (r == 0 && revokes)
        r = take_back(data_dir, &set, name, args[2], error);
    else if (r == 0)
        list(&set);
    if (r == 0 && (creates || revokes))
        r = tell(data_dir, name, error);
    if (r == 0 && creates)
        printf("%s\n", text);
    explicit_bzero(text, sizeof(text));
    token_set_done(&set);
    return r;
}
