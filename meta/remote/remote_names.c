#include "remote_names.h"

#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>
#include <utlist.h>

struct names_name {
    UT_hash_handle hh;
    uint64_t ino;     /* 0: not known */
    uint32_t times;   /* that it may be there */
    uint32_t changes; /* of it under way */
    bool crossed;     /* they were not one after the other */
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

static struct names_name *find_name(const struct names_dir *dir, const char *bytes, size_t len)
{
    struct names_name *name = NULL;
    if (dir)
        HASH_FIND(hh, dir->names, bytes, len, name);
    return name;
}

/* NULL: there is no room; then nothing is known of the directory. */
static struct names_name *add(struct remote_names *names, struct names_dir *dir, const char *bytes,
                              size_t len)
{
    struct names_name *name = find_name(dir, bytes, len);
    if (name) {
        name->times++;
        return name;
    }
    while (names->count >= REMOTE_NAMES_MAX && names->order != dir)
        drop(names, names->order);
    name = names->count < REMOTE_NAMES_MAX ? malloc(sizeof(*name) + len) : NULL;
    if (!name) {
        drop(names, dir);
        return NULL;
    }
    *name = (struct names_name){.times = 1};
    memcpy(name->bytes, bytes, len);
    HASH_ADD_KEYPTR(hh, dir->names, name->bytes, len, name);
    names->count++;
    return name;
}

static void take(struct remote_names *names, struct names_dir *dir, const struct meta_name *of)
{
    struct names_name *name = find_name(dir, of->bytes, of->len);
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
    for (size_t i = 0; i < count; i++) {
        struct names_name *name = add(names, dir, entries[i].name, entries[i].name_len);
        if (!name)
            return;
        name->ino = entries[i].ino;
    }
}

bool remote_names_absent(struct remote_names *names, uint64_t ino, const struct meta_name *of)
{
    struct names_dir *dir = find(names, ino);
    if (!dir)
        return false;
    if (names->order->prev != dir) {
        DL_DELETE(names->order, dir);
        DL_APPEND(names->order, dir);
    }
    return !find_name(dir, of->bytes, of->len);
}

uint64_t remote_names_find(const struct remote_names *names, uint64_t ino,
                           const struct meta_name *of)
{
    const struct names_name *name = find_name(find(names, ino), of->bytes, of->len);
    return name ? name->ino : 0;
}

void remote_names_found(struct remote_names *names, uint64_t ino, const struct meta_name *of,
                        uint64_t found)
{
    struct names_name *name = find_name(find(names, ino), of->bytes, of->len);
    if (name && name->changes == 0)
        name->ino = found;
}

static void change_begins(const struct names_dir *dir, const struct meta_name *of)
{
    struct names_name *name = find_name(dir, of->bytes, of->len);
    if (!name)
        return;
    name->crossed |= name->changes++ > 0;
    name->ino = 0;
}

/* `now`: whose name it is, or 0. A directory that was begun anew meanwhile does not know of the
 * change. */
static void change_ends(const struct remote_names *names, uint64_t ino, uint64_t mark,
                        const struct meta_name *of, uint64_t now)
{
    const struct names_dir *dir = find(names, ino);
    struct names_name *name = find_name(dir, of->bytes, of->len);
    if (!name)
        return;
    bool alone = dir->number == mark && name->changes == 1 && !name->crossed;
    name->ino = alone ? now : 0;
    if (dir->number != mark || name->changes == 0)
        return;
    if (--name->changes == 0)
        name->crossed = false;
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
        change_begins(find(names, op->new_parent), &op->new_name);
        break;
    default:
        return mark;
    }
    if (!(op->flags & META_NAMELESS))
        change_begins(find(names, op->parent), &op->name);
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

/* What is known of the names now, before those that went are taken away. */
static void changes_end(struct remote_names *names, const struct meta_op *op, int result,
                        const struct meta_reply *reply, struct names_mark mark)
{
    bool made = (op->kind == META_MKNOD || op->kind == META_LINK) && !(op->flags & META_NAMELESS);
    if (made)
        change_ends(names, op->parent, mark.parent, &op->name, result < 0 ? 0 : reply->attr.ino);
    else if (op->kind == META_UNLINK || op->kind == META_RENAME)
        change_ends(names, op->parent, mark.parent, &op->name, 0);
    if (op->kind == META_RENAME)
        change_ends(names, op->new_parent, mark.new_parent, &op->new_name,
                    result < 0 || op->flags & RENAME_EXCHANGE ? 0 : reply->attr.ino);
}

void remote_names_answered(struct remote_names *names, const struct meta_op *op, int result,
                           const struct meta_reply *reply, struct names_mark mark)
{
    changes_end(names, op, result, reply, mark);
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
