#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define CGROUPS_MAX 16
#define POLL_STEP_MS 50 /* how late a cancelled call is seen */

void words_add(struct words *w, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;
    if (w->failed)
        return;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0 || w->count == SPAWN_WORDS_MAX) {
        if (n >= 0)
            free(text);
        w->failed = true;
        return;
    }
    w->list[w->count++] = text;
    w->list[w->count] = NULL;
}

void words_done(struct words *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        explicit_bzero(w->list[i], strlen(w->list[i])); /* secrets stand here */
        free(w->list[i]);
    }
    *w = (struct words){0};
}

void spawned_done(struct spawned *s)
{
    free(s->out);
    free(s->err);
    *s = (struct spawned){0};
}

struct child {
    pid_t pid;
    int pidfd, out, err;
};

/* Between fork and exec: nothing here may take a lock. */
static void __attribute__((noreturn))
become(struct words *argv, struct words *env, const int *cgroups, int out, int err)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    for (; *cgroups >= 0; cgroups++)
        (void)!write(*cgroups, "0", 1);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(out, 1);
    dup2(err, 2);
    syscall(SYS_close_range, 3, ~0u, 0);
    execve(argv->list[0], argv->list, env->list);
    const char *why = strerror(errno);
    (void)!write(2, why, strlen(why));
    _exit(127);
}

static int start(struct words *argv, struct words *env, const int *cgroups, struct child *child)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(err, O_CLOEXEC) < 0) {
        int code = -errno;
        close(out[0]);
        close(out[1]);
        return code;
    }
    pid_t pid = fork();
    int code = pid < 0 ? -errno : 0;
    if (pid == 0)
        become(argv, env, cgroups, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    if (pid < 0) {
        close(out[0]);
        close(err[0]);
        return code;
    }
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    *child = (struct child){
        .pid = pid, .out = out[0], .err = err[0], .pidfd = (int)syscall(SYS_pidfd_open, pid, 0)};
    return 0;
}

/* What is there now; -1 in *fd at the end. Bytes beyond the limit are dropped. */
static void drain(int *fd, struct buf *into)
{
    char bytes[4096];
    while (*fd >= 0) {
        ssize_t n = read(*fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            close(*fd);
            *fd = -1;
            return;
        }
        if (into->len + (size_t)n < SPAWN_OUTPUT_MAX)
            buf_put(into, bytes, (size_t)n);
    }
}

/* Until the process has ended. What it left running does not hold us: its output after that is not
 * waited for. */
static int wait_for(struct child *child, struct csi_call *call, struct buf *out, struct buf *err,
                    int *status)
{
    int result = 0;
    for (;;) {
        pid_t ended = waitpid(child->pid, status, WNOHANG);
        drain(&child->out, out);
        drain(&child->err, err);
        if (ended == child->pid || (ended < 0 && errno != EINTR))
            return result;
        if (result == 0 && !csi_time_left_ms(call)) {
            result = -ETIMEDOUT;
            kill(-child->pid, SIGKILL);
            kill(child->pid, SIGKILL);
        }
        struct pollfd fds[] = {
            {child->pidfd, POLLIN, 0}, {child->out, POLLIN, 0}, {child->err, POLLIN, 0}};
        poll(fds, ARRAY_LEN(fds), POLL_STEP_MS);
    }
}

static char *text_of(struct buf *b)
{
    buf_put_u8(b, 0);
    char *text = (char *)buf_take(b, NULL);
    return text ? text : strdup("");
}

int spawn_run(struct words *argv, struct words *env, const char *const *cgroups,
              struct csi_call *call, struct spawned *out, struct error *error)
{
    struct child child;
    struct buf standard, errors;
    int fds[CGROUPS_MAX + 1], count = 0, status = 0;
    if (argv->failed || env->failed)
        return error_set(error, -ENOMEM, "out of memory");
    for (; cgroups && *cgroups && count < CGROUPS_MAX; cgroups++) {
        int fd = open(*cgroups, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            fds[count++] = fd;
    }
    fds[count] = -1;
    int r = start(argv, env, fds, &child);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    if (r < 0)
        return error_set(error, r, "cannot start %s: %s", argv->list[0], strerror(-r));
    buf_init(&standard, 0);
    buf_init(&errors, 0);
    r = wait_for(&child, call, &standard, &errors, &status);
    close_fd(&child.pidfd);
    close_fd(&child.out);
    close_fd(&child.err);
    out->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    out->out = text_of(&standard);
    out->err = text_of(&errors);
    buf_done(&standard);
    buf_done(&errors);
    if (r == 0 && out->out && out->err)
        return 0;
    spawned_done(out);
    return r < 0 ? error_set(error, r, "%s was ended: it took too long", argv->list[0])
                 : error_set(error, -ENOMEM, "out of memory");
}
