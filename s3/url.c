#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/open.h"

/* What is left for a path below the prefix should be worth having. */
#define PREFIX_MAX 512
#define DIRECTORY_MAX 3072

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool looks_like_address(const char *name, size_t len)
{
    unsigned dots = 0;
    for (size_t i = 0; i < len; i++) {
        if (name[i] == '.')
            dots++;
        else if (name[i] < '0' || name[i] > '9')
            return false;
    }
    return dots == 3;
}

static int check_bucket(const char *name, size_t len, struct error *error)
{
    if (len < 3 || len > 63)
        return error_set(error, -EINVAL, "bucket name \"%.*s\" must have 3 to 63 characters",
                         (int)MIN(len, 80u), name);
    for (size_t i = 0; i < len; i++) {
        if (!is_lower_alnum(name[i]) && name[i] != '-' && name[i] != '.')
            return error_set(
                error, -EINVAL,
                "bucket name \"%.*s\" may hold lower-case letters, digits, '-' and '.' only",
                (int)len, name);
    }
    if (!is_lower_alnum(name[0]) || !is_lower_alnum(name[len - 1]))
        return error_set(error, -EINVAL,
                         "bucket name \"%.*s\" must begin and end with a letter or digit", (int)len,
                         name);
    if (memmem(name, len, "..", 2) || looks_like_address(name, len))
        return error_set(error, -EINVAL, "bucket name \"%.*s\" has \"..\" or is an IP address",
                         (int)len, name);
    return 0;
}

static int check_text(const char *text, struct error *error)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            return error_set(error, -EINVAL, "the store URL has a control character");
    }
    return 0;
}

/* Components are not empty, "." or "..". `text` does not begin with a slash; one at the end is
 * allowed. */
static int check_components(const char *text, const char *what, struct error *error)
{
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "/");
        if (len == 0)
            return error_set(error, -EINVAL, "%s \"%.200s\" has an empty component", what, text);
        if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
            return error_set(error, -EINVAL, "%s \"%.200s\" has a component \"%.*s\"", what, text,
                             (int)len, p);
        p += len;
        p += *p == '/';
    }
    return 0;
}

static int parse_s3(const char *rest, struct store_url *url, struct error *error)
{
    size_t bucket_len = strcspn(rest, "/");
    int rc = check_bucket(rest, bucket_len, error);
    if (rc)
        return rc;
    const char *prefix = rest + bucket_len;
    prefix += *prefix == '/';
    rc = check_components(prefix, "prefix", error);
    if (rc)
        return rc;
    size_t len = strlen(prefix);
    if (len > PREFIX_MAX)
        return error_set(error, -EINVAL, "the prefix has %zu bytes, at most %d are allowed", len,
                         PREFIX_MAX);
    bool slash = len > 0 && prefix[len - 1] != '/';
    url->bucket = strndup(rest, bucket_len);
    if (!url->bucket || asprintf(&url->prefix, "%s%s", prefix, slash ? "/" : "") < 0)
        return error_set(error, -ENOMEM, "no memory");
    snprintf(url->scheme, sizeof(url->scheme), "s3");
    return 0;
}

static int parse_file(const char *rest, struct store_url *url, struct error *error)
{
    if (rest[0] != '/')
        return error_set(error, -EINVAL,
                         "file:// needs an absolute directory, with three slashes: file:///%.200s",
                         rest);
    size_t len = strlen(rest);
    while (len > 0 && rest[len - 1] == '/')
        len--;
    if (len == 0)
        return error_set(error, -EINVAL, "file:/// needs a directory other than /");
    if (len > DIRECTORY_MAX)
        return error_set(error, -EINVAL, "the directory of the store is longer than %d bytes",
                         DIRECTORY_MAX);
    url->bucket = strndup(rest, len);
    url->prefix = strdup("");
    if (!url->bucket || !url->prefix)
        return error_set(error, -ENOMEM, "no memory");
    int rc = check_components(url->bucket + 1, "directory", error);
    if (rc)
        return rc;
    snprintf(url->scheme, sizeof(url->scheme), "file");
    return 0;
}

int store_url_parse(const char *text, struct store_url *out, struct error *error)
{
    cleanup(store_url_done) struct store_url url = {{0}};
    int rc = check_text(text, error);
    if (rc)
        return rc;
    if (strncmp(text, "s3://", 5) == 0)
        rc = parse_s3(text + 5, &url, error);
    else if (strncmp(text, "file://", 7) == 0)
        rc = parse_file(text + 7, &url, error);
    else
        rc = error_set(error, -EINVAL,
                       "\"%.200s\" is no store URL: s3://BUCKET[/PREFIX] or file:///DIRECTORY",
                       text);
    if (rc)
        return rc;
    *out = url;
    url = (struct store_url){{0}};
    return 0;
}

void store_url_done(struct store_url *url)
{
    free(url->bucket);
    free(url->prefix);
    *url = (struct store_url){{0}};
}
