#include "mount_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define NAME "fuse-watch" /* nothing by which the mount itself is looked for and killed */
#define DEATH_SIGNAL SIGUSR1
#define GRACE_MS 100 /* a process without such a thread is gone by itself */
#define TRIES 600    /* of GRACE_MS: one of them may be too early */

/* The file that breaks a connection, in the control filesystem of FUSE: root mounts it for this, at
 * no place; where it is mounted, its user may open it too. It stays the file of this connection: a
 * device number is another mount's as soon as this one is taken away. */
static int open_abort(unsigned device)
{
    char path[80];
    cleanup(close_fd) int context = fsopen("fusectl", FSOPEN_CLOEXEC);
    if (context >= 0 && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
        cleanup(close_fd) int dir = fsmount(context, FSMOUNT_CLOEXEC, 0);
        snprintf(path, sizeof(path), "%u/abort", device);
        int fd = dir < 0 ? -1 : openat(dir, path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", device);
    return open(path, O_WRONLY | O_CLOEXEC);
}

/* The command line is the mount's, and so would be found by who looks for mounts. */
static void rename_process(void)
{
    char text[4096];
    unsigned long start = 0, end = 0;
    prctl(PR_SET_NAME, NAME);
    cleanup(close_fd) int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return;
    text[n] = 0;
    /* The name may hold spaces; after it comes field 3, and 48 and 49 are where the words stand. */
    char *rest = strrchr(text, ')');
    rest = rest ? rest + 2 : NULL;
    for (int field = 3; rest && field <= 49; field++) {
        char *word = strsep(&rest, " ");
        if (field == 48)
            start = strtoul(word, NULL, 10);
        if (field == 49)
            end = strtoul(word, NULL, 10);
    }
    if (!start || end < start + sizeof(NAME))
        return;
    memset((char *)start, 0, end - start);     /* NOLINT(performance-no-int-to-ptr) */
    memcpy((char *)start, NAME, sizeof(NAME)); /* NOLINT(performance-no-int-to-ptr) */
}

/* One byte with a descriptor beside it. */
union passed {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* The mount's file comes. false: the other end is closed, so every thread of the process is gone
 * and the kernel has ended the connection itself. */
static bool receive(int link, int *abort_fd)
{
    char byte;
    union passed passed;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &passed, .msg_controllen = sizeof(passed)};
    ssize_t n = recvmsg(link, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *head = n == 1 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int))) {
        close_fd(abort_fd);
        memcpy(abort_fd, CMSG_DATA(head), sizeof(int));
    }
    return n > 0 || (n < 0 && errno == EINTR);
}

static void hand_over(int link, int abort_fd)
{
    union passed passed = {0};
    struct iovec iov = {.iov_base = (char[]){0}, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &passed, .msg_controllen = sizeof(passed)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    *head = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(head), &abort_fd, sizeof(int));
    (void)!sendmsg(link, &msg, MSG_NOSIGNAL); /* the watcher may have been killed */
}

/* The process died, or is dying: as long as the link is open a thread of it is there. */
static void end_connection(int link, int abort_fd)
{
    struct pollfd p = {.fd = link, .events = POLLIN};
    for (int i = 0; i < TRIES; i++) {
        if (poll(&p, 1, GRACE_MS) > 0 && !receive(link, &abort_fd))
            return;
        if (abort_fd >= 0)
            (void)!write(abort_fd, "1", 1);
    }
}

static void __attribute__((noreturn)) watch(int link, pid_t parent)
{
    sigset_t all;
    int abort_fd = -1;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL); /* it ends with the mount, and by nothing else */
    prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL);
    setsid();
    rename_process();
    (void)!chdir("/");
    int null = open("/dev/null", O_RDWR);
    int kept = fcntl(link, F_DUPFD, 3);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    dup2(kept, 3);
    syscall(SYS_close_range, 4, ~0u, 0);
    sigemptyset(&all);
    sigaddset(&all, DEATH_SIGNAL);
    int death = signalfd(-1, &all, SFD_CLOEXEC);
    struct pollfd fds[] = {{.fd = 3, .events = POLLIN}, {.fd = death, .events = POLLIN}};
    while (getppid() == parent) { /* else it died before it could be asked for a signal */
        if (poll(fds, ARRAY_LEN(fds), -1) < 0)
            continue;
        if (fds[0].revents && !receive(3, &abort_fd))
            _exit(0);
        if (fds[1].revents)
            break;
    }
    end_connection(3, abort_fd);
    _exit(0);
}

int mount_watch_start(struct mount_watch *w)
{
    int fds[2];
    pid_t parent = getpid();
    *w = (struct mount_watch){.link = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    pid_t pid = fork();
    int code = -errno;
    if (pid == 0)
        watch(fds[0], parent);
    close(fds[0]);
    if (pid < 0) {
        close(fds[1]);
        return code;
    }
    *w = (struct mount_watch){.pid = pid, .link = fds[1]};
    return 0;
}

void mount_watch_mounted(struct mount_watch *w, const char *mountpoint)
{
    struct statx st;
    if (!w->pid || statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0 ||
        st.stx_dev_major != 0)
        return;
    cleanup(close_fd) int fd = open_abort(st.stx_dev_minor);
    if (fd >= 0)
        hand_over(w->link, fd);
}

void mount_watch_stop(struct mount_watch *w)
{
    if (!w->pid)
        return;
    kill(w->pid, SIGKILL);
    close(w->link);
    while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    w->pid = 0;
}
