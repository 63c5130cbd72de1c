#include "meta/op.h"

#include <string.h>

#include "arena.h"

void meta_reply_init(struct meta_reply *reply)
{
    memset(reply, 0, sizeof(*reply));
}

void meta_reply_done(struct meta_reply *reply)
{
    struct arena arena = {.head = reply->arena};
    arena_done(&arena);
    meta_reply_init(reply);
}

void *meta_reply_alloc(struct meta_reply *reply, size_t len)
{
    struct arena arena = {.head = reply->arena, .first = META_REPLY_CHUNK};
    void *room = arena_alloc(&arena, len);
    reply->arena = arena.head;
    return room;
}

size_t meta_reply_memory(const struct meta_reply *reply)
{
    const struct arena arena = {.head = reply->arena};
    return arena_memory(&arena);
}

const char *meta_kind_name(enum meta_kind kind)
{
    switch (kind) {
    case META_LOOKUP:
        return "lookup";
    case META_GETATTR:
        return "getattr";
    case META_READDIR:
        return "readdir";
    case META_READLINK:
        return "readlink";
    case META_GETXATTR:
        return "getxattr";
    case META_LISTXATTR:
        return "listxattr";
    case META_EXTENTS:
        return "extents";
    case META_USAGE:
        return "usage";
    case META_PATH:
        return "path";
    case META_DRIFT:
        return "drift";
    case META_OBJECT:
        return "object";
    case META_QUOTA:
        return "quota";
    case META_LAST_READ:
        break;
    case META_MKNOD:
        return "mknod";
    case META_LINK:
        return "link";
    case META_UNLINK:
        return "unlink";
    case META_RENAME:
        return "rename";
    case META_SETATTR:
        return "setattr";
    case META_SETXATTR:
        return "setxattr";
    case META_REMOVEXATTR:
        return "removexattr";
    case META_DROP:
        return "drop";
    case META_RESERVE:
        return "reserve";
    case META_ABANDON:
        return "abandon";
    case META_COMMIT:
        return "commit";
    case META_CLONE:
        return "clone";
    case META_PUNCH:
        return "punch";
    case META_QUOTA_SET:
        return "quota_set";
    case META_FORMAT:
        return "format";
    case META_IMPORT_DIR:
        return "import_dir";
    case META_IMPORT_ONE:
        return "import_one";
    case META_OUTSIDE:
        return "outside";
    case META_CLASS_DONE:
        return "class_done";
    case META_LATE:
        return "late";
    case META_CONFLICT:
        return "conflict";
    case META_SETTLE_BEGIN:
        return "settle_begin";
    case META_SETTLE_DONE:
        return "settle_done";
    case META_SETTLE_RETRY:
        return "settle_retry";
    case META_SETTLE_SUBTREE:
        return "settle_subtree";
    case META_STORE_SET:
        return "store_set";
    case META_STORE_DROP:
        return "store_drop";
    case META_STORE_PLACE:
        return "store_place";
    case META_STORE_EMPTY:
        return "store_empty";
    case META_SESSION_BEGIN:
        return "session_begin";
    case META_SESSION_END:
        return "session_end";
    case META_SETTLE_HURRY:
        return "settle_hurry";
    case META_CARRY_BEGIN:
        return "carry_begin";
    case META_CARRY_DONE:
        return "carry_done";
    case META_GC_DONE:
        return "gc_done";
    case META_GC_RETRY:
        return "gc_retry";
    }
    return "unknown";
}
