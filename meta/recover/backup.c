/* Making backups and removing old ones. The format: meta/backup.h and docs/backup.md. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>

#include "backup_impl.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/hash.h"
#include "base/log.h"

#define TIME_TRIES 16

void backup_base(const char *volume_prefix, char *out)
{
    snprintf(out, META_KEY_MAX + 1, "%s.sluice/backup/", volume_prefix);
}

int backup_key(const struct backup_place *place, char out[META_KEY_MAX + 1], const char *a,
               const char *b, const char *c)
{
    int n = snprintf(out, META_KEY_MAX + 1, "%s%s%s%s", place->base, a, b, c);
    return n < 0 || n > META_KEY_MAX ? -ENAMETOOLONG : 0;
}

int backup_walk(const struct backup_place *place, const char *below, const char *delimiter,
                int (*each)(void *arg, const struct store_entry *entry), void *arg,
                struct error *error)
{
    char prefix[META_KEY_MAX + 1];
    cleanup(free_ptr) char *token = NULL;
    int rc = backup_key(place, prefix, below, "", "");
    do {
        struct store_op op = {
            .kind = STORE_LIST, .prefix = prefix, .delimiter = delimiter, .token = token};
        if (rc == 0)
            rc = store_wait(place->store, &op);
        if (rc < 0 && error && !error->code) {
            *error = op.error;
            error_prefix(error, "cannot list the backups");
        }
        for (size_t i = 0; rc == 0 && i < op.out_list.count; i++)
            rc = each(arg, &op.out_list.entries[i]);
        free(token);
        token = rc == 0 && op.out_list.next_token ? strdup(op.out_list.next_token) : NULL;
        store_op_reset(&op);
    } while (rc == 0 && token);
    return rc;
}

bool backup_is_time(const char *text, size_t len)
{
    static const char shape[] = "########T######.###Z";
    if (len != BACKUP_TIME_LEN)
        return false;
    for (size_t i = 0; i < len; i++)
        if (shape[i] == '#' ? !isdigit((unsigned char)text[i]) : text[i] != shape[i])
            return false;
    return true;
}

int backup_manifest_read(const struct backup_place *place, const char *time,
                         struct backup_manifest *out, struct error *error)
{
    char key[META_KEY_MAX + 1];
    int rc = backup_key(place, key, time, "/", BACKUP_MANIFEST);
    if (rc < 0)
        return error_set(error, rc, "the place of the backups has too long a name");
    struct store_op op = {.kind = STORE_HEAD, .key = key};
    rc = store_wait(place->store, &op);
    uint64_t size = op.info.size;
    store_op_reset(&op);
    if (rc == 0 && (size == 0 || size > BACKUP_MANIFEST_MAX))
        return error_set(error, -EBADMSG, "backup %s: its manifest is damaged", time);
    cleanup(free_ptr) void *data = rc == 0 ? malloc(size) : NULL;
    if (rc == 0 && !data)
        return error_set(error, -ENOMEM, "out of memory");
    op = (struct store_op){
        .kind = STORE_GET, .key = key, .buf = data, .buf_len = size, .length = size};
    if (rc == 0)
        rc = store_wait(place->store, &op);
    size_t got = op.got;
    store_op_reset(&op);
    if (rc < 0)
        return error_set(error, rc, "backup %s: cannot read its manifest: %s", time, strerror(-rc));
    rc = backup_manifest_parse(data, got, out);
    if (rc == -EPROTO)
        return error_set(error, rc, "backup %s was made by a newer version of Sluice", time);
    return rc < 0 ? error_set(error, rc, "backup %s: its manifest is damaged", time) : 0;
}

/* ---- what is there ---- */

struct seen {
    char sha256[65];
    uint64_t size;
    bool used;
    UT_hash_handle hh;
};

struct times {
    char (*list)[BACKUP_TIME_LEN + 1];
    size_t count, cap;
};

struct run {
    const struct backup_config *config;
    struct backup_result *result;
    struct backup_manifest manifest;
    struct seen *seen;
    struct times times;
};

static int note_file(void *arg, const struct store_entry *entry)
{
    struct run *run = arg;
    const char *name = strrchr(entry->name, '/');
    name = name ? name + 1 : entry->name;
    if (strlen(name) != 64)
        return 0;
    struct seen *seen = calloc(1, sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    memcpy(seen->sha256, name, 64);
    seen->size = entry->size;
    HASH_ADD_STR(run->seen, sha256, seen);
    return 0;
}

static int note_time(void *arg, const struct store_entry *entry)
{
    struct times *times = arg;
    size_t len = strlen(entry->name);
    if (!entry->is_prefix || len <= BACKUP_TIME_LEN)
        return 0;
    const char *time = entry->name + len - 1 - BACKUP_TIME_LEN;
    if (!backup_is_time(time, BACKUP_TIME_LEN))
        return 0;
    if (times->count == times->cap) {
        size_t cap = times->cap ? times->cap * 2 : 64;
        void *list = realloc(times->list, cap * sizeof(*times->list));
        if (!list)
            return -ENOMEM;
        times->list = list;
        times->cap = cap;
    }
    memcpy(times->list[times->count], time, BACKUP_TIME_LEN);
    times->list[times->count++][BACKUP_TIME_LEN] = '\0';
    return 0;
}

int backup_list(const struct backup_place *place, int (*each)(void *arg, const char *time),
                void *arg, struct error *error)
{
    struct times times = {0};
    int rc = backup_walk(place, "", "/", note_time, &times, error);
    for (size_t i = 0; rc == 0 && i < times.count; i++) {
        char key[META_KEY_MAX + 1];
        rc = backup_key(place, key, times.list[i], "/", BACKUP_MANIFEST);
        struct store_op op = {.kind = STORE_HEAD, .key = key};
        if (rc == 0)
            rc = store_wait(place->store, &op);
        store_op_reset(&op);
        if (rc == 0)
            rc = each(arg, times.list[i]);
        else if (rc == -ENOENT)
            rc = 0;
    }
    free(times.list);
    return rc;
}

/* ---- sending ---- */

static int put(const struct backup_place *place, const char *key, void *data, size_t len,
               bool only_new, struct error *error)
{
    struct iovec iov = {.iov_base = data, .iov_len = len};
    bool conditional = only_new && store_caps(place->store)->put_if_none_match;
    struct store_op op = {.kind = STORE_PUT,
                          .priority = STORE_BACKGROUND,
                          .key = key,
                          .iov = &iov,
                          .iov_count = len ? 1 : 0,
                          .if_none_match = conditional};
    int rc = store_wait(place->store, &op);
    if (rc < 0 && error) {
        *error = op.error;
        error_prefix(error, "cannot write the backup");
    }
    store_op_reset(&op);
    return rc;
}

/* Hashes a file of the checkpoint, and sends it if it is not there. */
static int send_file(struct run *run, struct backup_file *file, struct error *error)
{
    const struct backup_config *config = run->config;
    char path[PATH_MAX], key[META_KEY_MAX + 1];
    uint8_t sum[32];
    struct stat st;
    if (snprintf(path, sizeof(path), "%s/%s", config->directory, file->name) >= (int)sizeof(path))
        return error_set(error, -ENAMETOOLONG, "%s: too long a path", config->directory);
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    file->size = (uint64_t)st.st_size;
    void *data = file->size ? mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (data == MAP_FAILED)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    hash_sha256(data ? data : "", file->size, sum);
    hash_hex(sum, sizeof(sum), file->sha256);
    struct seen *seen;
    HASH_FIND_STR(run->seen, file->sha256, seen);
    int rc = 0;
    if (!seen || seen->size != file->size) {
        rc = backup_key(&config->place, key, BACKUP_FILES, file->sha256, "");
        if (rc == 0)
            rc = put(&config->place, key, data, file->size, false, error);
        run->result->sent_files += rc == 0;
        run->result->sent_bytes += rc == 0 ? file->size : 0;
    }
    if (data)
        munmap(data, file->size);
    run->result->files++;
    run->result->bytes += file->size;
    return rc;
}

static int list_files(struct run *run, struct error *error)
{
    struct backup_manifest *m = &run->manifest;
    size_t cap = 0;
    DIR *dir = opendir(run->config->directory);
    int rc = 0;
    if (!dir)
        return error_set(error, -errno, "%s: %s", run->config->directory, strerror(errno));
    for (struct dirent *d = readdir(dir); rc == 0 && d; d = readdir(dir)) {
        if (d->d_name[0] == '.' || strlen(d->d_name) >= BACKUP_NAME_MAX)
            continue;
        if (m->count == cap) {
            cap = cap ? cap * 2 : 64;
            void *files = realloc(m->files, cap * sizeof(*m->files));
            if (!files) {
                rc = error_set(error, -ENOMEM, "out of memory");
                break;
            }
            m->files = files;
        }
        struct backup_file *file = &m->files[m->count++];
        memset(file, 0, sizeof(*file));
        memcpy(file->name, d->d_name, strlen(d->d_name));
    }
    closedir(dir);
    return rc;
}

static bool is_stopped(const struct backup_config *config)
{
    return config->stop && atomic_load(config->stop);
}

static int send_files(struct run *run, struct error *error)
{
    struct backup_manifest *m = &run->manifest;
    int rc = list_files(run, error);
    for (size_t i = 0; rc == 0 && i < m->count; i++) {
        if (is_stopped(run->config))
            return error_set(error, -ECANCELED, "stopped");
        rc = send_file(run, &m->files[i], error);
        crash_point("backup.file_sent");
        if (run->config->sent)
            run->config->sent(run->config->arg, m->count - i - 1);
    }
    return rc;
}

static void format_time(uint64_t ns, char out[BACKUP_TIME_LEN + 1])
{
    time_t seconds = (time_t)(ns / NS_PER_S);
    struct tm tm;
    char text[32];
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%Y%m%dT%H%M%S", &tm);
    snprintf(out, BACKUP_TIME_LEN + 1, "%.15s.%03uZ", text, (unsigned)(ns / 1000000 % 1000) % 1000);
}

/* The last object of a backup: before it is there, there is no backup. */
static int send_manifest(struct run *run, struct error *error)
{
    const struct backup_config *config = run->config;
    char key[META_KEY_MAX + 1];
    int rc = -EEXIST;
    snprintf(run->manifest.volume, sizeof(run->manifest.volume), "%s", config->volume->id);
    snprintf(run->manifest.store, sizeof(run->manifest.store), "%s", config->volume->store);
    snprintf(run->manifest.prefix, sizeof(run->manifest.prefix), "%s", config->volume->prefix);
    run->manifest.applied = config->applied;
    run->manifest.time_ns = clock_wall_ns();
    for (int i = 0; rc == -EEXIST && i < TIME_TRIES; i++, run->manifest.time_ns += 1000000) {
        format_time(run->manifest.time_ns, run->result->time);
        cleanup(free_ptr) char *text = backup_manifest_print(&run->manifest);
        rc = text ? backup_key(&config->place, key, run->result->time, "/", BACKUP_MANIFEST)
                  : error_set(error, -ENOMEM, "out of memory");
        if (rc == 0)
            rc = put(&config->place, key, text, strlen(text), true, error);
    }
    crash_point("backup.complete");
    return rc;
}

/* ---- removing ---- */

static int delete_key(const struct backup_place *place, const char *a, const char *b, const char *c)
{
    char key[META_KEY_MAX + 1];
    int rc = backup_key(place, key, a, b, c);
    struct store_op op = {.kind = STORE_DELETE, .priority = STORE_BACKGROUND, .key = key};
    if (rc == 0)
        rc = store_wait(place->store, &op);
    store_op_reset(&op);
    return rc;
}

static int mark_used(struct run *run, const char *time, struct error *error)
{
    struct backup_manifest manifest;
    int rc = backup_manifest_read(&run->config->place, time, &manifest, error);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; /* one that was never completed */
    for (size_t i = 0; i < manifest.count; i++) {
        struct seen *seen;
        HASH_FIND_STR(run->seen, manifest.files[i].sha256, seen);
        if (seen)
            seen->used = true;
    }
    backup_manifest_done(&manifest);
    return 0;
}

static void free_seen(struct run *run)
{
    struct seen *seen, *next;
    HASH_ITER(hh, run->seen, seen, next)
    {
        HASH_DEL(run->seen, seen);
        free(seen);
    }
}

/* Manifests first, then files that no manifest names. */
static int prune(struct run *run, struct error *error)
{
    const struct backup_place *place = &run->config->place;
    unsigned keep = run->config->keep;
    run->times.count = 0;
    free_seen(run);
    int rc = backup_walk(place, "", "/", note_time, &run->times, error);
    size_t first = run->times.count > keep ? run->times.count - keep : 0;
    for (size_t i = 0; rc == 0 && i < first; i++) {
        rc = delete_key(place, run->times.list[i], "/", BACKUP_MANIFEST);
        run->result->removed += rc == 0;
    }
    if (rc == 0)
        rc = backup_walk(place, BACKUP_FILES, NULL, note_file, run, error);
    for (size_t i = first; rc == 0 && i < run->times.count; i++)
        rc = mark_used(run, run->times.list[i], error);
    struct seen *seen, *next;
    HASH_ITER(hh, run->seen, seen, next)
    {
        if (rc == 0 && !seen->used)
            rc = delete_key(place, BACKUP_FILES, seen->sha256, "");
    }
    return rc;
}

/* A place holds backups of one volume. */
static int check_place(struct run *run, struct error *error)
{
    struct backup_manifest manifest = {0};
    const struct backup_place *place = &run->config->place;
    int rc = backup_walk(place, "", "/", note_time, &run->times, error);
    for (size_t i = run->times.count; rc == 0 && i-- > 0;) {
        rc = backup_manifest_read(place, run->times.list[i], &manifest, error);
        if (rc == -ENOENT) {
            rc = 0;
            continue;
        }
        if (rc == 0 && strcmp(manifest.volume, run->config->volume->id) != 0)
            rc = error_set(error, -EEXIST, "there are backups of another volume, %s",
                           manifest.volume);
        backup_manifest_done(&manifest);
        break;
    }
    if (error && rc == 0)
        error_clear(error);
    return rc;
}

int backup_run(const struct backup_config *config, struct backup_result *result,
               struct error *error)
{
    struct run run = {.config = config, .result = result};
    *result = (struct backup_result){0};
    int rc = check_place(&run, error);
    if (rc == 0)
        rc = backup_walk(&config->place, BACKUP_FILES, NULL, note_file, &run, error);
    if (rc == 0)
        rc = send_files(&run, error);
    if (rc == 0)
        rc = send_manifest(&run, error);
    if (rc == 0 && config->keep) {
        struct error why = {0};
        /* The backup is there; what is too much of old ones goes the next time. */
        int pruned = prune(&run, &why);
        if (pruned < 0)
            log_warn("old backups not removed", "error=%s detail=\"%s\"", strerror(-pruned),
                     error_text(&why));
    }
    if (rc < 0 && error && !error->code)
        error_set(error, rc, "the backup failed: %s", strerror(-rc));
    free_seen(&run);
    free(run.times.list);
    backup_manifest_done(&run.manifest);
    return rc;
}
