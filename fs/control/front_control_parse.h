/*
 * The text of requests to the control file, and who may do what. Pure functions, any thread;
 * bounded for any input (tests/fuzz/fuzz_control.c).
 */
#ifndef SLUICE_FS_FRONT_CONTROL_PARSE_H
#define SLUICE_FS_FRONT_CONTROL_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "meta/op.h"
#include "meta/stores.h"

struct error;

#define CONTROL_TEXT_MAX 65536 /* bytes of a request */
#define CONTROL_PATH_MAX 4096
#define CONTROL_LIST_DEFAULT 1000
#define CONTROL_LIST_MAX 10000

enum control_op {
    CONTROL_STATUS,
    CONTROL_METRICS,
    CONTROL_REFRESH,
    CONTROL_SETTLE,
    CONTROL_NOTIFY,
    CONTROL_USAGE,
    CONTROL_RENAME,
    CONTROL_REMOVE,
    CONTROL_LIST,
    CONTROL_DRIFT,
    CONTROL_PATH,
    CONTROL_QUOTA_SET,
    CONTROL_QUOTA_GET,
    CONTROL_QUOTA_LIST,
    CONTROL_FLUSH,
    CONTROL_CHECKPOINT,
    CONTROL_CHECK,
    CONTROL_GC,
    CONTROL_IMPORT,
    CONTROL_CACHED,
    CONTROL_EVICT,
    CONTROL_PIN,
    CONTROL_UNPIN,
    CONTROL_CACHE_VERIFY,
    CONTROL_CACHE_CLEAR,
    CONTROL_STORE_ATTACH,
    CONTROL_STORE_DETACH,
    CONTROL_STORE_LIST,
    CONTROL_MIGRATE,
    CONTROL_KEEP,
    CONTROL_LEAVE,
    CONTROL_STAY,
    CONTROL_STOP,
    CONTROL_WAIT,
    CONTROL_ACL_GET,
    CONTROL_ACL_SET,
};

struct control_text {
    char *bytes; /* owned, NUL-terminated */
    size_t len;
};

/* An entry of an access control list, as getfacl(1) writes it. */
struct control_acl_entry {
    bool is_default;
    uint16_t tag, perm; /* meta/acl.h */
    char *name;         /* owned: of a named user or group, or its number; else NULL */
};

struct control_request {
    enum control_op op;
    struct control_text path, to; /* of the volume: names joined by single '/', "" is its root */
    char after[META_NAME_MAX];
    size_t after_len;
    uint64_t ino;
    uint32_t limit;
    uint32_t quota_valid; /* META_QUOTA_BYTES, META_QUOTA_INODES */
    uint64_t max_bytes, max_inodes;
    /* Stores: owned, NULL where not given. */
    char *url, *name, *options, *class;
    char *filter; /* IMPORT, with url and options; owned */
    bool has_path, read_only;
    bool cached, rows;             /* a listing: what the cache has, too; as rows */
    struct control_acl_entry *acl; /* owned */
    size_t acl_count;
    enum meta_migrate migrate;
    uint64_t after_s;    /* of it */
    bool deep;           /* CHECK */
    bool remove, strays; /* GC */
    uint64_t older_than_ms;
};

/* 0, or -EINVAL / -ENOMEM with `error`; *out is filled on success only. */
int control_parse(const char *text, size_t len, struct control_request *out, struct error *error);
void control_request_done(struct control_request *request);
/* The next name of a path: advances *path; len 0 at its end. */
struct meta_name control_path_next(const char **path);
/* The path without its last name, and that name (len 0 for the root). */
void control_path_split(const struct control_text *path, struct control_text *parent,
                        struct meta_name *name);

/* --- Rights: those of who opened the file */
struct control_caller {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* owned */
    size_t group_count;
};
bool control_in_group(const struct control_caller *caller, gid_t gid);
enum { CONTROL_MAY_EXEC = 1, CONTROL_MAY_WRITE = 2, CONTROL_MAY_READ = 4 };
/* Mode bits as the kernel would judge them. */
bool control_may(const struct control_caller *caller, const struct meta_attr *attr, unsigned mask);

#endif
