/*
 * Tokens: who may use a volume of the service, and for what (docs/security.md). A token is
 * "sluice_", 16 hex digits that name it, "_", and 64 hex digits that are its secret: 256 random
 * bits. The service keeps SHA-256 of the secret: there is nothing to guess, so a slow hash would
 * protect nothing more, and would let strangers keep the service busy.
 *
 * A token_set is what one volume has. Not thread-safe.
 */
#ifndef SLUICE_META_TOKEN_H
#define SLUICE_META_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define TOKEN_ID_LEN 16
#define TOKEN_SECRET_LEN 64
#define TOKEN_LEN (7 + TOKEN_ID_LEN + 1 + TOKEN_SECRET_LEN)
#define TOKEN_HASH_LEN 32
#define TOKEN_PATH_MAX 1024
#define TOKENS_MAX 1000  /* of a volume */
#define TOKEN_MAP_MAX 32 /* ranges */

enum token_rights {
    TOKEN_READ = 1,
    TOKEN_WRITE, /* and read */
    TOKEN_ADMIN, /* and limits (quota) */
};
/* "read", "write", "admin". */
const char *token_rights_name(enum token_rights rights);
int token_rights_parse(const char *name, enum token_rights *out); /* 0 or -EINVAL */

enum token_squash {
    TOKEN_SQUASH_NONE = 0,
    TOKEN_SQUASH_ROOT, /* user and group 0 become the anonymous ones */
    TOKEN_SQUASH_ALL,  /* everybody does */
};

/* Users (or groups) of a client and those of the volume. */
struct token_range {
    uint32_t client, volume, count;
};

struct token_ids {
    enum token_squash squash;
    uint32_t anonymous_uid, anonymous_gid; /* default 65534 */
    struct token_range uids[TOKEN_MAP_MAX], gids[TOKEN_MAP_MAX];
    unsigned uid_count, gid_count; /* 0: numbers are the same on both sides */
};

struct token {
    char id[TOKEN_ID_LEN + 1];
    uint8_t hash[TOKEN_HASH_LEN];
    enum token_rights rights;
    char *path; /* names joined by '/': only what is below; NULL: the whole volume. Owned */
    uint64_t created_s, expires_s; /* since 1970; expires 0: never */
    struct token_ids ids;
};

struct token_set {
    struct token *tokens; /* owned */
    size_t count;
};

/* A new token with id, hash and text; the other fields are the caller's. */
void token_make(struct token *out, char text[TOKEN_LEN + 1]);
void token_done(struct token *token);

void token_set_done(struct token_set *set);
/* JSON as token_set_print writes it. 0, -EINVAL with a sentence, -EPROTO: of a newer version. */
int token_set_parse(const char *text, size_t len, struct token_set *out, struct error *error);
char *token_set_print(const struct token_set *set); /* free(); NULL without memory */
/* Takes the token's memory. -EEXIST, -ENOSPC, -ENOMEM. */
int token_set_add(struct token_set *set, struct token *token);
bool token_set_remove(struct token_set *set, const char *id);
const struct token *token_set_find(const struct token_set *set, const char *id);

enum token_answer { TOKEN_GOOD, TOKEN_WRONG, TOKEN_EXPIRED };
/* Who has `text`. Takes as long for a secret that is nearly right as for one that is not. */
enum token_answer token_check(const struct token_set *set, const char *text, size_t len,
                              uint64_t now_s, const struct token **out);

/* A path as an administrator writes it ("/a/b/") → "a/b" (free()), NULL for the whole volume. 0,
 * -EINVAL, -ENOMEM. */
int token_path(const char *text, char **out);
/* `path` is `above`, or below it. NULL or "" is the whole volume. */
bool token_path_below(const char *path, size_t len, const char *above);

/* "1000:5000,2000:6000:10" → ranges; 0 or -EINVAL. */
int token_map_parse(const char *text, struct token_range *out, unsigned *count);
/* A client's number as the volume has it, and back. */
uint32_t token_uid_in(const struct token_ids *ids, uint32_t uid);
uint32_t token_gid_in(const struct token_ids *ids, uint32_t gid);
uint32_t token_uid_out(const struct token_ids *ids, uint32_t uid);
uint32_t token_gid_out(const struct token_ids *ids, uint32_t gid);
/* Numbers pass unchanged. */
static inline bool token_ids_plain(const struct token_ids *ids)
{
    return ids->squash == TOKEN_SQUASH_NONE && ids->uid_count == 0 && ids->gid_count == 0;
}

#endif
