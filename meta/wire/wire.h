/*
 * The messages between a mount and the metadata service: docs/protocol.md. One frame: 4 bytes
 * length of the rest, 1 byte type, the message. Decoders take any bytes: 0, -EBADMSG or -ENOMEM,
 * and point into the input, which must stay.
 */
#ifndef SLUICE_META_WIRE_H
#define SLUICE_META_WIRE_H

#include "base/buf.h"
#include "meta/op.h"

#define WIRE_VERSION 2       /* what both ends like best, … */
#define WIRE_VERSION_MIN 1   /* … and what they still speak: docs/protocol.md, "Versions" */
#define WIRE_VERSION_NAMES 2 /* answers may say that they have all names of a directory */
#define WIRE_HEAD 5
#define WIRE_FRAME_MAX (64u << 20) /* the longest message, with its type */
#define WIRE_HELLO_MAX 8192        /* before the client is known */
#define WIRE_NAME_MAX 64           /* of a volume */
#define WIRE_PATH_MAX 4096         /* of a directory in it */
#define WIRE_VOLUME_MAX (WIRE_NAME_MAX + 1 + WIRE_PATH_MAX)
#define WIRE_TEXT_MAX 1024
#define WIRE_STORES_MAX 16384 /* of a request about stores */
#define WIRE_TOKEN_MAX 256
#define WIRE_KEY_LEN 16 /* what a client proves with that a session is its own */
#define WIRE_ITEMS_MAX 4096
#define META_SLOW_MS 1000 /* a request that takes longer is noted in the logs of both ends */

enum wire_type {
    WIRE_HELLO = 1,     /* client: who, which volume; first message */
    WIRE_WELCOME,       /* server: the answer to it, or */
    WIRE_REFUSED,       /* server: why not, or why not any more; then the end */
    WIRE_REQUEST,       /* client: an operation */
    WIRE_REPLY,         /* server */
    WIRE_TASK,          /* client: sync, refresh, settle, object changed */
    WIRE_TASK_CANCEL,   /* client */
    WIRE_TASK_PROGRESS, /* server */
    WIRE_TASK_DONE,     /* server */
    WIRE_STATUS,        /* client: the volume's status */
    WIRE_STATUS_REPLY,  /* server: JSON */
    WIRE_INVALIDATE,    /* server: what is not right any more in the client's caches */
    WIRE_CONFIRM,       /* client: it is not there any more */
    WIRE_CLAIM,         /* client, after a restart of the server: objects that it is writing */
    WIRE_PING,          /* client: renews the lease */
    WIRE_PONG,          /* server */
    WIRE_BYE,           /* client: the session is over */
    WIRE_LOCK,          /* client: wire_locks.h */
    WIRE_LOCK_DONE,     /* server: its answer */
    WIRE_LOCK_CANCEL,   /* client: it shall wait no longer */
    WIRE_LOCK_CLAIM,    /* client, after a restart of the server: what it holds */
    WIRE_KEYS,          /* client: keys of the bucket */
    WIRE_KEYS_REPLY,    /* server: wire_keys.h */
    WIRE_STORES,        /* client: a request about the volume's stores: JSON */
    WIRE_STORES_REPLY,  /* server: JSON */
    WIRE_STORES_NEW,    /* server: they are others now, from this message on */
    WIRE_QUOTA,         /* server: sizes are reserved; what is, is to be said: round << 1 | all */
    WIRE_TYPES
};

struct wire_text {
    const char *bytes; /* not NUL-terminated; no NUL in it */
    size_t len;
};

struct wire_hello {
    uint32_t version_min, version_max;
    struct wire_text volume;      /* its name; or NAME/PATH: only what is below that directory */
    struct wire_text token, text; /* text: host and mount point, for people */
    uint8_t key[WIRE_KEY_LEN];
    uint64_t session; /* to be taken up again; 0: a new one */
    bool read_only;
};

struct wire_welcome {
    uint32_t version;
    uint64_t session;
    bool restarted; /* the server does not know what the client has in its caches or is writing */
    uint32_t lease_ms;
    uint32_t window;               /* changes without an answer at once */
    uint64_t time_ns;              /* the server's wall clock */
    struct wire_text url, options; /* of the store: mount's options as a JSON object */
    struct meta_volume volume;
    struct meta_contents contents; /* as the service opened the volume */
};

struct wire_refused {
    int code; /* -errno */
    struct wire_text text;
};

struct wire_request {
    uint64_t id;
    uint64_t change; /* number of the change, from 1; 0: a kind that only reads */
    bool durable, retry;
    const void *op; /* meta_codec_op */
    size_t op_len;
};

struct wire_reply {
    uint64_t id;
    int result;        /* 0 or -errno */
    const void *reply; /* meta_codec_reply; NULL: an empty one */
    size_t reply_len;
};

enum wire_task_kind {
    WIRE_TASK_SYNC = 1,
    WIRE_TASK_REFRESH,
    WIRE_TASK_SETTLE,
    WIRE_TASK_OBJECT_CHANGED,
    WIRE_TASK_RESERVE,  /* a file is to grow to `object` bytes: remaining is what it may */
    WIRE_TASK_RESERVED, /* so many bytes of it are: not asked; ino 0: the answer to QUOTA */
};

struct wire_task { /* TASK, and with the id alone TASK_CANCEL */
    uint64_t id;
    enum wire_task_kind kind;
    uint64_t ino, object;
};

struct wire_task_done { /* and with id and remaining alone TASK_PROGRESS */
    uint64_t id;
    uint64_t remaining;
    int result;
    struct wire_text text;
};

enum wire_item_kind {
    WIRE_ITEM_ENTRY = 1, /* the name in the directory `ino`, and that directory's attributes */
    WIRE_ITEM_ATTR,      /* attributes of ino */
    WIRE_ITEM_CONTENT,   /* another client changed its bytes */
    WIRE_ITEM_OUTSIDE,   /* its bytes were changed in the bucket, by other hands */
    WIRE_ITEM_EXTENTS,   /* the same bytes are in other objects now */
    WIRE_ITEM_GONE,      /* it has no name any more: DROP it when it is not in use */
    WIRE_ITEM_ALL,       /* everything that is cached */
};

struct wire_item {
    enum wire_item_kind kind;
    uint64_t ino;
    struct wire_text name; /* ENTRY */
};

/* Frames: wire_begin, fields by the put functions, wire_end. */
size_t wire_begin(struct buf *b, enum wire_type type);
void wire_end(struct buf *b, size_t start);

void wire_put_hello(struct buf *b, const struct wire_hello *m);
void wire_put_welcome(struct buf *b, const struct wire_welcome *m);
void wire_put_refused(struct buf *b, int code, const char *text);
void wire_put_request(struct buf *b, const struct wire_request *m, const struct meta_op *op);
/* result != 0: `reply` is left out. */
void wire_put_reply(struct buf *b, uint64_t id, int result, const struct meta_reply *reply);
void wire_put_task(struct buf *b, const struct wire_task *m);
void wire_put_task_done(struct buf *b, const struct wire_task_done *m);
/* TASK_CANCEL, LOCK_CANCEL, STATUS, KEYS, CONFIRM, PING, PONG: a number; BYE: none (0). */
void wire_put_number(struct buf *b, enum wire_type type, uint64_t number);
void wire_put_progress(struct buf *b, uint64_t id, uint64_t remaining);
void wire_put_text(struct buf *b, enum wire_type type, uint64_t id, const void *text, size_t len);
void wire_put_claim(struct buf *b, const uint64_t *objects, size_t count);
/* Items of one INVALIDATE: begin with wire_begin, the sequence and the count (u16, filled by the
 * caller later), each by wire_put_item. */
void wire_put_item(struct buf *b, const struct wire_item *item);

int wire_get_hello(const void *data, size_t len, struct wire_hello *out);
int wire_get_welcome(const void *data, size_t len, struct wire_welcome *out);
int wire_get_refused(const void *data, size_t len, struct wire_refused *out);
int wire_get_request(const void *data, size_t len, struct wire_request *out);
int wire_get_reply(const void *data, size_t len, struct wire_reply *out);
int wire_get_task(const void *data, size_t len, struct wire_task *out);
int wire_get_task_done(const void *data, size_t len, struct wire_task_done *out);
int wire_get_number(const void *data, size_t len, uint64_t *out);
int wire_get_progress(const void *data, size_t len, uint64_t *id, uint64_t *remaining);
int wire_get_text(const void *data, size_t len, uint64_t *id, struct wire_text *out);
/* Calls `each` for every item (of INVALIDATE) or object (of CLAIM) after all of them were checked.
 */
int wire_get_items(const void *data, size_t len, uint64_t *sequence,
                   void (*each)(void *arg, const struct wire_item *item), void *arg);
int wire_get_claim(const void *data, size_t len, void (*each)(void *arg, uint64_t object),
                   void *arg);

/* Bytes of a connection, cut into frames. */
struct wire_input {
    struct buf bytes;
    size_t pos;
    uint32_t max; /* of a message now */
};
void wire_input_init(struct wire_input *in, uint32_t max);
void wire_input_done(struct wire_input *in);
/* Room for what is read next; NULL without memory. *len: how much. */
uint8_t *wire_input_room(struct wire_input *in, size_t *len);
void wire_input_add(struct wire_input *in, size_t len);
/* 1 and a message (valid until the next wire_input_room), 0: not whole yet, -EBADMSG: too long, or
 * no type of ours. */
int wire_input_next(struct wire_input *in, enum wire_type *type, const uint8_t **data, size_t *len);

#endif
