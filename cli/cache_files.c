#include "cache_files.h"

#include <errno.h>
#include <fts.h>
#include <glob.h>
#include <jansson.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "cli.h"
#include "control_client.h"
#include "options.h"
#include "progress.h"

#define PROGRESS_INTERVAL_MS 250
#define ERRORS_SHOWN 10

struct cache_files_options {
    char *from_list;
    unsigned parallel;
    bool json, wait;
};

struct one_file {
    char *path;
    uint64_t size;
};

struct work {
    const struct cache_files_command *command;
    struct one_file *files;
    size_t count, cap;
    uint64_t total;
    dev_t device; /* of the mount that was seen last; 0: none yet */
    atomic_size_t next;
    _Atomic uint64_t done_bytes, bytes, cached_bytes, good, failed;
    pthread_mutex_t print_lock;
    sem_t ended; /* one for each thread */
};

int cache_files_ask(const char *path, const char *op, struct cache_file_state *state,
                    struct error *error)
{
    json_t *reply = NULL;
    int r = control_client_simple(path, op, &reply, error);
    if (r < 0)
        return r;
    *state = (struct cache_file_state){
        .size = (uint64_t)json_integer_value(json_object_get(reply, "size")),
        .cached_bytes = (uint64_t)json_integer_value(json_object_get(reply, "cached_bytes")),
        .pinned = json_is_true(json_object_get(reply, "pinned")),
    };
    json_decref(reply);
    return 0;
}

/* --- Which files */

static int add_file(struct work *work, const char *path, uint64_t size)
{
    if (work->count == work->cap) {
        size_t cap = work->cap ? 2 * work->cap : 256;
        struct one_file *grown = reallocarray(work->files, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        work->files = grown;
        work->cap = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    work->files[work->count++] = (struct one_file){copy, size};
    work->total += size;
    return 0;
}

/* Before a tree is walked: it may be that of the whole host. */
static int check_mount(struct work *work, const char *path, struct error *error)
{
    struct stat st;
    struct control_client client;
    if (stat(path, &st))
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    if (st.st_dev == work->device)
        return 0;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    control_client_close(&client);
    work->device = st.st_dev;
    return 0;
}

/* Below what was named: somebody has removed it since its directory was read. */
static bool went_meanwhile(const FTSENT *entry)
{
    return entry->fts_level > FTS_ROOTLEVEL && entry->fts_errno == ENOENT;
}

/* A file, or all below a directory. Symbolic links below it are left alone. */
static int add_tree(struct work *work, char *path, struct error *error)
{
    char *roots[] = {path, NULL};
    int r = check_mount(work, path, error);
    if (r < 0)
        return r;
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR | FTS_XDEV, NULL);
    if (!tree)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    for (FTSENT *entry; r == 0 && (entry = fts_read(tree));) {
        bool failed =
            entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR;
        if (entry->fts_info == FTS_F)
            r = add_file(work, entry->fts_path, (uint64_t)entry->fts_statp->st_size);
        else if (failed && !went_meanwhile(entry))
            r = error_set(error, -entry->fts_errno, "%s: %s", entry->fts_path,
                          strerror(entry->fts_errno));
    }
    fts_close(tree);
    return r == -ENOMEM && !error_text(error)[0] ? error_set(error, r, "out of memory") : r;
}

/* What a pattern stands for; a name that is no pattern is itself. */
static int add_pattern(struct work *work, const char *pattern, struct error *error)
{
    glob_t found = {0};
    int r = glob(pattern, GLOB_NOCHECK, NULL, &found);
    if (r != 0)
        return error_set(error, r == GLOB_NOSPACE ? -ENOMEM : -EIO, "%s: cannot be expanded",
                         pattern);
    for (size_t i = 0; i < found.gl_pathc && r == 0; i++)
        r = add_tree(work, found.gl_pathv[i], error);
    globfree(&found);
    return r;
}

static int add_list(struct work *work, const char *name, struct error *error)
{
    bool standard = strcmp(name, "-") == 0;
    FILE *list = standard ? stdin : fopen(name, "re");
    if (!list)
        return error_set(error, -errno, "%s: %s", name, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    int r = 0;
    errno = 0;
    for (ssize_t len; r == 0 && (len = getline(&line, &cap, list)) >= 0;) {
        if (len > 0 && line[len - 1] == '\n')
            line[--len] = 0;
        if (len > 0)
            r = add_tree(work, line, error);
    }
    if (r == 0 && ferror(list))
        r = error_set(error, errno ? -errno : -EIO, "%s: %s", name, strerror(errno ? errno : EIO));
    free(line);
    if (!standard)
        fclose(list);
    return r;
}

/* --- Doing it */

static void run_one(struct work *work, const struct one_file *file)
{
    struct cache_file_state state = {0};
    struct error error = {0};
    int r = work->command->run(file->path, &state, &error);
    atomic_fetch_add(&work->done_bytes, file->size);
    if (r == 0) {
        atomic_fetch_add(&work->good, 1);
        atomic_fetch_add(&work->bytes, state.size);
        atomic_fetch_add(&work->cached_bytes, state.cached_bytes);
        return;
    }
    if (atomic_fetch_add(&work->failed, 1) < ERRORS_SHOWN) {
        pthread_mutex_lock(&work->print_lock);
        if (!error.message[0])
            error_set(&error, r, "%s", strerror(-r));
        if (strncmp(error.message, file->path, strlen(file->path)) != 0)
            error_prefix(&error, "%s", file->path);
        cli_fail(work->command->name, &error);
        pthread_mutex_unlock(&work->print_lock);
    }
}

static void *run_thread(void *arg)
{
    struct work *work = arg;
    for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;)
        run_one(work, &work->files[i]);
    sem_post(&work->ended);
    return NULL;
}

static bool ended_soon(sem_t *ended)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PROGRESS_INTERVAL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return sem_timedwait(ended, &until) == 0;
}

static void run_all(struct work *work, unsigned parallel)
{
    struct progress progress;
    pthread_t threads[64];
    unsigned started = 0;
    progress_init(&progress, work->command->progress, true);
    sem_init(&work->ended, 0, 0);
    while (started < parallel && started < ARRAY_LEN(threads) && started < work->count &&
           pthread_create(&threads[started], NULL, run_thread, work) == 0)
        started++;
    if (started == 0 && work->count > 0)
        run_thread(work);
    for (unsigned ended = 0; ended < started;) {
        if (ended_soon(&work->ended))
            ended++;
        else
            progress_show(&progress, work->total - atomic_load(&work->done_bytes));
    }
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    progress_end(&progress);
    sem_destroy(&work->ended);
}

static void report(const struct work *work, bool json)
{
    if (!json) {
        work->command->print(work->good, work->bytes, work->cached_bytes);
        return;
    }
    json_t *out = json_pack("{s:I,s:I,s:I,s:I}", "files", (json_int_t)work->good, "bytes",
                            (json_int_t)work->bytes, "cached_bytes", (json_int_t)work->cached_bytes,
                            "failed", (json_int_t)work->failed);
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

int cache_files_run(const struct cache_files_command *command, int argc, char **argv)
{
    static const struct option_spec specs[] = {
        {"from-list", 0, OPTION_STRING, offsetof(struct cache_files_options, from_list), "FILE",
         "The files and directories that this file names, one on each line (-: standard input)",
         .cli_only = true},
        {"parallel", 0, OPTION_UINT, offsetof(struct cache_files_options, parallel), "N",
         "Files at once (8)", .min = 1, .max = 64, .cli_only = true},
        {"json", 0, OPTION_FLAG, offsetof(struct cache_files_options, json), NULL,
         "Print what was done as JSON", .cli_only = true},
        {"wait", 0, OPTION_FLAG, offsetof(struct cache_files_options, wait), NULL,
         "Return when it is done (the default)", .cli_only = true},
    };
    struct option_set set = {.specs = specs,
                             .count = ARRAY_LEN(specs),
                             .usage = "[PATH…]",
                             .doc = command->doc,
                             .args_max = OPTIONS_ARGS_MAX};
    struct cache_files_options options = {.parallel = 8};
    struct option_result result;
    struct error error = {0};
    char name[64];
    snprintf(name, sizeof(name), "sluice %s", command->name);
    int r = options_parse(&set, name, argc, argv, &options, &result);
    if (r)
        return r - 1;
    struct work work = {.command = command, .print_lock = PTHREAD_MUTEX_INITIALIZER};
    if (result.arg_count == 0 && !options.from_list) {
        error_set(&error, -EINVAL, "name files or directories, or a list of them");
        return cli_fail(command->name, &error) + 1;
    }
    for (unsigned i = 0; i < result.arg_count && r == 0; i++)
        r = add_pattern(&work, result.args[i], &error);
    if (r == 0 && options.from_list)
        r = add_list(&work, options.from_list, &error);
    if (r < 0) {
        r = cli_fail(command->name, &error);
    } else {
        run_all(&work, options.parallel);
        report(&work, options.json);
        r = work.failed > 0;
    }
    for (size_t i = 0; i < work.count; i++)
        free(work.files[i].path);
    free(work.files);
    options_free(&set, &options);
    return r;
}
