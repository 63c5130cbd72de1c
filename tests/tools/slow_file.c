/*
 * slow_file IMAGE DELAY MOUNTPOINT: a file system with one file, `image`, which is IMAGE. Each
 * read, write and sync of it takes as many milliseconds longer as the text of the file DELAY says
 * now. With a loop device on it that is a disk that gets slow on command. In the foreground until
 * it is unmounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME "image"

struct slow {
    int image, delay;
};

static const struct slow *slow_of(void)
{
    return fuse_get_context()->private_data;
}

static void wait_so_long(void)
{
    char text[32] = "";
    if (pread(slow_of()->delay, text, sizeof(text) - 1, 0) <= 0)
        return;
    long ms = strtol(text, NULL, 10);
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (ms > 0)
        nanosleep(&time, NULL);
}

static bool is_image(const char *path)
{
    return strcmp(path, "/" NAME) == 0;
}

static int slow_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    if (is_image(path))
        return fstat(slow_of()->image, st) ? -errno : 0;
    if (strcmp(path, "/") != 0)
        return -ENOENT;
    *st = (struct stat){.st_mode = S_IFDIR | 0700, .st_nlink = 2};
    return 0;
}

/* No page of it stays in the kernel, so each request comes here. */
static int slow_open(const char *path, struct fuse_file_info *fi)
{
    fi->direct_io = 1;
    return is_image(path) ? 0 : -ENOENT;
}

static int slow_read(const char *path, char *buf, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)path, (void)fi;
    wait_so_long();
    ssize_t n = pread(slow_of()->image, buf, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int slow_write(const char *path, const char *buf, size_t size, off_t offset,
                      struct fuse_file_info *fi)
{
    (void)path, (void)fi;
    wait_so_long();
    ssize_t n = pwrite(slow_of()->image, buf, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int slow_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    (void)path, (void)datasync, (void)fi;
    wait_so_long();
    return 0;
}

int main(int argc, char **argv)
{
    static const struct fuse_operations operations = {
        .getattr = slow_getattr,
        .open = slow_open,
        .read = slow_read,
        .write = slow_write,
        .fsync = slow_fsync,
    };
    if (argc != 4) {
        fprintf(stderr, "usage: slow_file IMAGE DELAY MOUNTPOINT\n");
        return 2;
    }
    struct slow slow = {.image = open(argv[1], O_RDWR | O_CLOEXEC),
                        .delay = open(argv[2], O_RDONLY | O_CLOEXEC)};
    if (slow.image < 0 || slow.delay < 0) {
        perror("slow_file");
        return 1;
    }
    char foreground[] = "-f";
    char *arguments[] = {argv[0], foreground, argv[3], NULL};
    int rc = fuse_main(3, arguments, &operations, &slow);
    close(slow.image);
    close(slow.delay);
    return rc;
}
