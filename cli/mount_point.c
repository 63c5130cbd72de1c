#include "mount_point.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "control_client.h"

/* Of two mounts at one place, the lower one would be out of sight. */
static int check_not_mounted(const char *path, struct error *error)
{
    struct control_client other;
    struct error unused = {0};
    if (control_client_open(path, &other, &unused) < 0)
        return 0;
    bool at_root = strcmp(other.inside, "/") == 0;
    control_client_close(&other);
    return !at_root ? 0
                    : error_set(error, -EBUSY,
                                "%s is a mount of Sluice already; take it away with "
                                "`sluice umount %s`, or choose another directory",
                                path, path);
}

int mount_point_find(const char *path, char **out, struct error *error)
{
    struct stat st;
    cleanup(free_ptr) char *real = realpath(path, NULL);
    if (!real && errno == ENOTCONN)
        return error_set(error, -ENOTCONN,
                         "%s: a mount that died is still there; take it away with: umount -l %s",
                         path, path);
    if (!real || stat(real, &st) < 0)
        return error_set(error, -errno, "mount point %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(error, -ENOTDIR, "mount point %s is not a directory", path);
    int r = check_not_mounted(real, error);
    if (r == 0)
        *out = TAKE_PTR(real);
    return r;
}
