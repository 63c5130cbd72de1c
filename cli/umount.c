/* sluice umount: settles, unmounts, and waits until the daemon has brought everything to the store.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "control_client.h"
#include "fs/fs.h"
#include "options.h"
#include "path_command.h"
#include "progress.h"

struct umount_options {
    bool lazy, keep;
};

static const struct option_spec specs[] = {
    {"lazy", 'l', OPTION_FLAG, offsetof(struct umount_options, lazy), NULL,
     "Take the mount away now even if it is in use; it ends when its last user does"},
    {"keep", 0, OPTION_FLAG, offsetof(struct umount_options, keep), NULL,
     "Do not upload and settle first: what is in the metadata only, not at its own key yet, or in "
     "the backlog of --durability=local stays on this disk, and the next mount goes on with it"},
};

static const struct option_set umount_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "MOUNTPOINT",
    .doc =
        "Brings every file to one plain object at its own key, unmounts, and returns when the "
        "metadata is closed: other S3 clients then read all that was written. On a terminal a "
        "bar shows how much is left."
        "\vEnds with 0 then, 1 if the mount is in use or its process ended with an error. What "
        "could not be sent stays on the local disk, and is sent by the next mount. A volume of a "
        "service is settled by the service, one with --no-settle by nobody.",
    .args_min = 1,
    .args_max = 1,
};

static int open_root(const char *path, struct control_client *out, struct error *error)
{
    struct control_client client;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    if (strcmp(client.inside, "/") != 0) {
        control_client_close(&client);
        return error_set(error, -EINVAL, "%s is not a mount point", path);
    }
    *out = client;
    return 0;
}

/* What the mount says of itself. */
struct mount_state {
    int pid;
    uint64_t unsent; /* bytes that are not in the store */
    uint64_t drift;  /* files that are not one object at their own key */
    bool settles;    /* by itself */
};

static int ask_status(struct control_client *client, struct mount_state *out, struct error *error)
{
    json_t *reply = NULL;
    int r = control_client_call(client, json_pack("{s:s}", "op", "status"), &reply, error);
    if (r < 0)
        return r;
    json_t *mount = json_object_get(reply, "mount");
    json_t *volume = json_object_get(reply, "volume");
    const char *source = json_string_value(json_object_get(mount, "source"));
    bool service = source && strncmp(source, "sluice", 6) == 0;
    *out = (struct mount_state){
        .pid = (int)json_integer_value(json_object_get(mount, "pid")),
        .unsent = (uint64_t)json_integer_value(
            json_object_get(json_object_get(mount, "data"), "unsent_bytes")),
        .drift = (uint64_t)json_integer_value(
            json_object_get(json_object_get(volume, "drift"), "files")),
        .settles = json_is_true(json_object_get(json_object_get(volume, "settle"), "enabled")) &&
                   !service && !json_is_true(json_object_get(mount, "read_only")),
    };
    json_decref(reply);
    return 0;
}

/* Bringing what was written to the store, while the mount can still be asked how far it is. */
struct flush {
    struct control_client client;
    int done[2]; /* a pipe: its end says that the answer is there */
};

static void *run_flush(void *arg)
{
    struct flush *flush = arg;
    struct error error = {0};
    json_t *reply = NULL;
    /* What could not be sent is kept on the local disk: no reason to stay mounted. */
    control_client_call(&flush->client, json_pack("{s:s}", "op", "flush"), &reply, &error);
    json_decref(reply);
    close(TAKE_FD(flush->done[1]));
    return NULL;
}

static void watch_flush(struct flush *flush, struct control_client *client, uint64_t unsent)
{
    struct progress progress;
    struct pollfd p = {.fd = flush->done[0], .events = POLLIN};
    struct error error = {0};
    struct mount_state state = {.unsent = unsent};
    progress_init(&progress, "uploading", true);
    do
        progress_show(&progress, state.unsent);
    while (poll(&p, 1, 100) == 0 && ask_status(client, &state, &error) == 0);
    progress_end(&progress);
}

/* On a terminal: how many bytes are left is shown until there are none. */
static void show_flush(const char *path, struct control_client *client, uint64_t unsent)
{
    struct flush flush = {.done = {-1, -1}};
    struct error error = {0};
    pthread_t thread;
    if (!isatty(STDERR_FILENO) || unsent == 0 || open_root(path, &flush.client, &error) < 0)
        return;
    if (pipe2(flush.done, O_CLOEXEC) == 0) {
        if (pthread_create(&thread, NULL, run_flush, &flush) == 0) {
            watch_flush(&flush, client, unsent);
            pthread_join(thread, NULL);
        }
        close(flush.done[0]);
        if (flush.done[1] >= 0)
            close(flush.done[1]);
    }
    control_client_close(&flush.client);
}

/* What cannot be settled is named and left to the next mount: no reason to stay mounted. */
static void settle_first(const char *path)
{
    struct error error = {0};
    json_t *reply = NULL;
    if (path_command_ask("settle", path, "settling", &reply, &error) < 0)
        fprintf(stderr, "sluice umount: not all is settled, the next mount goes on: %s\n",
                error_text(&error));
    json_decref(reply);
}

/* The mount ends with its own mount point, though other mount namespaces may hold copies. */
static void say(const char *path, const char *op)
{
    struct error error = {0};
    json_t *reply = NULL;
    struct control_client client;
    if (open_root(path, &client, &error) < 0)
        return;
    control_client_call(&client, json_pack("{s:s}", "op", op), &reply, &error);
    json_decref(reply);
    control_client_close(&client);
}

static int in_use(const char *path, struct error *error)
{
    return error_set(
        error, -EBUSY,
        "%s is in use (lsof +f -- %s shows by whom); --lazy takes it away as soon as it is not",
        path, path);
}

/* Before minutes of uploading. Marked so, a mount that nobody uses is not taken away, but by a
 * second call without any use between; who may not unmount hears of it at the end. */
static int check_use(const char *mountpoint, struct error *error)
{
    int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        close(fd); /* a use: takes an older mark off */
    if (umount2(mountpoint, MNT_EXPIRE | UMOUNT_NOFOLLOW) < 0 && errno == EBUSY)
        return in_use(mountpoint, error);
    return 0;
}

static int ask_mount(const char *path, const struct umount_options *options, char **mountpoint,
                     struct mount_state *state, struct error *error)
{
    struct control_client client;
    int r = open_root(path, &client, error);
    if (r < 0)
        return r;
    r = ask_status(&client, state, error);
    if (r == 0 && !options->lazy) {
        cleanup(free_ptr) char *root = TAKE_PTR(client.mountpoint);
        control_client_close(&client); /* it is a use, too */
        r = check_use(root, error);
        if (r == 0)
            r = open_root(path, &client, error);
        if (r < 0)
            return r;
    }
    if (r == 0 && options->keep) {
        json_t *reply = NULL;
        r = control_client_call(&client, json_pack("{s:s}", "op", "keep"), &reply, error);
        json_decref(reply);
    } else if (r == 0 && !options->lazy) {
        show_flush(path, &client, state->unsent);
        if (state->settles && (state->drift || state->unsent))
            settle_first(path);
        r = ask_status(&client, state, error);
    }
    if (r == 0)
        *mountpoint = TAKE_PTR(client.mountpoint);
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
        return error_set(error, -EPERM,
                         "%s: fusermount3 could not unmount it: it is in use, or neither root nor "
                         "who mounted asks",
                         path);
    return 0;
}

static int unmount(const char *path, bool lazy, struct error *error)
{
    if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno == EPERM)
        return unmount_by_helper(path, lazy, error);
    if (errno == EBUSY)
        return in_use(path, error);
    return error_set(error, -errno, "%s: %s", path, strerror(errno));
}

static struct statx device_of(const char *mountpoint)
{
    struct statx st = {0};
    statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st);
    return st;
}

/* Until the process has ended: then everything is where it belongs. Its mount may have a mount
 * namespace of its own that this one's changes do not reach: then it goes on there. */
static void wait_for_end(int pidfd, const struct mount_state *state, const struct statx *device)
{
    bool terminal = isatty(STDERR_FILENO);
    char amount[32], mounts[64];
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    snprintf(mounts, sizeof(mounts), "/proc/%d/mountinfo", state->pid);
    bool elsewhere = fs_device_is_mounted(mounts, device->stx_dev_major, device->stx_dev_minor);
    for (unsigned turn = 0; !elsewhere && poll(&p, 1, 200) == 0; turn++)
        if (terminal)
            fprintf(stderr, "\r%c waiting for the store (%s were not there yet)\033[K",
                    "|/-\\"[turn % 4], progress_bytes(state->unsent, amount));
    if (terminal)
        fputs("\r\033[K", stderr);
    if (elsewhere)
        fprintf(stderr, "unmounted here; process %d goes on in another mount namespace\n",
                state->pid);
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
    struct mount_state state = {0};
    if (ask_mount(result.args[0], &options, &mountpoint, &state, &error) < 0)
        return cli_fail("umount", &error);
    cleanup(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, state.pid, 0);
    struct statx device = device_of(mountpoint);
    if (!options.lazy)
        say(mountpoint, "leave");
    if (unmount(mountpoint, options.lazy, &error) < 0) {
        if (!options.lazy)
            say(mountpoint, "stay");
        return cli_fail("umount", &error);
    }
    if (pidfd >= 0 && !options.lazy)
        wait_for_end(pidfd, &state, &device);
    return 0;
}
