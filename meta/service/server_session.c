/*
 * Sessions. In order: a client says hello, gets a lease, asks; what others change is pushed to it
 * in numbered batches that it confirms. Who changed something is answered when all batches that it
 * caused are confirmed, or the sessions that they were for have ended.
 *
 * A lost connection changes nothing until the lease is over. What was pushed meanwhile is made up
 * by one word: drop everything.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "server_locks.h"
#include "server_quota.h"
#include "server_subtree.h"

#define RECORD_VERSION 3 /* 1: without the root; 2: without the path of the token */
#define NAMES_MARGIN 4   /* a quarter of the lease for clocks that run differently */

static struct session *session_new(struct server_volume *volume, uint64_t id, const uint8_t *key,
                                   const struct wire_text *text)
{
    struct session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    const struct server_config *c = &volume->server->config;
    session->volume = volume;
    session->id = id;
    memcpy(session->key, key, WIRE_KEY_LEN);
    session->text = strndup(text->len ? text->bytes : "", text->len);
    if (!session->text) {
        free(session);
        return NULL;
    }
    session->refs = 1;
    session->heard_ms = clock_monotonic_ms();
    lease_init(&session->lease, c->lease_entries, c->lease_ms + c->lease_ms / NAMES_MARGIN);
    buf_init(&session->items, 0);
    HASH_ADD(hh, volume->sessions, id, sizeof(session->id), session);
    return session;
}

void session_unref(struct session *session)
{
    if (--session->refs)
        return;
    while (session->reserved)
        id_set_remove(&session->reserved, session->reserved->id);
    lease_done(&session->lease);
    buf_done(&session->items);
    grant_done(&session->grant);
    free(session->bound);
    free(session->text);
    free(session);
}

/* Invalidations */

static void emit(struct session *session)
{
    struct buf *out = conn_out(session->conn);
    size_t start = wire_begin(out, WIRE_INVALIDATE);
    buf_put_u64(out, ++session->sent);
    buf_put_u32(out, session->item_count);
    buf_put(out, session->items.data, session->items.len);
    out->failed = out->failed || session->items.failed;
    wire_end(out, start);
    metric_add(session->volume->server->pushed, session->item_count);
    buf_reset(&session->items);
    session->item_count = 0;
}

static void mark_dirty(struct session *session)
{
    if (session->dirty)
        return;
    session->dirty = true;
    DL_APPEND2(session->volume->server->dirty_sessions, session, dirty_prev, dirty_next);
}

static void unmark_dirty(struct session *session)
{
    if (session->dirty)
        DL_DELETE2(session->volume->server->dirty_sessions, session, dirty_prev, dirty_next);
    session->dirty = false;
}

void sessions_flush(struct server *server)
{
    while (server->dirty_sessions) {
        struct session *session = server->dirty_sessions;
        unmark_dirty(session);
        if (session->conn && session->item_count)
            emit(session);
    }
}

static void put_item(struct session *session, const struct wire_item *item)
{
    if (!session->conn) {
        session->missed = true;
        return;
    }
    session_batch(session);
    wire_put_item(&session->items, item);
    session->item_count++;
    mark_dirty(session);
}

uint64_t session_batch(struct session *session)
{
    if (session->conn && session->item_count == WIRE_ITEMS_MAX)
        emit(session);
    return session->sent + 1;
}

void session_push(struct session *session, enum wire_item_kind kind, uint64_t ino,
                  const struct meta_name *name)
{
    struct wire_item item = {.kind = kind, .ino = subtree_give_ino(session, ino)};
    if (name)
        item.name = (struct wire_text){.bytes = name->bytes, .len = name->len};
    put_item(session, &item);
}

static void may_cache(struct session *session)
{
    if (!session->caches && !session->ended)
        DL_APPEND2(session->volume->caching, session, caching_prev, caching_next);
    session->caches = !session->ended;
}

void session_push_all(struct session *session)
{
    may_cache(session);
    struct wire_item item = {.kind = WIRE_ITEM_ALL};
    put_item(session, &item);
    lease_clear(&session->lease, session->sent + 1);
}

void session_note(struct session *session, uint64_t ino, unsigned what)
{
    if (ino == 0)
        return;
    may_cache(session);
    if (lease_note(&session->lease, ino, what, clock_monotonic_ms()))
        return;
    /* The answer that is being made comes before or after that word: both are right. */
    session_push_all(session);
    lease_note(&session->lease, ino, what, clock_monotonic_ms());
}

void session_hold(struct session *session, uint64_t sequence, struct change *change)
{
    struct hold *hold = calloc(1, sizeof(*hold)), *last;
    metric_add(session->volume->server->held, 1);
    if (!hold) {
        /* Without memory to wait: its lease is taken away, then nothing of it is stale. */
        session_end(session, "no memory");
        return;
    }
    hold->session = session;
    hold->sequence = sequence;
    hold->change = change;
    DL_APPEND2(change->holds, hold, mine_prev, mine_next);
    last = session->holds ? session->holds->prev : NULL;
    if (!last || last->sequence <= sequence) {
        DL_APPEND(session->holds, hold);
        return;
    }
    DL_FOREACH(session->holds, last)
    {
        if (last->sequence > sequence)
            break;
    }
    DL_PREPEND_ELEM(session->holds, last, hold);
}

static void release(struct session *session, uint64_t upto)
{
    while (session->holds && session->holds->sequence <= upto) {
        struct hold *hold = session->holds;
        struct change *change = hold->change;
        DL_DELETE(session->holds, hold);
        DL_DELETE2(change->holds, hold, mine_prev, mine_next);
        free(hold);
        change_released(change);
    }
}

void session_confirm(struct session *session, uint64_t sequence)
{
    if (sequence > session->confirmed)
        session->confirmed = sequence;
    release(session, session->confirmed);
}

/* Ends */

void session_lost(struct session *session)
{
    struct job *job, *next;
    session->conn = NULL;
    unmark_dirty(session);
    if (session->item_count)
        session->missed = true;
    buf_reset(&session->items);
    session->item_count = 0;
    HASH_ITER(hh, session->jobs, job, next)
    {
        job->conn = NULL;
    }
}

static void detach(struct session *session)
{
    struct conn *conn = session->conn;
    session->ended = true;
    HASH_DEL(session->volume->sessions, session);
    if (session->restored || session->claiming) {
        session->restored = session->claiming = false;
        volume_recovered(session->volume);
    }
    if (conn) {
        session_lost(session);
        conn->session = NULL;
    }
    if (session->caches)
        DL_DELETE2(session->volume->caching, session, caching_prev, caching_next);
    session->caches = false;
    change_forget(session->volume, session);
    release(session, UINT64_MAX);
    session_locks_over(session);
    quota_session_over(session);
}

void session_end(struct session *session, const char *why)
{
    struct server_volume *volume = session->volume;
    struct meta_op op = {.kind = META_SESSION_END, .session = session->id};
    if (session->ended)
        return;
    /* First, so that nothing of it is applied any more. */
    int rc = volume_own(volume, &op);
    if (rc < 0 && rc != -ESTALE)
        log_error("session cannot be ended in the database",
                  "volume=%s session=%" PRIu64 " error=%d", volume->name, session->id, -rc);
    audit_session(session, "end", why ? why : "unmounted");
    log_info("session ended", "volume=%s session=%" PRIu64 " client=\"%s\" reason=\"%s\"",
             volume->name, session->id, session->text, why ? why : "unmounted");
    struct conn *conn = session->conn;
    struct job *job, *next;
    HASH_ITER(hh, session->jobs, job, next)
    {
        if (job->is_task)
            meta_task_cancel(volume->meta, &job->task);
    }
    detach(session);
    volume_session_over(volume, session);
    if (conn && !why)
        conn_close(conn);
    else if (conn)
        conn_refuse(conn, -ESTALE, "the session has ended: %s", why);
    session_unref(session);
}

void session_drop(struct session *session)
{
    struct conn *conn = session->conn;
    detach(session);
    if (conn)
        conn_close(conn);
    session_unref(session);
}

void sessions_tick(struct server_volume *volume, uint64_t now_ms)
{
    struct session *session, *next;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        if (now_ms > session->heard_ms + volume->server->config.lease_ms) {
            metric_add(volume->server->ended, 1);
            session_end(session, "not heard of for a lease");
        } else {
            jobs_progress(session);
        }
    }
}

/* Beginnings */

int session_restore(struct server_volume *volume, uint64_t id, const void *record, size_t len)
{
    struct reader r;
    struct wire_text text;
    reader_init(&r, record, len);
    uint8_t version = reader_u8(&r);
    if (version == 0 || version > RECORD_VERSION)
        return -EPROTO;
    const uint8_t *key = reader_raw(&r, WIRE_KEY_LEN);
    bool read_only = reader_u8(&r);
    text.bytes = (const char *)reader_bytes(&r, WIRE_TEXT_MAX, &text.len);
    uint64_t root = version > 1 ? reader_varint(&r) : 0;
    cleanup(free_ptr) char *bound = version > 2 ? reader_str(&r, TOKEN_PATH_MAX) : NULL;
    if (reader_end(&r) < 0)
        return -EBADMSG;
    struct session *session = session_new(volume, id, key, &text);
    if (!session)
        return -ENOMEM;
    session->bound = bound && *bound ? TAKE_PTR(bound) : NULL;
    session->read_only = read_only;
    session->root = root;
    session->restored = true;
    volume->restored++;
    session_push_all(session);
    return 0;
}

static int begin(struct session *session)
{
    struct buf b;
    buf_init(&b, META_SESSION_RECORD_MAX);
    buf_put_u8(&b, RECORD_VERSION);
    buf_put(&b, session->key, WIRE_KEY_LEN);
    buf_put_u8(&b, session->read_only);
    buf_put_str(&b, session->text);
    buf_put_varint(&b, session->root);
    buf_put_str(&b, session->bound ? session->bound : "");
    struct meta_op op = {
        .kind = META_SESSION_BEGIN, .session = session->id, .data = b.data, .data_len = b.len};
    int rc = buf_error(&b);
    if (rc == 0)
        rc = volume_own(session->volume, &op);
    buf_done(&b);
    return rc;
}

static struct session *make(struct server_volume *volume, const struct conn *conn,
                            const struct wire_hello *hello, uint64_t root)
{
    struct session *session;
    uint64_t id;
    do {
        hash_random(&id, sizeof(id));
        id >>= 16;
        HASH_FIND(hh, volume->sessions, &id, sizeof(id), session);
    } while (session || !id);
    session = session_new(volume, id, hello->key, &hello->text);
    if (!session)
        return NULL;
    session->read_only = hello->read_only;
    session->root = root;
    session->bound = conn->grant.path ? strdup(conn->grant.path) : NULL;
    if ((conn->grant.path && !session->bound) || begin(session) < 0) {
        HASH_DEL(volume->sessions, session);
        session_unref(session);
        return NULL;
    }
    return session;
}

/* As long for a wrong key as for the right one. */
static bool same_key(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0;
    for (int i = 0; i < WIRE_KEY_LEN; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

static void welcome(struct conn *conn, struct session *session, bool restarted)
{
    struct server_volume *volume = session->volume;
    struct wire_welcome m = {
        .version = conn->version,
        .session = session->id,
        .restarted = restarted,
        .lease_ms = volume->server->config.lease_ms,
        .window = META_SESSION_WINDOW / 2,
        .time_ns = clock_wall_ns(),
        .url = {volume->url, strlen(volume->url)},
        .options = {volume->options, strlen(volume->options)},
        .volume = *meta_volume(volume->meta),
    };
    meta_contents(volume->meta, &m.contents);
    conn->session = session;
    session->version = conn->version;
    auth_adopt(session, conn);
    guard_known(conn);
    conn->in.max = WIRE_FRAME_MAX;
    session->conn = conn;
    session->heard_ms = clock_monotonic_ms();
    wire_put_welcome(conn_out(conn), &m);
}

static void resume(struct conn *conn, struct session *session)
{
    struct server_volume *volume = session->volume;
    bool restarted = session->restored;
    if (session->conn) {
        struct conn *old = session->conn;
        session_lost(session);
        old->session = NULL;
        conn_close(old);
    }
    welcome(conn, session, restarted);
    if (restarted) {
        session->restored = false;
        session->claiming = true;
    }
    if (session->missed || session->sent > session->confirmed) {
        session->missed = false;
        session_push_all(session);
        for (struct gone *g = volume->gone; g; g = g->hh.next)
            for (size_t i = 0; i < g->count; i++)
                if (g->holders[i] == session->id)
                    session_push(session, WIRE_ITEM_GONE, g->ino, NULL);
    }
    quota_welcome(session, true);
    audit_session(session, "resume", NULL);
    log_info("session goes on", "volume=%s session=%" PRIu64 " client=\"%s\"", volume->name,
             session->id, session->text);
}

void session_hello(struct conn *conn, const struct wire_hello *hello)
{
    struct server *server = conn->server;
    struct session *session = NULL;
    if (hello->version_min > WIRE_VERSION || hello->version_max < WIRE_VERSION_MIN) {
        conn_refuse(conn, -EPROTO, "this service speaks versions %d to %d of the protocol only",
                    WIRE_VERSION_MIN, WIRE_VERSION);
        return;
    }
    conn->version = MIN(hello->version_max, (uint32_t)WIRE_VERSION);
    struct wire_text name = hello->volume, path = {0};
    const char *slash = name.len ? memchr(name.bytes, '/', name.len) : NULL;
    if (slash) {
        path.bytes = slash + 1;
        path.len = name.len - (size_t)(path.bytes - name.bytes);
        name.len = (size_t)(slash - name.bytes);
    }
    struct server_volume *volume = server_volume_find(server, &name);
    if (!auth_hello(conn, volume, hello, &name, &path))
        return;
    if (hello->session) {
        HASH_FIND(hh, volume->sessions, &hello->session, sizeof(hello->session), session);
        if (!session || !same_key(session->key, hello->key))
            conn_refuse(conn, -ESTALE, "there is no such session any more");
        else if (!auth_fits(&conn->grant, session))
            conn_refuse(conn, -EACCES, "volume '%s': the token is for another directory",
                        volume->name);
        else
            resume(conn, session);
        return;
    }
    if (path.len)
        subtree_hello(conn, volume, hello, &path);
    else
        session_begin(conn, volume, hello, 0);
}

void session_begin(struct conn *conn, struct server_volume *volume, const struct wire_hello *hello,
                   uint64_t root)
{
    struct session *session = make(volume, conn, hello, root);
    if (!session) {
        conn_refuse(conn, -EAGAIN, "no session can be made now");
        return;
    }
    welcome(conn, session, false);
    quota_welcome(session, false);
    audit_session(session, "begin", NULL);
    log_info("session begun", "volume=%s session=%" PRIu64 " client=\"%s\"", volume->name,
             session->id, session->text);
}
