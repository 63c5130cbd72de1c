#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SOCKETS_MAX 64

/* What would end the caller: the child has a session of its own, where no Ctrl-C comes. */
static int open_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;
    sigset_t mask;
    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&mask, numbers[i]);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    return signalfd(-1, &mask, SFD_CLOEXEC);
}

/* Until there is something to read, or the end of it. */
static void wait_for_report(pid_t child, int fd, int signals)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    struct signalfd_siginfo info;
    do {
        if (poll(fds, ARRAY_LEN(fds), -1) > 0 && fds[1].revents &&
            read(signals, &info, sizeof(info)) == sizeof(info))
            kill(child, SIGTERM);
    } while (!fds[0].revents);
}

/* The parent: the child's report is "+" or an error text; nothing at all means that it died. */
static void __attribute__((noreturn)) wait_for_child(pid_t child, int fd, const char *name)
{
    char text[1024];
    size_t len = 0;
    int signals = open_signals();
    for (;;) {
        wait_for_report(child, fd, signals);
        ssize_t n = read(fd, text + len, sizeof(text) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (len == sizeof(text) - 1)
            break;
    }
    text[len] = 0;
    if (len == 1 && text[0] == '+')
        _exit(0);
    if (len) {
        fprintf(stderr, "%s: %s\n", name, text);
        exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        fprintf(stderr, "%s: ended by signal %d before it was ready; see its log\n", name,
                WTERMSIG(status));
    else
        fprintf(stderr, "%s: ended before it was ready; see its log\n", name);
    exit(1);
}

int daemon_start(struct daemon *d, const char *name, int foreground, struct error *error)
{
    d->report = -1;
    if (foreground)
        return 0;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set(error, -errno, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        int code = -errno;
        close(fds[0]);
        close(fds[1]);
        return error_set(error, code, "fork: %s", strerror(-code));
    }
    if (child > 0) {
        close(fds[1]);
        wait_for_child(child, fds[0], name);
    }
    close(fds[0]);
    setsid();
    d->report = fds[1];
    return 0;
}

static void tell_systemd(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof(address.sun_path))
        return;
    cleanup(close_fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (address.sun_path[0] == '@')
        address.sun_path[0] = 0;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    static const char ready[] = "READY=1";
    (void)!sendto(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL, (struct sockaddr *)&address, len);
}

static void write_report(struct daemon *d, const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(d->report, text, len);
        if (n < 0 && errno != EINTR)
            break;
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        }
    }
    close(d->report);
    d->report = -1;
}

void daemon_ready(struct daemon *d, int keep_stderr)
{
    tell_systemd();
    if (d->report < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
        if (!keep_stderr)
            dup2(null, 2);
        close(null);
    }
    write_report(d, "+", 1);
}

void daemon_failed(struct daemon *d, const char *name, const struct error *why)
{
    const char *text = error_text(why);
    if (d->report < 0)
        fprintf(stderr, "%s: %s\n", name, text);
    else
        write_report(d, text, strlen(text));
}

int daemon_sockets(struct error *error)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    char *end = NULL;
    int r = 0;
    if (pid && count && strtol(pid, NULL, 10) == getpid()) {
        long n = strtol(count, &end, 10);
        r = *count && !*end && n > 0 && n <= SOCKETS_MAX
                ? (int)n
                : error_set(error, -EINVAL, "LISTEN_FDS=%s: 1 to %d sockets are needed", count,
                            SOCKETS_MAX);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return r;
}
