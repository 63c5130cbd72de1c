/*
 * What a connection may do. A token of the volume says it; without tokens a volume is open to
 * clients of this host, to those with a certificate, and with --no-auth to all. Root and the
 * service's own user at a unix socket need no token.
 *
 * A stranger learns the same of a volume that is not there as of one whose token it does not have.
 * A session goes on under another token of the same restriction, so that tokens can be replaced
 * while it lives.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_impl.h"

void grant_done(struct grant *grant)
{
    free(grant->path);
    *grant = (struct grant){0};
}

static bool deny(struct conn *conn, int code, const char *text, const struct wire_text *name)
{
    metric_add(conn->server->denied, 1);
    conn_refuse(conn, code, "volume '%.*s': %s", (int)name->len, name->bytes, text);
    return false;
}

static bool is_open(const struct conn *conn)
{
    const struct server_config *c = &conn->server->config;
    return c->no_auth || conn->local || (conn->tls && c->tls_client_ca);
}

static void grant_all(struct conn *conn)
{
    grant_done(&conn->grant);
    conn->grant.rights = TOKEN_ADMIN;
}

static int grant_token(struct conn *conn, const struct token *token)
{
    char *path = token->path ? strdup(token->path) : NULL;
    if (token->path && !path)
        return -ENOMEM;
    grant_done(&conn->grant);
    conn->grant = (struct grant){
        .rights = token->rights, .expires_s = token->expires_s, .path = path, .ids = token->ids};
    memcpy(conn->grant.token, token->id, sizeof(conn->grant.token));
    return 0;
}

/* What it asks for must be inside; the token's own path is what it gets when it asks for nothing.
 */
static bool narrow(struct conn *conn, const struct wire_hello *hello, const struct wire_text *name,
                   struct wire_text *path)
{
    const struct grant *grant = &conn->grant;
    if (path->len == 0 && grant->path)
        *path = (struct wire_text){.bytes = grant->path, .len = strlen(grant->path)};
    if (!token_path_below(path->bytes, path->len, grant->path))
        return deny(conn, -EACCES, "the token is not for this directory", name);
    if (grant->rights == TOKEN_READ && !hello->read_only)
        return deny(conn, -EROFS, "the token is for reading: mount with --read-only", name);
    return true;
}

bool auth_hello(struct conn *conn, const struct server_volume *volume,
                const struct wire_hello *hello, const struct wire_text *name,
                struct wire_text *path)
{
    static const struct token_set none;
    const struct token_set *tokens = volume ? &volume->tokens : &none;
    const struct token *token = NULL;
    if (hello->token.len) {
        switch (token_check(tokens, hello->token.bytes, hello->token.len,
                            clock_wall_ns() / NS_PER_S, &token)) {
        case TOKEN_GOOD:
            if (grant_token(conn, token) < 0)
                return deny(conn, -EAGAIN, "no memory", name);
            return narrow(conn, hello, name, path);
        case TOKEN_EXPIRED:
            return deny(conn, -EACCES, "the token has expired", name);
        default:
            return deny(conn, -EACCES, "the token is not one of this volume", name);
        }
    }
    if (!conn->owner && (tokens->count || !is_open(conn)))
        return deny(conn, -EACCES,
                    tokens->count || !volume
                        ? "a token is needed (--token-file, or SLUICE_TOKEN)"
                        : "it has no tokens yet, so it is open to this host only; make one: sluice "
                          "volume token create",
                    name);
    grant_all(conn);
    if (!volume)
        conn_refuse(conn, -ENOENT, "there is no volume '%.*s'", (int)name->len, name->bytes);
    return volume;
}

bool auth_fits(const struct grant *grant, const struct session *session)
{
    return !grant->path || (session->bound && strcmp(grant->path, session->bound) == 0);
}

void auth_adopt(struct session *session, struct conn *conn)
{
    grant_done(&session->grant);
    session->grant = conn->grant;
    conn->grant = (struct grant){0};
    memcpy(session->peer, conn->peer, sizeof(session->peer));
}

/* Operations */

int auth_task(const struct session *session, enum wire_task_kind kind)
{
    /* Settling writes to the bucket; sizes are reserved for who writes. */
    bool reserves = kind == WIRE_TASK_RESERVE || kind == WIRE_TASK_RESERVED;
    if (reserves && session->read_only)
        return -EROFS;
    return (reserves || kind == WIRE_TASK_SETTLE) && session->grant.rights < TOKEN_WRITE ? -EROFS
                                                                                         : 0;
}

static void ids_in(const struct token_ids *ids, struct meta_op *op)
{
    struct meta_attr *attr = &op->attr;
    bool makes = op->kind == META_MKNOD;
    if (makes || (op->kind == META_SETATTR && op->valid & META_SET_UID))
        attr->uid = token_uid_in(ids, attr->uid);
    if (makes || (op->kind == META_SETATTR && op->valid & META_SET_GID))
        attr->gid = token_gid_in(ids, attr->gid);
    /* A program of the anonymous user is nobody's to run as that user. */
    if (ids->squash != TOKEN_SQUASH_NONE && !S_ISDIR(attr->mode) &&
        (makes || (op->kind == META_SETATTR && op->valid & META_SET_MODE)))
        attr->mode &= ~(uint32_t)(S_ISUID | S_ISGID);
}

int auth_op(const struct session *session, struct meta_op *op)
{
    const struct grant *grant = &session->grant;
    /* Nothing uses it any more: that is no change to what anybody sees. */
    if (op->kind == META_DROP)
        return 0;
    if (meta_kind_changes(op->kind) && grant->rights < TOKEN_WRITE)
        return -EROFS;
    if (op->kind == META_QUOTA_SET && grant->rights < TOKEN_ADMIN)
        return -EACCES;
    if (!token_ids_plain(&grant->ids))
        ids_in(&grant->ids, op);
    return 0;
}

static void ids_out(const struct token_ids *ids, struct meta_attr *attr)
{
    attr->uid = token_uid_out(ids, attr->uid);
    attr->gid = token_gid_out(ids, attr->gid);
}

void auth_reply(const struct session *session, struct meta_reply *reply)
{
    const struct token_ids *ids = &session->grant.ids;
    if (ids->uid_count == 0 && ids->gid_count == 0)
        return;
    ids_out(ids, &reply->attr);
    ids_out(ids, &reply->replaced);
    ids_out(ids, &reply->parent);
    for (size_t i = 0; i < reply->entry_count; i++)
        ids_out(ids, &reply->entries[i].attr);
}

/* Time, and changes of the tokens */

static const char *what_is_wrong(const struct session *session, uint64_t now_s)
{
    const struct grant *grant = &session->grant;
    const struct server_volume *volume = session->volume;
    if (!grant->token[0])
        return volume->tokens.count && !session->conn->owner ? "a token is needed now" : NULL;
    if (!token_set_find(&volume->tokens, grant->token))
        return "the token was revoked";
    return grant->expires_s && now_s >= grant->expires_s ? "the token has expired" : NULL;
}

void auth_tick(struct server_volume *volume)
{
    uint64_t now_s = clock_wall_ns() / NS_PER_S;
    struct session *session, *next;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        const char *why = session->conn ? what_is_wrong(session, now_s) : NULL;
        if (!why)
            continue;
        metric_add(volume->server->denied, 1);
        log_warn("connection cut off", "volume=%s session=%" PRIu64 " token=%s reason=\"%s\"",
                 volume->name, session->id, session->grant.token, why);
        /* The session may go on under another token, within its lease. */
        conn_refuse(session->conn, -EACCES, "volume '%s': %s", volume->name, why);
    }
}

struct tokens_call {
    struct server_volume *volume;
    struct token_set *tokens;
};

static void replace_tokens(void *arg)
{
    struct tokens_call *call = arg;
    token_set_done(&call->volume->tokens);
    call->volume->tokens = *call->tokens;
    *call->tokens = (struct token_set){0};
    auth_tick(call->volume);
}

void meta_server_volume_tokens(struct server_volume *volume, struct token_set *tokens)
{
    struct tokens_call call = {.volume = volume, .tokens = tokens};
    loop_call(volume->server->loop, replace_tokens, &call);
}
