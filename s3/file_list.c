/*
 * Listing: a walk of the tree in bytewise order of keys. A directory is read whole and sorted, with
 * '/' behind the names of directories, which is the order of S3. Only directories on the way are
 * open or read: a page that begins at some key does not look at what sorts before it.
 *
 * So that the pages of a large directory do not read it again and again, the walk is kept for the
 * next page (a cursor), found by the last name of this one. It is used only if no directory on it
 * has changed since; otherwise, or if it was dropped, the walk begins anew at that name: the result
 * is the same. Files are looked at when they are listed, never earlier.
 *
 * Every directory is reported as a common prefix of the delimiter '/', without a look inside.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "file.h"

#define CURSOR_LIFE_MS 30000
#define CURSORS_MAX 16
#define CURSORS_MAX_BYTES (64u << 20)
/* Two changes within a tick of the filesystem's clock may leave the same mtime. */
#define TICK_NS (50 * NS_PER_MS)

struct level {
    char *path;   /* "" or "a/b/"; owned */
    char *names;  /* owned; NUL-terminated strings */
    char **items; /* owned; sorted; directories end in '/' */
    size_t count, next, names_len;
    uint64_t mark_ns; /* the directory itself is a key, */
    bool mark_due;    /* and that is still to be listed */
    uint64_t ino, mtime_ns, read_ns;
};

struct walk {
    struct file_store *f;
    char *prefix;      /* owned */
    bool by_directory; /* the delimiter is '/' */
    struct level *levels;
    size_t depth, cap;
    int dir; /* the directory of levels[dir_depth - 1], or -1 */
    size_t dir_depth;
    char *name; /* of the last item; owned */
    size_t name_cap;
};

struct item {
    const char *name; /* valid until the next call */
    struct stat st;
    bool is_prefix, is_marker;
};

struct file_cursor {
    struct walk walk;
    char *delimiter, *last; /* owned; delimiter may be NULL */
    bool last_is_prefix;
    size_t bytes;
    uint64_t expires_ms;
    struct file_cursor *prev, *next;
};

/* Levels */

static void level_done(struct level *level)
{
    free(level->path);
    free(level->names);
    free(level->items);
}

static void walk_done(struct walk *w)
{
    while (w->depth)
        level_done(&w->levels[--w->depth]);
    free(w->levels);
    free(w->prefix);
    free(w->name);
    close_fd(&w->dir);
}

static bool starts_with(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

/* Opens the directory of a level's path. -ENOENT: it is none, or not there. */
static int open_level(const struct file_store *f, const char *path)
{
    size_t len = strlen(path);
    cleanup(free_ptr) char *name = strdup(len ? path : ".");
    if (!name)
        return -ENOMEM;
    if (len)
        name[len - 1] = 0;
    int fd = file_open(f, name, O_RDONLY | O_DIRECTORY);
    if (fd == -ENAMETOOLONG) {
        static struct log_limit limit = LOG_LIMIT(1, 60000);
        char quoted[256];
        log_limited(&limit, LOG_WARN, "directory left out of a listing",
                    "reason=\"its path is too long\" path=%s",
                    log_quote(path, quoted, sizeof(quoted)));
        return -ENOENT;
    }
    return fd == -ENOTDIR || fd == -ELOOP ? -ENOENT : fd;
}

static uint64_t mtime_ns(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;
}

/* 'd' directory, 'f' regular file, 0 neither. */
static char entry_type(int dir, const struct dirent *e)
{
    if (e->d_type == DT_DIR || e->d_type == DT_REG)
        return e->d_type == DT_DIR ? 'd' : 'f';
    struct stat st;
    if (e->d_type != DT_UNKNOWN || fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    return S_ISDIR(st.st_mode) ? 'd' : S_ISREG(st.st_mode) ? 'f' : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Reads all names into one block: with `start` in front, and '/' behind directories. */
static int read_names(struct level *level, DIR *d, const char *start)
{
    size_t cap = 0;
    for (struct dirent *e;;) {
        errno = 0;
        e = readdir(d);
        if (!e)
            return -errno;
        const char *name = e->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..") || !starts_with(name, start) ||
            (!*level->path && !strcmp(name, FILE_PRIVATE)))
            continue;
        char type = entry_type(dirfd(d), e);
        if (!type)
            continue;
        size_t len = strlen(name);
        if (cap - level->names_len < len + 2) {
            cap = cap ? 2 * cap : 4096;
            char *grown = realloc(level->names, cap);
            if (!grown)
                return -ENOMEM;
            level->names = grown;
        }
        memcpy(level->names + level->names_len, name, len);
        level->names_len += len;
        if (type == 'd')
            level->names[level->names_len++] = '/';
        level->names[level->names_len++] = 0;
        level->count++;
    }
}

static int sort_names(struct level *level)
{
    level->items = malloc((level->count + 1) * sizeof(char *));
    if (!level->items)
        return -ENOMEM;
    char *name = level->names;
    for (size_t i = 0; i < level->count; i++, name += strlen(name) + 1)
        level->items[i] = name;
    qsort(level->items, level->count, sizeof(char *), by_name);
    return 0;
}

static int has_more(struct walk *w, const char *path, const char *item, const char *after);

/* Skips what is not behind `after`. */
static int skip_to(struct walk *w, struct level *level, const char *after, bool skip_group)
{
    if (!after || strcmp(after, level->path) < 0)
        return 0;
    if (!starts_with(after, level->path)) {
        level->next = level->count;
        return 0;
    }
    const char *rest = after + strlen(level->path);
    size_t low = 0, high = level->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(level->items[mid], rest) <= 0)
            low = mid + 1;
        else
            high = mid;
    }
    level->next = low;
    /* The directory that `after` is in, or is, sorts right before; its keys may be behind. */
    const char *slash = strchr(rest, '/');
    size_t len = slash ? (size_t)(slash - rest) + 1 : 0;
    const char *item = low ? level->items[low - 1] : "";
    if (!slash || strncmp(item, rest, len) || item[len])
        return 0;
    int more = 1;
    if (w->by_directory)
        more = skip_group ? 0 : has_more(w, level->path, item, after);
    if (more > 0)
        level->next--;
    return MIN(more, 0);
}

static int push_level(struct walk *w, const char *path, const char *after, bool skip_group)
{
    if (w->depth == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 8;
        struct level *grown = reallocarray(w->levels, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        w->levels = grown;
        w->cap = cap;
    }
    struct level level = {.read_ns = clock_wall_ns()};
    struct stat st;
    int fd = open_level(w->f, path);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    DIR *d = fdopendir(fd);
    level.path = strdup(path);
    if (!d || !level.path || fstat(fd, &st) < 0) {
        int rc = d ? -ENOMEM : -errno;
        level_done(&level);
        if (d)
            closedir(d);
        else
            close(fd);
        return rc;
    }
    level.ino = st.st_ino;
    level.mtime_ns = mtime_ns(&st);
    const char *start = w->depth ? "" : w->prefix + strlen(path);
    if (*path && !*start && (!after || strcmp(path, after) > 0))
        level.mark_ns = file_mark_ns(fd);
    level.mark_due = level.mark_ns;
    int rc = read_names(&level, d, start);
    closedir(d);
    if (!rc)
        rc = sort_names(&level);
    if (!rc)
        rc = skip_to(w, &level, after, skip_group);
    if (rc)
        level_done(&level);
    else
        w->levels[w->depth++] = level;
    return rc;
}

/* The walk */

static int walk_begin(struct walk *w, struct file_store *f, const char *prefix, bool by_directory,
                      const char *after, bool skip_group)
{
    *w = (struct walk){.f = f, .by_directory = by_directory, .dir = -1};
    w->prefix = strdup(prefix);
    const char *slash = strrchr(prefix, '/');
    cleanup(free_ptr) char *path = strndup(prefix, slash ? (size_t)(slash - prefix) + 1 : 0);
    if (!w->prefix || !path)
        return -ENOMEM;
    /* What no path can have is not there; the walk is empty then. */
    struct file_key key;
    if (*path && (strlen(path) < 2 || file_key_parse(path, &key)))
        return 0;
    return push_level(w, path, after, skip_group);
}

static int join_name(struct walk *w, const char *path, const char *name)
{
    size_t a = strlen(path), b = strlen(name) + 1;
    if (w->name_cap < a + b) {
        size_t cap = 2 * (a + b);
        char *grown = realloc(w->name, cap);
        if (!grown)
            return -ENOMEM;
        w->name = grown;
        w->name_cap = cap;
    }
    memcpy(w->name, path, a);
    memcpy(w->name + a, name, b);
    return 0;
}

/* The open directory of the innermost level. */
static int level_dir(struct walk *w)
{
    if (w->dir >= 0 && w->dir_depth == w->depth)
        return w->dir;
    close_fd(&w->dir);
    w->dir = open_level(w->f, w->levels[w->depth - 1].path);
    w->dir_depth = w->depth;
    return w->dir;
}

static void pop_level(struct walk *w)
{
    close_fd(&w->dir);
    w->dir = -1;
    level_done(&w->levels[--w->depth]);
}

/* 1: a file, 0: it is not there, or no file. */
static int look_at(struct walk *w, const char *name, struct stat *st)
{
    int dir = level_dir(w);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return dir;
    if (fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    return S_ISREG(st->st_mode);
}

/* 1 and the next item, 0 at the end, or -errno. */
static int walk_next(struct walk *w, const char *after, struct item *item)
{
    while (w->depth) {
        struct level *level = &w->levels[w->depth - 1];
        *item = (struct item){0};
        if (level->mark_due) {
            level->mark_due = false;
            item->is_marker = true;
            item->st.st_ino = level->ino;
            item->st.st_mtim.tv_sec = (time_t)(level->mark_ns / NS_PER_S);
            item->st.st_mtim.tv_nsec = (long)(level->mark_ns % NS_PER_S);
            int rc = join_name(w, level->path, "");
            item->name = w->name;
            return rc ? rc : 1;
        }
        if (level->next == level->count) {
            pop_level(w);
            continue;
        }
        const char *name = level->items[level->next++];
        int rc = join_name(w, level->path, name);
        if (rc)
            return rc;
        item->name = w->name;
        if (name[strlen(name) - 1] != '/') {
            rc = look_at(w, name, &item->st);
            if (rc)
                return rc;
        } else if (w->by_directory) {
            item->is_prefix = true;
            return 1;
        } else {
            cleanup(free_ptr) char *path = strdup(w->name);
            rc = path ? push_level(w, path, after, false) : -ENOMEM;
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* The item that walk_next gave last comes again. */
static void walk_back(struct walk *w, const struct item *item)
{
    struct level *level = &w->levels[w->depth - 1];
    if (item->is_marker)
        level->mark_due = true;
    else
        level->next--;
}

/* Whether the directory path + item has keys behind `after`. */
static int has_more(struct walk *w, const char *path, const char *item, const char *after)
{
    struct walk inner;
    struct item found;
    size_t len = strlen(path) + strlen(item) + 1;
    cleanup(free_ptr) char *prefix = malloc(len);
    if (!prefix)
        return -ENOMEM;
    strcpy(prefix, path);
    strcat(prefix, item);
    int rc = walk_begin(&inner, w->f, prefix, false, after, false);
    if (!rc)
        rc = walk_next(&inner, after, &found);
    walk_done(&inner);
    return rc;
}

/* Cursors */

static void cursor_free(struct file_cursor *c)
{
    walk_done(&c->walk);
    free(c->delimiter);
    free(c->last);
    free(c);
}

static void drop_locked(struct file_store *f, struct file_cursor *c)
{
    DL_DELETE(f->cursors, c);
    f->cursors_bytes -= c->bytes;
    cursor_free(c);
}

static void cursors_expire(struct loop_timer *timer)
{
    struct file_store *f = container_of(timer, struct file_store, cursors_timer);
    uint64_t now = clock_monotonic_ms();
    struct file_cursor *c, *next;
    pthread_mutex_lock(&f->cursors_lock);
    DL_FOREACH_SAFE(f->cursors, c, next)
    if (c->expires_ms <= now)
        drop_locked(f, c);
    f->cursors_timed = f->cursors;
    pthread_mutex_unlock(&f->cursors_lock);
    if (f->cursors_timed)
        loop_timer_start(timer, CURSOR_LIFE_MS / 2);
}

static void cursors_time(struct loop_task *task)
{
    struct file_store *f = container_of(task, struct file_store, cursors_task);
    loop_timer_start(&f->cursors_timer, CURSOR_LIFE_MS);
}

static bool same(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

/* Nothing on the walk has changed since it was read. */
static bool is_fresh(const struct walk *w)
{
    for (size_t i = 0; i < w->depth; i++) {
        const struct level *level = &w->levels[i];
        struct stat st;
        cleanup(close_fd) int fd = open_level(w->f, level->path);
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != level->ino ||
            mtime_ns(&st) != level->mtime_ns || level->mtime_ns + TICK_NS >= level->read_ns)
            return false;
    }
    return true;
}

/* Takes the walk that can go on behind `after`, if there is one. */
static struct file_cursor *cursor_take(struct file_store *f, const struct store_op *op,
                                       const char *after, bool after_is_prefix)
{
    struct file_cursor *c;
    pthread_mutex_lock(&f->cursors_lock);
    DL_FOREACH(f->cursors, c)
    if (c->last_is_prefix == after_is_prefix && same(c->last, after) &&
        same(c->walk.prefix, op->prefix ? op->prefix : "") && same(c->delimiter, op->delimiter))
        break;
    if (c) {
        DL_DELETE(f->cursors, c);
        f->cursors_bytes -= c->bytes;
    }
    pthread_mutex_unlock(&f->cursors_lock);
    if (c && !is_fresh(&c->walk)) {
        cursor_free(c);
        c = NULL;
    }
    return c;
}

static size_t walk_bytes(const struct walk *w)
{
    size_t sum = sizeof(struct file_cursor);
    for (size_t i = 0; i < w->depth; i++)
        sum +=
            sizeof(struct level) + 2 * w->levels[i].names_len + w->levels[i].count * sizeof(char *);
    return sum;
}

/* Keeps a walk for the page after `last`; takes it in any case. */
static void cursor_keep(struct file_store *f, const struct store_op *op, struct file_cursor *c,
                        const struct store_entry *last)
{
    close_fd(&c->walk.dir); /* no descriptor between pages */
    c->walk.dir = -1;
    free(c->last);
    c->last = strdup(last->name);
    c->last_is_prefix = last->is_prefix;
    c->bytes = walk_bytes(&c->walk);
    c->expires_ms = clock_monotonic_ms() + CURSOR_LIFE_MS;
    if (!c->last || c->bytes > CURSORS_MAX_BYTES) {
        cursor_free(c);
        return;
    }
    size_t count;
    struct file_cursor *any;
    pthread_mutex_lock(&f->cursors_lock);
    DL_APPEND(f->cursors, c);
    f->cursors_bytes += c->bytes;
    DL_COUNT(f->cursors, any, count);
    for (; count > CURSORS_MAX || f->cursors_bytes > CURSORS_MAX_BYTES; count--)
        drop_locked(f, f->cursors);
    bool start = !f->cursors_timed;
    f->cursors_timed = true;
    pthread_mutex_unlock(&f->cursors_lock);
    if (start)
        loop_post(f->store.loop, &f->cursors_task);
}

static void timer_init(void *arg)
{
    struct file_store *f = arg;
    loop_timer_init(f->store.loop, &f->cursors_timer, cursors_expire);
}

void file_cursors_init(struct file_store *f)
{
    pthread_mutex_init(&f->cursors_lock, NULL);
    f->cursors_task.run = cursors_time;
    loop_call(f->store.loop, timer_init, f);
}

struct closing {
    struct file_store *f;
    sem_t closed;
};

static void timer_closed(struct loop_timer *timer)
{
    struct closing *closing = timer->uv.data;
    sem_post(&closing->closed);
}

static void timer_close(void *arg)
{
    struct closing *closing = arg;
    closing->f->cursors_timer.uv.data = closing;
    loop_timer_close(&closing->f->cursors_timer, timer_closed);
}

void file_cursors_done(struct file_store *f)
{
    struct closing closing = {.f = f};
    sem_init(&closing.closed, 0, 0);
    loop_call(f->store.loop, timer_close, &closing);
    while (sem_wait(&closing.closed) < 0 && errno == EINTR)
        ;
    sem_destroy(&closing.closed);
    while (f->cursors)
        drop_locked(f, f->cursors);
    pthread_mutex_destroy(&f->cursors_lock);
}

/* Pages */

static int add_item(struct store_op *op, const struct item *item)
{
    if (item->is_prefix)
        return store_op_add_entry(op, item->name, 0, 0, NULL, true);
    struct store_info info;
    file_info(&item->st, &info);
    return store_op_add_entry(op, item->name, info.size, info.mtime_ns, info.etag, false);
}

/* For delimiters other than '/': the item as the common prefix that it belongs to, if any. */
static void group_item(const struct store_op *op, struct walk *w, struct item *item)
{
    if (!op->delimiter || item->is_prefix || w->by_directory)
        return;
    char *end = strstr(w->name + strlen(w->prefix), op->delimiter);
    if (!end)
        return;
    end[strlen(op->delimiter)] = 0;
    item->is_prefix = true;
}

static int end_page(struct store_op *op)
{
    const struct store_entry *last = &op->out_list.entries[op->out_list.count - 1];
    char *token = store_op_alloc(op, strlen(last->name) + 2);
    if (!token)
        return -ENOMEM;
    token[0] = last->is_prefix ? 'p' : 'k';
    strcpy(token + 1, last->name);
    op->out_list.next_token = token;
    return 0;
}

/* 1: there is more behind the page. */
static int fill_page(struct store_op *op, struct walk *w, const char *after, bool after_is_prefix)
{
    size_t max = MIN(op->max_keys ? op->max_keys : STORE_LIST_MAX, STORE_LIST_MAX);
    const char *group = after_is_prefix ? after : NULL; /* listed already */
    for (;;) {
        struct item item;
        int rc = walk_next(w, after, &item);
        if (rc <= 0)
            return rc;
        if (file_cancelled(op))
            return -ECANCELED;
        if (group && starts_with(item.name, group))
            continue;
        struct item whole = item;
        if (op->out_list.count == max) {
            walk_back(w, &whole);
            return 1;
        }
        group_item(op, w, &item);
        rc = add_item(op, &item);
        if (rc)
            return rc;
        group = item.is_prefix ? op->out_list.entries[op->out_list.count - 1].name : NULL;
    }
}

int file_do_list(struct file_store *f, struct store_op *op)
{
    const char *prefix = op->prefix ? op->prefix : "";
    const char *after = op->start_after;
    bool after_is_prefix = false;
    if (op->token) {
        if (op->token[0] != 'k' && op->token[0] != 'p')
            return file_fail(op, -EINVAL, "InvalidArgument", "not a token of this store");
        after = op->token + 1;
        after_is_prefix = op->token[0] == 'p';
    }
    struct file_cursor *c = after ? cursor_take(f, op, after, after_is_prefix) : NULL;
    int rc = 0;
    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c)
            return -ENOMEM;
        c->delimiter = op->delimiter ? strdup(op->delimiter) : NULL;
        bool by_directory = op->delimiter && !strcmp(op->delimiter, "/");
        rc = walk_begin(&c->walk, f, prefix, by_directory, after, after_is_prefix);
        if (op->delimiter && !c->delimiter)
            rc = -ENOMEM;
    }
    if (!rc)
        rc = fill_page(op, &c->walk, after, after_is_prefix);
    int more = rc;
    if (rc > 0)
        rc = end_page(op);
    if (rc || !more) {
        cursor_free(c);
        return rc == -ECANCELED || rc == -ENOMEM || !rc ? rc : file_error(op, -rc, "listing");
    }
    cursor_keep(f, op, c, &op->out_list.entries[op->out_list.count - 1]);
    return 0;
}
