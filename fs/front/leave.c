#include "leave.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "front.h"

#define GRACE_MS 200 /* the last copy of a mount ends its connection by itself */

struct leave {
    struct fs *fs;
    int changes; /* of the mounts: POLLPRI */
    int stop;
    pthread_t thread;
};

bool fs_device_is_mounted(const char *mountinfo, unsigned major, unsigned minor)
{
    char device[32], *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file = fopen(mountinfo, "re");
    if (!file)
        return false;
    snprintf(device, sizeof(device), " %u:%u ", major, minor);
    while (!found && getline(&line, &room, file) > 0) {
        /* number, number of the mount above, device */
        const char *field = strchr(line, ' ');
        field = field ? strchr(field + 1, ' ') : NULL;
        found = field && strncmp(field, device, strlen(device)) == 0;
    }
    free(line);
    fclose(file);
    return found;
}

static bool is_there(const struct leave *leave)
{
    return fs_device_is_mounted("/proc/self/mountinfo", leave->fs->major, leave->fs->minor);
}

/* True: leave_stop. */
static bool wait_for(struct leave *leave, int timeout_ms)
{
    struct pollfd p[] = {{.fd = leave->stop, .events = POLLIN},
                         {.fd = leave->changes, .events = POLLPRI}};
    /* The grace is of time, not of other mounts that come and go. */
    int n = poll(p, timeout_ms < 0 ? 2 : 1, timeout_ms);
    return n > 0 && p[0].revents;
}

static void *run(void *arg)
{
    struct leave *leave = arg;
    pthread_setname_np(pthread_self(), "fs-leave");
    while (is_there(leave))
        if (wait_for(leave, -1))
            return NULL;
    if (wait_for(leave, GRACE_MS))
        return NULL;
    log_info("unmounted here; copies of the mount in other namespaces end", "");
    atomic_store(&leave->fs->left, true);
    fs_stop(leave->fs);
    return NULL;
}

static void free_leave(struct leave *leave)
{
    if (leave->changes >= 0)
        close(leave->changes);
    if (leave->stop >= 0)
        close(leave->stop);
    free(leave);
}

int leave_start(struct fs *fs, struct leave **out)
{
    struct leave *leave = calloc(1, sizeof(*leave));
    if (!leave)
        return -ENOMEM;
    leave->fs = fs;
    leave->stop = eventfd(0, EFD_CLOEXEC);
    leave->changes = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    int rc = leave->stop < 0 || leave->changes < 0 ? -errno : 0;
    if (rc == 0)
        rc = is_there(leave) ? -pthread_create(&leave->thread, NULL, run, leave) : -ENOENT;
    if (rc < 0)
        free_leave(leave);
    else
        *out = leave;
    return rc;
}

void leave_stop(struct leave *leave)
{
    if (!leave)
        return;
    (void)!write(leave->stop, &(uint64_t){1}, sizeof(uint64_t));
    pthread_join(leave->thread, NULL);
    free_leave(leave);
}
