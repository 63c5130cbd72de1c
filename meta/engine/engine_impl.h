/*
 * Inside of the engine: the database (engine_db.c), one apply's working set (engine_txn.c), and
 * what the operations (engine_names.c, engine_extents.c, engine_objects.c, engine_import.c,
 * engine_settle.c, engine_read.c) share.
 */
#ifndef SLUICE_META_ENGINE_IMPL_H
#define SLUICE_META_ENGINE_IMPL_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "arena.h"
#include "base/buf.h"
#include "engine_cache.h"
#include "engine_quota.h"
#include "engine_stores.h"
#include "meta/engine.h"
#include "records.h"

/* Column families, in the order of opening. SYSTEM is RocksDB's "default". */
enum engine_table {
    TABLE_SYSTEM,
    TABLE_INODE,
    TABLE_DENTRY,
    TABLE_LINK,
    TABLE_EXTENT,
    TABLE_OBJECT,
    TABLE_KEY,
    TABLE_CLAIM,
    TABLE_ORIGIN,
    TABLE_XATTR,
    TABLE_SUSTAINED,
    TABLE_WORK,
    TABLE_COUNT
};

/* A record of a cached table is no longer than this. */
#define ENGINE_RECORD_MAX 5120

/* Directories in one: its link count has 32 bits. */
#define ENGINE_SUBDIRS_MAX (UINT32_MAX - 2)

/* An inode as an apply sees it. */
struct engine_node {
    uint64_t ino;
    struct record_inode now, before;
    bool existed; /* in the database */
    bool exists;  /* now */
    bool dirty;
    bool hot;                    /* it is written among the counters: engine_hot.c */
    int64_t reserved;            /* change of what is reserved at and below it: engine_quota.h */
    const uint8_t *read, *bytes; /* its record as it was read, and as it will be written */
    size_t read_len, len;
};

/* Any other record as an apply sees it. */
struct engine_cell {
    uint64_t hash;
    uint8_t table;
    bool present; /* else deleted or absent */
    bool dirty;
    uint16_t key_len;
    const uint8_t *key;
    const uint8_t *value;
    size_t len;
};

struct engine_map {
    void **slots;
    size_t cap, count; /* cap is a power of two */
};

/* Where the rows of a work queue begin, so that a walk does not pass the tombstones of all that was
 * done before: no row is due before MIN(head_ns, added_ns). */
struct engine_queue {
    pthread_mutex_t lock; /* a leaf */
    uint64_t head_ns;     /* as the last walk found it */
    uint64_t added_ns;    /* the earliest that was put since the newest walk began */
    uint64_t walks;       /* that began: only the newest saw all that was put before */
};
enum { ENGINE_QUEUE_SETTLE, ENGINE_QUEUE_GC, ENGINE_QUEUE_COUNT };

/* Working set of one apply: what it read and what it will write. Owned by the applying thread. */
struct engine_txn {
    struct engine *engine;
    uint64_t time_ns;
    struct arena arena;
    struct engine_map nodes, cells;
    struct record_counters counters;
    struct buf scratch;
    rocksdb_writebatch_t *batch;
    bool raw;                               /* something was put into the batch directly */
    uint64_t queued_ns[ENGINE_QUEUE_COUNT]; /* the earliest row that is put; UINT64_MAX: none */
    bool quota_locked;                      /* engine_quota.h */
    uint64_t kept_cid;                      /* stays, though an object of it goes; 0: none */
    uint64_t *gone;                         /* with room for a power of two, or NULL */
    unsigned gone_count;
    const struct record_quota *quota_new; /* limits that META_QUOTA_SET gives */
};

struct engine {
    char *path;
    bool read_only, no_reserve;
    uint64_t memory_bytes;
    /* Shared: any use of the database. Exclusive: it is being opened again. */
    pthread_rwlock_t gate;
    rocksdb_t *db;
    rocksdb_options_t *options[TABLE_COUNT];
    rocksdb_column_family_handle_t *tables[TABLE_COUNT];
    rocksdb_cache_t *block_cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    struct engine_cache *cache; /* INODE, DENTRY, OBJECT; absence only of DENTRY */
    _Atomic bool formatted;     /* volume is there, and stays as it is */
    struct meta_volume volume;
    struct meta_contents contents; /* as of engine_open */
    uint64_t newest_ns;            /* the same */
    _Atomic uint64_t applied;
    _Atomic uint64_t applied_ns; /* its time; set after it */
    _Atomic uint64_t inodes;
    int synced_fd; /* a note of what was synced: see engine_db.c */
    struct engine_queue queues[ENGINE_QUEUE_COUNT];
    struct engine_quota *quota;
    struct engine_stores stores;

    /* Owned by the applying thread: */
    struct engine_session *sessions; /* those that may apply */
    struct record_counters counters;
    struct engine_txn txn;
    struct meta_store *store_new; /* META_STORE_SET: known after its commit */
    bool stopped;                 /* RocksDB refuses writes until it is opened again */
    bool tight;                   /* the disk is nearly full: only what frees is accepted */
    bool has_reserve;
    unsigned since_space_check, since_squeeze;
    uint64_t bytes_since_space_check;
    uint64_t wal_number, wal_size, wal_written; /* engine_wal.c */

    /* The applying thread changes `counters.hot` under it; others read it under it. */
    pthread_mutex_t hot_lock; /* a leaf */
    bool hot_writing;         /* the database may have newer ones by now */
};

/* engine_db.c */

/* The directory exists. Opens or creates the database with its column families. */
int engine_db_open(struct engine *engine, struct error *error);
void engine_db_close(struct engine *engine);
/* Takes RocksDB's message (freed); the one translation of its errors. */
int engine_db_error(struct engine *engine, char *message, const char *what);
/* Before an apply: 0, or why it cannot be. `frees`: the operation makes room. */
int engine_db_ready(struct engine *engine, bool frees);
/* Writes the batch. After an error the database may refuse all writes until engine_db_ready opened
 * it again. */
int engine_db_write(struct engine *engine, rocksdb_writebatch_t *batch);
int engine_db_sync(struct engine *engine);
/* A record through the cache: its length, -ENOENT, -errno. INODE, DENTRY, OBJECT only. */
int engine_db_get(struct engine *engine, enum engine_table table, const void *key, size_t key_len,
                  uint8_t value[ENGINE_RECORD_MAX]);
/* A record of any table as a copy in the arena: 0, -ENOENT, -errno. snapshot may be NULL. */
int engine_db_copy(struct engine *engine, const rocksdb_snapshot_t *snapshot,
                   enum engine_table table, const struct record_key *key, struct arena *arena,
                   const uint8_t **value, size_t *len);

/* Records from a key up to a bound, in order. */
struct engine_iter {
    struct engine *engine;
    rocksdb_readoptions_t *options;
    rocksdb_iterator_t *it;
    struct record_key upper;
};
/* From `lower` (inclusive) to `upper` (exclusive; NULL: all that begin with lower's first
 * prefix_len bytes). */
void engine_iter_init(struct engine_iter *iter, struct engine *engine,
                      const rocksdb_snapshot_t *snapshot, enum engine_table table,
                      const struct record_key *lower, const struct record_key *upper,
                      size_t prefix_len);
void engine_iter_done(struct engine_iter *iter);
/* 1: key and value of where it stands (valid until the next step); 0: end; -errno. */
int engine_iter_get(struct engine_iter *iter, const uint8_t **key, size_t *key_len,
                    const uint8_t **value, size_t *len);
void engine_iter_next(struct engine_iter *iter);

/* engine_wal.c */

/* On the applying thread, now and then: gives the log that is written the size of what is reserved
 * for it. Failure costs speed only. */
void engine_wal_grow(struct engine *engine);

/* engine_hot.c */

/* At the end of an apply, when the records of its dirty nodes are known: chooses which of them are
 * written among the counters (`hot`), and puts those that make room for them into the batch. */
void engine_hot_choose(struct engine_txn *t);
/* Around the write of the counters: they are those of `t` if it was written. */
void engine_hot_begin(struct engine *engine);
void engine_hot_end(struct engine_txn *t, bool written);
/* The record of a hot directory: its length, -ENOENT if it is in its own table, -errno. */
int engine_hot_get(struct engine *engine, uint64_t ino, uint8_t value[RECORD_HOT_LEN]);

/* engine_txn.c */

int engine_txn_init(struct engine_txn *t, struct engine *engine);
void engine_txn_done(struct engine_txn *t);
void engine_txn_begin(struct engine_txn *t, uint64_t time_ns);
int engine_txn_commit(struct engine_txn *t);
/* The inode, -ENOENT. Pointers stay valid until the end of the apply. */
int engine_txn_inode(struct engine_txn *t, uint64_t ino, struct engine_node **out);
/* As it was loaded in this apply, or NULL. */
struct engine_node *engine_txn_loaded(struct engine_txn *t, uint64_t ino);
/* A new one with the next number; link and times are the caller's. */
int engine_txn_inode_new(struct engine_txn *t, struct engine_node **out);
int engine_txn_get(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                   const uint8_t **value, size_t *len);
int engine_txn_put(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                   const void *value, size_t len);
int engine_txn_delete(struct engine_txn *t, enum engine_table table, const struct record_key *key);
/* Straight into the batch, for many new records: must not be read or written again in this apply.
 * Not for DENTRY. */
void engine_txn_put_raw(struct engine_txn *t, enum engine_table table, const struct record_key *key,
                        const void *value, size_t len);
/* An empty buffer to encode into; valid until the next call of this or of put of a node. */
struct buf *engine_txn_scratch(struct engine_txn *t);

/* engine_names.c */

/* The dentry, or -ENOENT. */
int engine_dentry_get(struct engine_txn *t, uint64_t parent, const void *name, size_t len,
                      struct record_dentry *out);
int engine_dentry_put(struct engine_txn *t, uint64_t parent, const void *name, size_t len,
                      uint64_t ino, uint32_t mode);
int engine_dentry_delete(struct engine_txn *t, uint64_t parent, const void *name, size_t len);
/* A directory for changing: -ENOENT, -ENOTDIR. */
int engine_txn_dir(struct engine_txn *t, uint64_t ino, struct engine_node **out);
/* Adds to the usage of `dir` and all above it. */
int engine_usage_add(struct engine_txn *t, uint64_t dir, const struct meta_usage *delta, int sign);
/* What one link of an inode counts for in its parent. */
void engine_usage_of(const struct record_inode *inode, struct meta_usage *out);
/* The size of a file changes by `to - from`: every link's directories. */
int engine_usage_resize(struct engine_txn *t, struct engine_node *node, uint64_t from, uint64_t to);
/* Times and versions of an inode that changed. */
void engine_node_touch(struct engine_txn *t, struct engine_node *node);
/* The same for a directory whose entries changed. */
void engine_node_touch_dir(struct engine_txn *t, struct engine_node *node);
void engine_attr(uint64_t ino, const struct record_inode *inode, struct meta_attr *out);
/* Frees all that an inode without links and users has. */
int engine_inode_purge(struct engine_txn *t, struct engine_node *node);
/* Takes one name away; the inode may be left without links (then it is sustained, or, with
 * `purge`, gone). */
int engine_name_remove(struct engine_txn *t, struct engine_node *parent, const void *name,
                       size_t len, struct engine_node *node, bool purge);
int engine_name_check(const struct meta_name *name);
/* The first name of a file becomes another one, which is free, in the same directory. */
int engine_name_change(struct engine_txn *t, struct engine_node *parent, struct engine_node *node,
                       const struct meta_name *name);

int engine_apply_mknod(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_link(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_unlink(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_rename(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_drop(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* engine_attrs.c */

/* Clears setuid, and setgid where it means that. */
void engine_kill_suid(struct engine_node *node);
int engine_apply_format(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_setattr(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
/* Access control lists (engine_acl.c): attributes of these names are validated, and the mode
 * follows them. */
bool engine_acl_is_name(const struct meta_name *name);
/* -EINVAL: not a list. */
int engine_acl_set(struct engine_txn *t, struct engine_node *node, const struct meta_op *op);
/* What is not there may be removed. */
int engine_acl_remove(struct engine_txn *t, struct engine_node *node, const struct meta_name *name);
/* The list follows a mode that was set. */
int engine_acl_chmod(struct engine_txn *t, struct engine_node *node);
/* What a new inode has from its directory's default list, or else the mode without `umask`. */
int engine_acl_inherit(struct engine_txn *t, const struct engine_node *parent, uint32_t umask,
                       struct engine_node *node);

int engine_apply_setxattr(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_removexattr(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply);

/* engine_extents.c */

/* The list of extents of a file while it is edited. Ranges must be edited in ascending order of
 * their start. */
struct engine_edit {
    struct engine_txn *t;
    struct engine_node *node;
    struct meta_extent *old, *now; /* ascending; `old`: as loaded */
    size_t old_count, old_cap, now_count, now_cap;
    uint64_t covered; /* all extents that begin below it are loaded */
    bool whole;       /* all of them are */
};
int engine_edit_begin(struct engine_edit *edit, struct engine_txn *t, struct engine_node *node);
/* Puts `extent` (with kind HOLE: nothing) in place of what was in its range. */
int engine_edit_replace(struct engine_edit *edit, const struct meta_extent *extent);
/* Loads all: ranges may then be edited in any order. Before the first edit. */
int engine_edit_load_all(struct engine_edit *edit);
/* Drops all from `offset` on. */
int engine_edit_cut(struct engine_edit *edit, uint64_t offset);
/* Ends the edit with one whole object as all of the content, even if it is empty. */
int engine_edit_whole_object(struct engine_edit *edit, uint64_t object, uint64_t size);
/* Writes what changed: extents, references, the inode's body. */
int engine_edit_end(struct engine_edit *edit);
/* All extents of a range, clipped to it, ascending; in the arena. */
int engine_extents_load(struct engine *engine, const rocksdb_snapshot_t *snapshot, uint64_t ino,
                        const struct record_inode *inode, uint64_t offset, uint64_t end,
                        struct arena *arena, struct meta_extent **out, size_t *count);
/* Size and content change together with their consequences: usage, times, versions, settle. */
int engine_content_changed(struct engine_txn *t, struct engine_node *node, uint64_t size);
int engine_truncate(struct engine_txn *t, struct engine_node *node, uint64_t size);

int engine_apply_commit(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_clone(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_punch(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* engine_objects.c */

int engine_object_get(struct engine_txn *t, uint64_t id, struct record_object *out);
int engine_object_put(struct engine_txn *t, uint64_t id, const struct record_object *object);
void engine_object_export(uint64_t id, const struct record_object *object, struct meta_object *out);
/* References change; at 0 a live object becomes garbage. */
int engine_object_ref(struct engine_txn *t, uint64_t id, int64_t delta, uint64_t ino);
/* A reserved object was written: it is live, with the size and ETag of `written`. */
int engine_object_written(struct engine_txn *t, const struct meta_object *written, uint64_t ino,
                          struct record_object *object);
/* Somebody else replaced or deleted what is at its key: the key is not its any more. */
int engine_object_lost(struct engine_txn *t, uint64_t id);
/* `ino` references the object too. */
int engine_object_share(struct engine_txn *t, uint64_t id, uint64_t ino);
/* Into the gc queue. */
int engine_object_discard(struct engine_txn *t, uint64_t id, struct record_object *object);
/* Moves it in the gc queue; due_ns 0: out of it, but still garbage. */
int engine_object_requeue(struct engine_txn *t, uint64_t id, struct record_object *object,
                          uint64_t due_ns);
/* Its record, key and queue entries are gone. */
int engine_object_forget(struct engine_txn *t, uint64_t id, const struct record_object *object);
/* The object that holds a key: its id, or 0. */
int engine_key_holder(struct engine_txn *t, const char *key, size_t len, uint64_t *id);
int engine_key_put(struct engine_txn *t, const char *key, size_t len, uint64_t id);
int engine_key_delete(struct engine_txn *t, const char *key, size_t len);
/* The natural key of a file: 1 and its length in *len; 0 if it must have an internal one. `key` has
 * META_KEY_MAX + 1 bytes. */
int engine_key_natural(struct engine_txn *t, struct engine_node *node, char *key, size_t *len);
/* The same, and the storage class that its directory wants for it: "" if any. */
int engine_key_and_class(struct engine_txn *t, struct engine_node *node, char *key, size_t *len,
                         char class[META_CLASS_MAX + 1]);
/* Whether a natural key that no object of ours holds may be written: 1 or 0. */
int engine_key_free(struct engine_txn *t, struct engine_node *node, const char *key, size_t len);
/* 1 and the object if a key of ours begins with the prefix. */
int engine_key_below(struct engine_txn *t, const char *prefix, size_t len, uint64_t *id);
/* 1 if a directory that is not above `node` owns what lies at its natural key. */
int engine_key_claimed(struct engine_txn *t, struct engine_node *node, const char *key, size_t len);
/* 1 and the object if one of ours stands where the store cannot have both: at a path above the key,
 * or below it. */
int engine_key_neighbour(struct engine_txn *t, const char *key, size_t len, uint64_t *id);
/* The directory that claims a prefix, or 0. */
int engine_claim_get(struct engine_txn *t, const char *prefix, size_t len, uint64_t *ino);
/* A new reserved object at a key; key NULL: an internal one. */
int engine_object_reserve(struct engine_txn *t, struct engine_node *node, const char *key,
                          size_t len, uint64_t *id, struct record_object *out);

int engine_apply_reserve(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_abandon(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_gc_done(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);
int engine_apply_gc_retry(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* engine_queue.c */

/* Puts a file (or the subtree of a directory) into the queue if it is not there. */
int engine_settle_queue(struct engine_txn *t, struct engine_node *node, uint64_t due_ns);
int engine_settle_unqueue(struct engine_txn *t, struct engine_node *node);
/* After a change of content or name: queue it, or find that it is settled. */
int engine_settle_changed(struct engine_txn *t, struct engine_node *node);
/* Moves it in the queue (or puts it there), with the reason why it is not settled. */
int engine_settle_requeue(struct engine_txn *t, struct engine_node *node, uint64_t due_ns,
                          const char *reason, size_t reason_len);
uint64_t engine_settle_delay_ns(const struct engine *engine);
/* Whether a file is one object at its desired key: 1 or 0. */
int engine_settle_is_done(struct engine_txn *t, struct engine_node *node);
/* Whether all of a file is one whole object that is still there: 1 and the object, or 0. */
int engine_one_object(struct engine_txn *t, const struct engine_node *node,
                      struct record_object *object);
/* Forgets a recorded step; its object becomes garbage. */
int engine_settle_abandon(struct engine_txn *t, struct engine_node *node);
/* The recorded step of a file, -ENOENT. */
int engine_step_get(struct engine_txn *t, const struct engine_node *node, struct record_step *out);
int engine_step_put(struct engine_txn *t, struct engine_node *node, const struct record_step *step);
int engine_step_drop(struct engine_txn *t, struct engine_node *node);

/* engine_class.c */

/* Whether an object has the class that is wished ("": any), and is not being given one. */
bool engine_class_is_as_wished(const struct record_object *object, const char *wish);
/* Records the step that gives a file's object another class: 1, `step` and the object; 0 if that is
 * not what it needs. */
int engine_class_step(struct engine_txn *t, struct engine_node *node, struct record_step *step,
                      struct record_object *object);
int engine_apply_class_done(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply);

/* engine_late.c */

/* An object is being forgotten. */
int engine_late_note(struct engine_txn *t, uint64_t id, const struct record_object *object);
/* Whether such a one may yet appear at a key: 1 and its id, or 0. */
int engine_late_at(struct engine_txn *t, const char *key, size_t len, uint64_t *id);
/* At any key that begins so (in another store, a whole route at least): 1, 0. */
int engine_late_below(struct engine_txn *t, const char *prefix, size_t len);
int engine_apply_late(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* engine_settle.c */

int engine_apply_settle_begin(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply);
int engine_apply_settle_done(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply);
int engine_apply_settle_retry(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply);
int engine_apply_settle_subtree(struct engine_txn *t, const struct meta_op *op,
                                struct meta_reply *reply);
int engine_apply_settle_hurry(struct engine_txn *t, const struct meta_op *op,
                              struct meta_reply *reply);

/* engine_xattr.c */

int engine_read_virtual_xattr(struct engine *engine, const struct meta_op *op,
                              struct meta_reply *reply);

/* engine_carry.c */

/* What the bucket carries of the inode may be out of date. */
int engine_carry_queue(struct engine_txn *t, struct engine_node *node);
/* The same, if the bucket carries anything of it. */
int engine_carry_changed(struct engine_txn *t, struct engine_node *node);
/* A file became one object that says `same_attributes` as the inode. */
int engine_carry_settled(struct engine_txn *t, struct engine_node *node, bool same_attributes);
/* The inode is about to go. */
int engine_carry_purge(struct engine_txn *t, struct engine_node *node);
int engine_apply_carry_begin(struct engine_txn *t, const struct meta_op *op,
                             struct meta_reply *reply);
int engine_apply_carry_done(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply);

/* engine_origin.c */

/* Notes that a directory's entries come from a prefix, and claims it. */
int engine_origin_set(struct engine_txn *t, struct engine_node *dir, const char *prefix,
                      size_t len);
/* Forgets origin and claim of a directory. */
int engine_origin_drop(struct engine_txn *t, struct engine_node *dir);
int engine_origin_prefix(struct engine_txn *t, uint64_t ino, const char **prefix, size_t *len);
/* Of a directory with an origin: the marker that its listing shows, NULL: none. */
int engine_origin_marker(struct engine_txn *t, struct engine_node *dir,
                         const struct meta_object *seen);
/* The directory is not at its origin any more: its marker there, if it has one, is garbage. */
int engine_origin_marker_discard(struct engine_txn *t, struct engine_node *dir);
/* 1, or 0: a natural place that can be imported and is claimed by nobody else. */
int engine_origin_at_home(struct engine_txn *t, struct engine_node *dir);

/* engine_import.c */

int engine_apply_import_dir(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply);
int engine_apply_import_one(struct engine_txn *t, const struct meta_op *op,
                            struct meta_reply *reply);
int engine_apply_outside(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* Somebody else's object at `key` becomes the file e->name, which is free, of a directory. */
int engine_import_file(struct engine_txn *t, struct engine_node *dir, const struct meta_entry *e,
                       const char *key, size_t len, struct engine_node **out);

/* engine_conflict.c */

/* A file whose natural key holds somebody else's object gives its name to that, and gets one beside
 * it. Nothing of ours holds the key. */
int engine_conflict_part(struct engine_txn *t, struct engine_node *node,
                         const struct meta_entry *theirs, const char *key, size_t len,
                         struct meta_reply *reply);
int engine_apply_conflict(struct engine_txn *t, const struct meta_op *op, struct meta_reply *reply);

/* engine_session.c */

/* At open: which sessions there are. */
int engine_sessions_load(struct engine *engine);
void engine_sessions_free(struct engine *engine);
/* Before a change of a session: 0: apply it; 1: it was applied before, and `reply` is its answer of
 * then; -ESTALE: the session has ended; -errno. */
int engine_session_check(struct engine *engine, const struct meta_op *op, struct meta_reply *reply);
/* Keeps the answer, in the same batch as the change. */
int engine_session_keep(struct engine_txn *t, const struct meta_op *op,
                        const struct meta_reply *reply);
/* After the commit of BEGIN or END. */
void engine_session_note(struct engine *engine, const struct meta_op *op);
int engine_apply_session_begin(struct engine_txn *t, const struct meta_op *op);
int engine_apply_session_end(struct engine_txn *t, const struct meta_op *op);

/* engine_read.c */

int engine_read_dispatch(struct engine *engine, const struct meta_op *op, uint64_t import_ttl_ns,
                         struct meta_reply *reply);

int engine_read_inode(struct engine *engine, uint64_t ino, struct record_inode *out,
                      uint8_t room[ENGINE_RECORD_MAX]);
/* Is `ino` at or below `top`? 1, 0 or -errno. */
int engine_read_below(struct engine *engine, uint64_t ino, uint64_t top);

#endif
