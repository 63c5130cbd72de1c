#include "profile.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define PROFILES_MAX 1000
#define ENTRIES_MAX 200

struct span {
    const char *data;
    size_t len;
};

static struct span trim(struct span s)
{
    while (s.len > 0 && isspace((unsigned char)s.data[0]))
        s.data++, s.len--;
    while (s.len > 0 && isspace((unsigned char)s.data[s.len - 1]))
        s.len--;
    return s;
}

static struct profile *find(const struct profiles *profiles, const char *name, size_t len)
{
    for (struct profile *p = profiles->list; p; p = p->next) {
        if (strlen(p->name) == len && memcmp(p->name, name, len) == 0)
            return p;
    }
    return NULL;
}

static struct profile *find_or_add(struct profiles *profiles, struct span name)
{
    struct profile *p = find(profiles, name.data, name.len);
    if (p)
        return p;
    p = calloc(1, sizeof(*p));
    if (p)
        p->name = strndup(name.data, name.len);
    if (!p || !p->name) {
        free(p);
        return NULL;
    }
    p->next = profiles->list;
    profiles->list = p;
    return p;
}

/* "[default]", "[profile NAME]" in a config file, "[NAME]" in a credentials file. An empty span: a
 * section that is no profile. */
static struct span section_name(struct span line, bool is_config)
{
    const char *end = memchr(line.data, ']', line.len);
    struct span none = {NULL, 0};
    if (!end)
        return none;
    struct span name = trim((struct span){line.data + 1, (size_t)(end - line.data - 1)});
    if (!is_config || (name.len == 7 && memcmp(name.data, "default", 7) == 0))
        return name;
    if (name.len < 9 || strncmp(name.data, "profile", 7) != 0 ||
        !isspace((unsigned char)name.data[7]))
        return none;
    return trim((struct span){name.data + 8, name.len - 8});
}

static int add_entry(struct profile *profile, struct span name, struct span value)
{
    struct profile_entry *e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    e->name = strndup(name.data, name.len);
    e->value = strndup(value.data ? value.data : "", value.len);
    if (!e->name || !e->value) {
        free(e->name);
        free(e->value);
        free(e);
        return -ENOMEM;
    }
    for (char *p = e->name; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (profile_get(profile, e->name)) {
        free(e->name);
        free(e->value);
        free(e);
        return 0;
    }
    e->next = profile->entries;
    profile->entries = e;
    return 0;
}

static unsigned count_profiles(const struct profiles *profiles)
{
    unsigned count = 0;
    for (const struct profile *p = profiles->list; p; p = p->next)
        count++;
    return count;
}

static unsigned count_entries(const struct profile *profile)
{
    unsigned count = 0;
    for (const struct profile_entry *e = profile->entries; e; e = e->next)
        count++;
    return count;
}

static int parse_line(struct profiles *profiles, struct profile **current, struct span raw,
                      bool is_config)
{
    struct span line = trim(raw);
    if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
        return 0;
    if (line.data[0] == '[') {
        struct span name = section_name(line, is_config);
        *current = NULL;
        if (name.len == 0)
            return 0;
        if (count_profiles(profiles) >= PROFILES_MAX)
            return -E2BIG;
        *current = find_or_add(profiles, name);
        return *current ? 0 : -ENOMEM;
    }
    /* Indented lines are nested settings of the entry above. */
    const char *equals = memchr(line.data, '=', line.len);
    if (!*current || !equals || isspace((unsigned char)raw.data[0]))
        return 0;
    struct span name = trim((struct span){line.data, (size_t)(equals - line.data)});
    struct span value =
        trim((struct span){equals + 1, line.len - (size_t)(equals - line.data) - 1});
    if (name.len == 0)
        return 0;
    if (count_entries(*current) >= ENTRIES_MAX)
        return -E2BIG;
    return add_entry(*current, name, value);
}

int profiles_parse(struct profiles *profiles, const char *data, size_t len, bool is_config)
{
    if (len > PROFILE_FILE_MAX)
        return -E2BIG;
    struct profile *current = NULL;
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t line_len = end ? (size_t)(end - data) : len;
        int rc =
            line_len ? parse_line(profiles, &current, (struct span){data, line_len}, is_config) : 0;
        if (rc)
            return rc;
        size_t used = line_len + (end ? 1 : 0);
        data += used;
        len -= used;
    }
    return 0;
}

static int read_file(struct profiles *profiles, const char *path, bool is_config,
                     struct error *error)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
    cleanup(free_ptr) char *data = malloc(PROFILE_FILE_MAX + 1);
    size_t len = data ? fread(data, 1, PROFILE_FILE_MAX + 1, file) : 0;
    int failed = ferror(file);
    fclose(file);
    if (!data)
        return error_set(error, -ENOMEM, "no memory");
    if (failed)
        return error_set(error, -EIO, "cannot read %s", path);
    int rc = profiles_parse(profiles, data, len, is_config);
    return rc ? error_set(error, rc, "%s: too large", path) : 0;
}

static int read_one(struct profiles *profiles, const char *variable, const char *below_home,
                    bool is_config, struct error *error)
{
    const char *path = getenv(variable);
    if (path && *path)
        return read_file(profiles, path, is_config, error);
    const char *home = getenv("HOME");
    if (!home || !*home)
        return 0;
    cleanup(free_ptr) char *joined = NULL;
    if (asprintf(&joined, "%s/%s", home, below_home) < 0) {
        joined = NULL;
        return error_set(error, -ENOMEM, "no memory");
    }
    return read_file(profiles, joined, is_config, error);
}

int profiles_read(struct profiles *profiles, struct error *error)
{
    /* What is in both counts from the credentials file. */
    int rc = read_one(profiles, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", false, error);
    return rc ? rc : read_one(profiles, "AWS_CONFIG_FILE", ".aws/config", true, error);
}

void profiles_done(struct profiles *profiles)
{
    for (struct profile *p = profiles->list, *next; p; p = next) {
        next = p->next;
        for (struct profile_entry *e = p->entries, *next_entry; e; e = next_entry) {
            next_entry = e->next;
            free(e->name);
            free(e->value);
            free(e);
        }
        free(p->name);
        free(p);
    }
    profiles->list = NULL;
}

const struct profile *profiles_find(const struct profiles *profiles, const char *name)
{
    return find(profiles, name, strlen(name));
}

const char *profile_get(const struct profile *profile, const char *name)
{
    for (const struct profile_entry *e = profile ? profile->entries : NULL; e; e = e->next) {
        if (strcmp(e->name, name) == 0)
            return e->value;
    }
    return NULL;
}
