#include "base/crash.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

bool crash_armed;

static struct {
    /* immutable after start-up */
    char at[128];    /* empty: nowhere */
    unsigned long n; /* which passing of it, from 1 */
    const char *list_path;

    pthread_mutex_t lock;
    /* under lock */
    unsigned long passed;
    const char *seen[512]; /* names are string constants */
    size_t seen_len;
} crash = {.lock = PTHREAD_MUTEX_INITIALIZER};

int crash_setup(const char *at, const char *list_path)
{
    size_t len = 0;
    unsigned long n = 1;
    if (at && *at) {
        len = strcspn(at, ":");
        if (at[len] == ':') {
            char *end;
            n = isdigit((unsigned char)at[len + 1]) ? strtoul(at + len + 1, &end, 10) : 0;
            if (n && *end)
                n = 0;
        }
        if (n == 0 || len == 0 || len >= sizeof(crash.at))
            return -EINVAL;
    }
    memset(crash.at, 0, sizeof(crash.at));
    if (len)
        memcpy(crash.at, at, len);
    crash.n = n;
    crash.list_path = list_path && *list_path ? list_path : NULL;
    crash_armed = len || crash.list_path;
    return 0;
}

__attribute__((constructor)) static void setup_from_environment(void)
{
    const char *at = getenv("SLUICE_CRASH_AT");
    if (crash_setup(at, getenv("SLUICE_CRASH_LIST")) < 0) {
        fprintf(stderr, "sluice: SLUICE_CRASH_AT=%s: use name or name:n with n from 1\n", at);
        _exit(2);
    }
}

static void list_locked(const char *name)
{
    for (size_t i = 0; i < crash.seen_len; i++) {
        if (!strcmp(crash.seen[i], name))
            return;
    }
    if (crash.seen_len == ARRAY_LEN(crash.seen))
        return;
    crash.seen[crash.seen_len++] = name;
    cleanup(close_fd) int fd =
        open(crash.list_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || dprintf(fd, "%s\n", name) < 0)
        perror(crash.list_path);
}

void crash_hit(const char *name)
{
    pthread_mutex_lock(&crash.lock);
    if (crash.list_path)
        list_locked(name);
    bool die = crash.at[0] && !strcmp(crash.at, name) && ++crash.passed == crash.n;
    if (die) {
        /* Under the lock: no other thread passes a point of this name in the mean time. */
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    pthread_mutex_unlock(&crash.lock);
}
