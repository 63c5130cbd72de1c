#include "daemons.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define COMMAND_MAX (64 << 10)
#define WORDS_MAX 96
#define POLL_STEP_MS 20

struct command_line {
    char bytes[COMMAND_MAX];
    char *words[WORDS_MAX];
    unsigned count;
};

static void split(struct command_line *c, size_t len)
{
    c->bytes[len] = 0;
    c->count = 0;
    for (size_t at = 0; at < len && c->count < WORDS_MAX; at += strlen(c->bytes + at) + 1)
        c->words[c->count++] = c->bytes + at;
}

/* A process of a container can call itself what it likes, but not be in our process namespace. */
static bool is_beside_us(const char *pid)
{
    char path[64], own[64] = "", its[64] = "";
    snprintf(path, sizeof(path), "/proc/%.20s/ns/pid", pid);
    return readlink("/proc/self/ns/pid", own, sizeof(own) - 1) > 0 &&
           readlink(path, its, sizeof(its) - 1) > 0 && strcmp(own, its) == 0;
}

/* The words from "mount" on, or NULL if that is no mount of ours. In front of them may stand a
 * dynamic linker with its options. */
static char **mount_words(struct command_line *c, const char *pid, unsigned *left)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, c->bytes, sizeof(c->bytes) - 1);
    if (n <= 0)
        return NULL;
    split(c, (size_t)n);
    for (unsigned i = 1; i + 2 < c->count; i++) {
        const char *base = strrchr(c->words[i - 1], '/');
        base = base ? base + 1 : c->words[i - 1];
        if (strcmp(c->words[i], "mount") == 0 && strncmp(base, "sluice", 6) == 0 &&
            strstr(c->words[i + 1], "://") && is_beside_us(pid)) {
            *left = c->count - i;
            return &c->words[i];
        }
    }
    return NULL;
}

static void each_mount(void (*fn)(void *arg, const char *pid, char **words, unsigned count),
                       void *arg)
{
    struct command_line *c = malloc(sizeof(*c));
    DIR *list = c ? opendir("/proc") : NULL;
    struct dirent *entry = NULL;
    while (list && (entry = readdir(list))) {
        unsigned left = 0;
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        char **words = mount_words(c, entry->d_name, &left);
        if (words)
            fn(arg, entry->d_name, words, left);
    }
    if (list)
        closedir(list);
    free(c);
}

struct search {
    const char *staging;
    struct daemons *found;
};

static void note_daemon(void *arg, const char *pid, char **words, unsigned count)
{
    struct search *s = arg;
    struct command_line *again = NULL;
    unsigned left = 0;
    if (count < 3 || strcmp(words[2], s->staging) != 0 || s->found->count == DAEMONS_MAX)
        return;
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)strtol(pid, NULL, 10), 0);
    if (fd < 0)
        return;
    /* Between the two the number may have gone to another process. */
    again = malloc(sizeof(*again));
    char **now = again ? mount_words(again, pid, &left) : NULL;
    if (now && strcmp(now[2], s->staging) == 0)
        s->found->pidfds[s->found->count++] = TAKE_FD(fd);
    close_fd(&fd);
    free(again);
}

void daemons_find(const char *staging, struct daemons *out)
{
    struct search search = {staging, out};
    out->count = 0;
    each_mount(note_daemon, &search);
}

void daemons_done(struct daemons *d)
{
    for (unsigned i = 0; i < d->count; i++)
        close(d->pidfds[i]);
    d->count = 0;
}

void daemons_signal(const struct daemons *d, int number)
{
    for (unsigned i = 0; i < d->count; i++)
        syscall(SYS_pidfd_send_signal, d->pidfds[i], number, NULL, 0);
}

bool daemons_wait(const struct daemons *d, int timeout_ms, const struct csi_call *call)
{
    uint64_t end_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    for (unsigned i = 0; i < d->count; i++) {
        struct pollfd p = {.fd = d->pidfds[i], .events = POLLIN};
        while (poll(&p, 1, POLL_STEP_MS) <= 0)
            if (!csi_time_left_ms(call) || clock_monotonic_ms() >= end_ms)
                return false;
    }
    return true;
}

struct visit {
    void (*fn)(void *arg, const char *staging, const char *meta_dir);
    void *arg;
};

static void visit_daemon(void *arg, const char *pid, char **words, unsigned count)
{
    const struct visit *v = arg;
    static const char name[] = "--meta-dir=";
    (void)pid;
    for (unsigned i = 3; i < count; i++)
        if (strncmp(words[i], name, sizeof(name) - 1) == 0)
            v->fn(v->arg, words[2], words[i] + sizeof(name) - 1);
}

void daemons_each(void (*fn)(void *arg, const char *staging, const char *meta_dir), void *arg)
{
    struct visit visit = {fn, arg};
    each_mount(visit_daemon, &visit);
}
