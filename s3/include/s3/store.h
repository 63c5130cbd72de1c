/*
 * An object store: one interface before S3 endpoints, a local directory (file://), memory (tests),
 * and decorators that retry, hedge, trace or inject faults.
 *
 * Every request is asynchronous. The caller owns a struct store_op (usually embedded in his own
 * request), fills the input fields and submits it; `done` is called exactly once, later, on the
 * loop thread of the store, never from inside store_submit. Until then the op and all that it
 * points to must stay as they are. Outputs are valid in and after `done` until store_op_reset; on
 * failure only `result` and `error` are.
 *
 * Semantics are those of Amazon S3 (API of 2006-03-01), strongly consistent. Keys are 1 to 1,024
 * bytes of UTF-8 without NUL, relative to the store's root: a prefix of the bucket is the caller's
 * business. Sizes and offsets are bytes.
 *
 * Errors (result): -ENOENT no such key, bucket or upload (error.store_code tells) · -EEXIST a
 * condition failed (412: the key is taken, or if_match does not hold; 409 of a concurrent
 * conditional write after retries) · -EACCES rights or credentials · -EINVAL a bad request or reply
 * · -ERANGE a range that begins past the end (416) · -EFBIG larger than the store takes · -ENOTDIR,
 * -EISDIR a file:// store (or a gateway) that cannot have `a` beside `a/b` · -ENAMETOOLONG ·
 * -ENOSPC · -EBADMSG the body has another checksum than the caller said · -EOPNOTSUPP the store
 * lacks it · -ETIMEDOUT past the deadline · -ECANCELED · -EIO
 * everything else, after retries. Never a partial success that looks whole: a GET that ends early,
 * or whose checksum is wrong, is retried and then -EIO.
 */
#ifndef SLUICE_S3_STORE_H
#define SLUICE_S3_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

struct store;

enum store_kind {
    STORE_HEAD,        /* key → info, meta */
    STORE_GET,         /* key, [if_match], range → buf filled, got; info */
    STORE_PUT,         /* key, body, meta, [if_match | if_none_match] → info.etag */
    STORE_DELETE,      /* key, [if_match]; deleting what is not there succeeds */
    STORE_DELETE_MANY, /* keys[] (≤ 1,000) → failed keys in out_list.entries (name; size = errno);
                          result 0 if the request itself succeeded. A key with control characters
                          may fail with EINVAL here and not with DELETE */
    STORE_COPY, /* source_key, [source_if_match], key, meta (replaces) → info.etag. Overwrites:
                   stores ignore conditions here */
    STORE_LIST, /* prefix, delimiter, start_after | token, max_keys → out_list */
    STORE_MPU_CREATE,    /* key, meta → out_upload_id */
    STORE_MPU_PART,      /* key, upload_id, part_number, body → out_part */
    STORE_MPU_PART_COPY, /* key, upload_id, part_number, source_key, [source_if_match], range →
                            out_part */
    STORE_MPU_COMPLETE,  /* key, upload_id, parts[], [if_match | if_none_match]; meta as given to
                            CREATE (to recognise a lost reply) → info.etag */
    STORE_MPU_ABORT,     /* key, upload_id; aborting what is not there succeeds */
    STORE_MPU_LIST, /* prefix, token → out_list: unfinished uploads (name = key, upload_id, mtime =
                       initiated) */
    STORE_KIND_COUNT
};

enum store_priority {
    STORE_DEMAND,     /* a reader or a close waits for it */
    STORE_NORMAL,     /* read-ahead, streamed parts */
    STORE_BACKGROUND, /* settle, gc, listing ahead */
};

/* What a failed try of a backend says about another one. Read by the retry decorator only. */
enum store_retry {
    STORE_RETRY_DEFAULT, /* by the result: -EIO, -EAGAIN, -ETIMEDOUT and -EBUSY are tried again */
    STORE_RETRY_NEVER,
    STORE_RETRY_AGAIN,
    STORE_RETRY_NOW,    /* without delay, once: a kept-alive connection was closed under us */
    STORE_RETRY_SLOWLY, /* the server asks for fewer requests */
};

#define STORE_KEY_MAX 1024
#define STORE_ETAG_MAX 100
#define STORE_UPLOAD_ID_MAX 1024
#define STORE_DELETE_MANY_MAX 1000
#define STORE_LIST_MAX 1000

/* User metadata: name in lower case without "x-amz-meta-", value printable ASCII. 2 KiB in all
 * (S3's limit). */
struct store_meta {
    const char *name, *value;
};

struct store_info {
    uint64_t size;
    uint64_t mtime_ns;         /* Last-Modified: whole seconds on S3 */
    char etag[STORE_ETAG_MAX]; /* without quotes */
    char storage_class[32];
};

/* Some servers give no ETag for objects that were not put through them. Such an object has a weak
 * one, made of its size and time ("~SIZE-SECONDS", hexadecimal): a change that leaves both as they
 * were is not seen. A GET with it as condition is compared with what the reply says; a DELETE has
 * no condition then; a write or a server-side copy with it is refused with -EINVAL. */
#define STORE_ETAG_WEAK '~'
static inline bool store_etag_is_weak(const char *etag)
{
    return etag[0] == STORE_ETAG_WEAK;
}
void store_etag_weak(uint64_t size, uint64_t mtime_ns, char out[STORE_ETAG_MAX]);
/* Whether an object is the one that had this ETag, weak or not. */
bool store_etag_fits(const struct store_info *info, const char *etag);

struct store_part {
    uint32_t number; /* 1..10,000 */
    char etag[STORE_ETAG_MAX];
    char crc32c[12]; /* base64; empty for a copied part */
};

struct store_entry {
    const char *name; /* the whole key, or common prefix with its delimiter */
    uint64_t size, mtime_ns;
    char etag[STORE_ETAG_MAX];
    const char *upload_id; /* MPU_LIST; NULL: it is in etag (it fits there) */
    bool is_prefix;
};

struct store_list {
    struct store_entry *entries; /* bytewise order of names, prefixes among the keys */
    size_t count;
    char *next_token; /* NULL: the listing is complete */
};

struct store_op {
    /* What is asked. Zero what is not used. */
    enum store_kind kind;
    enum store_priority priority;
    uint32_t timeout_ms; /* for all tries together; 0: the store's default */
    const char *key;
    const char *if_match;    /* an ETag without quotes */
    bool if_none_match;      /* only if the key is free */
    uint64_t offset, length; /* range of GET and PART_COPY; GET: length ≤ buf_len, 0 = nothing but
                                info; PART_COPY: length 0 = all */
    void *buf;               /* GET: the bytes go here */
    size_t buf_len;
    const struct iovec *iov; /* the body of PUT and PART: read possibly several times */
    unsigned iov_count;
    bool has_crc32c; /* PART: the caller knows the sum of the body, `crc32c`, and it is not computed
                        again. */
    uint32_t crc32c; /* … A body that does not fit it (its memory was written to meanwhile) ends in
                        -EBADMSG where the store looks, and is not stored */
    const struct store_meta *meta;
    unsigned meta_count;
    const char *content_type;  /* NULL: application/octet-stream */
    const char *storage_class; /* NULL: the store's */
    const char *source_key, *source_if_match;
    const char *upload_id;
    uint32_t part_number;
    bool copied_parts; /* MPU_CREATE and MPU_PART: the upload has, or may get, parts made by
                          PART_COPY. Checksums of its parts are then not recorded by the store (a
                          server may give none for a copied part and still demand one at COMPLETE).
                        */
    const struct store_part *parts; /* ascending numbers */
    unsigned part_count;
    const char *prefix, *delimiter, *start_after, *token; /* LIST; NULL = none */
    uint32_t max_keys;                                    /* 0 = 1,000 */
    const char *const *keys;                              /* DELETE_MANY */
    unsigned key_count;
    void (*done)(struct store_op *op);
    void *arg; /* the caller's */

    /* What came of it. */
    int result; /* 0 or -errno */
    struct error error;
    struct store_info info;
    size_t got;   /* GET: bytes in buf; less than length only at the end of the object */
    bool checked; /* PUT: the store's reply says, by a checksum or by the MD5 as its ETag, that it
                     has the bytes that were sent */
    struct store_meta *out_meta; /* HEAD, GET */
    unsigned out_meta_count;
    struct store_list out_list;
    char *out_upload_id;
    struct store_part out_part;

    /* The store's own. */
    struct store *store;
    void *impl;  /* the backend's, while in flight */
    void *arena; /* owns what the out_ pointers point to */
    struct loop_task task;
    bool cancelled;
    uint64_t *moved_ms;      /* NULL, or where a backend notes when bytes moved last
                                (clock_monotonic_ms) */
    enum store_retry retry;  /* set by a backend with a failure; 0 before */
    uint32_t retry_after_ms; /* the server's wish; 0 = none */
};

/* Any thread. The op's inputs are checked: a bad one ends in -EINVAL through `done` like every
 * other result. */
void store_submit(struct store *store, struct store_op *op);
/* Loop thread only, between submit and done: asks to end early; `done` still comes, with -ECANCELED
 * or with the result. */
void store_cancel(struct store_op *op);
/* Frees the outputs, keeps the inputs: the op may be submitted again. Also right after zeroing. */
void store_op_reset(struct store_op *op);
/* The value of a name in out_meta, or NULL. */
const char *store_op_meta(const struct store_op *op, const char *name);
const char *store_kind_name(enum store_kind kind); /* "get", "mpu_part", … */

/* Blocking form for commands, tests and start-up: submits and waits. Not on the loop thread.
 * Returns op->result. op->done is overwritten. */
int store_wait(struct store *store, struct store_op *op);

struct store_caps {
    bool put_if_none_match, put_if_match; /* honoured on PUT */
    bool complete_if_none_match, complete_if_match;
    bool complete_etag;          /* COMPLETE answers with the ETag that the object has */
    bool copy_if_match;          /* source conditions honoured by COPY and PART_COPY */
    bool file_beside_directory;  /* `a` and `a/b` may both be keys */
    bool server_copy;            /* COPY and PART_COPY exist */
    bool lists_at_once;          /* several listings of one prefix take the time of one */
    uint64_t part_min, part_max; /* bytes; the last part may be smaller than part_min */
    uint32_t part_count_max;
    uint64_t put_max, copy_max;
};

/* What the store can do. Before a probe: what its kind promises. Immutable after start-up. */
const struct store_caps *store_caps(const struct store *store);
/* The same of the store that a key is in (s3/mux.h): of many stores behind one. Any thread. */
const struct store_caps *store_caps_at(const struct store *store, const char *key);
/* "s3://bucket" or "file:///dir": names the store in messages; no secrets. */
const char *store_name(const struct store *store);
struct loop *store_loop(const struct store *store);
/* Nothing may be in flight. NULL is allowed. Decorators free what they decorate. Not on the loop
 * thread. */
void store_free(struct store *store);

#endif
