#include "trace_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "base/cleanup.h"

#define BLOCK (1u << 20)

struct node {
    char *name;
    struct node *children;
    bool from_start; /* was there before the trace: `origin` is its name then */
    char *origin;
    UT_hash_handle hh;
};

struct maker {
    int directory;
    struct node root;
    char *block;
    struct error *error;
};

static struct node *child_of(struct node *node, const char *name, size_t len)
{
    struct node *child = NULL;
    HASH_FIND(hh, node->children, name, len, child);
    return child;
}

static void free_node(struct node *node)
{
    struct node *child, *next;
    HASH_ITER(hh, node->children, child, next)
    {
        HASH_DEL(node->children, child);
        free_node(child);
        free(child);
    }
    free(node->name);
    free(node->origin);
}

static struct node *add(struct node *parent, const char *name, size_t len, bool from_start)
{
    struct node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->name = strndup(name, len);
    node->from_start = from_start;
    if (from_start && asprintf(&node->origin, "%s%s%.*s", parent->origin,
                               parent->origin[0] ? "/" : "", (int)len, name) < 0)
        node->origin = NULL;
    if (!node->name || (from_start && !node->origin)) {
        free_node(node);
        free(node);
        return NULL;
    }
    HASH_ADD_KEYPTR(hh, parent->children, node->name, len, node);
    return node;
}

static int fill(struct maker *m, int fd, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t n = write(fd, m->block, MIN(size - done, (uint64_t)BLOCK));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (uint64_t)n;
    }
    return 0;
}

/* On the disk, for what was there at the start. */
static int make(struct maker *m, const struct node *node, mode_t type, uint64_t size)
{
    int result = 0;
    if (S_ISDIR(type)) {
        result = mkdirat(m->directory, node->origin, 0755) < 0 ? -errno : 0;
    } else if (S_ISLNK(type)) {
        result = symlinkat("target", m->directory, node->origin) < 0 ? -errno : 0;
    } else {
        int fd = openat(m->directory, node->origin, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        result = fd < 0 ? -errno : fill(m, fd, size);
        if (fd >= 0 && close(fd) < 0 && result == 0)
            result = -errno;
    }
    return result < 0 ? error_set(m->error, result, "cannot prepare %s: %s", node->origin,
                                  strerror(-result))
                      : 0;
}

/* The node of a path. What is missing on the way was there at the start, if its parent was. NULL in
 * *out: not known, and cannot have been there. */
static int find(struct maker *m, const char *path, mode_t type, uint64_t size, struct node **out)
{
    struct node *node = &m->root;
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        bool last = at[len] == 0;
        struct node *child = child_of(node, at, len);
        if (!child) {
            *out = NULL;
            if (!node->from_start)
                return 0;
            child = add(node, at, len, true);
            if (!child)
                return error_set(m->error, -ENOMEM, "no memory");
            int r = make(m, child, last ? type : S_IFDIR, size);
            if (r < 0)
                return r;
        }
        node = child;
        at += len + !last;
    }
    *out = node;
    return 0;
}

/* The parent of a path and the last name; the parent was found by the call. */
static int find_parent(struct maker *m, const char *path, struct node **parent, const char **name)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    cleanup(free_ptr) char *above = strndup(path, slash ? (size_t)(slash - path) : 0);
    if (!above)
        return error_set(m->error, -ENOMEM, "no memory");
    return find(m, above, S_IFDIR, 0, parent);
}

static void forget(struct node *parent, const char *name)
{
    struct node *node = parent ? child_of(parent, name, strlen(name)) : NULL;
    if (!node)
        return;
    HASH_DEL(parent->children, node);
    free_node(node);
    free(node);
}

/* A name that a call of the trace made. */
static int made(struct maker *m, const char *path)
{
    struct node *parent;
    const char *name;
    int r = find_parent(m, path, &parent, &name);
    if (r < 0 || !parent || child_of(parent, name, strlen(name)))
        return r;
    return add(parent, name, strlen(name), false) ? 0 : error_set(m->error, -ENOMEM, "no memory");
}

static int removed(struct maker *m, const char *path, mode_t type)
{
    struct node *node, *parent;
    const char *name;
    int r = find(m, path, type, 0, &node);
    if (r == 0)
        r = find_parent(m, path, &parent, &name);
    if (r == 0 && parent)
        forget(parent, name);
    return r;
}

/* A directory renamed that no call before has looked at: what lies below its new name later tells
 * that it is one. */
static mode_t type_of_renamed(const struct trace *trace, size_t i)
{
    const struct trace_event *e = &trace->events[i];
    size_t len = strlen(e->to);
    for (size_t k = i + 1; k < trace->count; k++) {
        const char *path = trace->events[k].path;
        if (path && strncmp(path, e->to, len) == 0 && path[len] == '/')
            return S_IFDIR;
        if (path && strcmp(path, e->to) == 0 && trace->events[k].op == TRACE_STAT)
            return trace->events[k].mode & S_IFMT;
    }
    return S_IFREG;
}

static int renamed(struct maker *m, const struct trace *trace, size_t i)
{
    const struct trace_event *e = &trace->events[i];
    struct node *from, *to, *node;
    const char *from_name, *to_name;
    int r = find_parent(m, e->path, &from, &from_name);
    if (r < 0)
        return r;
    if (from && !child_of(from, from_name, strlen(from_name)) &&
        (r = find(m, e->path, type_of_renamed(trace, i), 0, &node)) < 0)
        return r;
    if ((r = find_parent(m, e->to, &to, &to_name)) < 0 || !from || !to)
        return r;
    node = child_of(from, from_name, strlen(from_name));
    if (!node)
        return 0;
    HASH_DEL(from->children, node);
    forget(to, to_name);
    char *name = strdup(to_name);
    if (!name) {
        free_node(node);
        free(node);
        return error_set(m->error, -ENOMEM, "no memory");
    }
    free(node->name);
    node->name = name;
    HASH_ADD_KEYPTR(hh, to->children, node->name, strlen(node->name), node);
    return 0;
}

static int follow(struct maker *m, const struct trace *trace, size_t i)
{
    const struct trace_event *e = &trace->events[i];
    struct node *node;
    if (e->result < 0)
        return 0;
    switch (e->op) {
    case TRACE_STAT:
        return find(m, e->path, e->mode & S_IFMT, e->len, &node);
    case TRACE_READLINK:
        return find(m, e->path, S_IFLNK, 0, &node);
    case TRACE_LIST:
        return find(m, e->path, S_IFDIR, 0, &node);
    case TRACE_OPEN:
    case TRACE_CHMOD:
    case TRACE_UTIMES:
    case TRACE_TRUNCATE:
        return find(m, e->path, S_IFREG, e->op == TRACE_OPEN ? e->len : 0, &node);
    case TRACE_CREATE:
    case TRACE_MKDIR:
    case TRACE_SYMLINK:
        return made(m, e->path);
    case TRACE_LINK: {
        int r = find(m, e->path, S_IFREG, 0, &node);
        return r < 0 ? r : made(m, e->to);
    }
    case TRACE_UNLINK:
        return removed(m, e->path, S_IFREG);
    case TRACE_RMDIR:
        return removed(m, e->path, S_IFDIR);
    case TRACE_RENAME:
        return renamed(m, trace, i);
    default:
        return 0;
    }
}

int trace_tree_make(const struct trace *trace, int directory, struct error *error)
{
    static char nothing[1];
    struct maker m = {.directory = directory,
                      .root = {.from_start = true, .origin = nothing},
                      .block = malloc(BLOCK),
                      .error = error};
    if (!m.block)
        return error_set(error, -ENOMEM, "no memory");
    for (size_t i = 0; i < BLOCK; i++)
        m.block[i] = (char)(i * 2654435761u >> 13);
    int r = 0;
    for (size_t i = 0; r == 0 && i < trace->count; i++)
        r = follow(&m, trace, i);
    m.root.origin = NULL;
    free_node(&m.root);
    free(m.block);
    return r;
}
