/* Mounts of this namespace: looking them up, binding, unmounting. Paths are used only after no
 * component of them turned out to be a symbolic link; the mount calls go by descriptors, so nobody
 * can put one there in between. Any thread. Calls on a mount block while its daemon does. */
#ifndef SLUICE_CSI_MOUNTS_H
#define SLUICE_CSI_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct mount_entry {
    char *mountpoint, *type, *source; /* owned by the table */
    char device[24];                  /* major:minor of the filesystem */
    bool read_only;                   /* this mount, or its filesystem */
};

struct mount_table {
    struct mount_entry *entries; /* in the order in which they were mounted */
    size_t count;
};

/* 0 or -errno. Release with mounts_done. */
int mounts_read(struct mount_table *out);
void mounts_done(struct mount_table *t);
/* The mount that is seen at exactly this path, or NULL. */
const struct mount_entry *mounts_at(const struct mount_table *t, const char *path);
bool mounts_is_sluice(const struct mount_entry *entry);
/* Of a volume of the metadata service. */
bool mounts_is_of_service(const struct mount_entry *entry);
/* For one line of /proc/self/mountinfo (tests, fuzzing): 0 or -EBADMSG; release by free of the
 * three strings. */
int mounts_parse_line(const char *line, struct mount_entry *out);

/* One path: is something mounted there? -errno if that cannot be known. */
int mounts_is_mounted(const char *path);
/* The filesystem answers. False: its daemon is gone ("Transport endpoint is not connected"). */
bool mounts_alive(const char *path);

/* Makes the directory if it is not there; its parents must be, without symbolic links. */
int mounts_make_target(const char *path, struct error *error);
/* Removes an empty directory that may not be there. */
int mounts_remove_target(const char *path, struct error *error);
/* A descriptor (to read) of the mount's root, or of a directory below it; no symbolic link on the
 * way. -errno. */
int mounts_open_below(const char *mountpoint, const char *directory);
/* A bind mount of `directory` (relative, NULL: the root) of the mount at `source` on `target`. */
struct mount_flags {
    bool read_only, nosuid, nodev, noexec, noatime;
};
int mounts_bind(const char *source, const char *directory, const char *target,
                const struct mount_flags *flags, struct error *error);
/* Takes away all that is mounted at the path. -EBUSY if it is in use and not `dead`.
 * Dead, its process is gone: who still waits for an answer gets an error. Nothing
 * mounted there, or no such path, is success. */
int mounts_unmount(const char *path, bool dead, struct error *error);

#endif
