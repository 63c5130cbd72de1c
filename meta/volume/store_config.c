/* How an attached store is reached: what is recorded of it, and no secret among it. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "stores.h"
#include "volume.h"

enum kind { TEXT, FLAG, NUMBER };

static const struct {
    const char *name;
    enum kind kind;
    size_t at;
} known[] = {
    {"endpoint", TEXT, offsetof(struct store_options, endpoint)},
    {"region", TEXT, offsetof(struct store_options, region)},
    {"profile", TEXT, offsetof(struct store_options, profile)},
    {"ca-file", TEXT, offsetof(struct store_options, ca_file)},
    {"storage-class", TEXT, offsetof(struct store_options, storage_class)},
    {"sse", TEXT, offsetof(struct store_options, sse)},
    {"anonymous", FLAG, offsetof(struct store_options, anonymous)},
    {"no-verify-tls", FLAG, offsetof(struct store_options, no_verify_tls)},
    {"request-payer", FLAG, offsetof(struct store_options, request_payer)},
    {"connections", NUMBER, offsetof(struct store_options, connections)},
};

static int take(const char *key, json_t *value, struct store_options *out, struct error *error)
{
    if (strcmp(key, "addressing") == 0) {
        const char *text = json_string_value(value);
        if (!text || (strcmp(text, "auto") && strcmp(text, "path") && strcmp(text, "virtual")))
            return error_set(error, -EINVAL, "addressing is auto, path or virtual");
        if (strcmp(text, "auto") != 0)
            out->path_style = strcmp(text, "path") == 0;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i].name, key) != 0)
            continue;
        void *field = (char *)out + known[i].at;
        json_int_t number = json_integer_value(value);
        if (known[i].kind == TEXT && json_is_string(value))
            *(const char **)field = json_string_value(value);
        else if (known[i].kind == FLAG && json_is_boolean(value))
            *(bool *)field = json_is_true(value);
        else if (known[i].kind == NUMBER && number >= 1 && number <= 1024)
            *(unsigned *)field = (unsigned)number;
        else
            return error_set(error, -EINVAL, "option %s has a wrong value", key);
        return 0;
    }
    return error_set(error, -EINVAL,
                     "option %.60s is not one of an attached store (credentials come from a "
                     "profile, the mount's environment or the host's role, and are not recorded)",
                     key);
}

int store_config_options(const json_t *json, struct store_options *out, struct error *error)
{
    const char *key;
    json_t *value;
    store_options_init(out);
    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        int rc = take(key, value, out, error);
        if (rc < 0)
            return rc;
    }
    if (out->sse && strcmp(out->sse, "SSE-C") == 0)
        return error_set(error, -EINVAL,
                         "sse SSE-C needs a key, and no secret is recorded for a store");
    return 0;
}

int store_config_parse(const char *text, json_t **out, struct error *error)
{
    struct store_options options;
    json_error_t where;
    if (strlen(text) > META_STORE_TEXT_MAX)
        return error_set(error, -EINVAL, "the options of the store are too long");
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(json)) {
        json_decref(json);
        return error_set(error, -EINVAL, "the options of a store are no JSON object");
    }
    int rc = store_config_options(json, &options, error);
    if (rc < 0)
        json_decref(json);
    else
        *out = json;
    return rc;
}

int store_config_name(const char *name, struct error *error)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (len == 0 || len > META_STORE_NAME_MAX || name[len] || name[0] == '.')
        return error_set(error, -EINVAL,
                         "'%.80s': a store's name has 1 to %d letters, digits, '.', '_' and '-', "
                         "and does not begin with '.'",
                         name, META_STORE_NAME_MAX);
    if (strcmp(name, META_STORE_OWN) == 0)
        return error_set(error, -EINVAL, "'%s' is the name of the volume's own store", name);
    return 0;
}

static void note_probe(void *arg, const char *what, bool good, const char *text)
{
    const struct meta_store *info = arg;
    if (!good)
        log_warn("store lacks something", "store=%s what=%s text=\"%s\"", info->name, what, text);
}

/* Does it answer at all? A store that does not is not asked for more, so that nobody waits long. */
static int look(const struct meta_store *info, struct store *store, struct error *error)
{
    char key[META_KEY_MAX + 32];
    snprintf(key, sizeof(key), "%s" VOLUME_INTERNAL "volume", info->prefix);
    struct store_op op = {.kind = STORE_HEAD, .key = key, .timeout_ms = STORE_LOOK_MS};
    int rc = store_wait(store, &op);
    if (rc == -ENOENT)
        rc = 0;
    else if (rc && error)
        *error = op.error;
    store_op_reset(&op);
    return rc;
}

int store_config_connect(const struct meta_store *info, struct loop *loop, struct store **out,
                         struct error *error)
{
    struct store_options options;
    struct store_url url;
    json_t *json;
    int rc = store_config_parse(info->options, &json, error);
    if (rc < 0)
        return rc;
    rc = store_config_options(json, &options, error);
    options.read_only = info->read_only;
    if (rc == 0)
        rc = store_url_parse(info->url, &url, error);
    if (rc == 0) {
        rc = store_open(&url, &options, loop, NULL, out, error);
        store_url_done(&url);
    }
    json_decref(json);
    return rc;
}

int store_config_open(const struct meta_store *info, struct loop *loop, struct store **out,
                      struct error *error)
{
    struct store *store = NULL;
    int rc = store_config_connect(info, loop, &store, error);
    if (rc == 0)
        rc = look(info, store, error);
    if (rc == 0 && !info->read_only)
        rc = store_probe(store, info->prefix, note_probe, (void *)info, error);
    if (rc == 0)
        *out = store;
    else
        store_free(store);
    return rc;
}
