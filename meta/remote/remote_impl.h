/*
 * Private to meta: the client of the service. Calls (remote.c) and the connection (remote_link.c).
 *
 * Any thread submits: the call is listed, and its frame is written into `out` if the session is
 * online. It, or the loop thread, sends what is in `out` (remote_send.c). The loop thread takes
 * answers, and calls `done`. `lock` is a leaf: no callback and no I/O under it. The sender's lock
 * is taken before it: no callback, and no I/O that waits, under it.
 */
#ifndef SLUICE_META_REMOTE_IMPL_H
#define SLUICE_META_REMOTE_IMPL_H

#include <pthread.h>
#include <semaphore.h>
#include <uthash.h>

#include "meta/remote.h"
#include "remote_attrs.h"
#include "remote_names.h"
#include "remote_stores.h"
#include "volume/volume.h"
#include "wire/tls.h"
#include "wire/wire_locks.h"

enum remote_call_kind {
    REMOTE_REQUEST,
    REMOTE_TASK,
    REMOTE_STATUS,
    REMOTE_LOCK,
    REMOTE_KEYS,
    REMOTE_STORES
};

/* What waits for an answer. */
struct remote_call {
    uint64_t id;
    uint64_t change; /* its number, when it was sent once; 0: a read, or not sent */
    enum remote_call_kind kind;
    struct meta_request *request;
    struct meta_task *task;
    enum wire_task_kind task_kind;
    uint64_t object;
    struct buf *status; /* STATUS, STORES: and `answered` is posted */
    sem_t *answered;
    struct meta_remote_keys *keys; /* KEYS */
    const char *text;              /* STORES: the request */
    int *result;                   /* STORES */
    bool once, lost; /* STORES: not to be asked twice, and the connection went meanwhile */
    struct wire_lock lock_message;
    struct meta_lock *lock; /* NULL: nobody waits */
    bool closing;           /* LOCK: nobody waits when the service is away */
    bool sent, cancel;
    uint64_t touches; /* of attributes, when it was submitted */
    struct names_mark names;
    uint64_t moved;    /* RENAME: the inode, if its attributes were known; else 0 */
    uint64_t since_ms; /* offline, or when it was submitted: monotonic */
    UT_hash_handle hh;
    struct remote_call *prev, *next;
};

/* An object that was reserved and not committed yet. */
struct remote_object {
    uint64_t id;
    UT_hash_handle hh;
};

struct remote_sender {
    pthread_mutex_t lock;
    /* Under lock. */
    int fd;           /* the connection's socket, when all that was sent before is in it; else -1 */
    struct buf spare; /* what is being sent; between, memory for `out` */
    struct buf rest;  /* what the socket did not take: goes before everything else */
};

enum remote_state { REMOTE_WAIT, REMOTE_CONNECT, REMOTE_GREET, REMOTE_ONLINE, REMOTE_CLOSED };

struct remote {
    /* Immutable after meta_remote_open. */
    struct meta *meta;
    struct meta_remote_config config; /* strings: owned copies */
    struct meta_remote_url url;
    struct tls_setup *tls; /* NULL: no TLS */
    struct loop *loop;
    char *store_url, *store_options;
    struct meta_contents contents;
    struct metric *connects, *requests, *invalidations;

    /* Any thread. */
    _Atomic uint64_t lease_end_ns; /* monotonic: until then the service keeps the session */
    _Atomic int fenced;            /* 0 or -ESTALE */
    _Atomic bool quota_on;         /* sizes are reserved */
    _Atomic uint64_t era;          /* sessions so far; changed under `lock`, while fenced */

    struct remote_sender sender;

    /* Under lock. */
    pthread_mutex_t lock;
    struct remote_call *calls, *order; /* by id; in the order of submission */
    struct remote_object *objects;
    struct remote_attrs attrs;
    struct remote_names names;
    struct locks *locks;                   /* that are held, of session 0 */
    struct remote_quota_file *quota_files; /* remote_quota.c */
    struct buf out;
    bool online, posted, cancel_posted, closing;
    uint64_t next_id, next_change;
    uint64_t newest_object; /* of all that were seen */
    uint32_t window;
    unsigned unsent; /* calls that wait for the window, or for the connection */

    /* Loop thread. */
    struct loop_task flush_task, cancel_task, begin_task;
    struct meta_told lost_told;
    uint64_t opened_next; /* as of the welcome before: steps when the service opened the volume */
    struct remote_link *link; /* the connection, NULL: none */
    struct remote_stores *stores;
    enum remote_state state;
    struct loop_timer timer; /* next try, next ping */
    uint64_t session;        /* 0: begins with the next connection */
    uint8_t key[WIRE_KEY_LEN];
    uint32_t lease_ms;
    uint64_t ping_sent_ns, pings, heard_ns; /* of the ping that was not answered; 0: none */
    uint64_t links;                         /* connections so far */
    unsigned tries;                         /* in a row without a welcome */
    sem_t *opened;                          /* meta_remote_open waits; then NULL */
    struct error open_error;
    bool refused; /* the last word of the service: this token, or certificate, may not */
    bool ended;   /* the timer is closed */
    sem_t gone;
};

/* remote.c */
int remote_submit(struct remote *remote, struct meta_request *request);
static inline uint64_t remote_era(struct remote *remote)
{
    return atomic_load(&remote->era);
}
void remote_task(struct remote *remote, struct meta_task *task, enum wire_task_kind kind,
                 uint64_t object);
void remote_task_cancel(struct remote *remote, struct meta_task *task);
void remote_status(struct remote *remote, struct buf *out);
/* Blocking: a request about the volume's stores; appends its answer. `once`: -ECONNRESET if the
 * connection went before the answer came. */
int remote_ask_stores(struct remote *remote, const char *text, bool once, struct buf *out);
void remote_close(struct meta *meta);
/* Lists a call and sends it, or as soon as that can be. 0, or why not: then it is freed. */
int remote_call(struct remote *remote, struct remote_call *call);
/* The call with this id is taken off the list; NULL: it ended before. */
struct remote_call *remote_take(struct remote *remote, uint64_t id, enum remote_call_kind kind);
/* The same for one that is known. Under lock. */
void remote_remove_locked(struct remote *remote, struct remote_call *call);
void remote_post_flush_locked(struct remote *remote);
/* Loop thread: the session is online: sends again all that waits for an answer. */
void remote_resume(struct remote *remote);
void remote_offline(struct remote *remote);
/* Loop thread: ends calls: all of them, or those older than the patience. */
void remote_end_calls(struct remote *remote, int result, bool all);
/* Loop thread: a message that answers a call. 0, or -EBADMSG. */
int remote_answer(struct remote *remote, enum wire_type type, const uint8_t *data, size_t len);
/* Loop thread: the session is over: nothing is reserved or held; changes are numbered anew. */
void remote_forget(struct remote *remote);
/* Loop thread: appends a CLAIM of all that is reserved. */
void remote_put_objects(struct remote *remote, struct buf *b);
/* The largest id of an object that was reserved. */
uint64_t remote_newest_object(struct remote *remote);

/* remote_keys.c */
int remote_keys_answer(struct remote *remote, const uint8_t *data, size_t len);

/* remote_push.c: loop thread */
/* An INVALIDATE: 0, or -EBADMSG, -ENOMEM. */
int remote_pushed(struct remote *remote, const uint8_t *data, size_t len);
/* What directories have is to be asked for again. Any thread. */
void remote_forget_names(struct remote *remote);

/* remote_send.c */
void remote_sender_init(struct remote_sender *sender);
void remote_sender_done(struct remote_sender *sender);
/* Any thread, without locks: what was submitted goes out now, or soon. Does not wait. */
void remote_send(struct remote *remote);
/* Loop thread, which is about to send: appends what goes before it. Nobody else sends until
 * remote_sender_give. */
void remote_sender_take(struct remote *remote, struct buf *out);
void remote_sender_give(struct remote *remote, int fd);
/* Loop thread: all that was sent is in the socket. */
void remote_sender_ready(struct remote *remote, int fd);
/* Loop thread, before it closes the socket. */
void remote_sender_stop(struct remote *remote);

/* remote_locks.c */
void remote_lock_put(struct remote *remote, const struct remote_call *call);
int remote_lock_answer(struct remote *remote, const uint8_t *data, size_t len);
/* Loop thread: the service is away: nobody waits for what closes give up. */
void remote_lock_offline(struct remote *remote);
/* Loop thread: appends a LOCK_CLAIM of all that is held, if that is any. */
void remote_lock_claims(struct remote *remote, struct buf *b);

/* What is left of the lease. Any thread. */
uint32_t remote_cache_ms(const struct remote *remote);

/* remote_link.c: loop thread */
void remote_link_start(struct remote *remote);
void remote_link_stop(struct remote *remote); /* says goodbye; posts `gone` when all is closed */
void remote_link_send(struct remote *remote, struct buf *b); /* takes the bytes */

#endif
