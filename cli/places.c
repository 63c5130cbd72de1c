#include "places.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

int places_make(const char *path, struct error *error)
{
    cleanup(free_ptr) char *copy = strdup(path);
    if (!copy)
        return error_set(error, -ENOMEM, "out of memory");
    for (char *p = copy + 1;; p++) {
        char end = *p;
        if (end && end != '/')
            continue;
        *p = 0;
        if (mkdir(copy, 0700) < 0 && errno != EEXIST)
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

int places_outside_bucket(const struct store_url *url, const char *path, struct error *error)
{
    size_t len = strlen(url->bucket);
    if (strcmp(url->scheme, "file") != 0 || strncmp(path, url->bucket, len) != 0 ||
        (path[len] && path[len] != '/'))
        return 0;
    return error_set(error, -EINVAL, "%s lies inside the bucket file://%s; choose another place",
                     path, url->bucket);
}
