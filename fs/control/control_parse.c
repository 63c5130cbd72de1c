#include "front_control_parse.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"
#include "meta/acl.h"

static const struct {
    const char *name;
    enum control_op op;
    bool needs_path, takes_path, needs_to, takes_list, needs_ino, needs_quota, takes_store,
        takes_migrate, takes_acl, takes_check, takes_import;
} ops[] = {
    {.name = "status", .op = CONTROL_STATUS},
    {.name = "metrics", .op = CONTROL_METRICS},
    {.name = "refresh", .op = CONTROL_REFRESH, .takes_path = true},
    {.name = "settle", .op = CONTROL_SETTLE, .takes_path = true},
    {.name = "notify", .op = CONTROL_NOTIFY, .needs_path = true},
    {.name = "usage", .op = CONTROL_USAGE, .takes_path = true},
    {.name = "rename", .op = CONTROL_RENAME, .needs_path = true, .needs_to = true},
    {.name = "remove", .op = CONTROL_REMOVE, .needs_path = true},
    {.name = "list", .op = CONTROL_LIST, .takes_path = true, .takes_list = true},
    {.name = "drift", .op = CONTROL_DRIFT, .takes_path = true},
    {.name = "path", .op = CONTROL_PATH, .needs_ino = true},
    {.name = "quota-set", .op = CONTROL_QUOTA_SET, .needs_path = true, .needs_quota = true},
    {.name = "quota-get", .op = CONTROL_QUOTA_GET, .takes_path = true},
    {.name = "quota-list", .op = CONTROL_QUOTA_LIST, .takes_path = true},
    {.name = "flush", .op = CONTROL_FLUSH},
    {.name = "checkpoint", .op = CONTROL_CHECKPOINT},
    {.name = "check", .op = CONTROL_CHECK, .takes_check = true},
    {.name = "gc", .op = CONTROL_GC, .takes_check = true},
    {.name = "import", .op = CONTROL_IMPORT, .takes_import = true},
    {.name = "cached", .op = CONTROL_CACHED, .needs_path = true},
    {.name = "evict", .op = CONTROL_EVICT, .needs_path = true},
    {.name = "pin", .op = CONTROL_PIN, .needs_path = true},
    {.name = "unpin", .op = CONTROL_UNPIN, .needs_path = true},
    {.name = "cache-verify", .op = CONTROL_CACHE_VERIFY, .takes_path = true},
    {.name = "cache-clear", .op = CONTROL_CACHE_CLEAR, .takes_path = true},
    {.name = "store-attach", .op = CONTROL_STORE_ATTACH, .takes_path = true, .takes_store = true},
    {.name = "store-detach", .op = CONTROL_STORE_DETACH, .takes_store = true},
    {.name = "store-list", .op = CONTROL_STORE_LIST},
    {.name = "migrate", .op = CONTROL_MIGRATE, .needs_path = true, .takes_migrate = true},
    {.name = "keep", .op = CONTROL_KEEP},
    {.name = "leave", .op = CONTROL_LEAVE},
    {.name = "stay", .op = CONTROL_STAY},
    {.name = "stop", .op = CONTROL_STOP},
    {.name = "wait", .op = CONTROL_WAIT},
    {.name = "acl-get", .op = CONTROL_ACL_GET, .needs_path = true},
    {.name = "acl-set", .op = CONTROL_ACL_SET, .needs_path = true, .takes_acl = true},
};

static void free_json(json_t **json)
{
    json_decref(*json);
}

void control_request_done(struct control_request *request)
{
    free(request->path.bytes);
    free(request->to.bytes);
    free(request->url);
    free(request->name);
    free(request->options);
    free(request->filter);
    free(request->class);
    for (size_t i = 0; i < request->acl_count; i++)
        free(request->acl[i].name);
    free(request->acl);
    memset(request, 0, sizeof(*request));
}

/* The bytes of member `key`: text, or base64 in `key`64 for bytes that are not UTF-8. 1: there,
 * 0: not there, -errno. */
static int take_bytes(json_t *root, const char *key, size_t max, struct control_text *out,
                      struct error *error)
{
    char key64[32];
    snprintf(key64, sizeof(key64), "%s64", key);
    json_t *text = json_object_get(root, key);
    json_t *coded = json_object_get(root, key64);
    if (!text && !coded)
        return 0;
    if (text && coded)
        return error_set(error, -EINVAL, "%s and %s exclude each other", key, key64);
    const char *value = json_string_value(text ? text : coded);
    if (!value)
        return error_set(error, -EINVAL, "%s must be a string", text ? key : key64);
    size_t len = strlen(value);
    if (len > max * 2)
        return error_set(error, -EINVAL, "%s is too long", key);
    cleanup(free_ptr) char *bytes = malloc(len + 4);
    if (!bytes)
        return error_set(error, -ENOMEM, "no memory");
    if (text) {
        memcpy(bytes, value, len);
    } else {
        int decoded = hash_unbase64(value, len, (uint8_t *)bytes, len + 3);
        if (decoded < 0)
            return error_set(error, -EINVAL, "%s is not base64", key64);
        len = (size_t)decoded;
    }
    bytes[len] = 0;
    if (len > max)
        return error_set(error, -EINVAL, "%s is too long", key);
    if (memchr(bytes, 0, len))
        return error_set(error, -EINVAL, "%s has a NUL byte", key);
    *out = (struct control_text){.bytes = TAKE_PTR(bytes), .len = len};
    return 1;
}

/* In place: "/a//b/" becomes "a/b". */
static int normalize(struct control_text *path, const char *key, struct error *error)
{
    char *to = path->bytes;
    for (const char *from = path->bytes; *from;) {
        const char *end = strchrnul(from, '/');
        size_t len = (size_t)(end - from);
        if (len > META_NAME_MAX)
            return error_set(error, -EINVAL, "%s has a name over %d bytes", key, META_NAME_MAX);
        if ((len == 1 && from[0] == '.') || (len == 2 && from[0] == '.' && from[1] == '.'))
            return error_set(error, -EINVAL, "%s must not contain . or ..", key);
        if (len > 0) {
            if (to != path->bytes)
                *to++ = '/';
            memmove(to, from, len);
            to += len;
        }
        from = *end ? end + 1 : end;
    }
    *to = 0;
    path->len = (size_t)(to - path->bytes);
    return 0;
}

/* The path `key`; where it may be left out, the root. */
static int take_path(json_t *root, const char *key, bool needed, struct control_text *out,
                     struct error *error)
{
    int result = take_bytes(root, key, CONTROL_PATH_MAX, out, error);
    if (result < 0)
        return result;
    if (result == 0) {
        if (needed)
            return error_set(error, -EINVAL, "%s is missing", key);
        out->bytes = strdup("");
        return out->bytes ? 0 : error_set(error, -ENOMEM, "no memory");
    }
    return normalize(out, key, error);
}

static int take_number(json_t *root, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                       struct error *error)
{
    json_t *value = json_object_get(root, key);
    if (!value)
        return 0;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (uint64_t)number < min || (uint64_t)number > max)
        return error_set(error, -EINVAL, "%s must be a number from %llu to %llu", key,
                         (unsigned long long)min, (unsigned long long)max);
    *out = (uint64_t)number;
    return 1;
}

static int take_flag(json_t *root, const char *key, bool *out, struct error *error)
{
    const json_t *flag = json_object_get(root, key);
    if (flag && !json_is_boolean(flag))
        return error_set(error, -EINVAL, "%s must be true or false", key);
    *out = json_is_true(flag);
    return 0;
}

static int take_list(json_t *root, struct control_request *out, struct error *error)
{
    uint64_t limit = CONTROL_LIST_DEFAULT;
    int result = take_number(root, "limit", 1, CONTROL_LIST_MAX, &limit, error);
    if (result >= 0)
        result = take_flag(root, "cached", &out->cached, error);
    if (result == 0)
        result = take_flag(root, "rows", &out->rows, error);
    if (result < 0)
        return result;
    out->limit = (uint32_t)limit;
    struct control_text after = {0};
    result = take_bytes(root, "after", META_NAME_MAX, &after, error);
    if (result <= 0)
        return result;
    memcpy(out->after, after.bytes, after.len);
    out->after_len = after.len;
    free(after.bytes);
    return 0;
}

/* A limit: a number, or null for none. 1: there, 0: not there, -errno. */
static int take_limit(json_t *root, const char *key, uint64_t *out, struct error *error)
{
    *out = META_QUOTA_NONE;
    if (json_is_null(json_object_get(root, key)))
        return 1;
    return take_number(root, key, 0, INT64_MAX, out, error);
}

static int take_quota(json_t *root, struct control_request *out, struct error *error)
{
    int bytes = take_limit(root, "max_bytes", &out->max_bytes, error);
    int inodes = bytes < 0 ? bytes : take_limit(root, "max_inodes", &out->max_inodes, error);
    if (inodes < 0)
        return inodes;
    out->quota_valid = (bytes ? META_QUOTA_BYTES : 0) | (inodes ? META_QUOTA_INODES : 0);
    if (!out->quota_valid)
        return error_set(error, -EINVAL, "max_bytes or max_inodes is missing");
    return 0;
}

/* Text without NUL: 0 also if it is not there. */
static int take_text(json_t *root, const char *key, size_t max, char **out, struct error *error)
{
    json_t *value = json_object_get(root, key);
    if (!value)
        return 0;
    if (!json_is_string(value) || json_string_length(value) > max)
        return error_set(error, -EINVAL, "%s must be a string of at most %zu bytes", key, max);
    *out = strdup(json_string_value(value));
    return *out ? 0 : error_set(error, -ENOMEM, "no memory");
}

/* How a store is reached. */
static int take_options(json_t *root, struct control_request *out, struct error *error)
{
    json_t *options = json_object_get(root, "options");
    if (options && !json_is_object(options))
        return error_set(error, -EINVAL, "options must be an object");
    out->options = options ? json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (options && !out->options)
        return error_set(error, -ENOMEM, "no memory");
    if (out->options && strlen(out->options) > META_STORE_TEXT_MAX)
        return error_set(error, -EINVAL, "options are too long");
    return 0;
}

static int take_store(json_t *root, struct control_request *out, struct error *error)
{
    bool attach = out->op == CONTROL_STORE_ATTACH;
    int result = take_text(root, "url", META_STORE_TEXT_MAX, &out->url, error);
    if (result == 0)
        result = take_text(root, "name", META_STORE_NAME_MAX, &out->name, error);
    if (result < 0)
        return result;
    if (attach && !out->url)
        return error_set(error, -EINVAL, "url is missing");
    if (!attach && !out->name)
        return error_set(error, -EINVAL, "name is missing");
    result = take_flag(root, "read_only", &out->read_only, error);
    out->has_path = json_object_get(root, "path") || json_object_get(root, "path64");
    return result < 0 ? result : take_options(root, out, error);
}

/* "age": seconds; only with "to" or "class". */
static int take_after_s(json_t *root, struct control_request *out, struct error *error)
{
    json_t *after = json_object_get(root, "age");
    if (!after)
        return 0;
    if (!json_is_integer(after) || json_integer_value(after) < 1 || (!out->name && !out->class))
        return error_set(error, -EINVAL, "age is a number of seconds, beside to or class");
    out->after_s = (uint64_t)json_integer_value(after);
    return 0;
}

static int take_migrate(json_t *root, struct control_request *out, struct error *error)
{
    static const char *const words[] = {[META_MIGRATE_PAUSE] = "pause",
                                        [META_MIGRATE_RESUME] = "resume",
                                        [META_MIGRATE_CANCEL] = "cancel"};
    const char *word = json_string_value(json_object_get(root, "do"));
    int result = take_text(root, "to", META_STORE_NAME_MAX, &out->name, error);
    if (result < 0)
        return result;
    result = take_text(root, "class", META_CLASS_MAX, &out->class, error);
    if (result == 0)
        result = take_after_s(root, out, error);
    if (result < 0)
        return result;
    out->migrate = META_MIGRATE_TO;
    for (size_t i = META_MIGRATE_PAUSE; word && i < ARRAY_LEN(words); i++)
        if (strcmp(words[i], word) == 0)
            out->migrate = (enum meta_migrate)i;
    bool to = out->migrate == META_MIGRATE_TO;
    if (json_object_get(root, "do") && to)
        return error_set(error, -EINVAL, "do is none of pause, resume, cancel");
    if (to + (out->name == NULL) + (out->class == NULL) != 2)
        return error_set(error, -EINVAL, "one of to, class and do is needed");
    return 0;
}

/* "default:user:alice:r-x": 0, -EINVAL, -ENOMEM. */
static int parse_acl_entry(const char *text, struct control_acl_entry *out)
{
    static const struct {
        const char *word;
        uint16_t tag, named;
    } tags[] = {{"user", ACL_OWNER, ACL_USER},
                {"group", ACL_GROUP, ACL_NAMED_GROUP},
                {"mask", ACL_MASK, 0},
                {"other", ACL_OTHER, 0}};
    static const char start[] = "default:", bits[] = "rwx";
    *out = (struct control_acl_entry){.is_default = strncmp(text, start, strlen(start)) == 0};
    if (out->is_default)
        text += strlen(start);
    size_t i = 0, word = strcspn(text, ":");
    while (i < ARRAY_LEN(tags) &&
           (strlen(tags[i].word) != word || strncmp(tags[i].word, text, word) != 0))
        i++;
    if (i == ARRAY_LEN(tags) || !text[word])
        return -EINVAL;
    const char *name = text + word + 1;
    size_t name_len = strcspn(name, ":");
    const char *perm = name + name_len + 1;
    if (!name[name_len] || strlen(perm) != strlen(bits) || (name_len && !tags[i].named))
        return -EINVAL;
    for (size_t k = 0; k < strlen(bits); k++) {
        if (perm[k] != bits[k] && perm[k] != '-')
            return -EINVAL;
        out->perm = (uint16_t)(out->perm << 1 | (perm[k] == bits[k]));
    }
    out->tag = name_len ? tags[i].named : tags[i].tag;
    if (name_len)
        out->name = strndup(name, name_len);
    return name_len && !out->name ? -ENOMEM : 0;
}

static int take_acl(json_t *root, struct control_request *out, struct error *error)
{
    json_t *entries = json_object_get(root, "entries");
    size_t count = json_array_size(entries);
    if (!json_is_array(entries) || count > 2 * ACL_ENTRIES_MAX)
        return error_set(error, -EINVAL, "entries must be an array of at most %d strings",
                         2 * ACL_ENTRIES_MAX);
    out->acl = calloc(count + 1, sizeof(*out->acl));
    if (!out->acl)
        return error_set(error, -ENOMEM, "no memory");
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(entries, i));
        int result = text ? parse_acl_entry(text, &out->acl[i]) : -EINVAL;
        if (result < 0)
            return error_set(error, result, "%.60s is no entry such as user:alice:r-x",
                             text ? text : "what is no string");
        out->acl_count = i + 1;
    }
    return 0;
}

#define OLDER_THAN_MS 86400000 /* what is younger is left alone */

static int take_check(json_t *root, struct control_request *out, struct error *error)
{
    int result = take_flag(root, "deep", &out->deep, error);
    if (result == 0)
        result = take_flag(root, "delete", &out->remove, error);
    if (result == 0)
        result = take_flag(root, "strays", &out->strays, error);
    out->older_than_ms = OLDER_THAN_MS;
    return result < 0
               ? result
               : take_number(root, "older_than_ms", 0, UINT32_MAX, &out->older_than_ms, error);
}

static int take_import(json_t *root, struct control_request *out, struct error *error)
{
    int result = take_text(root, "inventory", CONTROL_PATH_MAX, &out->url, error);
    if (result == 0)
        result = take_text(root, "filter", META_KEY_MAX, &out->filter, error);
    if (result < 0)
        return result;
    if (!out->url || !*out->url)
        return error_set(error, -EINVAL, "inventory is missing");
    return take_options(root, out, error);
}

static int take_members(json_t *root, struct control_request *out, struct error *error)
{
    const char *name = json_string_value(json_object_get(root, "op"));
    if (!name)
        return error_set(error, -EINVAL, "a request is an object with a member op");
    size_t i = 0;
    while (i < ARRAY_LEN(ops) && strcmp(ops[i].name, name) != 0)
        i++;
    if (i == ARRAY_LEN(ops))
        return error_set(error, -EINVAL, "unknown op %.40s", name);
    out->op = ops[i].op;
    int result = 0;
    if (ops[i].needs_path || ops[i].takes_path)
        result = take_path(root, "path", ops[i].needs_path, &out->path, error);
    if (result == 0 && ops[i].needs_to)
        result = take_path(root, "to", true, &out->to, error);
    if (result == 0 && ops[i].takes_list)
        result = take_list(root, out, error);
    if (result == 0 && ops[i].needs_quota)
        result = take_quota(root, out, error);
    if (result == 0 && ops[i].takes_store)
        result = take_store(root, out, error);
    if (result == 0 && ops[i].takes_migrate)
        result = take_migrate(root, out, error);
    if (result == 0 && ops[i].takes_acl)
        result = take_acl(root, out, error);
    if (result == 0 && ops[i].takes_check)
        result = take_check(root, out, error);
    if (result == 0 && ops[i].takes_import)
        result = take_import(root, out, error);
    if (result == 0 && ops[i].needs_ino) {
        result = take_number(root, "ino", 1, INT64_MAX, &out->ino, error);
        if (result == 0)
            result = error_set(error, -EINVAL, "ino is missing");
    }
    return result < 0 ? result : 0;
}

int control_parse(const char *text, size_t len, struct control_request *out, struct error *error)
{
    if (len > CONTROL_TEXT_MAX)
        return error_set(error, -EINVAL, "a request has at most %d bytes", CONTROL_TEXT_MAX);
    json_error_t where;
    cleanup(free_json) json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(error, -EINVAL, "not JSON: %s (line %d, column %d)", where.text,
                         where.line, where.column);
    struct control_request request = {0};
    int result = take_members(root, &request, error);
    if (result < 0)
        control_request_done(&request);
    else
        *out = request;
    return result;
}

struct meta_name control_path_next(const char **path)
{
    const char *end = strchrnul(*path, '/');
    struct meta_name name = {.bytes = *path, .len = (size_t)(end - *path)};
    *path = *end ? end + 1 : end;
    return name;
}

void control_path_split(const struct control_text *path, struct control_text *parent,
                        struct meta_name *name)
{
    const char *slash = path->bytes ? strrchr(path->bytes, '/') : NULL;
    const char *last = slash ? slash + 1 : path->bytes;
    *parent = (struct control_text){.bytes = path->bytes,
                                    .len = slash ? (size_t)(slash - path->bytes) : 0};
    *name = (struct meta_name){.bytes = last, .len = path->len - (size_t)(last - path->bytes)};
}

bool control_in_group(const struct control_caller *caller, gid_t gid)
{
    bool found = caller->gid == gid;
    for (size_t i = 0; i < caller->group_count && !found; i++)
        found = caller->groups[i] == gid;
    return found;
}

bool control_may(const struct control_caller *caller, const struct meta_attr *attr, unsigned mask)
{
    if (caller->uid == 0)
        return true;
    unsigned mode = attr->mode;
    if (caller->uid == attr->uid)
        mode >>= 6;
    else if (control_in_group(caller, attr->gid))
        mode >>= 3;
    return (mode & mask & 7) == mask;
}
