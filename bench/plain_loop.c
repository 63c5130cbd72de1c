/*
 * plain_loop DIRECTORY FILES: a loop of system calls over FILES new files, with one look at the
 * clock before and one after each kind. Prints "create RATE", "stat RATE", "read RATE", "unlink
 * RATE", per second. What `sluice bench` adds to each call is the difference. One thread; removes
 * what it made.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_MAX_BYTES 32

struct loop {
    int directory;
    char block[4096];
};

static int call_create(struct loop *l, const char *name)
{
    int fd = openat(l->directory, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : close(fd);
}

static int call_stat(struct loop *l, const char *name)
{
    struct stat st;
    return fstatat(l->directory, name, &st, 0);
}

static int call_read(struct loop *l, const char *name)
{
    int fd = openat(l->directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, l->block, sizeof(l->block));
    return close(fd) || n < 0 ? -1 : 0;
}

static int call_unlink(struct loop *l, const char *name)
{
    return unlinkat(l->directory, name, 0);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(struct loop *l, const char *kind, int (*call)(struct loop *l, const char *name),
               unsigned long files)
{
    double began = now();
    for (unsigned long i = 0; i < files; i++) {
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof(name), "f0-%07lu", i);
        if (call(l, name)) {
            fprintf(stderr, "plain_loop: %s %s: %s\n", kind, name, strerror(errno));
            return -1;
        }
    }
    printf("%s %.0f\n", kind, (double)files / (now() - began));
    return 0;
}

int main(int argc, char **argv)
{
    unsigned long files = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (files == 0) {
        fprintf(stderr, "usage: plain_loop DIRECTORY FILES\n");
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof(path), "%s/plain_loop.XXXXXX", argv[1]);
    static struct loop l;
    if (!mkdtemp(path) || (l.directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fprintf(stderr, "plain_loop: %s: %s\n", path, strerror(errno));
        return 1;
    }
    int failed = run(&l, "create", call_create, files) || run(&l, "stat", call_stat, files) ||
                 run(&l, "open_read", call_read, files) || run(&l, "unlink", call_unlink, files);
    close(l.directory);
    return rmdir(path) || failed ? 1 : 0;
}
