/*
 * Private to meta: inside of the service. Everything here is owned by the loop thread "serve",
 * but for the queue of volume events, which come from the volumes' threads.
 *
 * server.c           listening, connections, frames
 * server_guard.c     what stands before a connection is known: gate, TLS, who the peer is
 * server_auth.c      what a connection may do: tokens, rights, users and groups
 * server_audit.c     what goes to the audit log
 * server_session.c   sessions, invalidations, who waits for whose confirmation
 * server_request.c   operations and tasks of sessions, and what they mean to the others
 * server_keys.c      keys of the bucket
 * server_locks.c     locks
 * server_stores.c    requests about the volume's stores
 * server_subtree.c   sessions that see one directory only
 * server_change.c    what has to wait for confirmations, and who may not see it before
 * server_volume.c    volumes, events of their own, unlinked inodes, what a restart left
 */
#ifndef SLUICE_META_SERVER_IMPL_H
#define SLUICE_META_SERVER_IMPL_H

#include <uthash.h>

#include "audit.h"
#include "base/pool.h"
#include "gate.h"
#include "meta/codec.h"
#include "meta/server.h"
#include "volume/volume.h"
#include "wire/lease.h"
#include "wire/tls.h"
#include "wire/wire.h"

struct listener {
    struct server *server;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    char *path; /* of a unix socket */
    struct listener *prev, *next;
};

#define PEER_MAX 96
#define CIPHER_ROOM (64u << 10)

/* What a connection may do, from its token or from where it comes. */
struct grant {
    char token[TOKEN_ID_LEN + 1]; /* "": none */
    enum token_rights rights;
    uint64_t expires_s; /* 0: never */
    char *path;         /* owned; NULL: the whole volume */
    struct token_ids ids;
};

struct conn {
    struct server *server;
    struct session *session;   /* NULL: has not said who it is */
    struct subtree_walk *walk; /* its root is being looked up */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    struct tls *tls;                /* NULL: a unix socket, or a service without TLS */
    char peer[PEER_MAX];            /* address and port, or who is at the unix socket */
    uint8_t gate_key[GATE_KEY_LEN]; /* with `gated` */
    bool gated;                     /* counted as pending */
    uint32_t version;               /* of the protocol, since its hello */
    bool local, owner;              /* of this host; root or the service's user, by unix socket */
    struct grant grant;             /* since its hello; the session's, when it has one */
    bool failed;                    /* by its own fault */
    struct wire_input in;
    struct buf out; /* frames of this turn of the loop */
    bool closing, paused, dirty;
    bool met;       /* something came from it */
    bool lingering; /* closing, but what was said last must arrive: since since_ms */
    uv_shutdown_t shutdown;
    bool reading;  /* frames are being taken out of `in` */
    unsigned busy; /* requests that came by it and are not answered */
    uint64_t since_ms;
    struct conn *prev, *next;             /* server->conns */
    struct conn *dirty_prev, *dirty_next; /* server->dirty */
};

/* A session waits for nothing itself; others wait for its confirmations. */
struct hold {
    struct session *session;
    uint64_t sequence; /* of the session's batches */
    struct change *change;
    struct hold *prev, *next;           /* session->holds */
    struct hold *mine_prev, *mine_next; /* change->holds */
};

struct wait {
    struct session *session;
    uint64_t sequence;
};

/* An inode by which changes can be seen that others have not confirmed. */
struct touched {
    uint64_t ino;
    unsigned refs; /* such changes */
    unsigned count, cap;
    struct wait *waits;
    UT_hash_handle hh; /* volume->touched */
};

#define CHANGE_INOS_MAX 5

/* What is not answered, or not to be seen by others, before some sessions have confirmed. */
struct change {
    uint64_t number; /* of all changes of the volume */
    struct server_volume *volume;
    struct job *job; /* answered then; NULL: made by the service itself, and freed then */
    bool published, made;
    struct hold *holds;
    unsigned ino_count;
    uint64_t inos[CHANGE_INOS_MAX];
    struct touched *touched[CHANGE_INOS_MAX]; /* while it is published */
};

struct id_entry { /* a set of numbers */
    uint64_t id;
    UT_hash_handle hh;
};

struct session {
    struct server_volume *volume;
    uint64_t id;
    uint64_t root; /* all it sees is at or below this directory; 0: all of the volume */
    uint8_t key[WIRE_KEY_LEN];
    uint32_t version; /* of its last connection */
    char *text;
    struct conn *conn; /* NULL: lost; it may come back */
    uint64_t heard_ms;
    bool read_only;
    char peer[PEER_MAX]; /* of its last connection */
    struct grant grant;
    char *bound;   /* the path of the token that it was begun with; NULL: none */
    bool restored; /* from the database, and did not come back yet */
    bool claiming; /* came back; has not said which objects it writes */
    bool ended;    /* waits for its last request only */
    unsigned refs; /* jobs */
    struct lease lease;
    bool missed; /* something was not sent, because there was no connection */
    /* The batch that is being filled has number sent + 1. */
    uint64_t sent, confirmed;
    struct buf items;
    uint32_t item_count;
    bool dirty;
    struct hold *holds; /* ascending */
    /* The newest change that waits for it, and how far: so that it does not twice. */
    uint64_t held_by, held_upto;
    struct job *jobs;          /* by id, in flight */
    struct locker *lockers;    /* by id: requests for locks that are not answered */
    struct id_entry *reserved; /* objects */
    UT_hash_handle hh;         /* volume->sessions */
    bool caches;               /* it is in volume->caching */
    unsigned quota_parts;      /* sizes that are reserved for it */
    uint64_t quota_round;      /* that it has not answered; 0: none */
    struct session *caching_prev, *caching_next;
    struct session *dirty_prev, *dirty_next;
};

/* A request or task of a session, until it is answered. */
struct job {
    struct session *session;
    uint64_t id;
    struct conn *conn; /* that it is counted for; NULL when that is gone */
    bool is_task, posted;
    bool trying, ended; /* it is being submitted; it ended meanwhile, on this thread */
    enum wire_task_kind task_kind;
    uint64_t since_ms;
    int result;
    uint8_t *bytes; /* that the operation points into */
    struct meta_decoded_op decoded;
    struct meta_request request;
    struct meta_task task;
    uint64_t reported;     /* remaining, as the client knows it */
    uint64_t quota_size;   /* RESERVE */
    unsigned quota_rounds; /* that it has begun */
    struct job *quota_prev, *quota_next;
    struct loop_task back;
    UT_hash_handle hh; /* session->jobs */
    struct change change;
    uint64_t held_ms; /* 0: not in server->reading */
    struct job *reading_prev, *reading_next;
};

/* An inode without a name, and the sessions that may use it. */
struct gone {
    uint64_t ino;
    uint64_t *holders;
    size_t count;
    UT_hash_handle hh;
};

struct server_volume {
    struct server *server;
    struct meta *meta; /* NULL: not started */
    char *name, *url, *options;
    struct token_set tokens;
    struct store_signer *signer, *read_signer; /* NULL: gives no keys */
    uint32_t keys_s;
    struct session *sessions;
    struct session *caching; /* those that may have something in a cache */
    unsigned restored;       /* sessions that may still come back */
    uint64_t next_session;
    struct gone *gone;
    uint64_t change_count;
    struct touched *touched; /* what was changed and is not confirmed */
    struct change *recovery; /* sessions of before a restart that have not dropped what they have */
    struct locks *locks;
    struct server_quota *quota;
    struct examine *examine;  /* server_examine.c; NULL: nobody asked for one */
    struct locker *parked;    /* requests for locks that came before all sessions were back */
    struct id_entry *orphans; /* objects that were reserved before a restart, not claimed yet */
    unsigned events;          /* posted, not run; atomic */
    struct pool *stores_pool; /* one thread: requests about stores */
    unsigned stores_calls;    /* of them; atomic */
    _Atomic bool events_lost;
    UT_hash_handle hh; /* server->volumes */
};

struct server {
    struct server_config config;
    struct loop *loop;
    struct listener *listeners;
    struct conn *conns, *dirty;
    struct session *dirty_sessions;
    struct job *reading; /* held reads of extents, oldest first; see reads_let_go */
    struct loop_timer reading_timer;
    unsigned conn_count, jobs;
    struct tls_setup *tls; /* NULL: none */
    struct gate *gate;
    struct audit *audit; /* NULL: none */
    uint8_t *cipher;     /* CIPHER_ROOM bytes: what a connection with TLS has just received */
    struct server_volume *volumes;
    uv_prepare_t prepare;
    struct loop_timer timer;
    uint64_t ticked_ms;
    bool stopping;
    struct metric *accepted, *refused, *requests, *pushed, *held, *ended;
    struct metric *denied, *handshakes, *gate_full, *gate_bad, *reloads, *reload_errors;
};

/* server.c */
struct buf *conn_out(struct conn *conn); /* to append frames to; sent at the end of this turn */
void conn_close(struct conn *conn);
/* One clear word to the client, then the end. */
void conn_refuse(struct conn *conn, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Sends what is in `out`, and ends it when the client has taken that. */
void conn_last_word(struct conn *conn);
void conn_request_done(struct conn *conn);
void server_on_connection(uv_stream_t *stream, int status);

/* server_listen.c; on the loop */
void server_listen_end(struct server *server);

/* server_guard.c */
int guard_new(struct server *server, struct error *error);
void guard_free(struct server *server);
/* A connection that was just accepted: false: it is to be closed without a word. */
bool guard_enter(struct conn *conn, bool is_unix);
/* It is known who it is. */
void guard_known(struct conn *conn);
/* It is being closed. */
void guard_leave(struct conn *conn);
/* Ciphertext of the server's `cipher` buffer into frames; false: the connection was refused. */
bool guard_receive(struct conn *conn, size_t len);
/* It has sent the beginning of TLS, not a frame. */
bool guard_is_tls(const struct conn *conn);
/* Frames `out` of the connection as what goes over the wire: 0, or -errno. */
int guard_seal(struct conn *conn, struct buf *out);

/* server_auth.c */
/* What a HELLO may have, into conn->grant, and `path`, the directory that it asks for, may become
 * the token's. False: it was refused. `volume` NULL: there is none of that name. */
bool auth_hello(struct conn *conn, const struct server_volume *volume,
                const struct wire_hello *hello, const struct wire_text *name,
                struct wire_text *path);
/* The session was begun with the same restriction, or the grant has none. */
bool auth_fits(const struct grant *grant, const struct session *session);
/* The grant of its connection becomes the session's. */
void auth_adopt(struct session *session, struct conn *conn);
void grant_done(struct grant *grant);
/* 0; -EROFS, -EACCES: its rights do not reach so far. Users and groups become the volume's. */
int auth_op(const struct session *session, struct meta_op *op);
int auth_task(const struct session *session, enum wire_task_kind kind);
/* Users and groups become the client's. */
void auth_reply(const struct session *session, struct meta_reply *reply);
/* Closes connections whose token has expired or is gone. */
void auth_tick(struct server_volume *volume);

/* server_audit.c */
/* event: "begin", "resume", "end". */
void audit_session(const struct session *session, const char *event, const char *reason);
void audit_refused(const struct conn *conn, int code, const char *reason);
void audit_job(const struct job *job);

/* server_session.c */
void session_hello(struct conn *conn, const struct wire_hello *hello);
/* A new one for a connection that may have it: `root` as in struct session. */
void session_begin(struct conn *conn, struct server_volume *volume, const struct wire_hello *hello,
                   uint64_t root);
void session_confirm(struct session *session, uint64_t sequence);
void session_lost(struct session *session);                 /* its connection is gone */
void session_end(struct session *session, const char *why); /* why NULL: it said goodbye */
void session_unref(struct session *session);
/* At start: one that the database has. */
int session_restore(struct server_volume *volume, uint64_t id, const void *record, size_t len);
/* Frees without ending it. */
void session_drop(struct session *session);
/* The number of the batch that is being filled, with room for one thing more. */
uint64_t session_batch(struct session *session);
/* Something for that batch. */
void session_push(struct session *session, enum wire_item_kind kind, uint64_t ino,
                  const struct meta_name *name);
void session_push_all(struct session *session);
/* Noted as told; too many: it is told to drop all. */
void session_note(struct session *session, uint64_t ino, unsigned what);
/* Sends the batches of this turn. */
void sessions_flush(struct server *server);
/* The change is not done before the batch is confirmed, or the session has ended. */
void session_hold(struct session *session, uint64_t sequence, struct change *change);
void sessions_tick(struct server_volume *volume, uint64_t now_ms);

/* server_request.c */
void request_take(struct session *session, const struct wire_request *m);
void task_take(struct session *session, const struct wire_task *m);
void task_cancel(struct session *session, uint64_t id);
void job_answer(struct job *job); /* and frees it */
void job_ended(struct job *job);  /* what it waited for is over: confirmations, then the answer */
/* A kernel drops the pages of a file only when the reads of them that are under way have ended. If
 * such a read is held for another session's confirmation, and one of that session for this one's,
 * neither comes. So a read of extents is not held for long while its own session has something to
 * confirm. */
void reads_let_go(struct loop_timer *timer);
void jobs_progress(struct session *session);

/* server_keys.c */
void keys_take(struct session *session, uint64_t id);

/* server_change.c: in order: init, what it waits for, change_made. Then it is answered, at once or
 * when its last hold is gone. */
void change_init(struct change *change, struct server_volume *volume, struct job *job);
/* Of the service itself; NULL: no memory, nobody waits. */
struct change *change_new(struct server_volume *volume);
/* It waits for that batch of the session. */
void change_hold(struct change *change, struct session *session, uint64_t sequence);
/* It was seen by, or changed, this inode: it waits for all that changed it before and that others
 * than `by` have not confirmed. */
void change_saw(struct change *change, struct session *by, uint64_t ino);
/* From change_publish until all have confirmed it, whoever sees the inode waits too. */
void change_touch(struct change *change, uint64_t ino);
/* All its holds are there, but for those of what it will be told. */
void change_publish(struct change *change);
/* Nothing else is waited for. Publishes too. */
void change_made(struct change *change);
/* It waits for nobody any more. */
void change_let_go(struct change *change);
/* Nothing waits for that session any more. */
void change_forget(struct server_volume *volume, const struct session *session);
/* A hold of it is gone, and freed. */
void change_released(struct change *change);

/* server_stores.c */
int stores_take(struct session *session, uint64_t id, const struct wire_text *text);
/* An event of the volume, on the thread that changes its stores. */
void volume_stores_changed(void *arg);

/* server_volume.c */
struct server_volume *server_volume_find(struct server *server, const struct wire_text *name);
/* What `by` (NULL: the service itself) did, told to all other sessions that may have it cached; a
 * change (NULL: nobody) waits for them. `name` NULL: the inode itself;
 * else `names` says which sessions have it wrong now: LEASE_NAMES, LEASE_ABSENT, or both. False:
 * nobody else has it. */
bool volume_tell(struct server_volume *volume, struct session *by, struct change *change,
                 enum wire_item_kind kind, uint64_t ino, const struct meta_name *name,
                 unsigned names);
/* A name that others may have in their kernels though nobody relies on it any more (the service was
 * restarted): out of there too, as an inode without names stays as long as a kernel knows it. */
void volume_name_gone(struct server_volume *volume, const struct session *by, uint64_t parent,
                      const struct meta_name *name);
/* An inode has no name any more; `by` may use it. */
void volume_gone(struct server_volume *volume, struct session *by, uint64_t ino);
/* What was made without a name may have one now: then it is nobody's to drop. */
void volume_named(struct server_volume *volume, uint64_t ino);
/* DROP of a session. */
void volume_drop(struct server_volume *volume, struct session *session, const uint64_t *inos,
                 size_t count);
/* A session has ended: it uses nothing, and writes no object. */
void volume_session_over(struct server_volume *volume, struct session *session);
void volume_claim(struct server_volume *volume, struct session *session, uint64_t object);
/* A restored session came back or has ended. */
void volume_recovered(struct server_volume *volume);
/* One operation of the service's own, applied now. */
int volume_own(struct server_volume *volume, struct meta_op *op);
void volume_tick(struct server_volume *volume);

int id_set_add(struct id_entry **set, uint64_t id);
bool id_set_remove(struct id_entry **set, uint64_t id);

#endif
