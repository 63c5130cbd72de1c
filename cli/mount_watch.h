/*
 * A small process beside a mount, for the mount's death (docs/fuse.md).
 *
 * kill -9 does not end a thread that waits in the kernel for the mount which its own process
 * served. Then the connection stays open, and all who use the mount wait for ever. The watcher
 * lives on, sees that the process died, and breaks the connection: they get ENOTCONN, the thread
 * ends.
 */
#ifndef SLUICE_CLI_MOUNT_WATCH_H
#define SLUICE_CLI_MOUNT_WATCH_H

#include <sys/types.h>

struct mount_watch {
    pid_t pid; /* 0: none */
    int link;  /* closed by the end of this process, however it ends */
};

/* Forks it: before any thread exists, by the thread that lives as long as the process. Without one
 * (-errno) a mount works as well. */
int mount_watch_start(struct mount_watch *w);
/* What is mounted at the path is to be watched. Opens the file that breaks this connection and
 * hands it over, so that it is never looked for by a number that may be another mount's by then.
 * Sends no request to the mount. */
void mount_watch_mounted(struct mount_watch *w, const char *mountpoint);
/* The mount is gone: ends the watcher and waits for that. */
void mount_watch_stop(struct mount_watch *w);

#endif
