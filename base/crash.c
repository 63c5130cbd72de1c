#include "base/crash.h"

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

static void bad_setting(const char *value)
{
    fprintf(stderr, "sluice: SLUICE_CRASH_AT=%s: use name or name:n with n from 1\n", value);
    _exit(2);
}

__attribute__((constructor)) static void crash_init(void)
{
    const char *at = getenv("SLUICE_CRASH_AT");
    if (at && *at) {
        const char *colon = strchr(at, ':');
        size_t len = colon ? (size_t)(colon - at) : strlen(at);
        crash.n = 1;
        if (colon) {
            char *end;
            crash.n = strtoul(colon + 1, &end, 10);
            if (*end || end == colon + 1)
                crash.n = 0;
        }
        if (crash.n == 0 || len == 0 || len >= sizeof(crash.at))
            bad_setting(at);
        memcpy(crash.at, at, len);
    }
    crash.list_path = getenv("SLUICE_CRASH_LIST");
    crash_armed = crash.at[0] || crash.list_path;
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
