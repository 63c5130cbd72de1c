/*
 * A volume: the namespace with all that works around it. Embedded: the engine in this process, on a
 * local directory, with a store to import from, settle to and collect garbage in. Or a volume of
 * the metadata service, behind the same calls (meta/remote.h).
 *
 * meta_submit serves every operation of meta/op.h up to META_QUOTA_SET. An answer that needs no
 * network and no disk sync comes at once, on the caller's thread; otherwise later, by `done`.
 *
 * What survives a power loss when it is answered: with META_DURABLE (close, fsync, rename, unlink
 * of what was durable…), or always with sync=always, the operation and all before it. Others within
 * sync_interval_ms.
 */
#ifndef SLUICE_META_META_H
#define SLUICE_META_META_H

#include "base/buf.h"
#include "base/error.h"
#include "base/metrics.h"
#include "meta/op.h"
#include "s3/store.h"

struct meta;

struct meta_request {
    struct meta_op op;
    bool durable; /* answer only when it survives a power loss. Rename is always durable; kinds that
                     only read ignore it */
    bool may_wait; /* the calling thread may wait for the local disk: it may sync, for others too,
                      and then `done` comes from inside the call */
    uint64_t era;  /* meta_era when the caller last knew that what it asks for was not lost: -ESTALE
                      if another session has begun since. 0: whichever it is */
    struct meta_reply reply; /* initialised by meta_submit */
    int result;              /* 0 or -errno */
    /* On a thread of the volume's, without locks; must not block. */
    void (*done)(struct meta_request *request);
    void *arg;
    /* The volume's own. */
    struct meta_request *next;
    uint64_t sequence; /* callers may read it after the answer: see meta_is_synced */
    uint64_t start_ns;
    void *impl;
    void (*again)(struct meta_request *request);
    bool applied;
};

/* Somebody waits until what was told before is in no cache any more. */
struct meta_told {
    void (*done)(struct meta_told *told); /* once, on any thread; it may free it */
    struct meta_told *next;               /* of whom it was given to */
};

/* What the mount must know when the namespace changes by other hands than its own requests (import,
 * refresh, settle). Called on the volume's threads, without locks; must not block and must not call
 * the kernel's notify functions from a thread the kernel may wait for. */
struct meta_events {
    void (*entry_changed)(void *arg, uint64_t parent, const char *name,
                          size_t len); /* name now means something else, or nothing */
    void (*inode_changed)(void *arg, uint64_t ino,
                          bool data); /* attributes; data: content too (changed from outside) */
    void (*extents_changed)(void *arg,
                            uint64_t ino); /* the same bytes are in other objects now (settled) */
    /* A small file is one object now: its bytes, and the content id they have. May be NULL. */
    void (*settled)(void *arg, uint64_t cid, const void *bytes, size_t len);
    /* Nothing has these contents any more, but readers of before. Not all are told (META_GONE_MAX
     * of one change). On the thread of the change. NULL: nobody is told. */
    void (*contents_gone)(void *arg, const uint64_t *cids, size_t count);
    /* An inode lost its last name, because its key is gone from the bucket: META_DROP it when
     * nobody uses it. NULL: the volume drops it at once. */
    void (*inode_gone)(void *arg, uint64_t ino);
    /* Only for volumes of a service; NULL: nobody is told. Another mount wrote the file: readers
     * see its new bytes from now on. */
    void (*content_changed)(void *arg, uint64_t ino);
    /* An answer that shows what a name in these directories (0: none) means now is about to be
     * given: what entry_changed said before must not be used from here on. Must not wait. */
    void (*names_shown)(void *arg, uint64_t parent, uint64_t new_parent);
    /* Whatever was cached may be wrong (the service was restarted). */
    void (*all_changed)(void *arg);
    /* The session with the service is over: open files and locks are lost, whatever was cached may
     * be wrong. Another session begins when when_dropped has answered. */
    void (*session_lost)(void *arg);
    /* told->done is called when all that the events before said is out of the kernel's caches:
     * others wait for it. NULL: nothing is cached. */
    void (*when_dropped)(void *arg, struct meta_told *told);
    /* For a service; NULL: nobody is told. The other stores are others now (meta_stores_json):
     * before anything is in a new one, and after nothing is in one that went. May block. */
    void (*stores_changed)(void *arg);
    /* Only for volumes of a service: it has a quota now, or may have: what was accepted before is
     * to be reserved. May take locks, not wait for a request. */
    void (*quota_begins)(void *arg);
    void *arg;
};

enum meta_sync { META_SYNC_INTERVAL, META_SYNC_ALWAYS };

struct meta_config {
    const char *directory; /* of the database */
    struct store *store;   /* borrowed until meta_close returned */
    const char *prefix;    /* in the bucket, "" or "a/b/" */
    /* Settings for a new volume: from meta_format_init, then changed. id, store, prefix and
     * file_beside_directory are filled in here. NULL: the defaults. */
    const struct meta_volume *format;
    struct meta_events events;
    struct metrics *metrics;
    uint64_t memory_bytes;
    uint32_t import_ttl_ms;   /* a listing is believed so long; default 60,000. 0: until refresh */
    uint32_t offline_ms;      /* so long after the bucket stopped answering, what is known of it is
                                 believed in spite of import_ttl_ms; default 0 */
    uint32_t negative_ttl_ms; /* that a key does not exist is believed so long; default 1,000 */
    enum meta_sync sync;
    uint32_t sync_interval_ms; /* default 100 */
    bool read_only;  /* needs no ownership; every change is -EROFS. The database is a scratch
                        directory below `directory` (NULL: $TMPDIR or /tmp), removed by meta_close */
    bool take_over;  /* take the prefix's ownership from another (dead) volume instance: the user
                        said so */
    bool must_exist; /* -ENOENT if the directory has no volume, in place of a new one */
    bool no_settle;  /* tests: background work only when asked by meta_settle_wait */
    unsigned settle_parallel;                   /* files at once; default 8 */
    uint64_t settle_requests, settle_bandwidth; /* of settle in a second, bytes that go through this
                                                   process; 0: no limit */
    uint32_t owner_renew_ms;                    /* default 30,000 */
    const char *owner_text;                     /* host and mount point, shown to who is refused */
    bool keep_sessions; /* of the service: its clients may come back after a restart, so what they
                           reserved and what they have open is not tidied away here */
};
void meta_config_init(struct meta_config *config);
#define META_SETTLE_DELAY_MS 5000
#define META_GC_DELAY_MS 10000
/* inline_max 32 KiB (an embedded mount asks for 512 KiB, a service for 128 KiB), the delays above,
 * root 0755 of the calling user, the staging patterns of DESIGN section 4. */
void meta_format_init(struct meta_volume *format);

/* Opens or formats, takes the prefix (I9; -EBUSY with the owner's name), finishes what a crash
 * left, starts the workers. Blocking. */
int meta_open(const struct meta_config *config, struct meta **out, struct error *error);
/* Ends all requests (they are answered first), syncs, gives the prefix back, closes. Blocking. No
 * request may be submitted any more. */
void meta_close(struct meta *meta);
/* The same for a volume that nobody has used: a database that meta_open made for it goes, too. It
 * stays if the bucket may still name it as the owner: without it nobody else would get the prefix.
 */
void meta_discard(struct meta *meta);

/* Counts the sessions of a mount with its service; 0 without one. Another one begins after
 * `session_lost` has returned, so who finds something not lost after having asked for this holds
 * the number of the session that it belongs to. Any thread. */
uint64_t meta_era(const struct meta *meta);

/* A user reads or writes so many bytes, flushes or syncs, from now (monotonic) until the end:
 * background work keeps back beside it. Any thread. */
void meta_use_begin(struct meta *meta, uint64_t now_ns, uint64_t bytes);
void meta_use_end(struct meta *meta);

/* Any thread. 0 or -errno: answered now (request->result says the same), `done` is not called.
 * -EINPROGRESS: `done` comes, exactly once. */
int meta_submit(struct meta *meta, struct meta_request *request);
/* Blocking form; not on a volume's or loop thread. */
int meta_call(struct meta *meta, struct meta_request *request);

/* Quotas bind when bytes are accepted, not when they are committed: before a file grows in the
 * caller's hands to `size` bytes, its size is reserved: 0; -EDQUOT: a directory above one of its
 * names would pass its limit. Never refused with `force` (bytes that were accepted before), or when
 * it shrinks. A file has one reservation, the last one; what of it is not committed counts until
 * released. While no quota is active nothing is kept, and reserving costs nothing: who sets the
 * first one reserves afterwards for all files that are larger than committed. Any thread; reads
 * the database, and waits for an apply in progress. */
bool meta_quota_active(struct meta *meta);
/* On a volume of a service (remote_quota.c) also -EAGAIN: the service must be asked first
 * (meta_quota_ask), and then this again. Does not wait there. */
int meta_quota_reserve(struct meta *meta, uint64_t ino, uint64_t size, bool force);
void meta_quota_release(struct meta *meta, uint64_t ino);

/* Locks between the mounts of a volume (docs/locks.md): of processes on ranges of bytes (POSIX),
 * and of open files (flock). -ENOSYS for a volume that is not remote: its one mount has the
 * kernel's. */
enum meta_lock_how { META_LOCK_TEST = 1, META_LOCK_TRY, META_LOCK_WAIT };
enum meta_lock_type { META_LOCK_READ = 1, META_LOCK_WRITE, META_LOCK_NONE };
struct meta_lock {
    enum meta_lock_how how;   /* giving up is a TRY of type NONE */
    enum meta_lock_type type; /* TEST: after it, that of a lock in the way, or NONE */
    bool flock;
    uint64_t ino, owner;
    uint64_t start, end; /* both included. TEST: as `type`; so is pid */
    uint64_t tag;        /* the open file by which it was asked for */
    uint32_t pid;        /* 0: of another mount */
    int result; /* 0; -EAGAIN: TRY, somebody has it; -EDEADLK; -EINTR: cancelled; -ENOLCK: too many;
                   -ESTALE: the session is over */
    void (*done)(struct meta_lock *lock);
    void *arg;
    bool cancelled; /* the volume's own */
};
/* Any thread. -EINPROGRESS: `done` comes once, on another thread; else -errno, and it does not. */
int meta_lock(struct meta *meta, struct meta_lock *lock);
/* Before `done` has returned, and also before or within meta_lock: it ends soon. */
void meta_lock_cancel(struct meta *meta, struct meta_lock *lock);
/* A process closes a descriptor of lock->ino: all POSIX locks of lock->owner there are given up. 0:
 * it has none; else as meta_lock. Does not wait for a service that is away. */
int meta_lock_flush(struct meta *meta, struct meta_lock *lock);
/* The open file is gone, and all locks that were had by it. */
void meta_lock_release(struct meta *meta, uint64_t ino, uint64_t tag);

/* Changes are refused from now on: the prefix was lost to another owner. Any thread. */
bool meta_refuses_changes(struct meta *meta);

/* How long from now an answer may be cached without asking again: UINT32_MAX, or what is left of
 * the lease that the service gave. Any thread. */
uint32_t meta_cache_ms(const struct meta *meta);

const struct meta_volume *meta_volume(const struct meta *meta);
/* As of meta_open, before it changed anything. */
void meta_contents(const struct meta *meta, struct meta_contents *out);
uint64_t meta_time_ns(
    struct meta *meta); /* the wall clock, never stepping back: what operations are stamped with */

/* A piece of background work that was asked for. `done` is called exactly once, on a thread of the
 * volume's, without locks; the task must stay until then. */
struct meta_task {
    int result; /* 0 or -errno, with `error` */
    uint64_t ino;
    uint64_t remaining; /* settle: files left, while it runs (atomic reads allowed) */
    /* sync: of the change that is to survive (meta_request's, after its answer); 0: all changes.
     * Set it for each call. */
    uint64_t sequence;
    bool may_wait; /* sync: as of meta_request */
    struct error error;
    void (*done)(struct meta_task *task);
    void *arg;
    struct meta_task *next; /* the volume's own from here */
    bool cancel;
    void *impl;
};
/* Asks the service whether the file may grow to `size`. `done` comes exactly once, on a thread that
 * must not wait: result 0: meta_quota_reserve may be tried again; -EDQUOT; -EIO, -ESTALE: not
 * reached. Only for volumes of a service. */
struct meta_quota_ask {
    uint64_t ino, size;
    int result;
    void (*done)(struct meta_quota_ask *ask);
    struct meta_task task; /* its own from here */
    void *impl;
};
void meta_quota_ask(struct meta *meta, struct meta_quota_ask *ask);

/* Whether the change with this sequence (0: every change) and all before it survive a power loss
 * already, so that meta_sync need not be called. Any thread; never waits. */
bool meta_is_synced(struct meta *meta, uint64_t sequence);
/* The same of an inode whose ctime this is, unless somebody set its ctime (META_SET_CTIME). */
bool meta_is_synced_at(struct meta *meta, uint64_t ctime_ns);
/* All that was applied before (task->sequence: up to that change) survives a power loss. */
void meta_sync(struct meta *meta, struct meta_task *task);
/* Lists an imported directory (or asks for one file's key) again now; recursive for directories
 * that were listed before. */
void meta_refresh(struct meta *meta, struct meta_task *task);
/* Looks at one key of the bucket, by its path below the root: others have put or deleted it. The
 * path is copied. -EOPNOTSUPP for a volume of a service (`done` is called before this returns). */
void meta_notice(struct meta *meta, struct meta_task *task, const char *path);
/* Settles all at or below now, and is done when nothing below is unsettled. -EIO with error if
 * something cannot be. */
void meta_settle_wait(struct meta *meta, struct meta_task *task);
/* Before `done` was called: the task (of refresh or settle_wait) ends soon with -ECANCELED, or with
 * its result. */
void meta_task_cancel(struct meta *meta, struct meta_task *task);

/* A read of an object failed with 412 or 404: finds out what the key holds now and records it
 * (META_OUTSIDE), or finds that the extents have moved on. `done` when extents may be asked for
 * again; result -ESTALE: the content was changed from outside. task->ino = file. */
void meta_object_changed(struct meta *meta, struct meta_task *task, uint64_t object);

/* For a backup: a checkpoint of the database in a directory of its own beside it, one at a time
 * (-EBUSY). *applied: how many operations it has at least. The directory stays, and does not
 * change, until meta_checkpoint_drop. Blocking (disk); not for a volume's thread. */
int meta_checkpoint(struct meta *meta, const char **directory, uint64_t *applied,
                    struct error *error);
void meta_checkpoint_drop(struct meta *meta);

/* Appends one JSON object ("{…}"): volume, usage, drift, settle, gc, import, owner, stores,
 * migrations. Not on a
 * volume's thread; waits for the volume's worker, never for the network. */
void meta_status_json(struct meta *meta, struct buf *out);

/* The user metadata of an object that is written for a file: volume id, object id, mode, owner,
 * mtime. Fills at most 8 pairs; text lives in `room`. Returns their number. */
#define META_TAGS_MAX 8
struct meta_object_tags {
    struct store_meta pairs[META_TAGS_MAX];
    char room[512];
};
unsigned meta_object_tags(const struct meta_volume *volume, const struct meta_object *object,
                          const struct meta_attr *attr, struct meta_object_tags *out);

#endif
