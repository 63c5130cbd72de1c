/* See meta/token.h. */
#include "meta/token.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"

#define PREFIX "sluice_"
#define FORMAT_VERSION 1
#define NAME_MAX_LEN 255

static const char *const rights_names[] = {
    [TOKEN_READ] = "read", [TOKEN_WRITE] = "write", [TOKEN_ADMIN] = "admin"};
static const char *const squash_names[] = {"none", "root", "all"};

const char *token_rights_name(enum token_rights rights)
{
    return rights_names[rights];
}

int token_rights_parse(const char *name, enum token_rights *out)
{
    for (int i = TOKEN_READ; i <= TOKEN_ADMIN; i++) {
        if (strcmp(name, rights_names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Bytes and hex digits */

static void to_hex(const uint8_t *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool is_hex(const char *text, size_t len)
{
    return strspn(text, "0123456789abcdef") >= len;
}

static int from_hex(const char *text, uint8_t *out, size_t len)
{
    if (strlen(text) != 2 * len || !is_hex(text, 2 * len))
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1]};
        out[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return 0;
}

/* Making and checking */

static void hash_secret(const char *secret, uint8_t out[TOKEN_HASH_LEN])
{
    SHA256((const unsigned char *)secret, TOKEN_SECRET_LEN, out);
}

void token_make(struct token *out, char text[TOKEN_LEN + 1])
{
    uint8_t id[TOKEN_ID_LEN / 2], secret[TOKEN_SECRET_LEN / 2];
    hash_random(id, sizeof(id));
    hash_random(secret, sizeof(secret));
    *out = (struct token){.rights = TOKEN_READ, .created_s = clock_wall_ns() / NS_PER_S};
    out->ids.anonymous_uid = out->ids.anonymous_gid = 65534;
    to_hex(id, sizeof(id), out->id);
    snprintf(text, TOKEN_LEN + 1, PREFIX "%s_", out->id);
    to_hex(secret, sizeof(secret), text + TOKEN_LEN - TOKEN_SECRET_LEN);
    hash_secret(text + TOKEN_LEN - TOKEN_SECRET_LEN, out->hash);
    explicit_bzero(secret, sizeof(secret));
}

enum token_answer token_check(const struct token_set *set, const char *text, size_t len,
                              uint64_t now_s, const struct token **out)
{
    uint8_t hash[TOKEN_HASH_LEN];
    char id[TOKEN_ID_LEN + 1] = "";
    if (len != TOKEN_LEN || memcmp(text, PREFIX, strlen(PREFIX)) != 0 ||
        text[strlen(PREFIX) + TOKEN_ID_LEN] != '_')
        return TOKEN_WRONG;
    snprintf(id, sizeof(id), "%.*s", TOKEN_ID_LEN, text + strlen(PREFIX));
    hash_secret(text + TOKEN_LEN - TOKEN_SECRET_LEN, hash);
    const struct token *token = token_set_find(set, id);
    if (!token || CRYPTO_memcmp(hash, token->hash, sizeof(hash)) != 0)
        return TOKEN_WRONG;
    if (token->expires_s && now_s >= token->expires_s)
        return TOKEN_EXPIRED;
    *out = token;
    return TOKEN_GOOD;
}

/* Sets */

void token_done(struct token *token)
{
    free(token->path);
    token->path = NULL;
}

void token_set_done(struct token_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        token_done(&set->tokens[i]);
    free(set->tokens);
    *set = (struct token_set){0};
}

const struct token *token_set_find(const struct token_set *set, const char *id)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->tokens[i].id, id) == 0)
            return &set->tokens[i];
    return NULL;
}

int token_set_add(struct token_set *set, struct token *token)
{
    if (token_set_find(set, token->id))
        return -EEXIST;
    if (set->count == TOKENS_MAX)
        return -ENOSPC;
    struct token *tokens = realloc(set->tokens, (set->count + 1) * sizeof(*tokens));
    if (!tokens)
        return -ENOMEM;
    set->tokens = tokens;
    tokens[set->count++] = *token;
    token->path = NULL;
    return 0;
}

bool token_set_remove(struct token_set *set, const char *id)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->tokens[i].id, id) != 0)
            continue;
        token_done(&set->tokens[i]);
        set->count--;
        memmove(&set->tokens[i], &set->tokens[i + 1], (set->count - i) * sizeof(*set->tokens));
        return true;
    }
    return false;
}

/* Paths */

int token_path(const char *text, char **out)
{
    size_t len = strlen(text), used = 0;
    if (len > TOKEN_PATH_MAX)
        return -EINVAL;
    cleanup(free_ptr) char *path = malloc(len + 1);
    if (!path)
        return -ENOMEM;
    while (*text) {
        size_t n = strcspn(text, "/");
        bool dots = (n == 1 && text[0] == '.') || (n == 2 && memcmp(text, "..", 2) == 0);
        if (dots || n > NAME_MAX_LEN)
            return -EINVAL;
        if (n && used)
            path[used++] = '/';
        memcpy(path + used, text, n);
        used += n;
        text += n + (text[n] == '/');
    }
    path[used] = '\0';
    *out = used ? TAKE_PTR(path) : NULL;
    return 0;
}

bool token_path_below(const char *path, size_t len, const char *above)
{
    size_t n = above ? strlen(above) : 0;
    return n == 0 || (len >= n && memcmp(path, above, n) == 0 && (len == n || path[n] == '/'));
}

/* Users and groups */

static int parse_number(const char **text, uint32_t *out)
{
    char *end = NULL;
    if (**text < '0' || **text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long number = strtoull(*text, &end, 10);
    if (errno || number >= UINT32_MAX)
        return -EINVAL;
    *out = (uint32_t)number;
    *text = end;
    return 0;
}

static bool overlaps(uint32_t a, uint32_t a_count, uint32_t b, uint32_t b_count)
{
    return (uint64_t)a < (uint64_t)b + b_count && (uint64_t)b < (uint64_t)a + a_count;
}

static bool fits(const struct token_range *ranges, unsigned count, const struct token_range *r)
{
    if (r->count == 0 || (uint64_t)r->client + r->count > UINT32_MAX ||
        (uint64_t)r->volume + r->count > UINT32_MAX || count == TOKEN_MAP_MAX)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (overlaps(ranges[i].client, ranges[i].count, r->client, r->count) ||
            overlaps(ranges[i].volume, ranges[i].count, r->volume, r->count))
            return false;
    return true;
}

int token_map_parse(const char *text, struct token_range *out, unsigned *count)
{
    struct token_range ranges[TOKEN_MAP_MAX];
    unsigned n = 0;
    while (*text) {
        struct token_range r = {.count = 1};
        if (parse_number(&text, &r.client) < 0 || *text++ != ':' ||
            parse_number(&text, &r.volume) < 0)
            return -EINVAL;
        if (*text == ':') {
            text++;
            if (parse_number(&text, &r.count) < 0)
                return -EINVAL;
        }
        if (!fits(ranges, n, &r) || (*text && *text != ','))
            return -EINVAL;
        text += *text == ',';
        ranges[n++] = r;
    }
    memcpy(out, ranges, n * sizeof(*out));
    *count = n;
    return 0;
}

static uint32_t map_in(const struct token_ids *ids, const struct token_range *ranges,
                       unsigned count, uint32_t anonymous, uint32_t id)
{
    if (ids->squash == TOKEN_SQUASH_ALL || (ids->squash == TOKEN_SQUASH_ROOT && id == 0))
        return anonymous;
    for (unsigned i = 0; i < count; i++)
        if (id >= ranges[i].client && id - ranges[i].client < ranges[i].count)
            return ranges[i].volume + (id - ranges[i].client);
    return count ? anonymous : id;
}

static uint32_t map_out(const struct token_range *ranges, unsigned count, uint32_t anonymous,
                        uint32_t id)
{
    for (unsigned i = 0; i < count; i++)
        if (id >= ranges[i].volume && id - ranges[i].volume < ranges[i].count)
            return ranges[i].client + (id - ranges[i].volume);
    return count ? anonymous : id;
}

uint32_t token_uid_in(const struct token_ids *ids, uint32_t uid)
{
    return map_in(ids, ids->uids, ids->uid_count, ids->anonymous_uid, uid);
}

uint32_t token_gid_in(const struct token_ids *ids, uint32_t gid)
{
    return map_in(ids, ids->gids, ids->gid_count, ids->anonymous_gid, gid);
}

uint32_t token_uid_out(const struct token_ids *ids, uint32_t uid)
{
    return map_out(ids->uids, ids->uid_count, ids->anonymous_uid, uid);
}

uint32_t token_gid_out(const struct token_ids *ids, uint32_t gid)
{
    return map_out(ids->gids, ids->gid_count, ids->anonymous_gid, gid);
}

/* The file */

static json_t *map_json(const struct token_range *ranges, unsigned count)
{
    char text[TOKEN_MAP_MAX * 36] = "";
    size_t len = 0;
    for (unsigned i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%u:%u:%u", i ? "," : "",
                                ranges[i].client, ranges[i].volume, ranges[i].count);
    return json_string(text);
}

static json_t *token_json(const struct token *token)
{
    char hash[2 * TOKEN_HASH_LEN + 1];
    const struct token_ids *ids = &token->ids;
    to_hex(token->hash, sizeof(token->hash), hash);
    return json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I, s:s, s:I, s:I, s:o, s:o}", "id", token->id,
                     "sha256", hash, "rights", token_rights_name(token->rights), "path",
                     token->path, "created", (json_int_t)token->created_s, "expires",
                     (json_int_t)token->expires_s, "squash", squash_names[ids->squash],
                     "anonymous_uid", (json_int_t)ids->anonymous_uid, "anonymous_gid",
                     (json_int_t)ids->anonymous_gid, "uid_map", map_json(ids->uids, ids->uid_count),
                     "gid_map", map_json(ids->gids, ids->gid_count));
}

char *token_set_print(const struct token_set *set)
{
    json_t *list = json_array();
    for (size_t i = 0; i < set->count; i++)
        if (json_array_append_new(list, token_json(&set->tokens[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    json_t *root = json_pack("{s:i, s:o}", "version", FORMAT_VERSION, "tokens", list);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}

static int squash_parse(const char *name, enum token_squash *out)
{
    for (int i = 0; i < (int)ARRAY_LEN(squash_names); i++) {
        if (strcmp(name, squash_names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_ids(json_t *entry, struct token_ids *out)
{
    const char *squash = NULL, *uids = NULL, *gids = NULL;
    json_int_t uid = 0, gid = 0;
    if (json_unpack(entry, "{s:s, s:I, s:I, s:s, s:s}", "squash", &squash, "anonymous_uid", &uid,
                    "anonymous_gid", &gid, "uid_map", &uids, "gid_map", &gids) < 0 ||
        uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return -EINVAL;
    out->anonymous_uid = (uint32_t)uid;
    out->anonymous_gid = (uint32_t)gid;
    int rc = squash_parse(squash, &out->squash);
    if (rc == 0)
        rc = token_map_parse(uids, out->uids, &out->uid_count);
    return rc < 0 ? rc : token_map_parse(gids, out->gids, &out->gid_count);
}

static int parse_token(json_t *entry, struct token *out)
{
    const char *id = NULL, *hash = NULL, *rights = NULL;
    json_t *restricted = NULL;
    json_int_t created = 0, expires = 0;
    *out = (struct token){0};
    if (json_unpack(entry, "{s:s, s:s, s:s, s:o, s:I, s:I}", "id", &id, "sha256", &hash, "rights",
                    &rights, "path", &restricted, "created", &created, "expires", &expires) < 0 ||
        (!json_is_null(restricted) && !json_is_string(restricted)) || strlen(id) != TOKEN_ID_LEN ||
        !is_hex(id, TOKEN_ID_LEN) || created < 0 || expires < 0)
        return -EINVAL;
    memcpy(out->id, id, TOKEN_ID_LEN);
    out->created_s = (uint64_t)created;
    out->expires_s = (uint64_t)expires;
    int rc = from_hex(hash, out->hash, TOKEN_HASH_LEN);
    if (rc == 0)
        rc = token_rights_parse(rights, &out->rights);
    if (rc == 0)
        rc = parse_ids(entry, &out->ids);
    /* A restriction that cannot be read is none that may be left out. */
    if (rc == 0 && json_is_string(restricted)) {
        rc = token_path(json_string_value(restricted), &out->path);
        if (rc == 0 && !out->path)
            rc = -EINVAL;
    }
    return rc;
}

int token_set_parse(const char *text, size_t len, struct token_set *out, struct error *error)
{
    json_error_t problem;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &problem), *list = NULL, *entry;
    struct token_set set = {0};
    int version = 0, rc = 0;
    size_t i;
    if (!root)
        return error_set(error, -EINVAL, "line %d: %s", problem.line, problem.text);
    if (json_unpack(root, "{s:i, s:o}", "version", &version, "tokens", &list) < 0 ||
        !json_is_array(list))
        rc = error_set(error, -EINVAL, "version and tokens are needed");
    else if (version != FORMAT_VERSION)
        rc = error_set(error, -EPROTO, "written by a newer version (%d)", version);
    json_array_foreach(rc == 0 ? list : NULL, i, entry)
    {
        struct token token;
        rc = parse_token(entry, &token);
        if (rc == 0)
            rc = token_set_add(&set, &token);
        if (rc < 0) {
            token_done(&token);
            error_set(error, rc, "token %zu of the list makes no sense", i + 1);
            break;
        }
    }
    json_decref(root);
    if (rc < 0)
        token_set_done(&set);
    else
        *out = set;
    return rc;
}
