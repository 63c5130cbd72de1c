#include "records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define RECORD_MAX (64 << 10)

void record_done(struct record *r)
{
    free(r->volume_id);
    free(r->staging);
    free(r->owner);
    *r = (struct record){0};
}

char *records_dir(const char *state_dir, const char *volume_id)
{
    uint8_t digest[32];
    char hex[65], *out = NULL;
    hash_sha256(volume_id, strlen(volume_id), digest);
    hash_hex(digest, sizeof(digest), hex);
    return asprintf(&out, "%s/volumes/%.32s", state_dir, hex) < 0 ? NULL : out;
}

int records_make(const char *dir, struct error *error)
{
    cleanup(free_ptr) char *copy = strdup(dir);
    if (!copy)
        return error_set(error, -ENOMEM, "out of memory");
    for (char *p = strchr(copy + 1, '/');; p = strchr(p + 1, '/')) {
        if (p)
            *p = 0;
        if (mkdir(copy, 0700) < 0 && errno != EEXIST)
            return error_set(error, -errno, "%s: %s", copy, strerror(errno));
        if (!p)
            return 0;
        *p = '/';
    }
}

static char *text_of(json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value ? strdup(value) : NULL;
}

static json_t *read_json(const char *path)
{
    char bytes[RECORD_MAX];
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
    return n < 0 ? NULL : json_loadb(bytes, (size_t)n, 0, NULL);
}

int record_load(const char *dir, struct record *out)
{
    cleanup(free_ptr) char *path = NULL;
    *out = (struct record){0};
    if (asprintf(&path, "%s/volume.json", dir) < 0)
        return -ENOMEM;
    if (access(path, F_OK) < 0)
        return -ENOENT;
    json_t *json = read_json(path);
    if (!json_is_object(json)) {
        json_decref(json);
        return -EBADMSG;
    }
    out->volume_id = text_of(json, "volume");
    out->staging = text_of(json, "staging");
    out->owner = text_of(json, "owner");
    out->clean = json_is_true(json_object_get(json, "clean"));
    out->unstaged_s = json_integer_value(json_object_get(json, "unstaged"));
    json_decref(json);
    return 0;
}

static int write_file(const char *path, const char *text)
{
    cleanup(close_fd) int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t len = strlen(text);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, len);
    if (n != (ssize_t)len)
        return n < 0 ? -errno : -ENOSPC;
    return fsync(fd) < 0 ? -errno : 0;
}

int record_save(const char *dir, const struct record *record, struct error *error)
{
    cleanup(free_ptr) char *path = NULL;
    cleanup(free_ptr) char *fresh = NULL;
    cleanup(free_ptr) char *text = NULL;
    json_t *json = json_pack("{s:i,s:b,s:I}", "format", 1, "clean", record->clean, "unstaged",
                             (json_int_t)record->unstaged_s);
    if (json && record->volume_id)
        json_object_set_new(json, "volume", json_string(record->volume_id));
    if (json && record->staging)
        json_object_set_new(json, "staging", json_string(record->staging));
    if (json && record->owner)
        json_object_set_new(json, "owner", json_string(record->owner));
    text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text || asprintf(&path, "%s/volume.json", dir) < 0 || asprintf(&fresh, "%s.new", path) < 0)
        return error_set(error, -ENOMEM, "out of memory");
    int r = write_file(fresh, text);
    if (r == 0 && rename(fresh, path) < 0)
        r = -errno;
    return r < 0 ? error_set(error, r, "%s: %s", path, strerror(-r)) : 0;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int records_remove(const char *dir)
{
    int r = nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return r == -1 ? (errno == ENOENT ? 0 : -errno) : r;
}

void records_each(const char *state_dir, void (*fn)(void *arg, const char *dir, struct record *r),
                  void *arg)
{
    cleanup(free_ptr) char *base = NULL;
    if (asprintf(&base, "%s/volumes", state_dir) < 0)
        return;
    DIR *list = opendir(base);
    struct dirent *entry = NULL;
    while (list && (entry = readdir(list))) {
        cleanup(free_ptr) char *dir = NULL;
        struct record record = {0};
        if (strlen(entry->d_name) != 32 || asprintf(&dir, "%s/%s", base, entry->d_name) < 0)
            continue;
        record_load(dir, &record);
        fn(arg, dir, &record);
        record_done(&record);
    }
    if (list)
        closedir(list);
}
