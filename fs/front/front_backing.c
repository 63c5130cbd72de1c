/* Files that the kernel may read by itself: naming them to it (FUSE passthrough). */
#include <errno.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "front.h"

/* The kernel's interface (linux/fuse.h since 6.9); older headers do not have it. */
struct backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

static int backing_open(void *arg, int fd)
{
    struct fs *fs = arg;
    struct backing_map map = {.fd = fd};
    int id = ioctl(fuse_session_fd(fs->session), BACKING_OPEN, &map);
    return id < 0 ? -errno : id;
}

/* At the end the kernel forgets them by itself, with the connection. */
static void backing_close(void *arg, int id)
{
    struct fs *fs = arg;
    uint32_t number = (uint32_t)id;
    if (atomic_load(&fs->connected) &&
        ioctl(fuse_session_fd(fs->session), BACKING_CLOSE, &number) < 0)
        log_warn("a backing file cannot be given back", "id=%d errno=%d", id, errno);
}

void front_backing_offer(struct fs *fs)
{
    const struct data_passthrough kernel = {
        .open = backing_open, .close = backing_close, .arg = fs};
    atomic_store(&fs->connected, true);
    data_passthrough_set(fs->data, &kernel);
}
