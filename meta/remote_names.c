#include "remote_names.h"

#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>
#include <utlist.h>

struct names_name {
    UT_hash_handle hh;
    uint32_t times; /* that it may be there */
    char bytes[];
};

struct names_dir {
    uint64_t ino, number;
    struct names_name *names;
    UT_hash_handle hh;
    struct names_dir *prev, *next;
};

static struct names_dir *find(const struct remote_names *names, uint64_t ino)
{
    struct names_dir *dir = NULL;
    if (names->dirs)
        HASH_FIND(hh, names->dirs, &ino, sizeof(ino), dir);
    return dir;
}

static struct names_dir *find_marked(const struct remote_names *names, uint64_t ino, uint64_t mark)
{
    struct names_dir *dir = mark ? find(names, ino) : NULL;
    return dir && dir->number == mark ? dir : NULL;
}

static void drop(struct remote_names *names, struct names_dir *dir)
{
    struct names_name *name, *next;
    HASH_ITER(hh, dir->names, name, next)
    {
        HASH_DEL(dir->names, name);
        free(name);
        names->count--;
    }
    HASH_DEL(names->dirs, dir);
    DL_DELETE(names->order, dir);
    free(dir);
}

void remote_names_drop(struct remote_names *names, uint64_t ino)
{
    struct names_dir *dir = find(names, ino);
    if (dir)
        drop(names, dir);
}

void remote_names_drop_all(struct remote_names *names)
{
    while (names->order)
        drop(names, names->order);
}

/* False: there is no room; then nothing is known of the directory. */
static bool add(struct remote_names *names, struct names_dir *dir, const char *bytes, size_t len)
{
    struct names_name *name;
    HASH_FIND(hh, dir->names, bytes, len, name);
    if (name) {
        name->times++;
        return true;
    }
    while (names->count >= REMOTE_NAMES_MAX && names->order != dir)
        drop(names, names->order);
    name = names->count < REMOTE_NAMES_MAX ? malloc(sizeof(*name) + len) : NULL;
    if (!name) {
        drop(names, dir);
        return false;
    }
    name->times = 1;
    memcpy(name->bytes, bytes, len);
    HASH_ADD_KEYPTR(hh, dir->names, name->bytes, len, name);
    names->count++;
    return true;
}

static void take(struct remote_names *names, struct names_dir *dir, const struct meta_name *of)
{
    struct names_name *name = NULL;
    if (dir)
        HASH_FIND(hh, dir->names, of->bytes, of->len, name);
    if (!name || --name->times)
        return;
    HASH_DEL(dir->names, name);
    free(name);
    names->count--;
}

void remote_names_begin(struct remote_names *names, uint64_t ino, const struct meta_entry *entries,
                        size_t count)
{
    remote_names_drop(names, ino);
    /* The root of a subtree has another number at the service, which speaks of it by that. */
    if (ino == META_ROOT_INO || count > REMOTE_NAMES_MAX)
        return;
    struct names_dir *dir = calloc(1, sizeof(*dir));
    if (!dir)
        return;
    if (HASH_COUNT(names->dirs) >= REMOTE_NAMES_DIRECTORIES)
        drop(names, names->order);
    dir->ino = ino;
    dir->number = ++names->begun;
    HASH_ADD(hh, names->dirs, ino, sizeof(dir->ino), dir);
    DL_APPEND(names->order, dir);
    for (size_t i = 0; i < count; i++)
        if (!add(names, dir, entries[i].name, entries[i].name_len))
            return;
}

bool remote_names_absent(struct remote_names *names, uint64_t ino, const struct meta_name *of)
{
    struct names_name *name = NULL;
    struct names_dir *dir = find(names, ino);
    if (!dir)
        return false;
    if (names->order->prev != dir) {
        DL_DELETE(names->order, dir);
        DL_APPEND(names->order, dir);
    }
    HASH_FIND(hh, dir->names, of->bytes, of->len, name);
    return !name;
}

static uint64_t number_of(const struct names_dir *dir)
{
    return dir ? dir->number : 0;
}

struct names_mark remote_names_asked(struct remote_names *names, const struct meta_op *op)
{
    struct names_mark mark = {0};
    struct names_dir *dir;
    switch (op->kind) {
    case META_MKNOD:
    case META_LINK:
        dir = op->flags & META_NAMELESS ? NULL : find(names, op->parent);
        if (dir && add(names, dir, op->name.bytes, op->name.len))
            mark.parent = dir->number;
        break;
    case META_UNLINK:
        mark.parent = number_of(find(names, op->parent));
        break;
    case META_RENAME:
        dir = find(names, op->new_parent);
        if (dir && add(names, dir, op->new_name.bytes, op->new_name.len))
            mark.new_parent = dir->number;
        mark.parent = number_of(find(names, op->parent));
        break;
    default:
        break;
    }
    return mark;
}

static void renamed(struct remote_names *names, const struct meta_op *op,
                    const struct meta_reply *reply, struct names_mark mark)
{
    struct names_dir *to = find_marked(names, op->new_parent, mark.new_parent);
    bool exchanged = op->flags & RENAME_EXCHANGE;
    /* What was replaced counted already. */
    if (exchanged || reply->replaced.ino)
        take(names, to, &op->new_name);
    /* Two names of one inode: the rename does nothing. */
    bool one_name = S_ISDIR(reply->attr.mode) || reply->attr.nlink == 1;
    if (!exchanged && one_name)
        take(names, find_marked(names, op->parent, mark.parent), &op->name);
}

/* A change that failed has changed nothing. */
static void failed(struct remote_names *names, const struct meta_op *op, struct names_mark mark)
{
    if (op->kind == META_MKNOD || op->kind == META_LINK)
        take(names, find_marked(names, op->parent, mark.parent), &op->name);
    else if (op->kind == META_RENAME)
        take(names, find_marked(names, op->new_parent, mark.new_parent), &op->new_name);
}

void remote_names_answered(struct remote_names *names, const struct meta_op *op, int result,
                           const struct meta_reply *reply, struct names_mark mark)
{
    if (result < 0) {
        failed(names, op, mark);
        return;
    }
    switch (op->kind) {
    case META_MKNOD:
        if (reply->whole)
            remote_names_begin(names, reply->attr.ino, NULL, 0);
        break;
    case META_READDIR:
        if (reply->whole)
            remote_names_begin(names, op->ino, reply->entries, reply->entry_count);
        break;
    case META_UNLINK:
        take(names, find_marked(names, op->parent, mark.parent), &op->name);
        if (op->flags & META_RMDIR)
            remote_names_drop(names, reply->attr.ino);
        break;
    case META_RENAME:
        renamed(names, op, reply, mark);
        break;
    default:
        break;
    }
}
