#include "places.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/hash.h"

static void put_word(struct buf *b, const char *text)
{
    for (const char *p = text; *p; p++) {
        bool plain = isalnum((unsigned char)*p) || strchr("._-", *p);
        buf_printf(b, "%c", plain ? *p : '-');
    }
}

char *places_default(const struct store_url *url, const char *endpoint)
{
    struct buf identity, path;
    buf_init(&identity, 0);
    buf_init(&path, 4096);
    buf_printf(&identity, "%s\n%s\n%s\n%s", url->scheme, url->bucket, url->prefix,
               endpoint ? endpoint : "");
    uint8_t digest[32];
    char hex[65];
    hash_sha256(identity.data, identity.len, digest);
    hash_hex(digest, sizeof(digest), hex);
    buf_done(&identity);

    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (geteuid() == 0)
        buf_printf(&path, "/var/lib/sluice/");
    else if (state && *state)
        buf_printf(&path, "%s/sluice/", state);
    else
        buf_printf(&path, "%s/.local/state/sluice/", home && *home ? home : "/tmp");
    size_t start = path.len;
    put_word(&path, strcmp(url->scheme, "s3") == 0 ? url->bucket : strrchr(url->bucket, '/') + 1);
    if (path.len > start + 80)
        path.len = start + 80;
    buf_printf(&path, "-%.12s", hex);
    buf_put_u8(&path, 0);
    if (buf_error(&path) < 0) {
        buf_done(&path);
        return NULL;
    }
    return (char *)buf_take(&path, NULL);
}

static void note(struct places_made *made, const char *path)
{
    char *copy = made && made->count < ARRAY_LEN(made->paths) ? strdup(path) : NULL;
    if (copy)
        made->paths[made->count++] = copy;
}

int places_make(const char *path, struct error *error)
{
    return places_make_noted(path, NULL, error);
}

int places_make_noted(const char *path, struct places_made *made, struct error *error)
{
    cleanup(free_ptr) char *copy = strdup(path);
    if (!copy)
        return error_set(error, -ENOMEM, "out of memory");
    for (char *p = copy + 1;; p++) {
        char end = *p;
        if (end && end != '/')
            continue;
        *p = 0;
        if (mkdir(copy, 0700) == 0)
            note(made, copy);
        else if (errno != EEXIST)
            return error_set(error, -errno, "%s: %s", copy, strerror(errno));
        if (!end)
            break;
        *p = '/';
    }
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return error_set(error, -ENOTDIR, "%s is not a directory", path);
    return 0;
}

bool places_made_it(const struct places_made *made, const char *path)
{
    for (unsigned i = 0; i < made->count; i++)
        if (strcmp(made->paths[i], path) == 0)
            return true;
    return false;
}

void places_undo(const struct places_made *made)
{
    for (unsigned i = made->count; i-- > 0;)
        rmdir(made->paths[i]);
}

void places_made_done(struct places_made *made)
{
    while (made->count)
        free(made->paths[--made->count]);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

void places_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

unsigned places_count(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir))
        count += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    if (dir)
        closedir(dir);
    return count;
}

int places_outside_bucket(const struct store_url *url, const char *path, struct error *error)
{
    size_t len = strlen(url->bucket);
    if (strcmp(url->scheme, "file") != 0 || strncmp(path, url->bucket, len) != 0 ||
        (path[len] && path[len] != '/'))
        return 0;
    return error_set(error, -EINVAL, "%s lies inside the bucket file://%s; choose another place",
                     path, url->bucket);
}
