#include "options.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define CONFIG_MAX (1u << 20) /* bytes of a configuration file */

enum { KEY_FIRST = 0x1000, KEY_CONFIG = 0x2000, KEY_MOUNT_LIST };

int options_parse_size(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno)
        return -EINVAL;
    unsigned shift = 0;
    switch (toupper((unsigned char)*end)) {
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    case 'T':
        shift = 40;
        break;
    default:
        break;
    }
    if (shift)
        end++;
    if (strcmp(end, "iB") == 0 && shift)
        end += 2;
    else if (strcmp(end, "B") == 0)
        end++;
    if (*end || value > UINT64_MAX >> shift)
        return -EINVAL;
    *out = value << shift;
    return 0;
}

int options_parse_duration_ms(const char *text, uint32_t *out)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"", 1000}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno)
        return -EINVAL;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        if (value > UINT32_MAX / units[i].ms)
            return -EINVAL;
        *out = (uint32_t)(value * units[i].ms);
        return 0;
    }
    return -EINVAL;
}

static bool choice_allowed(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, value, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static int set_string(char **field, const char *value, struct error *error)
{
    char *copy = strdup(value);
    if (!copy)
        return error_set(error, -ENOMEM, "out of memory");
    /* A secret must not stay in freed memory. */
    if (*field)
        explicit_bzero(*field, strlen(*field));
    free(*field);
    *field = copy;
    return 0;
}

/* A limit as a user would write it: in the largest unit that is exact. */
static void limit_text(const struct option_spec *spec, uint64_t limit, char out[32])
{
    static const struct {
        const char *name;
        uint64_t of;
    } sizes[] = {{"T", 1ull << 40}, {"G", 1ull << 30}, {"M", 1ull << 20}, {"K", 1ull << 10}},
      times[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    bool size = spec->type == OPTION_SIZE, time = spec->type == OPTION_DURATION;
    size_t count = size ? ARRAY_LEN(sizes) : time ? ARRAY_LEN(times) : 0;
    for (size_t i = 0; i < count && limit > 0; i++) {
        uint64_t of = size ? sizes[i].of : times[i].of;
        if (limit % of)
            continue;
        snprintf(out, 32, "%" PRIu64 "%s", limit / of, size ? sizes[i].name : times[i].name);
        return;
    }
    snprintf(out, 32, "%" PRIu64, limit);
}

static int check_range(const struct option_spec *spec, const char *value, uint64_t number,
                       struct error *error)
{
    char min[32], max[32];
    if (number >= spec->min && (!spec->max || number <= spec->max))
        return 0;
    limit_text(spec, spec->min, min);
    limit_text(spec, spec->max, max);
    if (!spec->max)
        return error_set(error, -EINVAL, "--%s: %s is too small, %s is the least", spec->name,
                         value, min);
    return error_set(error, -EINVAL, "--%s: %s is not between %s and %s", spec->name, value, min,
                     max);
}

static int set_number(const struct option_spec *spec, void *field, const char *value,
                      struct error *error)
{
    uint64_t number = 0;
    uint32_t ms = 0;
    int r;
    switch (spec->type) {
    case OPTION_SIZE:
        if (options_parse_size(value, &number) < 0)
            return error_set(error, -EINVAL,
                             "--%s: '%s' is not a size (a whole number, then K, M, G or T)",
                             spec->name, value);
        r = check_range(spec, value, number, error);
        if (r == 0)
            *(uint64_t *)field = number;
        return r;
    case OPTION_DURATION:
        if (options_parse_duration_ms(value, &ms) < 0)
            return error_set(
                error, -EINVAL,
                "--%s: '%s' is not a time of up to 49 days (a whole number, then ms, s, m, h or d)",
                spec->name, value);
        r = check_range(spec, value, ms, error);
        if (r == 0)
            *(uint32_t *)field = ms;
        return r;
    default: {
        char *end;
        errno = 0;
        number = strtoull(value, &end, 10);
        if (!isdigit((unsigned char)value[0]) || errno || *end || number > UINT32_MAX)
            return error_set(error, -EINVAL, "--%s: '%s' is not a number", spec->name, value);
        r = check_range(spec, value, number, error);
        if (r == 0)
            *(unsigned *)field = (unsigned)number;
        return r;
    }
    }
}

static int set_flag(const struct option_spec *spec, bool *field, const char *value,
                    struct error *error)
{
    if (!value || strcmp(value, "true") == 0 || strcmp(value, "1") == 0 ||
        strcmp(value, "yes") == 0)
        *field = true;
    else if (strcmp(value, "false") == 0 || strcmp(value, "0") == 0 || strcmp(value, "no") == 0)
        *field = false;
    else
        return error_set(error, -EINVAL, "--%s: '%s' is neither true nor false", spec->name, value);
    return 0;
}

static int set_option(const struct option_spec *spec, void *target, const char *value,
                      struct error *error)
{
    void *field = (char *)target + spec->offset;
    if (spec->type == OPTION_FLAG)
        return set_flag(spec, field, value, error);
    if (!value || !*value)
        return error_set(error, -EINVAL, "--%s needs a value", spec->name);
    switch (spec->type) {
    case OPTION_CHOICE:
        if (!choice_allowed(spec->choices, value))
            return error_set(error, -EINVAL, "--%s: '%s' is none of %s", spec->name, value,
                             spec->choices);
        return set_string(field, value, error);
    case OPTION_STRING:
    case OPTION_SECRET:
        return set_string(field, value, error);
    default:
        return set_number(spec, field, value, error);
    }
}

static const struct option_spec *find(const struct option_set *set, const char *name, size_t len)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct option_spec *spec = &set->specs[i];
        if (strlen(spec->name) == len && memcmp(spec->name, name, len) == 0)
            return spec;
    }
    return NULL;
}

int options_set(const struct option_set *set, void *target, const char *name, const char *value,
                struct error *error)
{
    const struct option_spec *spec = find(set, name, strlen(name));
    if (!spec)
        return error_set(error, -EINVAL, "there is no option '%s'", name);
    return set_option(spec, target, value, error);
}

/* Words that mount(8) and fstab(5) pass through and that mean nothing to a FUSE daemon. */
static bool mount_word(const char *word, size_t len)
{
    static const char *const words[] = {
        "rw",       "auto",    "noauto", "user",    "nouser",   "users",  "owner",  "group",
        "defaults", "_netdev", "nofail", "dev",     "nodev",    "suid",   "nosuid", "exec",
        "noexec",   "async",   "atime",  "noatime", "relatime", "dirsync"};
    if (len >= 2 && memcmp(word, "x-", 2) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0)
            return true;
    return false;
}

static int set_mount_word(const struct option_set *set, void *target, char *word, bool *seen,
                          struct error *error)
{
    char *value = strchr(word, '=');
    size_t len = value ? (size_t)(value - word) : strlen(word);
    if (value)
        *value++ = 0;
    /* mount(8) writes some names its own way. */
    const char *name = word;
    if (strcmp(word, "ro") == 0)
        name = "read-only";
    for (char *p = word; *p; p++)
        if (*p == '_' && word[0] != '_')
            *p = '-';
    const struct option_spec *spec = find(set, name, strlen(name));
    if (!spec)
        return mount_word(word, len)
                   ? 0
                   : error_set(error, -EINVAL, "-o %s: there is no such option", word);
    seen[spec - set->specs] = true;
    return set_option(spec, target, value, error);
}

int options_from_mount_list(const struct option_set *set, void *target, const char *list,
                            bool *seen, struct error *error)
{
    cleanup(free_ptr) char *copy = strdup(list);
    if (!copy)
        return error_set(error, -ENOMEM, "out of memory");
    char *rest = NULL;
    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        int r = set_mount_word(set, target, word, seen, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_json_value(const struct option_spec *spec, void *target, json_t *value,
                          const char *where, struct error *error)
{
    char number[32];
    const char *text = NULL;
    if (json_is_string(value)) {
        text = json_string_value(value);
    } else if (json_is_boolean(value)) {
        text = json_is_true(value) ? "true" : "false";
    } else if (json_is_integer(value)) {
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        text = number;
    } else {
        return error_set(error, -EINVAL,
                         "%s: \"%s\" must be a string, a whole number, true or false", where,
                         spec->name);
    }
    int r = set_option(spec, target, text, error);
    return r < 0 ? error_prefix(error, "%s", where) : 0;
}

int options_from_json(const struct option_set *set, void *target, const char *text, size_t len,
                      const char *where, bool *seen, struct error *error)
{
    json_error_t problem;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &problem);
    if (!root)
        return error_set(error, -EINVAL, "%s:%d: %s", where, problem.line, problem.text);
    int r = 0;
    if (!json_is_object(root))
        r = error_set(error, -EINVAL, "%s: must hold one JSON object", where);
    const char *name;
    json_t *value;
    if (r == 0) {
        json_object_foreach(root, name, value)
        {
            const struct option_spec *spec = find(set, name, strlen(name));
            if (!spec || spec->cli_only)
                r = error_set(error, -EINVAL, "%s: there is no option \"%s\"", where, name);
            else if (!seen[spec - set->specs])
                r = set_json_value(spec, target, value, where, error);
            if (r < 0)
                break;
            seen[spec - set->specs] = true;
        }
    }
    json_decref(root);
    return r;
}

static int read_config(const struct option_set *set, void *target, const char *path, bool *seen,
                       struct error *error)
{
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno, "configuration file %s: %s", path, strerror(errno));
    cleanup(free_ptr) char *text = malloc(CONFIG_MAX + 1);
    if (!text)
        return error_set(error, -ENOMEM, "out of memory");
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, text + len, CONFIG_MAX + 1 - len);
        if (n < 0)
            return error_set(error, -errno, "configuration file %s: %s", path, strerror(errno));
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > CONFIG_MAX)
            return error_set(error, -EINVAL, "configuration file %s is larger than 1 MiB", path);
    }
    return options_from_json(set, target, text, len, path, seen, error);
}

static void variable_name(const char *option, char *out, size_t len)
{
    size_t n = (size_t)snprintf(out, len, "SLUICE_%s", option);
    for (size_t i = 0; i < n && i < len - 1; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

static int read_environment(const struct option_set *set, void *target, bool *seen,
                            struct error *error)
{
    for (size_t i = 0; i < set->count; i++) {
        char name[80];
        variable_name(set->specs[i].name, name, sizeof(name));
        const char *value = getenv(name);
        if (!value || seen[i] || set->specs[i].cli_only)
            continue;
        int r = set_option(&set->specs[i], target, value, error);
        if (r < 0)
            return error_prefix(error, "environment variable %s", name);
        seen[i] = true;
    }
    return 0;
}

/* The state of one argp run. */
struct parsing {
    const struct option_set *set;
    void *target;
    struct option_result *result;
    bool *seen;
    const char *config;
    struct error error;
};

static error_t refuse(struct argp_state *state, struct parsing *p)
{
    argp_error(state, "%s", error_text(&p->error));
    return EINVAL;
}

static error_t take(int key, char *arg, struct argp_state *state)
{
    struct parsing *p = state->input;
    for (size_t i = 0; i < p->set->count; i++) {
        const struct option_spec *spec = &p->set->specs[i];
        if (key != KEY_FIRST + (int)i && !(spec->letter && key == spec->letter))
            continue;
        if (set_option(spec, p->target, arg, &p->error) < 0)
            return refuse(state, p);
        if (spec->type == OPTION_SECRET)
            explicit_bzero(arg, strlen(arg));
        p->seen[i] = true;
        return 0;
    }
    switch (key) {
    case KEY_CONFIG:
        p->config = arg;
        return 0;
    case 'o':
        if (options_from_mount_list(p->set, p->target, arg, p->seen, &p->error) < 0)
            return refuse(state, p);
        return 0;
    case ARGP_KEY_ARG:
        if (p->result->arg_count >= p->set->args_max)
            argp_error(state, "'%s' is one argument too many", arg);
        else
            p->result->args[p->result->arg_count++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (p->result->arg_count < p->set->args_min)
            argp_error(state, "needs %.*s%s", (int)strcspn(p->set->usage, "\n"), p->set->usage,
                       strchr(p->set->usage, '\n') ? ", or another of its forms" : "");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static size_t add_groups(const struct option_set *set, int group, struct argp_option *out)
{
    for (const struct option_group *g = set->groups; g && g->title; g++) {
        if (g->number != group)
            continue;
        *out = (struct argp_option){.doc = g->title, .group = group};
        return 1;
    }
    return 0;
}

static struct argp_option *make_argp_options(const struct option_set *set)
{
    size_t room = set->count * 2 + 4, n = 0;
    struct argp_option *out = calloc(room, sizeof(*out));
    if (!out)
        return NULL;
    int group = -1;
    for (size_t i = 0; i < set->count; i++) {
        const struct option_spec *spec = &set->specs[i];
        if (spec->group != group) {
            group = spec->group;
            n += add_groups(set, group, &out[n]);
        }
        out[n++] = (struct argp_option){.name = spec->name,
                                        .key = spec->letter ? spec->letter : KEY_FIRST + (int)i,
                                        .arg = spec->type == OPTION_FLAG ? NULL : spec->arg,
                                        .doc = spec->help,
                                        .group = spec->group};
    }
    if (set->reads_config) {
        out[n++] =
            (struct argp_option){.name = "config",
                                 .key = KEY_CONFIG,
                                 .arg = "FILE",
                                 .group = group,
                                 .doc = "Read options from a JSON file: {\"endpoint\": \"…\", …}"};
        out[n++] =
            (struct argp_option){.key = 'o',
                                 .arg = "NAME[=VALUE],…",
                                 .name = "options",
                                 .group = group,
                                 .doc = "The same options as mount(8) and fstab(5) give them"};
    }
    return out;
}

int options_parse(const struct option_set *set, const char *name, int argc, char **argv,
                  void *target, struct option_result *result)
{
    cleanup(free_ptr) bool *seen = calloc(set->count + 1, sizeof(*seen));
    cleanup(free_ptr) struct argp_option *options = make_argp_options(set);
    cleanup(free_ptr) char *program = strdup(name);
    if (!seen || !options || !program) {
        fprintf(stderr, "%s: out of memory\n", name);
        return 2;
    }
    *result = (struct option_result){0};
    struct parsing p = {.set = set, .target = target, .result = result, .seen = seen};
    struct argp argp = {
        .options = options, .parser = take, .args_doc = set->usage, .doc = set->doc};
    argv[0] = program;
    argp_err_exit_status = 2;
    if (argp_parse(&argp, argc, argv, 0, NULL, &p) != 0)
        return 3;
    if (!set->reads_config)
        return 0;
    int r = read_environment(set, target, seen, &p.error);
    if (r == 0 && p.config)
        r = read_config(set, target, p.config, seen, &p.error);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", name, error_text(&p.error));
        return 3;
    }
    return 0;
}

void options_free(const struct option_set *set, void *target)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct option_spec *spec = &set->specs[i];
        if (spec->type != OPTION_STRING && spec->type != OPTION_SECRET &&
            spec->type != OPTION_CHOICE)
            continue;
        char **field = (char **)((char *)target + spec->offset);
        if (*field && spec->type == OPTION_SECRET)
            explicit_bzero(*field, strlen(*field));
        free(*field);
        *field = NULL;
    }
}
