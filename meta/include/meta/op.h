/*
 * What can be asked of a namespace: one struct for each operation, one for its answer. The state
 * machine (meta/engine.h), the volume (meta/meta.h), and later the wire protocol and the replicated
 * log all speak these.
 *
 * Operations that change something are deterministic: given the same operations with the same
 * `time_ns` in the same order, two databases are equal byte for byte. Names are 1..255 bytes
 * without '/' and NUL, and not "." or "..". Offsets, sizes: bytes. Times: ns since 1970.
 */
#ifndef SLUICE_META_OP_H
#define SLUICE_META_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define META_ROOT_INO 1
#define META_NAME_MAX 255
#define META_SYMLINK_MAX 4095
#define META_XATTR_NAME_MAX 255
#define META_XATTR_VALUE_MAX 65536
#define META_LINK_MAX 65000
#define META_KEY_MAX 1024
#define META_ETAG_MAX 100
#define META_CLASS_MAX 31        /* of a storage class's name */
#define META_GONE_MAX (1u << 16) /* contents of one change of which is told that they are gone */
/* Then the time: what a file is called whose name went to somebody else's object. */
#define META_CONFLICT_SUFFIX ".sluice-conflict-"
#define META_SESSION_WINDOW 1024
#define META_SESSION_RECORD_MAX 4096

struct meta_attr {
    uint64_t ino;
    uint32_t mode; /* type and permissions */
    uint32_t uid, gid, nlink;
    uint64_t rdev; /* as in struct stat */
    uint64_t size;
    uint64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    uint64_t data_version; /* steps with each change of the content */
    uint64_t meta_version; /* steps with each change of the inode */
    bool has_xattr;        /* false: there is surely none */
    bool listed;           /* directory: the bucket's listing says what is in it (not of a volume of
                              a service) */
};

struct meta_name {
    const char *bytes; /* not NUL-terminated */
    size_t len;
};

/* The kinds up to META_LAST_READ change nothing. */
enum meta_kind {
    META_LOOKUP = 1, /* parent, name → attr */
    META_GETATTR,    /* ino → attr */
    META_READDIR,    /* ino, name (list after it; len 0: from the start), count, plus → entries */
    META_READLINK,   /* ino → data */
    META_GETXATTR,   /* ino, name → data */
    META_LISTXATTR,  /* ino → data: names, each ended by NUL */
    META_EXTENTS, /* ino, offset, length → attr, extents (clipped to the range, ascending; gaps are
                     holes), objects they use */
    META_USAGE, /* ino of a directory → usage of all below it, the directory itself not counted */
    META_PATH,  /* ino → data: a path below the root without leading '/', of the link that settle
                   uses */
    META_DRIFT, /* ino → drift below (1 = the whole volume) */
    META_OBJECT, /* object → objects[0] */
    META_QUOTA,  /* ino of a directory, flags: none = its own limits; META_QUOTA_ABOVE = its own and
                    those above it, nearest first (any inode); META_QUOTA_BELOW = at and below it,
                    by ino → quotas (at most 10,000) */
    META_LAST_READ = 31,

    META_MKNOD, /* parent, name, attr.{mode,uid,gid,rdev}, [data = symlink target] → attr. flags
                   META_NAMELESS: a regular file without a name (O_TMPFILE), sustained until
                   META_DROP. valid: bits that mode does not get (a umask that the caller has not
                   applied); a directory with a default access control list gives that in its place
                 */
    META_LINK, /* ino, parent, name → attr. What was made nameless may get its first name so; what
                  lost its last one may not (-ENOENT) */
    META_UNLINK, /* parent, name → attr after (nlink 0: sustained until META_DROP). flags
                    META_RMDIR: a directory, must be empty */
    META_RENAME, /* parent, name, new_parent, new_name, flags (RENAME_NOREPLACE | RENAME_EXCHANGE) →
                    attr of what moved, replaced (ino 0 if none) */
    META_SETATTR,  /* ino, valid, attr → attr. Setting the size cuts or extends with a hole */
    META_SETXATTR, /* ino, name, data, flags (XATTR_CREATE | XATTR_REPLACE), valid (META_KILL_SGID,
                      if it is an access control list) */
    META_REMOVEXATTR, /* ino, name */
    META_DROP,    /* inos[]: unlinked inodes that nobody uses any more; others in the list are left
                     alone */
    META_RESERVE, /* ino, flags META_INTERNAL_KEY → objects[0]: a new object (state RESERVED) and
                     the key it is to be written to */
    META_ABANDON, /* object: a reserved one that will not be committed; goes to gc. flags
                     META_NOT_WRITTEN: the store surely has nothing of it, so it is forgotten */
    META_COMMIT,  /* ino, written objects[], extents[], attr.{size,mtime_ns}, valid (META_SET_SIZE,
                     META_SET_MTIME, META_KILL_SUID), flags META_REPLACE → attr. Each extent replaces
                     what was in its range, in any order, but they must not overlap (-EINVAL); with
                     META_REPLACE all else is dropped. One batch. Objects become LIVE, or garbage if
                     no extent uses them; -ESTALE if one is not reserved any more. An unlinked inode
                     accepts it while it is sustained */
    META_CLONE, /* ino, offset, length → new_ino, new_offset: shares extents (copy_file_range) →
                   attr of the target */
    META_PUNCH, /* ino, offset, length: a hole; size unchanged unless META_SET_SIZE → attr */

    META_QUOTA_SET, /* ino of a directory, valid: META_QUOTA_BYTES, META_QUOTA_INODES; offset = the
                       most bytes, length = the most inodes below it (META_QUOTA_NONE: no limit) →
                       attr. What is over a limit stays, but may not grow */

    META_FORMAT = 64, /* settings of a new volume; only on an empty database */
    META_IMPORT_DIR,  /* ino, entries[] of one listing page, name = entries are complete from after
                         it (len 0: the start) up to new_name (len 0: the end), by the order of the
                         names; flags META_IMPORT_LAST → attr of the directory, entries: names that
                         were removed, with their inodes (nlink 0: to be dropped when unused).
                         data (may be NULL): the prefix that was asked for. -ESTALE: the directory
                         comes from another one now, of which the answer says nothing.
                         attr.mtime_ns (0: not known): when it was asked for; it says nothing of what
                         we have written since. objects[0]: the marker of the directory (size, time,
                         ETag); a last page up to the end without it: there is none. Entries with ino
                         0 in the answer are files of the  page  that were left as they were: only
                         their tags can say whose they are  (LATE),  then IMPORT_ONE with
                         META_IMPORT_LOOKED */
    META_IMPORT_ONE,  /* parent, name, entries[0] or none (the key does not exist): one looked-up
                         name → attr (ino 0: nothing there). data, attr.mtime_ns: as with
                         IMPORT_DIR */
    META_OUTSIDE, /* object, entries[0] or none: the object was replaced or deleted by somebody else
                     → attr of the file, end: it is as the bucket has it now. If it was not as it
                     was imported or settled, it keeps what it has, and what is in the bucket gets
                     its name, as with CONFLICT. -ESTALE: it is known already */
    META_SETTLE_BEGIN, /* ino: plans and records the step that brings the file nearer to its desired
                          key → settle */
    META_SETTLE_DONE, /* settle (as begun), written objects[0] → end = swapped, or false: the file
                         changed meanwhile and the new object went to gc */
    META_SETTLE_RETRY,   /* ino, attr.mtime_ns = time of the next try; data = reason for status */
    META_SETTLE_SUBTREE, /* ino of a directory from the queue: moves up to count files below it to
                            the queue → end when it is empty */
    META_GC_DONE,        /* inos[] holds object ids that are gone from the store */
    META_GC_RETRY,       /* object, attr.mtime_ns = time of the next try */
    META_SETTLE_HURRY,   /* ino: what is unsettled at or below it is due now, quiet or not */
    META_CARRY_BEGIN,    /* ino: the bucket may have an entry of it from now on → end = it may be
                            written; false: the path cannot be in the bucket */
    META_CARRY_DONE, /* ino, length = stamp of the row that was worked on, flags META_NOT_WRITTEN:
                        the bucket has no entry of it */

    META_STORE_SET,   /* length = number, store: another store is known by this number, or what is
                         known   of it changes. With ino, an empty directory: it is attached there */
    META_STORE_DROP,  /* length = number: forgotten, if nothing is there: -EBUSY */
    META_STORE_PLACE, /* ino of a directory, length = number (0: the volume's own), flags
                         META_PLACE_PAUSED, META_PLACE_NONE: files below it have their keys in this
                         store from now on, at their paths below its prefix → attr. offset: only
                         those that were not changed for so many seconds, as of when settle looks;
                         META_PLACE_LOOK changes nothing, and has it look. With data, the name of a
                         storage class: their keys stay, and their objects get that (length is 0) */
    META_STORE_EMPTY, /* length = number, count: forgets up to so many names below the directory
                         that the store is attached at, and leaves their objects in the store →
                         entries as in IMPORT_DIR; end = nothing is left */

    META_CONFLICT, /* ino, object = target of its settle step, entries[0]: somebody else's object is
                      at the file's key. Both are kept: theirs gets the name, ours one beside it →
                      end = so it was done (false: the file has changed meanwhile); attr of ours,
                      replaced = attr of theirs, parent = attr of the directory, entries: the names
                      that changed */

    META_CLASS_DONE, /* object, new_ino = number of its change, entries[0] (size, etag): what stands
                        at its key is the copy that was recorded → end = the object is that now.
                        ino, length = settle.change: the step that wrote it is over */

    META_LATE, /* object, data = key: what stands there says by its tags that it is this object of
                  ours, of which there is no record → end = it was written after gc had done with
                  it; if nobody else holds the key, gc gets it again */

    META_SESSION_BEGIN = 120, /* session, data = its record: may apply from now on */
    META_SESSION_END,         /* session: its later operations are refused; kept answers are gone */
};

/* flags (those of RENAME_ and XATTR_ keep their Linux values) */
enum {
    META_RMDIR = 1 << 8,
    META_INTERNAL_KEY = 1 << 9, /* RESERVE: not at the natural key, even if that is free */
    META_REPLACE = 1 << 10,
    META_IMPORT_LAST = 1 << 11, /* the listing is complete with this page. (Names in a page's range
                                   that it did not show are gone, with or without it) */
    META_IMPORT_OLD = 1 << 20,  /* IMPORT_DIR and _ONE: the bucket was so at attr.mtime_ns, maybe
                                   long ago. Names that are known stay, new ones come where nothing
                                   was listed or changed here since; with LAST the directory is as
                                   if listed then */
    META_IMPORT_LOOKED = 1 << 21, /* IMPORT_ONE: by its tags the object is nothing late of ours */
    META_NOT_WRITTEN = 1 << 12,   /* ABANDON, CARRY_DONE */
    META_ACCEPTED = 1 << 13,    /* COMMIT: the bytes were accepted from the application before: they
                                   count, but no quota refuses them now */
    META_QUOTA_ABOVE = 1 << 14, /* QUOTA */
    META_QUOTA_BELOW = 1 << 15, /* QUOTA */
    META_NAMELESS = 1 << 16,    /* MKNOD */
    META_APPLYING = 1 << 19,    /* EXTENTS: of a service: who asks must know before he can confirm
                                   what others changed: unconfirmed changes are not waited for */
    META_OPENING = 1 << 18,     /* GETATTR: who asks will read; if the service must be asked, it is
                                   EXTENTS of the whole file instead, and of that kind afterwards */
    META_PLACE_PAUSED = 1 << 17, /* STORE_PLACE: what is not there yet stays where it is */
    META_PLACE_NONE = 1 << 18,   /* STORE_PLACE: as the directory above it again */
    META_PLACE_LOOK = 1 << 19,   /* STORE_PLACE: some may have become old enough */
};

/* valid */
enum {
    META_SET_MODE = 1 << 0,
    META_SET_UID = 1 << 1,
    META_SET_GID = 1 << 2,
    META_SET_SIZE = 1 << 3,
    META_SET_ATIME = 1 << 4,
    META_SET_MTIME = 1 << 5,
    META_SET_CTIME = 1 << 6,    /* otherwise ctime = time of the operation */
    META_KILL_SUID = 1 << 7,    /* clear setuid, and setgid if group-executable */
    META_ATIME_NOW = 1 << 8,    /* with SET_ATIME: the time of the operation, not attr's */
    META_MTIME_NOW = 1 << 9,    /* with SET_MTIME, likewise */
    META_QUOTA_BYTES = 1 << 10, /* QUOTA_SET */
    META_QUOTA_INODES = 1 << 11,
    META_SET_HELD = 1 << 12, /* SETATTR, alone: a file whose bytes a mount has, and nobody else: it
                                has no place in the bucket for now … */
    META_CLEAR_HELD = 1 << 13, /* … and now it has, like any other */
    META_KILL_SGID = 1 << 14,  /* SETXATTR: clear setgid */
};

enum meta_extent_kind {
    META_EXTENT_OBJECT = 1,
    META_EXTENT_INLINE = 2,
    META_EXTENT_HOLE = 3 /* in COMMIT only */
};

struct meta_extent {
    enum meta_extent_kind kind;
    uint64_t offset, length; /* in the file */
    uint64_t object, object_offset;
    const void *data; /* INLINE: length bytes */
};

enum meta_object_state {
    META_OBJECT_RESERVED = 1, /* its key may be written at any time; not referenced */
    META_OBJECT_LIVE,
    META_OBJECT_GARBAGE, /* unreferenced, waits for gc. Without an ETag it is not known whether it
                            was ever written: ask the store whose the object at its key is before
                            deleting it */
};

struct meta_object {
    uint64_t id;
    enum meta_object_state state;
    bool foreign;               /* imported: was not written by this volume */
    char key[META_KEY_MAX + 1]; /* whole key in the bucket, with the volume's prefix */
    uint64_t size;
    uint64_t mtime_ns; /* foreign: Last-Modified */
    char etag[META_ETAG_MAX];
    uint64_t cid; /* content id: the id of the object these bytes were first written as; survives
                     server-side copies */
    uint32_t refs;
    /* A copy of it in another storage class may have taken its place at its key: one whose tag of
     * the change is this number, or a later one. 0: none. Not told to mounts of a service. */
    uint64_t changing;
};

struct meta_entry {
    const char *name;
    size_t name_len;
    uint64_t ino;
    struct meta_attr attr; /* with plus; else only mode's type bits */
    /* Import: the size, time and ETag of the key; is_dir for a common prefix or marker. Mode, owner
     * and times come from attr if has_attr (user metadata). */
    bool is_dir, has_attr;
    uint64_t mtime_ns, size;
    char etag[META_ETAG_MAX];
};

struct meta_usage {
    uint64_t bytes, files, directories; /* files: every link of everything that is no directory */
};

/* Limits of a directory, and what counts against them: all below it, itself not counted. */
#define META_QUOTA_NONE UINT64_MAX
struct meta_quota {
    uint64_t ino, max_bytes, max_inodes;
    struct meta_usage usage;
    uint64_t reserved_bytes; /* accepted from applications, but not committed yet */
};

struct meta_drift {
    uint64_t files, bytes, oldest_ns; /* files that are not one object at their desired key */
    uint64_t garbage_objects, garbage_bytes;
};

enum meta_settle_action {
    META_SETTLE_NOTHING = 0, /* settled, gone, busy or not due */
    META_SETTLE_UPLOAD,      /* all bytes are inline: PUT them */
    META_SETTLE_COPY,        /* one extent, one whole object: server-side copy */
    META_SETTLE_JOIN,        /* several extents: multipart upload of copied and uploaded parts */
    META_SETTLE_CLASS, /* the object stays what it is and where it is: it is replaced by a copy
                          of itself in another storage class */
};

struct meta_settle {
    enum meta_settle_action action;
    uint64_t ino, data_version, size;
    struct meta_object target; /* reserved */
    bool target_is_natural;    /* else an internal key on the way there */
    bool resumed; /* recorded by an earlier try, maybe of a process that was killed: an upload of it
                     may be left */
    bool replaces; /* our own old object at the natural key, unreferenced and recorded: write with
                      If-Match on old_etag */
    char old_etag[META_ETAG_MAX];
    struct meta_attr attr; /* for the user metadata */
    /* CLASS: `target` is the file's own object. */
    uint64_t change; /* number of the change: a tag, and a reserved object of its own for uploads */
    char storage_class[META_CLASS_MAX + 1];
};

struct meta_volume {
    char id[33];                   /* 128 random bits in hex: given by who formats */
    char store[512];               /* name of the store, to refuse another bucket later */
    char prefix[META_KEY_MAX + 1]; /* "" or ends in '/' */
    uint32_t inline_max;           /* bytes of a file that may be kept inline */
    uint32_t settle_delay_ms;
    uint32_t gc_delay_ms; /* an object is deleted so long after its last reference went */
    uint32_t root_mode, root_uid, root_gid;
    bool file_beside_directory; /* of the store's caps */
    char staging[1024];         /* patterns (fnmatch) of path components, separated by ':' */
};

/* Another store than the volume's own (number 0). Keys there are "/NUMBER/KEY" in all that speaks
 * of keys (s3/mux.h). */
#define META_STORES_MAX 63
#define META_STORE_NAME_MAX 63
#define META_STORE_TEXT_MAX 2047
struct meta_store {
    uint32_t number;
    char name[META_STORE_NAME_MAX + 1];    /* letters, digits, '-', '_', '.' */
    char url[META_STORE_TEXT_MAX + 1];     /* "s3://bucket/prefix/", "file:///dir" */
    char options[META_STORE_TEXT_MAX + 1]; /* JSON: how it is reached. No secrets */
    char prefix[META_KEY_MAX + 1];         /* in its bucket: "" or ends in '/' */
    uint64_t root;                         /* the directory it was attached at; 0: none */
    bool read_only;                        /* nothing is ever written or deleted there */
    bool file_beside_directory;            /* of its abilities */
    bool detaching;                        /* its names are being forgotten */
};

/* What a cache of contents may still believe when a volume is opened. */
struct meta_contents {
    char database[17]; /* names the database: another one gives the same cids to other contents */
    uint64_t next;     /* cids from here on were not given out yet: a power loss may have undone
                          that they were */
};

struct meta_op {
    enum meta_kind kind;
    uint64_t time_ns; /* set by the volume for kinds that change */
    uint64_t ino, parent, new_parent, new_ino;
    struct meta_name name, new_name;
    uint64_t offset, length, new_offset;
    uint32_t flags, valid, count;
    bool plus;
    struct meta_attr attr;
    const void *data;
    size_t data_len;
    const uint64_t *inos;
    size_t ino_count;
    uint64_t object;
    const struct meta_object *objects;
    size_t object_count;
    const struct meta_extent *extents;
    size_t extent_count;
    const struct meta_entry *entries;
    size_t entry_count;
    const struct meta_settle *settle;
    const struct meta_volume *volume;
    const struct meta_store *store;
    /* Who asks (0: nobody of whom is known), and which of its changes this is, counted from 1: a
     * change is applied once, however often it is sent, as long as not META_SESSION_WINDOW later
     * ones were. `retry`: it may have been applied before; then the answer of that time is given.
     * -ESTALE: there is no such session any more. */
    uint64_t session, request;
    bool retry;
};

struct meta_reply {
    struct meta_attr attr, replaced;
    struct meta_attr parent; /* of op->parent, after a name in it was changed; ino 0: not told. Only
                                from a service */
    struct meta_entry *entries;
    size_t entry_count;
    bool whole; /* MKNOD of a directory, READDIR from the start: these are all its names (of a new
                   one: none), and whoever asked is told before others change that. LOOKUP, with
                   -ENOENT: known by such an answer; that this name was asked for is not noted by
                   the service, so the kernel may not keep it. Only from a service */
    bool end;   /* READDIR: no more; SETTLE_SUBTREE: nothing left; SETTLE_DONE: swapped */
    struct meta_extent *extents;
    size_t extent_count;
    struct meta_object *objects;
    size_t object_count;
    const void *data;
    size_t data_len;
    struct meta_usage usage;
    struct meta_quota *quotas;
    size_t quota_count;
    struct meta_drift drift;
    struct meta_settle settle;
    /* READDIR, LOOKUP: the directory (or this name) must be imported first, from this origin
     * prefix. Only between engine and volume. */
    bool need_import;
    void *arena; /* owns what the pointers point to; meta_reply_done */
};

void meta_reply_init(struct meta_reply *reply);
void meta_reply_done(struct meta_reply *reply);
/* Memory that lives until meta_reply_done; NULL without memory. */
void *meta_reply_alloc(struct meta_reply *reply, size_t len);
/* Bytes of that. */
size_t meta_reply_memory(const struct meta_reply *reply);
static inline bool meta_kind_changes(enum meta_kind kind)
{
    return kind > META_LAST_READ;
}
/* "lookup", "rename", … */
const char *meta_kind_name(enum meta_kind kind);

#endif
