/*
 * Private to meta: a volume and its parts.
 *
 * Threads
 *   callers     meta_submit: reads beside everything, changes one at a time under write_lock.
 *   meta-sync   syncer: makes changes durable, in groups, and answers those who wait for it.
 *   meta-work   the loop `work`: import, settle, gc, ownership. All their state is owned by this
 *               thread and has no locks. It applies to the engine like a caller.
 *   store loop  only hands results of store requests over to meta-work (worker.c).
 *
 * Locks: write_lock and the syncer's lock are leaves: nothing else is locked, no callback is
 * called and no network is waited for while one is held. Under write_lock there is RocksDB's I/O.
 */
#ifndef SLUICE_META_VOLUME_H
#define SLUICE_META_VOLUME_H

#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/loop.h"
#include "meta/engine.h"
#include "meta/meta.h"
#include "settle_pace.h"

#define VOLUME_INTERNAL ".sluice/" /* below the prefix: keys of the volume's own */

struct syncer;
struct importer;
struct settler;
struct collector;
struct carrier;
struct owner;
struct pacer;
struct remote;
struct stores;

struct meta {
    /* A volume of the service (remote_impl.h): then only it, format and the clock are used. */
    struct remote *remote;
    int64_t clock_offset_ns; /* of the service's clock to ours */

    /* Immutable after meta_open. */
    struct engine *engine;
    struct store *store; /* borrowed */
    struct loop *work;
    struct meta_config config; /* strings: owned copies */
    struct meta_volume format;
    char directory[PATH_MAX];        /* of the database */
    char checkpoint[PATH_MAX + 16];  /* a directory beside the database */
    char internal[META_KEY_MAX + 1]; /* prefix + VOLUME_INTERNAL */
    uint64_t import_ttl_ns, negative_ttl_ns;
    struct syncer *syncer;
    struct importer *importer;
    struct settler *settler;
    struct collector *collector;
    struct carrier *carrier;
    struct owner *owner; /* NULL: read_only */
    struct pacer *pacer;
    struct stores *stores;
    struct metric *requests[META_LAST_READ + 128], *imports;

    struct settle_load load; /* what users ask for */

    /* Any thread. */
    pthread_mutex_t write_lock;
    _Atomic uint64_t last_time_ns;
    _Atomic uint64_t ahead_ns; /* of half the monotonic clock: see meta_time_ns */
    _Atomic bool checkpointed; /* somebody has the checkpoint */
    _Atomic int refuse;        /* 0, or -errno for every change that a user asks for */
    bool formatted;            /* the database was made by this open */
    _Atomic bool started;      /* all parts are there: they may be kicked */
    _Atomic bool changed;      /* since the last kick */
    _Atomic bool kick_posted;  /* or looked not long ago */
    _Atomic bool kick_again;
    struct loop_task kick_task;

    /* An import from an inventory: bytes of its files. */
    atomic_bool inventory_runs;
    _Atomic uint64_t inventory_bytes, inventory_all_bytes;

    /* Work thread. */
    struct work_op *ops; /* in flight */
    unsigned busy;       /* operations and jobs that must end before meta-work may */
    bool closing;
    struct loop_timer kick_timer; /* runs while kick_posted */
    unsigned kick_pace_ms;
    sem_t idle; /* posted once, when closing and busy == 0 */
};

/* As meta_submit, for the volume's own use too: also kinds after META_QUOTA_SET, and changes where
 * a user's would be refused. */
int volume_submit(struct meta *meta, struct meta_request *request, bool internal);
/* As meta_submit, for a caller that must know what is to be seen when: request->applied says that
 * the change is made, also with -EINPROGRESS, when it waits for a sync only. `again` is called on
 * the work thread when what the request waited for is there: it is to be given to
 * volume_serve_here, on the caller's own thread, which answers as this does. */
int volume_submit_here(struct meta *meta, struct meta_request *request,
                       void (*again)(struct meta_request *request));
int volume_serve_here(struct meta *meta, struct meta_request *request);
/* One change, applied now and not waited for; `reply` is initialised here. Any thread. */
int volume_apply(struct meta *meta, struct meta_op *op, struct meta_reply *reply);
/* One read that never imports and never finds a listing too old. */
int volume_read(struct meta *meta, struct meta_op *op, struct meta_reply *reply);
/* Work thread: a request whose import has ended: tries again, or is answered with `result`. */
void volume_resume(struct meta *meta, struct meta_request *request, int result);
/* From now on changes are refused; `why` for the log. Any thread. */
void volume_refuse(struct meta *meta, const char *why);
/* Any thread: meta-work looks for due work soon; at once, or if it did not long ago, a
 * little later: so a stream of changes does not keep it busy. */
void volume_kick(struct meta *meta);
void volume_kick_init(struct meta *meta); /* work thread, before the first kick */

void volume_entry_changed(struct meta *meta, uint64_t parent, const char *name, size_t len);
void volume_inode_changed(struct meta *meta, uint64_t ino, bool data);
void volume_extents_changed(struct meta *meta, uint64_t ino);
/* Both a file of ours and what somebody else wrote at its key were kept (META_CONFLICT): tells the
 * events. */
void volume_conflict(struct meta *meta, const struct meta_reply *reply);
/* For the reply of an import: entries that were removed. */
void volume_names_gone(struct meta *meta, const struct meta_reply *reply);

/* checkpoint.c: removes what a process that was killed left. */
void checkpoint_init(struct meta *meta);

/* volume_sync.c */

/* `synced` (may be NULL) is called on meta-sync after each sync. */
int syncer_new(struct engine *engine, uint32_t interval_ms, struct metrics *metrics,
               void (*synced)(void *arg), void *arg, struct syncer **out);
/* Answers all that waits, syncs a last time. Returns that sync's result. */
int syncer_free(struct syncer *syncer);
/* Something was applied that nobody waits for. */
void syncer_note(struct syncer *syncer);
/* request->done or task->done is called when all up to its sequence (a task's 0: up to now)
 * survives a power loss; a request keeps the result 0 of its apply, or gets the sync's error. With
 * may_wait this thread may become the one that syncs, for others too; `done` is then called before
 * the return. */
void syncer_request(struct syncer *syncer, struct meta_request *request);
void syncer_task(struct syncer *syncer, struct meta_task *task);
/* Whether all up to the sequence (0: up to now) survives a power loss already. Any thread. */
bool syncer_is_synced(const struct syncer *syncer, uint64_t sequence);
/* The same of the change of that time. */
bool syncer_is_synced_at(const struct syncer *syncer, uint64_t ctime_ns);

/* Whether the last sync took a time for which a loop may stand still. Any thread. */
bool syncer_is_quick(const struct syncer *syncer);

/* worker.c: store requests and metadata requests of the work thread. */

/* A store request. `op` is filled by the caller (not op.done, op.arg); `done` runs on the work
 * thread. */
struct work_op {
    struct store_op op;
    void (*done)(struct work_op *work);
    void *arg;
    /* worker.c's own */
    struct meta *meta;
    struct loop_task back;
    struct work_op *next, *prev;
    bool ended; /* store loop */
    /* pacer.c's own */
    bool paced;
    uint64_t not_before_ns, sent_ns; /* monotonic */
};
void work_op_submit(struct meta *meta, struct work_op *work);
/* Asks all store requests in flight to end early. */
void work_cancel_all(struct meta *meta);

/* A metadata request, submitted as internal. `done` runs on the work thread, never inside
 * work_call_submit. */
struct work_call {
    struct meta_request request;
    void (*done)(struct work_call *call);
    void *arg;
    struct meta *meta;
    struct loop_task back;
};
void work_call_submit(struct meta *meta, struct work_call *call);

/* Work thread: something that must end before the thread may. */
void work_begin(struct meta *meta);
void work_end(struct meta *meta);

/* import.c */

int importer_new(struct meta *meta, struct importer **out);
void importer_free(struct importer *importer); /* after the work thread has ended */
/* Any thread: the request could not be served because a listing is not there. volume_resume comes
 * later. */
void importer_wait(struct meta *meta, struct meta_request *request);
/* Any thread: the bucket does not answer, and what is known of it counts (config.offline_ms). */
bool importer_offline(struct importer *importer);
/* Any thread: asks for what this lookup or listing wants, for nobody; rarely. */
void importer_probe(struct importer *importer, const struct meta_op *op);
/* Work thread, at close: ends what waits. */
void importer_stop(struct importer *importer);
/* Work thread. A key of the bucket was written or deleted by us: a listing that was asked for
 * before must not take it away, or bring it back. */
void importer_key_changed(struct importer *importer, const char *key, bool written);
/* Any thread: is it known, and new enough (or just found: `now`), that the bucket has no such
 * name? */
bool importer_is_absent(struct importer *importer, uint64_t parent, const struct meta_name *name,
                        bool now);
/* Any thread: a name that was asked for one by one so long ago that it must be asked for again. */
bool importer_is_old(struct importer *importer, uint64_t parent, const struct meta_name *name);
void importer_status(struct importer *importer, json_t *out);
void importer_refresh(struct meta *meta, struct meta_task *task);
void importer_notice(struct meta *meta, struct meta_task *task, const char *path);
void importer_object_changed(struct meta *meta, struct meta_task *task, uint64_t object);

/* settle.c */

int settler_new(struct meta *meta, struct settler **out);
void settler_free(struct settler *settler);
void settler_kick(struct settler *settler); /* work thread: looks at the queue */
/* Any thread: a directory's place by age is another one; before the next kick. */
void settler_places_changed(struct settler *settler);
void settler_stop(struct settler *settler);
void settler_wait(struct meta *meta, struct meta_task *task);
void settler_status(struct settler *settler, json_t *out);
/* Work thread: META_CONFLICT, or OUTSIDE that came to the same, was applied. Notes it and tells the
 * events. */
void settler_conflict(struct settler *settler, const char *key, const struct meta_reply *reply);
/* Somebody waits for files to be settled. */
bool settler_is_wanted(const struct settler *settler);
/* True while a settle step writes this key. */
bool settler_uses_key(const struct settler *settler, const char *key);

/* carry.c */

int carrier_new(struct meta *meta, struct carrier **out);
void carrier_free(struct carrier *carrier);
void carrier_kick(struct carrier *carrier);
void carrier_stop(struct carrier *carrier);
void carrier_status(const struct carrier *carrier, json_t *out);
/* Work thread: is anything to be written of what is at or below `top`? 1, 0, or -EIO with the
 * reason if that failed since a time (monotonic). */
int carrier_wait(struct carrier *carrier, uint64_t top, uint64_t asked_ns, char *reason,
                 size_t cap);

/* gc.c */

int collector_new(struct meta *meta, struct collector **out);
void collector_free(struct collector *collector);
void collector_kick(struct collector *collector);
void collector_stop(struct collector *collector);
void collector_status(struct collector *collector, json_t *out);
/* True while this key is being deleted; `wait` (may be NULL) is posted to the work thread when it
 * is not any more. */
bool collector_uses_key(struct collector *collector, const char *key, struct loop_task *wait);
/* At open, before the threads work: what a crash left reserved or sustained. */
int collector_recover(struct meta *meta, struct error *error);

/* owner.c */

/* Blocking: takes `<prefix>.sluice/volume`. -EBUSY with the owner's name. */
int owner_take(struct meta *meta, struct owner **out, struct error *error);
/* The same in another store, which calls keys below `base` so without its number. */
int owner_take_at(struct meta *meta, struct store *store, const char *base, struct owner **out,
                  struct error *error);
/* Names this taking. */
const char *owner_instance(const struct owner *owner);
/* Work thread: begins to renew. */
void owner_start(struct owner *owner);
void owner_stop(struct owner *owner); /* work thread */
/* Blocking, after owner_stop while the volume works on: nothing of it is under way. */
void owner_drain(struct owner *owner);
/* Blocking, after the work thread has stopped its work (or owner_drain): says in the bucket that
 * nobody has it. 0, or -errno: it may still say that we have. */
int owner_give_back(struct owner *owner);
void owner_free(struct owner *owner);
void owner_status(struct owner *owner, json_t *out);

/* tags.c */

enum tags_match {
    TAGS_NONE,  /* not written by Sluice, or by another volume */
    TAGS_OTHER, /* another object of this volume: *found is its id */
    TAGS_SAME,
};
/* `found` may be NULL. */
enum tags_match tags_compare(const struct store_op *head, const struct meta_volume *volume,
                             uint64_t object, uint64_t *found);
/* A copy of an object in another storage class says besides which change made it. */
unsigned tags_add_change(struct meta_object_tags *tags, unsigned count, uint64_t change);
/* Of what stands at its key: that number, or 0. */
uint64_t tags_change(const struct store_op *head, const struct meta_volume *volume,
                     uint64_t object);
/* META_CLASS_DONE for what HEAD shows, if the object is being given a class and that is it. True:
 * the object is that now. */
bool volume_class_changed(struct meta *meta, const struct meta_object *object,
                          const struct store_op *head);
/* Fills mode (permissions only), uid, gid, mtime from user metadata. False: there is none that
 * makes sense, and nothing is filled. */
bool tags_parse(const struct store_op *head, struct meta_attr *attr);

#endif
