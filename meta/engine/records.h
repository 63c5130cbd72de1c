/*
 * The records of the database: what stands in a key and in a value (docs/data-model.md). Keys are
 * big-endian, so that RocksDB's order is the order of numbers; the first byte of a value is the
 * version of its format.
 *
 * Decoders take any bytes: 0, or -EBADMSG without having touched *out beyond repair (its content is
 * undefined then). Pointers in a decoded record point into the input.
 */
#ifndef SLUICE_META_RECORDS_H
#define SLUICE_META_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "meta/op.h"

#define RECORD_KEY_MAX 1040

struct record_key {
    size_t len;
    uint8_t bytes[RECORD_KEY_MAX];
};

void record_key_u64(struct record_key *key, uint64_t a);
void record_key_u64x2(struct record_key *key, uint64_t a, uint64_t b);
/* a, then the bytes: dentry (parent, name), xattr (ino, name). */
void record_key_named(struct record_key *key, uint64_t a, const void *name, size_t len);
/* ino, parent, name */
void record_key_link(struct record_key *key, uint64_t ino, uint64_t parent, const void *name,
                     size_t len);
/* The number of the store that the text is in (0: the volume's own; "/2/a" is "a" in store 2), then
 * the rest: key and claim. */
void record_key_store(struct record_key *key, const void *bytes, size_t len);
/* A letter of enum record_work, then one or two numbers. */
void record_key_work(struct record_key *key, uint8_t kind, uint64_t a);
void record_key_work2(struct record_key *key, uint8_t kind, uint64_t a, uint64_t b);
/* RECORD_WORK_LATE_KEY, then as record_key_store. At most META_KEY_MAX bytes. */
void record_key_late(struct record_key *key, const void *bytes, size_t len);
void record_key_text(struct record_key *key, const char *text);
/* RECORD_QUOTA_PREFIX, then the number, in the system column family. */
void record_key_quota(struct record_key *key, uint64_t ino);
/* RECORD_STORE_PREFIX or RECORD_PLACE_PREFIX, then the number, in the system column family. */
void record_key_store_row(struct record_key *key, uint64_t number);
void record_key_place(struct record_key *key, uint64_t ino);
/* The first key after all that begin with `key`: 0, or -ENOENT if there is none. */
int record_key_next_prefix(struct record_key *key);
uint64_t record_get_u64(const uint8_t *bytes);

/* Kinds of records in the work column family. */
enum record_work {
    RECORD_WORK_CARRY = 'E',    /* ino → struct record_carry */
    RECORD_WORK_GC = 'G',       /* due, object → nothing */
    RECORD_WORK_LATE = 'L',     /* slot → struct record_late */
    RECORD_WORK_LATE_KEY = 'M', /* store and key → the same, without the key */
    RECORD_WORK_RESERVED = 'R', /* object → nothing */
    RECORD_WORK_SETTLE = 'S',   /* due, ino → struct record_queue */
    RECORD_WORK_STEP = 'T',     /* ino → struct record_step */
    RECORD_WORK_CURSOR = 'V',   /* ino of a directory → name: how far its subtree was queued */
};

/* Where the bytes of a regular file are. */
enum record_body {
    RECORD_BODY_EMPTY = 0,  /* nowhere: size is 0 or all is a hole */
    RECORD_BODY_OBJECT = 1, /* one extent at offset 0, in this record */
    RECORD_BODY_INLINE = 2, /* one inline extent at offset 0, in the extent column family */
    RECORD_BODY_MANY = 3,   /* in the extent column family */
};

enum record_inode_flag {
    RECORD_HAS_STEP = 1 << 0,  /* a settle step is recorded */
    RECORD_EVICT = 1 << 1,     /* its object stands in another file's place: leave that key */
    RECORD_HURRY = 1 << 2,     /* settle without waiting for quiet */
    RECORD_ORIGIN = 1 << 3,    /* directory: has a record in origin */
    RECORD_SUSTAINED = 1 << 4, /* unlinked, until META_DROP */
    RECORD_TOUCHED = 1 << 5,   /* directory: names were made or removed here */
    RECORD_QUOTA = 1 << 6,     /* directory: has a record of its limits */
    RECORD_CARRIED = 1 << 7,   /* there may be an entry of it in the bucket */
    RECORD_CARRY_DUE = 1 << 8, /* has a row of RECORD_WORK_CARRY */
    RECORD_PLACE = 1 << 10,    /* directory: has a record of its store */
    RECORD_NAMELESS = 1 << 9,  /* sustained, but was never unlinked: may get a name */
    RECORD_HELD = 1 << 12,     /* its bytes are with a mount: has no natural key for now */
};

struct record_inode {
    uint32_t mode, uid, gid, nlink;
    uint64_t rdev, size;
    uint64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    uint64_t data_version, meta_version;
    uint32_t flags, xattrs;
    uint64_t due_ns;     /* its place in the settle queue; 0: not queued */
    uint64_t changed_ns; /* last change of content or name, for settle_delay */
    /* The first link: what settle goes by. parent 0: none. */
    uint64_t parent;
    uint16_t name_len;
    uint8_t name[META_NAME_MAX];
    /* Regular files. */
    enum record_body body;
    uint64_t extents; /* number of records in the extent column family */
    uint64_t object, object_offset, object_length; /* RECORD_BODY_OBJECT */
    /* Directories. */
    uint64_t children;
    uint64_t listed_ns; /* origin: last complete listing */
    struct meta_usage usage;
    /* Symbolic links; not owned. */
    const uint8_t *target;
    uint16_t target_len;
};
void record_inode_encode(struct buf *b, const struct record_inode *inode);
int record_inode_decode(const void *data, size_t len, struct record_inode *out);

struct record_dentry {
    uint64_t ino;
    uint32_t type; /* S_IFMT bits of the mode */
};
#define RECORD_DENTRY_LEN 10
void record_dentry_encode(uint8_t out[RECORD_DENTRY_LEN], const struct record_dentry *dentry);
int record_dentry_decode(const void *data, size_t len, struct record_dentry *out);

/* Offset is in the key. */
void record_extent_encode(struct buf *b, const struct meta_extent *extent);
int record_extent_decode(const void *data, size_t len, struct meta_extent *out);

/* Names do not live in struct meta_object's fixed room here. */
struct record_object {
    enum meta_object_state state;
    bool foreign, natural; /* natural: the key was some file's natural one when it was given */
    bool shared;           /* rows (object, ino) say who else may reference it */
    bool lost;             /* somebody else replaced or deleted what is at its key */
    uint32_t refs;         /* extents that reference it */
    uint64_t size, mtime_ns, cid;
    uint64_t ino;    /* who it was reserved for, or who references it */
    uint64_t due_ns; /* its place in the gc queue; 0: not queued */
    /* Our garbage that stands (or stood) at the same key, which waits for this one: settle
     * overwrites it. 0: none. */
    uint64_t replaces;
    const char *key; /* in the bucket; not NUL-terminated */
    size_t key_len;
    const char *etag;
    size_t etag_len;
    /* Its storage class, if it was given one by settle, and that which it is being given:
     * `changing` is the first change of this (struct meta_object), 0: none. */
    uint64_t changing;
    const char *class, *next_class;
    size_t class_len, next_class_len;
};
void record_object_encode(struct buf *b, const struct record_object *object);
int record_object_decode(const void *data, size_t len, struct record_object *out);

struct record_origin {
    const char *prefix;
    size_t prefix_len;
    /* The marker of the directory, an object without bytes whose key is the prefix, as its last
     * listing showed it. No ETag: it showed none. */
    const char *marker_etag;
    size_t marker_etag_len;
    uint64_t marker_mtime_ns;
};
void record_origin_encode(struct buf *b, const struct record_origin *origin);
int record_origin_decode(const void *data, size_t len, struct record_origin *out);

struct record_queue {
    bool subtree;
    uint64_t since_ns;  /* unsettled since */
    const char *reason; /* of the last failure */
    size_t reason_len;
};
#define RECORD_REASON_MAX 200
void record_queue_encode(struct buf *b, const struct record_queue *queue);
int record_queue_decode(const void *data, size_t len, struct record_queue *out);

struct record_carry {
    uint64_t stamp; /* another one with each change */
    uint64_t time_ns;
};
void record_carry_encode(struct buf *b, const struct record_carry *carry);
int record_carry_decode(const void *data, size_t len, struct record_carry *out);

/* An object that was forgotten: a late write may bring it back. */
struct record_late {
    uint64_t object, until_ns;
    const char *key;
    size_t key_len;
};
void record_late_encode(struct buf *b, const struct record_late *late);
int record_late_decode(const void *data, size_t len, struct record_late *out);

struct record_step {
    enum meta_settle_action action;
    uint64_t data_version, target;
    bool natural, replaces;
    uint64_t old_object; /* replaces: whose key the target takes */
    const char *old_etag;
    size_t old_etag_len;
};
void record_step_encode(struct buf *b, const struct record_step *step);
int record_step_decode(const void *data, size_t len, struct record_step *out);

#define RECORD_QUOTA_PREFIX "quota/"
struct record_quota {
    uint64_t max_bytes, max_inodes; /* META_QUOTA_NONE: no limit */
};
void record_quota_encode(struct buf *b, const struct record_quota *quota);
int record_quota_decode(const void *data, size_t len, struct record_quota *out);

#define RECORD_STORE_PREFIX "store/"
void record_store_encode(struct buf *b, const struct meta_store *store);
int record_store_decode(const void *data, size_t len, struct meta_store *out);

/* Where files below a directory have their keys. */
#define RECORD_PLACE_PREFIX "place/"
struct record_place {
    uint64_t store;
    bool attached;                  /* at their paths below this directory; else below the root */
    bool paused;                    /* what is in another store stays there */
    uint64_t after_s;               /* only files that were not changed for so long; 0: all */
    char class[META_CLASS_MAX + 1]; /* "": none. Else it is about the class only: the store is that
                                       of the directory above */
};
#define RECORD_AFTER_MAX (1000ull * 366 * 86400)
void record_place_encode(struct buf *b, const struct record_place *place);
int record_place_decode(const void *data, size_t len, struct record_place *out);

/* The records of a few directories that change with nearly every operation: engine_hot.c. */
#define RECORD_HOT_MAX 8
#define RECORD_HOT_LEN 256
struct record_hot {
    uint64_t ino;
    uint64_t applied; /* the operation that last changed it */
    size_t len;
    uint8_t bytes[RECORD_HOT_LEN]; /* of the inode's record */
};

/* What every operation writes. */
struct record_counters {
    uint64_t next_ino, next_object, applied, inodes;
    uint64_t queued_files, queued_bytes, queued_subtrees;
    uint64_t garbage_objects, garbage_bytes;
    uint64_t last_ns; /* time of the last operation */
    bool markers;     /* there are, or were, origins with markers */
    size_t hot_count;
    struct record_hot hot[RECORD_HOT_MAX]; /* ascending by ino */
};
/* Without markers and hot directories it is as the first version wrote it. */
#define RECORD_COUNTERS_VERSION 3 /* the newest; it stands in the first byte */
void record_counters_encode(struct buf *b, const struct record_counters *counters);
int record_counters_decode(const void *data, size_t len, struct record_counters *out);

#define RECORD_VOLUME_VERSION 1 /* likewise */
void record_volume_encode(struct buf *b, const struct meta_volume *volume);
int record_volume_decode(const void *data, size_t len, struct meta_volume *out);

#endif
