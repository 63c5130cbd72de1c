/* Going to the background, with the outcome reported to who called. */
#ifndef SLUICE_CLI_DAEMON_H
#define SLUICE_CLI_DAEMON_H

#include "base/error.h"

struct daemon {
    int report; /* pipe to the parent; -1 in the foreground */
};

/* Forks before any thread exists. In the parent: waits for the child's report and exits: 0 when it
 * is ready, else it prints the child's error and exits with 1; what would end it goes to the child.
 * Returns in the child (or, with
 * foreground, in the caller). */
int daemon_start(struct daemon *d, const char *name, int foreground, struct error *error);
/* The child is ready: the parent ends with 0; stdin, stdout and stderr go to /dev/null (stderr
 * stays if keep_stderr). In the foreground: tells systemd (NOTIFY_SOCKET), nothing else. */
void daemon_ready(struct daemon *d, int keep_stderr);
/* It failed: the parent prints the text and ends with 1. In the foreground: prints it. */
void daemon_failed(struct daemon *d, const char *name, const struct error *why);

/* The sockets that this process was started with, from this descriptor on: LISTEN_FDS and
 * LISTEN_PID as systemd sets them, sd_listen_fds(3). Their number, 0 if they are not for this
 * process, or -EINVAL. Once: what is started from here is not told of them. */
#define DAEMON_SOCKETS_FROM 3
int daemon_sockets(struct error *error);

#endif
