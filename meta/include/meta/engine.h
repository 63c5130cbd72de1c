/*
 * The namespace as a deterministic state machine on RocksDB. No clock, no randomness, no I/O but
 * RocksDB's, no threads of its own (RocksDB has some).
 *
 * One thread at a time applies (the caller serialises); any number read beside it. What an apply
 * changed is visible to readers when it returns, and survives a kill -9 of the process then (it is
 * in the write-ahead log, in the page cache); engine_sync makes all that was applied before survive
 * a power loss. An apply that returns an error changed nothing.
 *
 * Column families: DESIGN section 3; formats: docs/data-model.md. Inode records, usage and dentries
 * are kept in bounded caches beside RocksDB; a reader sees through them the newest state.
 */
#ifndef SLUICE_META_ENGINE_H
#define SLUICE_META_ENGINE_H

#include "base/error.h"
#include "meta/op.h"

struct engine;

struct engine_options {
    const char *path;      /* directory; made if absent (its parent must exist) */
    uint64_t memory_bytes; /* for memtables, block cache and record caches together; default 48 MiB,
                              at least 16 MiB */
    bool read_only;        /* never writes; must exist */
    bool rebuild_note;     /* tests: no reserve file on the disk */
};

/* Opens or creates. Errors: -EBUSY another process has it · -EILSEQ damaged (message says what to
 * do) · -EPROTO written by a newer version · errno of the file system. A new database holds
 * nothing, not even the root, until META_FORMAT was applied. */
int engine_open(const struct engine_options *options, struct engine **out, struct error *error);
void engine_close(struct engine *engine);

/* The volume's settings, or -ENOENT before META_FORMAT. */
int engine_volume(struct engine *engine, struct meta_volume *out);

void engine_contents(const struct engine *engine, struct meta_contents *out);

/* Kinds that change. op->time_ns is set. 0 or -errno: POSIX's of the call, -ENOSPC if the disk is
 * full, -EROFS after the database refused a write (message in the log), -ENOMEM. `reply` is
 * initialised by the caller. RMDIR, RENAME onto a directory and SETTLE_SUBTREE answer -EAGAIN with
 * reply->need_import and attr.ino = a directory whose listing must be imported first. */
int engine_apply(struct engine *engine, const struct meta_op *op, struct meta_reply *reply);
/* After a good engine_apply, on the same thread: the contents that nothing references any more
 * since then; the first META_GONE_MAX of them. Once for each; the caller frees *cids (NULL: none).
 */
unsigned engine_gone(struct engine *engine, uint64_t **cids);

/* Kinds that only read; any thread. Sets reply->need_import with -EAGAIN where a directory's
 * listing is not there or too old: the caller imports, and asks again (LOOKUP then gives in attr
 * what is known, ino 0 if nothing). op->time_ns is "now", for TTLs of
 * imported listings: `import_ttl_ns` after its listing a directory is asked for again (0 = never).
 */
int engine_read(struct engine *engine, const struct meta_op *op, uint64_t import_ttl_ns,
                struct meta_reply *reply);

/* A number that steps with each apply; engine_sync returns when all up to it survives a power loss.
 * Any thread; may run beside applies. */
uint64_t engine_sequence(struct engine *engine);
/* The time of the last apply since the engine was opened, 0: there was none. What was applied by
 * then is below an engine_sequence that is read after it. Any thread. */
uint64_t engine_last_ns(struct engine *engine);
/* The newest time of all applies that there were when the engine was opened. */
uint64_t engine_newest_ns(const struct engine *engine);
int engine_sync(struct engine *engine);

/* Where a directory was imported from: the prefix in the bucket whose listing gives its entries, or
 * -ENODATA if it has no origin (made here). `listed_ns` = time of the last complete listing, 0 =
 * never. prefix has META_KEY_MAX + 1 bytes. */
int engine_origin(struct engine *engine, uint64_t ino, char *prefix, uint64_t *listed_ns);

/* Work queues, ordered by due time. Fill at most `max`; return the count. `next_due_ns` = due time
 * of the first that is not due yet (0 = none). */
struct engine_work {
    uint64_t id;  /* ino (settle) or object id (gc) */
    bool subtree; /* settle: a renamed directory */
};
int engine_settle_due(struct engine *engine, uint64_t now_ns, struct engine_work *out, int max,
                      uint64_t *next_due_ns);
int engine_gc_due(struct engine *engine, uint64_t now_ns, struct meta_object *out, int max,
                  uint64_t *next_due_ns);
/* The first unsettled ino at or below a directory or file, 0 if all is settled: what `settle
 * --wait` waits for. */
uint64_t engine_unsettled_below(struct engine *engine, uint64_t ino);
/* Makes what is at or below due now, quiet or not: applies META_SETTLE_HURRY, so on the applying
 * thread. */
int engine_settle_hurry(struct engine *engine, uint64_t ino, uint64_t now_ns);
/* Objects in state RESERVED: at start, what a crash left. Object ids ascending after `after`. */
int engine_reserved(struct engine *engine, uint64_t after, struct meta_object *out, int max);
/* The inode that a RESERVED object is for; -ENOENT: it is none. */
int engine_reserved_for(struct engine *engine, uint64_t object, uint64_t *ino);
/* Inodes that are unlinked and sustained: at start of an embedded volume all of them are dropped.
 */
int engine_sustained(struct engine *engine, uint64_t after, uint64_t *out, int max);
/* Directories that have an origin. */
int engine_origins(struct engine *engine, uint64_t after, uint64_t *out, int max);

/* Reservations of sizes that files will grow to: see meta_quota_reserve. Any thread. */
bool engine_quota_active(struct engine *engine);
int engine_quota_reserve(struct engine *engine, uint64_t ino, uint64_t size, bool force);
void engine_quota_release(struct engine *engine, uint64_t ino);

/* Inodes of which the bucket's entry may be out of date, ascending after `after`. */
struct engine_carry {
    uint64_t ino, stamp, time_ns;
};
int engine_carry_rows(struct engine *engine, uint64_t after, struct engine_carry *out, int max);
struct engine_carry_facts {
    struct meta_attr attr;
    bool carried;      /* there may be an entry in the bucket */
    bool unsettled;    /* a file that settle will write */
    uint64_t children; /* of a directory */
    uint64_t object;   /* a file that is one object */
};
int engine_carry_look(struct engine *engine, uint64_t ino, struct engine_carry_facts *out);
/* Is `ino` at or below `top`? 1, 0 or -errno. */
int engine_below(struct engine *engine, uint64_t ino, uint64_t top);
/* The names of an inode besides its first, until `each` returns something else than 0 (negative:
 * the result). `each` must not come back to the engine. */
int engine_links(struct engine *engine, uint64_t ino,
                 int (*each)(void *arg, uint64_t parent, const char *name, size_t len), void *arg);
/* A copy of the database as it is now, by hard links: the directory must not exist, and be on the
 * same file system. Any thread, beside everything; writes what is in memory to the disk. */
int engine_checkpoint(struct engine *engine, const char *directory, struct error *error);
/* After a restore, before anything else is applied: numbers that the volume may have given out
 * after the backup are not given out again, and nothing is deleted or written on account of what
 * was under way. No operation of the log: a restored database begins a log of its own. */
int engine_restored(struct engine *engine);
/* Whether an object has a number of before the last restore. If no record has it, the volume may
 * have written it after the backup, and it is the only copy of a file. Any thread. */
bool engine_is_earlier(const struct engine *engine, uint64_t object);
/* Every live object of the volume's own store, in the order of their keys, until `each` returns
 * something else than 0. */
struct engine_object {
    const char *key, *etag; /* not NUL-terminated */
    size_t key_len, etag_len;
    uint64_t size;
    uint64_t ino; /* a file that uses it */
};
int engine_each_object(struct engine *engine,
                       int (*each)(void *arg, const struct engine_object *object), void *arg);

/* Calls `each` for every session that may apply, with its record, until it returns something else
 * than 0 (then that is the result). */
int engine_sessions(struct engine *engine,
                    int (*each)(void *arg, uint64_t session, const void *record, size_t len),
                    void *arg);

/* Objects of one store by their keys, ascending after `after` (NULL: from the first of the volume's
 * own; "/N/": from the first of store N): those that hold their key. The number; less than `max` at
 * the end. */
int engine_keys(struct engine *engine, const char *after, struct meta_object *out, int max);
/* The other stores, by number: how many. Any thread. */
int engine_stores(struct engine *engine, struct meta_store *out, int max);
/* Directories whose files belong to a store of their own: how many, in *out (free()). Any thread.
 */
struct engine_place {
    uint64_t ino;
    unsigned store;
    bool attached, paused;
    uint64_t after_s;               /* only files that were not changed for so long; 0: all */
    char class[META_CLASS_MAX + 1]; /* "": none. Else their objects get this storage class */
    bool queued;                    /* some of what is below may not be counted in its drift yet */
};
int engine_places(struct engine *engine, struct engine_place **out);
/* Not stored, but what the volume knows of an inode. */
bool engine_xattr_is_virtual(const struct meta_name *name);
/* A key below ".sluice/" of its store's prefix. Any thread. */
bool engine_key_is_internal(struct engine *engine, const char *key);
/* Whether an object of any state holds the key: 1, 0 or -errno. */
int engine_key_known(struct engine *engine, const char *key);
/* The same, with the object. */
int engine_key_object(struct engine *engine, const char *key, struct meta_object *out);

/* Walks every record and checks each against the others (dentry ↔ inode ↔ nlink, extents ↔ objects
 * ↔ references, key ↔ object, usage ↔ tree). Calls report for each violation; returns their number
 * or -errno. Nothing may be applied meanwhile. */
int engine_check(struct engine *engine, void (*report)(void *arg, const char *text), void *arg);
/* A digest of all keys and values: equal databases, equal digests. */
int engine_digest(struct engine *engine, uint8_t out[32]);

struct engine_stats {
    uint64_t inodes, memory_bytes, disk_bytes, applied;
};
void engine_stats(struct engine *engine, struct engine_stats *out);

#endif
