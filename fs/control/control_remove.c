/* The control file's `remove`: a tree in one request. Depth first, page by page; what comes into a
 * directory meanwhile is removed with it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "front/front_inodes.h"
#include "front_control.h"

#define PAGE 1000
#define FULL_AGAIN_MAX 100 /* times that a directory was found filled again by others */

/* A directory that is to be emptied and removed: its name in its parent, as an element of a stack.
 */
struct doomed {
    struct doomed *next;
    const struct doomed *parent; /* below it in the stack; NULL for the first */
    struct meta_attr attr;
    unsigned full_again;
    size_t name_len;
    char name[];
};

static struct doomed *push(struct doomed **stack, const struct doomed *parent,
                           const struct meta_attr *attr, struct meta_name name)
{
    struct doomed *d = malloc(sizeof(*d) + name.len);
    if (!d)
        return NULL;
    *d = (struct doomed){.parent = parent, .attr = *attr, .name_len = name.len};
    memcpy(d->name, name.bytes, name.len);
    LL_PREPEND(*stack, d);
    return d;
}

static bool is_canceled(struct control_handle *h)
{
    pthread_mutex_lock(&h->lock);
    bool canceled = h->cancel;
    pthread_mutex_unlock(&h->lock);
    return canceled;
}

/* One name. -ENOENT: somebody else was faster. A file that the kernel keeps by a name of before a
 * rename would stay until it has no room, with its object: the kernel is told of that name. */
static int remove_name(struct fs *fs, uint64_t parent, struct meta_name name, bool directory)
{
    struct meta_request request = {.op = {.kind = META_UNLINK,
                                          .parent = parent,
                                          .name = name,
                                          .flags = directory ? META_RMDIR : 0}};
    int result = meta_call(fs->meta, &request);
    if (result == 0 && request.reply.attr.nlink == 0) {
        front_unlinked(fs, request.reply.attr.ino);
        if (inodes_known(fs->inodes, request.reply.attr.ino))
            fuse_lowlevel_notify_inval_entry(fs->session, parent, name.bytes, name.len);
    }
    meta_reply_done(&request.reply);
    return result;
}

static int remove_file(struct control_handle *h, uint64_t parent, struct meta_name name,
                       struct control_removed *removed)
{
    int result = remove_name(h->fs, parent, name, false);
    if (result == 0)
        removed->files++;
    return result == -ENOENT ? 0 : result;
}

/* Whether the stack's top is where it was found: what was moved away meanwhile is not ours to
 * empty.
 */
static int is_there(struct fs *fs, const struct doomed *top, uint64_t first_parent)
{
    struct meta_request request = {
        .op = {.kind = META_LOOKUP,
               .parent = top->parent ? top->parent->attr.ino : first_parent,
               .name = {.bytes = top->name, .len = top->name_len}}};
    int result = meta_call(fs->meta, &request);
    if (result == 0 && request.reply.attr.ino != top->attr.ino)
        result = -ENOENT;
    meta_reply_done(&request.reply);
    return result;
}

static void pop(struct doomed **stack)
{
    struct doomed *top = *stack;
    LL_DELETE(*stack, top);
    free(top);
}

/* The first names of the stack's top: files go, directories are put on the stack. A count. */
static int empty_page(struct control_handle *h, struct doomed **stack,
                      struct control_removed *removed)
{
    struct doomed *top = *stack;
    struct meta_request request = {
        .op = {.kind = META_READDIR, .ino = top->attr.ino, .count = PAGE, .plus = true}};
    int result = meta_call(h->fs->meta, &request);
    for (size_t i = 0; result == 0 && i < request.reply.entry_count; i++) {
        const struct meta_entry *entry = &request.reply.entries[i];
        struct meta_name name = {.bytes = entry->name, .len = entry->name_len};
        result = control_may_remove(h, &top->attr, &entry->attr);
        if (result == 0 && is_canceled(h))
            result = -ECANCELED;
        if (result < 0)
            break;
        if (!S_ISDIR(entry->attr.mode))
            result = remove_file(h, top->attr.ino, name, removed);
        else if (!control_may(&h->caller, &entry->attr, CONTROL_MAY_READ | CONTROL_MAY_EXEC))
            result = -EACCES;
        else if (!push(stack, top, &entry->attr, name))
            result = -ENOMEM;
    }
    if (result == 0)
        result = (int)request.reply.entry_count;
    meta_reply_done(&request.reply);
    return result;
}

/* The stack's top, which was found empty. */
static int remove_top(struct control_handle *h, struct doomed **stack, uint64_t first_parent,
                      struct control_removed *removed)
{
    struct doomed *top = *stack;
    struct meta_name name = {.bytes = top->name, .len = top->name_len};
    int result = remove_name(h->fs, top->parent ? top->parent->attr.ino : first_parent, name, true);
    if (result == -ENOTEMPTY && ++top->full_again <= FULL_AGAIN_MAX)
        return 0;
    if (result == 0)
        removed->directories++;
    if (result < 0 && result != -ENOENT)
        return result;
    pop(stack);
    return 0;
}

static int remove_tree(struct control_handle *h, uint64_t parent, struct meta_name name,
                       const struct meta_attr *attr, struct control_removed *removed)
{
    struct doomed *stack = NULL;
    int result = push(&stack, NULL, attr, name) ? 0 : -ENOMEM;
    while (result == 0 && stack) {
        result = is_there(h->fs, stack, parent);
        if (result == 0)
            result = empty_page(h, &stack, removed);
        if (result == 0)
            result = remove_top(h, &stack, parent, removed);
        else if (result == -ENOENT)
            pop(&stack);
        if (result > 0 || result == -ENOENT)
            result = 0;
    }
    while (stack)
        pop(&stack);
    return result;
}

int control_remove(struct control_handle *h, struct control_removed *removed)
{
    struct fs *fs = h->fs;
    struct control_text parent_path;
    struct meta_name name;
    struct meta_attr parent;
    struct meta_attr attr;
    control_path_split(&h->request.path, &parent_path, &name);
    if (name.len == 0)
        return -EBUSY; /* the root */
    if (fs->config.read_only)
        return -EROFS;
    int result = control_walk(h, &parent_path, &parent);
    if (result == 0)
        result = control_walk(h, &h->request.path, &attr);
    if (result == 0)
        result = control_may_remove(h, &parent, &attr);
    if (result == 0 && S_ISDIR(attr.mode) &&
        !control_may(&h->caller, &attr, CONTROL_MAY_READ | CONTROL_MAY_EXEC))
        result = -EACCES;
    if (result < 0)
        return result;
    result = S_ISDIR(attr.mode) ? remove_tree(h, parent.ino, name, &attr, removed)
                                : remove_file(h, parent.ino, name, removed);
    /* The kernel did not see it. Forgetting the name makes it forget all that it keeps below. Not a
     * FUSE thread and not a volume's: it may wait here for the kernel's locks. */
    fuse_lowlevel_notify_inval_entry(fs->session, parent.ino, name.bytes, name.len);
    fuse_lowlevel_notify_inval_inode(fs->session, parent.ino, 0, 0);
    return result;
}
