#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define STACK_MAX 64 /* mounts over each other at one path */

/* \040 and the like, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        bool octal = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
                     from[2] <= '7' && from[3] >= '0' && from[3] <= '7';
        if (!octal) {
            *to++ = *from;
            continue;
        }
        *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
        from += 3;
    }
    *to = 0;
}

static bool has_option(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, name, len) == 0 && (p[len] == ',' || !p[len]))
            return true;
    return false;
}

int mounts_parse_line(const char *line, struct mount_entry *out)
{
    enum { ID, PARENT, DEVICE, ROOT, POINT, OPTIONS, FIXED };
    cleanup(free_ptr) char *copy = strdup(line);
    char *words[FIXED], *rest = copy, *word = NULL;
    *out = (struct mount_entry){0};
    if (!copy)
        return -ENOMEM;
    for (int i = 0; i < FIXED; i++)
        if (!(words[i] = strsep(&rest, " ")) || !*words[i])
            return -EBADMSG;
    while ((word = strsep(&rest, " ")) && strcmp(word, "-") != 0)
        continue; /* optional fields */
    char *type = word ? strsep(&rest, " ") : NULL, *source = type ? strsep(&rest, " ") : NULL;
    char *super = source ? strsep(&rest, " \n") : NULL;
    if (!super || strlen(words[DEVICE]) >= sizeof(out->device))
        return -EBADMSG;
    unescape(words[POINT]);
    unescape(source);
    snprintf(out->device, sizeof(out->device), "%s", words[DEVICE]);
    out->read_only = has_option(words[OPTIONS], "ro") || has_option(super, "ro");
    out->mountpoint = strdup(words[POINT]);
    out->type = strdup(type);
    out->source = strdup(source);
    return out->mountpoint && out->type && out->source ? 0 : -ENOMEM;
}

static void entry_done(struct mount_entry *e)
{
    free(e->mountpoint);
    free(e->type);
    free(e->source);
}

int mounts_read(struct mount_table *out)
{
    char *line = NULL;
    size_t room = 0, cap = 0;
    int r = 0;
    *out = (struct mount_table){0};
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    while (r == 0 && getline(&line, &room, file) > 0) {
        if (out->count == cap) {
            cap = cap ? cap * 2 : 64;
            struct mount_entry *more = realloc(out->entries, cap * sizeof(*more));
            if (!more) {
                r = -ENOMEM;
                break;
            }
            out->entries = more;
        }
        r = mounts_parse_line(line, &out->entries[out->count]);
        if (r < 0)
            entry_done(&out->entries[out->count]);
        else
            out->count++;
        if (r == -EBADMSG)
            r = 0; /* a line of a newer kernel */
    }
    free(line);
    fclose(file);
    if (r < 0)
        mounts_done(out);
    return r;
}

void mounts_done(struct mount_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        entry_done(&t->entries[i]);
    free(t->entries);
    *t = (struct mount_table){0};
}

const struct mount_entry *mounts_at(const struct mount_table *t, const char *path)
{
    for (size_t i = t->count; i > 0; i--)
        if (strcmp(t->entries[i - 1].mountpoint, path) == 0)
            return &t->entries[i - 1];
    return NULL;
}

bool mounts_is_sluice(const struct mount_entry *entry)
{
    return entry && strcmp(entry->type, "fuse.sluice") == 0;
}

bool mounts_is_of_service(const struct mount_entry *entry)
{
    return mounts_is_sluice(entry) && strncmp(entry->source, "sluice", 6) == 0;
}

int mounts_is_mounted(const char *path)
{
    struct mount_table table;
    int r = mounts_read(&table);
    if (r < 0)
        return r;
    r = mounts_at(&table, path) != NULL;
    mounts_done(&table);
    return r;
}

bool mounts_alive(const char *path)
{
    struct statvfs st;
    return statvfs(path, &st) == 0 ||
           (errno != ENOTCONN && errno != ECONNABORTED && errno != EIO && errno != ESHUTDOWN);
}

/* A directory by its path from `at`, no symbolic link on the way. */
static int open_plain(int at, const char *path, uint64_t more)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | more};
    int fd = (int)syscall(SYS_openat2, at, path, &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

static int say(struct error *error, int code, const char *path)
{
    if (code == -ELOOP)
        return error_set(error, code, "%s: there is a symbolic link in the path", path);
    return error_set(error, code, "%s: %s", path, strerror(-code));
}

/* The parent of an absolute path; *name points into path. */
static int open_parent(const char *path, const char **name, struct error *error)
{
    const char *slash = strrchr(path, '/');
    cleanup(free_ptr) char *parent =
        slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!parent)
        return error_set(error, -ENOMEM, "out of memory");
    int fd = open_plain(AT_FDCWD, parent, 0);
    *name = slash + 1;
    return fd < 0 ? say(error, fd, parent) : fd;
}

int mounts_make_target(const char *path, struct error *error)
{
    const char *name = NULL;
    struct stat st;
    cleanup(close_fd) int parent = open_parent(path, &name, error);
    if (parent < 0)
        return parent;
    if (mkdirat(parent, name, 0750) == 0)
        return 0;
    if (errno != EEXIST)
        return say(error, -errno, path);
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return say(error, -errno, path);
    if (S_ISLNK(st.st_mode))
        return say(error, -ELOOP, path);
    return S_ISDIR(st.st_mode) ? 0 : say(error, -ENOTDIR, path);
}

int mounts_remove_target(const char *path, struct error *error)
{
    const char *name = NULL;
    cleanup(close_fd) int parent = open_parent(path, &name, error);
    if (parent == -ENOENT)
        return 0;
    if (parent < 0)
        return parent;
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return say(error, -errno, path);
    return 0;
}

int mounts_open_below(const char *mountpoint, const char *directory)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve =
                               RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH};
    cleanup(close_fd) int root = open_plain(AT_FDCWD, mountpoint, 0);
    if (root < 0)
        return root;
    int fd = (int)syscall(SYS_openat2, root, directory ? directory : ".", &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

static unsigned long kernel_flags(const struct mount_flags *flags)
{
    return (flags->read_only ? MS_RDONLY : 0ul) | (flags->nosuid ? MS_NOSUID : 0ul) |
           (flags->nodev ? MS_NODEV : 0ul) | (flags->noexec ? MS_NOEXEC : 0ul) |
           (flags->noatime ? MS_NOATIME : 0ul);
}

static int unmount_all(const char *path, int flags, struct error *error)
{
    char place[300];
    const char *name = NULL;
    cleanup(close_fd) int parent = open_parent(path, &name, error);
    if (parent == -ENOENT)
        return 0;
    if (parent < 0)
        return parent;
    snprintf(place, sizeof(place), "/proc/self/fd/%d/%s", parent, name);
    for (int i = 0; i < STACK_MAX; i++) {
        int there = mounts_is_mounted(path);
        if (there <= 0)
            return there < 0 ? say(error, there, path) : 0;
        if (umount2(place, UMOUNT_NOFOLLOW | flags) < 0 && errno != EINVAL)
            return say(error, -errno, path);
    }
    return say(error, -EBUSY, path);
}

int mounts_bind(const char *source, const char *directory, const char *target,
                const struct mount_flags *flags, struct error *error)
{
    char from_path[40], to_path[40];
    cleanup(close_fd) int from = open_plain(AT_FDCWD, source, 0);
    if (from < 0)
        return say(error, from, source);
    if (directory) {
        int below = open_plain(from, directory, RESOLVE_BENEATH);
        if (below < 0)
            return say(error, below, directory);
        close(from);
        from = below;
    }
    cleanup(close_fd) int to = open_plain(AT_FDCWD, target, 0);
    if (to < 0)
        return say(error, to, target);
    snprintf(from_path, sizeof(from_path), "/proc/self/fd/%d", from);
    snprintf(to_path, sizeof(to_path), "/proc/self/fd/%d", to);
    if (mount(from_path, to_path, NULL, MS_BIND, NULL) < 0)
        return error_set(error, -errno, "binding %s to %s: %s", source, target, strerror(errno));
    /* Flags of a bind mount are set by a second call; always nosuid and nodev, as the mount is. */
    cleanup(close_fd) int bound = open_plain(AT_FDCWD, target, 0);
    snprintf(to_path, sizeof(to_path), "/proc/self/fd/%d", bound);
    unsigned long wanted = MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | kernel_flags(flags);
    if (bound >= 0 && mount(NULL, to_path, NULL, wanted, NULL) == 0)
        return 0;
    int code = bound < 0 ? bound : -errno;
    unmount_all(target, MNT_DETACH, NULL);
    return error_set(error, code, "flags of the mount at %s: %s", target, strerror(-code));
}

int mounts_unmount(const char *path, bool dead, struct error *error)
{
    return unmount_all(path, dead ? MNT_DETACH | MNT_FORCE : 0, error);
}
