/*
 * metabench DIRECTORY [-t THREADS] [-n FILES]: how many operations on names and small files a file
 * system does in a second, as one JSON object. Each thread works in a directory of its own below
 * DIRECTORY, FILES times for each row; the threads begin each row together. What it made it
 * removes.
 *
 *   create        open(O_CREAT | O_EXCL) and close
 *   stat          stat: from the kernel's cache, where that is allowed
 *   stat_sync     statx(AT_STATX_FORCE_SYNC): always asks the file system
 *   absent        stat of names that do not exist, each once
 *   open_read     open, read of 4 KiB, close
 *   rename        to another name in the same directory
 *   unlink
 *   small         open(O_CREAT | O_EXCL), write of 4 KiB, close
 *   small_unlink  unlink of these
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SMALL 4096

struct worker {
    pthread_t thread;
    int directory;
    unsigned files;
    int error;
    void (*row)(struct worker *worker);
    pthread_barrier_t *start;
    double
        began; /* seconds; the worker's own, since the one who started it may be scheduled late */
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const char *name(char out[32], const char *kind, unsigned i)
{
    snprintf(out, 32, "%s%07u", kind, i);
    return out;
}

static void note(struct worker *w, bool failed)
{
    if (failed && w->error == 0)
        w->error = errno;
}

static void make(struct worker *w, const char *kind, bool fill)
{
    static const char bytes[SMALL] = {1};
    char text[32];
    for (unsigned i = 0; i < w->files; i++) {
        int fd = openat(w->directory, name(text, kind, i), O_CREAT | O_EXCL | O_WRONLY, 0644);
        note(w, fd < 0);
        if (fd >= 0 && fill)
            note(w, write(fd, bytes, SMALL) != SMALL);
        if (fd >= 0)
            note(w, close(fd) < 0);
    }
}

static void row_create(struct worker *w)
{
    make(w, "f", false);
}

static void row_small(struct worker *w)
{
    make(w, "s", true);
}

static void row_stat(struct worker *w)
{
    char text[32];
    struct stat st;
    for (unsigned i = 0; i < w->files; i++)
        note(w, fstatat(w->directory, name(text, "f", i), &st, 0) < 0);
}

static void row_stat_sync(struct worker *w)
{
    char text[32];
    struct statx st;
    for (unsigned i = 0; i < w->files; i++)
        note(w, statx(w->directory, name(text, "f", i), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                      &st) < 0);
}

static void row_absent(struct worker *w)
{
    char text[32];
    struct stat st;
    for (unsigned i = 0; i < w->files; i++)
        note(w, fstatat(w->directory, name(text, "absent", i), &st, 0) == 0 || errno != ENOENT);
}

static void row_open_read(struct worker *w)
{
    char text[32];
    char bytes[SMALL];
    for (unsigned i = 0; i < w->files; i++) {
        int fd = openat(w->directory, name(text, "f", i), O_RDONLY);
        note(w, fd < 0);
        if (fd >= 0) {
            note(w, read(fd, bytes, sizeof(bytes)) < 0);
            close(fd);
        }
    }
}

static void row_rename(struct worker *w)
{
    char from[32];
    char to[32];
    for (unsigned i = 0; i < w->files; i++)
        note(w, renameat(w->directory, name(from, "f", i), w->directory, name(to, "g", i)) < 0);
}

static void remove_all(struct worker *w, const char *kind)
{
    char text[32];
    for (unsigned i = 0; i < w->files; i++)
        note(w, unlinkat(w->directory, name(text, kind, i), 0) < 0);
}

static void row_unlink(struct worker *w)
{
    remove_all(w, "g");
}

static void row_small_unlink(struct worker *w)
{
    remove_all(w, "s");
}

static void *run(void *arg)
{
    struct worker *w = arg;
    pthread_barrier_wait(w->start);
    w->began = seconds();
    w->row(w);
    return NULL;
}

/* Operations per second of all threads together. */
static double run_row(struct worker *workers, unsigned count, void (*row)(struct worker *))
{
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, count);
    for (unsigned i = 0; i < count; i++) {
        workers[i].row = row;
        workers[i].start = &start;
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) {
            fprintf(stderr, "metabench: cannot make a thread\n");
            exit(1);
        }
    }
    double began = 0;
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        if (i == 0 || workers[i].began < began)
            began = workers[i].began;
    }
    double took = seconds() - began;
    pthread_barrier_destroy(&start);
    return (double)count * workers[0].files / took;
}

static int usage(void)
{
    fprintf(stderr, "usage: metabench DIRECTORY [-t THREADS] [-n FILES]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*row)(struct worker *worker);
    } rows[] = {
        {"create", row_create}, {"stat", row_stat},           {"stat_sync", row_stat_sync},
        {"absent", row_absent}, {"open_read", row_open_read}, {"rename", row_rename},
        {"unlink", row_unlink}, {"small", row_small},         {"small_unlink", row_small_unlink},
    };
    unsigned threads = 1;
    unsigned files = 2000;
    int option;
    while ((option = getopt(argc, argv, "t:n:")) != -1) {
        if (option == 't')
            threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'n')
            files = (unsigned)strtoul(optarg, NULL, 10);
        else
            return usage();
    }
    if (optind + 1 != argc || threads == 0 || threads > 256 || files == 0)
        return usage();
    struct worker *workers = calloc(threads, sizeof(*workers));
    char path[4096];
    for (unsigned i = 0; workers && i < threads; i++) {
        snprintf(path, sizeof(path), "%s/metabench.%d.%u", argv[optind], (int)getpid(), i);
        workers[i].files = files;
        workers[i].directory = mkdir(path, 0755) < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY);
        if (workers[i].directory < 0) {
            fprintf(stderr, "metabench: %s: %s\n", path, strerror(errno));
            return 1;
        }
    }
    if (!workers)
        return 1;
    printf("{\"threads\":%u,\"files\":%u,\"per_second\":{", threads, files);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        printf("%s\"%s\":%.0f", i ? "," : "", rows[i].name, run_row(workers, threads, rows[i].row));
    printf("}}\n");
    int result = 0;
    for (unsigned i = 0; i < threads; i++) {
        snprintf(path, sizeof(path), "%s/metabench.%d.%u", argv[optind], (int)getpid(), i);
        close(workers[i].directory);
        rmdir(path);
        if (workers[i].error) {
            fprintf(stderr, "metabench: thread %u: %s\n", i, strerror(workers[i].error));
            result = 1;
        }
    }
    free(workers);
    return result;
}
