#include "names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/cleanup.h"
#include "meta/op.h"

struct dir_count {
    uint64_t dir, count;
    UT_hash_handle hh;
};

struct kept {
    uint64_t dir;
    enum names_problem problem;
    char key[META_KEY_MAX + 1];
};

struct names_hidden {
    struct dir_count *dirs;
    struct kept kept[NAMES_HIDDEN_KEPT];
    unsigned kept_count;
    uint64_t count;
};

static const char *const reasons[NAMES_PROBLEM_COUNT] = {
    [NAMES_OK] = "",
    [NAMES_EMPTY] = "empty path component",
    [NAMES_DOTS] = "path component . or ..",
    [NAMES_LONG] = "path component over 255 bytes",
    [NAMES_SLASH_DATA] = "ends in / and has data",
    [NAMES_BESIDE] = "beside a directory of the same name",
};

int names_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, MIN(a_len, b_len));
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

enum names_problem names_check(const char *name, size_t len)
{
    if (!len)
        return NAMES_EMPTY;
    if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
        return NAMES_DOTS;
    return len > META_NAME_MAX ? NAMES_LONG : NAMES_OK;
}

int names_hidden_new(struct names_hidden **out)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : -ENOMEM;
}

static void forget_dir(struct names_hidden *hidden, struct dir_count *d)
{
    hidden->count -= d->count;
    HASH_DEL(hidden->dirs, d);
    free(d);
}

void names_hidden_free(struct names_hidden *hidden)
{
    if (!hidden)
        return;
    while (hidden->dirs)
        forget_dir(hidden, hidden->dirs);
    free(hidden);
}

void names_hidden_reset(struct names_hidden *hidden, uint64_t dir)
{
    struct dir_count *d;
    HASH_FIND(hh, hidden->dirs, &dir, sizeof(dir), d);
    if (!d)
        return;
    forget_dir(hidden, d);
    for (unsigned i = 0; i < hidden->kept_count;) {
        if (hidden->kept[i].dir == dir)
            hidden->kept[i] = hidden->kept[--hidden->kept_count];
        else
            i++;
    }
}

void names_hidden_add(struct names_hidden *hidden, uint64_t dir, const char *key,
                      enum names_problem problem)
{
    for (unsigned i = 0; i < hidden->kept_count; i++)
        if (hidden->kept[i].dir == dir && !strcmp(hidden->kept[i].key, key))
            return;
    struct dir_count *d;
    HASH_FIND(hh, hidden->dirs, &dir, sizeof(dir), d);
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (!d)
            return;
        d->dir = dir;
        HASH_ADD(hh, hidden->dirs, dir, sizeof(d->dir), d);
    }
    d->count++;
    hidden->count++;
    if (hidden->kept_count == NAMES_HIDDEN_KEPT)
        return;
    struct kept *kept = &hidden->kept[hidden->kept_count++];
    kept->dir = dir;
    kept->problem = problem;
    snprintf(kept->key, sizeof(kept->key), "%s", key);
}

uint64_t names_hidden_count(const struct names_hidden *hidden)
{
    return hidden->count;
}

void names_hidden_status(const struct names_hidden *hidden, json_t *out)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < hidden->kept_count; i++) {
        const struct kept *kept = &hidden->kept[i];
        json_t *key = json_string(kept->key);
        /* Not UTF-8: a server may have kept such a key all the same. */
        if (!key)
            key = json_string("(not UTF-8)");
        json_array_append_new(list,
                              json_pack("{s:o, s:s}", "key", key, "why", reasons[kept->problem]));
    }
    json_object_set_new(out, "hidden_keys", json_integer((json_int_t)hidden->count));
    json_object_set_new(out, "hidden", list);
}
