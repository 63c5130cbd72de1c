/* sluice umount: unmounts, and waits until the daemon has brought everything to the store. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "control_client.h"
#include "options.h"
#include "progress.h"

struct umount_options {
    bool lazy;
};

static const struct option_spec specs[] = {
    {"lazy", 'l', OPTION_FLAG, offsetof(struct umount_options, lazy), NULL,
     "Take the mount away now even if it is in use; it ends when its last user does"},
};

static const struct option_set umount_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "MOUNTPOINT",
    .doc = "Unmounts, and returns when everything that was written is in the object store and the "
           "metadata is closed."
           "\vEnds with 0 then, 1 if the mount is in use or its process ended with an error. Data "
           "that could not be sent stays on the local disk, and is sent by the next mount.",
    .args_min = 1,
    .args_max = 1,
};

/* What the mount says of itself: its process, and bytes on their way. */
static int ask_mount(const char *path, char **mountpoint, int *pid, uint64_t *dirty,
                     struct error *error)
{
    struct control_client client;
    json_t *reply = NULL;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    if (strcmp(client.inside, "/") != 0) {
        control_client_close(&client);
        return error_set(error, -EINVAL, "%s is not a mount point", path);
    }
    r = control_client_call(&client, json_pack("{s:s}", "op", "status"), &reply, error);
    if (r == 0) {
        json_t *mount = json_object_get(reply, "mount");
        *pid = (int)json_integer_value(json_object_get(mount, "pid"));
        *dirty = (uint64_t)json_integer_value(
            json_object_get(json_object_get(mount, "data"), "dirty_bytes"));
        *mountpoint = TAKE_PTR(client.mountpoint);
        json_decref(reply);
    }
    control_client_close(&client);
    return r;
}

/* Without the right to unmount: by the helper that every FUSE user has. */
static int unmount_by_helper(const char *path, bool lazy, struct error *error)
{
    pid_t child = fork();
    if (child == 0) {
        if (lazy)
            execlp("fusermount3", "fusermount3", "-u", "-z", "--", path, (char *)NULL);
        else
            execlp("fusermount3", "fusermount3", "-u", "--", path, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return error_set(error, -errno, "fusermount3: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return error_set(error, -EBUSY, "fusermount3 could not unmount %s", path);
    return 0;
}

static int unmount(const char *path, bool lazy, struct error *error)
{
    if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno == EPERM)
        return unmount_by_helper(path, lazy, error);
    if (errno == EBUSY)
        return error_set(
            error, -EBUSY,
            "%s is in use (lsof +f -- %s shows by whom); --lazy takes it away as soon as it is not",
            path, path);
    return error_set(error, -errno, "%s: %s", path, strerror(errno));
}

/* Until the process has ended: then everything is where it belongs. */
static void wait_for_end(int pidfd, uint64_t dirty)
{
    bool terminal = isatty(STDERR_FILENO);
    char amount[32];
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    for (unsigned turn = 0; poll(&p, 1, 200) == 0; turn++)
        if (terminal)
            fprintf(stderr, "\r%c waiting for the store (%s were not there yet)\033[K",
                    "|/-\\"[turn % 4], progress_bytes(dirty, amount));
    if (terminal)
        fputs("\r\033[K", stderr);
}

int cli_umount(int argc, char **argv)
{
    struct umount_options options = {0};
    struct option_result result;
    struct error error = {0};
    int r = options_parse(&umount_option_set, "sluice umount", argc, argv, &options, &result);
    if (r)
        return r - 1;
    cleanup(free_ptr) char *mountpoint = NULL;
    int pid = 0;
    uint64_t dirty = 0;
    if (ask_mount(result.args[0], &mountpoint, &pid, &dirty, &error) < 0)
        return cli_fail("umount", &error);
    cleanup(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (unmount(mountpoint, options.lazy, &error) < 0)
        return cli_fail("umount", &error);
    if (pidfd >= 0 && !options.lazy)
        wait_for_end(pidfd, dirty);
    return 0;
}
