#include "exposition.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/cleanup.h"

#define NAME_MAX_LEN 128

struct family {
    char name[NAME_MAX_LEN];
    struct buf help, type, samples; /* lines, ended by \n */
    UT_hash_handle hh;              /* in the order of insertion */
};

struct exposition {
    struct family *families;
    size_t left;
};

/* One text while it is read. */
struct intake {
    struct exposition *e;
    struct family *family; /* of the samples that come; NULL: they are left out */
    const char *label;
    struct buf held; /* of a histogram, until its count says whether there was anything */
};

struct exposition *exposition_new(size_t bytes)
{
    struct exposition *e = calloc(1, sizeof(*e));
    if (e)
        e->left = bytes;
    return e;
}

static void family_free(struct family *f)
{
    buf_done(&f->help);
    buf_done(&f->type);
    buf_done(&f->samples);
    free(f);
}

void exposition_free(struct exposition *e)
{
    if (!e)
        return;
    struct family *f, *next;
    HASH_ITER(hh, e->families, f, next)
    {
        HASH_DEL(e->families, f);
        family_free(f);
    }
    free(e);
}

static struct family *family_get(struct exposition *e, const char *name, size_t len)
{
    struct family *f = NULL;
    if (!len || len >= NAME_MAX_LEN)
        return NULL;
    HASH_FIND(hh, e->families, name, len, f);
    if (f || e->left < sizeof(*f) || !(f = calloc(1, sizeof(*f))))
        return f;
    e->left -= sizeof(*f);
    memcpy(f->name, name, len);
    buf_init(&f->help, 0);
    buf_init(&f->type, 0);
    buf_init(&f->samples, 0);
    HASH_ADD(hh, e->families, name, len, f);
    return f;
}

static bool take(struct exposition *e, size_t len)
{
    if (e->left < len)
        return false;
    e->left -= len;
    return true;
}

static bool begins(const char *line, size_t len, const char *with)
{
    size_t n = strlen(with);
    return len >= n && memcmp(line, with, n) == 0;
}

/* "# HELP name …" or "# TYPE name …"; the line has its \n. */
static int read_head(struct intake *r, const char *line, size_t len, bool type)
{
    const char *name = line + 7;
    const char *space = memchr(name, ' ', len - 7);
    size_t n = space ? (size_t)(space - name) : 0;
    struct family *f = n ? family_get(r->e, name, n) : NULL;
    struct buf *into = f ? (type ? &f->type : &f->help) : NULL;
    r->family = f;
    if (!f)
        return n && n < NAME_MAX_LEN ? -E2BIG : 0;
    if (into->len) {
        bool same = into->len == len && memcmp(into->data, line, len) == 0;
        if (type && !same)
            r->family = NULL;
        return 0;
    }
    if (!take(r->e, len))
        return -E2BIG;
    buf_put(into, line, len);
    return 0;
}

/* name{labels} value: with the label first. */
static void put_sample(struct buf *out, const char *line, size_t len, size_t name,
                       const char *label)
{
    buf_put(out, line, name);
    if (!label) {
        buf_put(out, line + name, len - name);
        return;
    }
    buf_printf(out, "{%s", label);
    if (line[name] == '{' && line[name + 1] != '}') {
        buf_put(out, ",", 1);
        buf_put(out, line + name + 1, len - name - 1);
    } else if (line[name] == '{') {
        buf_put(out, line + name + 1, len - name - 1);
    } else {
        buf_put(out, "}", 1);
        buf_put(out, line + name, len - name);
    }
}

static int keep(struct intake *r, const char *bytes, size_t len)
{
    if (!take(r->e, len))
        return -E2BIG;
    buf_put(&r->family->samples, bytes, len);
    return 0;
}

static int read_sample(struct intake *r, const char *line, size_t len)
{
    const char *own = r->family->name;
    size_t family = strlen(own), name = 0;
    while (name < len && line[name] != '{' && line[name] != ' ' && line[name] != '\n')
        name++;
    if (name < family || memcmp(line, own, family) != 0 || line[name] == '\n')
        return 0;
    const char *part = line + family;
    size_t rest = name - family;
    bool count = rest == 6 && memcmp(part, "_count", 6) == 0;
    bool piece = count || (rest == 7 && memcmp(part, "_bucket", 7) == 0) ||
                 (rest == 4 && memcmp(part, "_sum", 4) == 0);
    if (rest && !piece)
        return 0;
    put_sample(&r->held, line, len, name, r->label);
    if (buf_error(&r->held) < 0)
        return -E2BIG;
    if (rest && !count)
        return 0;
    bool nothing = count && len >= 3 && memcmp(line + len - 3, " 0\n", 3) == 0;
    int result = nothing ? 0 : keep(r, (const char *)r->held.data, r->held.len);
    buf_reset(&r->held);
    return result;
}

int exposition_add(struct exposition *e, const char *text, size_t len, const char *label)
{
    struct intake r = {.e = e, .label = label};
    int result = 0;
    buf_init(&r.held, e->left + 1);
    for (size_t at = 0; at < len && result == 0;) {
        const char *line = text + at, *end = memchr(line, '\n', len - at);
        if (!end)
            break; /* cut off */
        size_t n = (size_t)(end - line) + 1;
        at += n;
        bool type = begins(line, n, "# TYPE ");
        if (type || begins(line, n, "# HELP ")) {
            buf_reset(&r.held);
            result = read_head(&r, line, n, type);
        } else if (r.family && line[0] != '#') {
            result = read_sample(&r, line, n);
        }
    }
    buf_done(&r.held);
    return result;
}

void exposition_print(const struct exposition *e, struct buf *out)
{
    for (const struct family *f = e->families; f; f = f->hh.next) {
        if (!f->samples.len)
            continue;
        buf_put(out, f->help.data, f->help.len);
        buf_put(out, f->type.data, f->type.len);
        buf_put(out, f->samples.data, f->samples.len);
    }
}

char *exposition_label(const char *name, const char *value)
{
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "%s=\"", name);
    for (const char *p = value; *p; p++) {
        if (*p == '\n') {
            buf_put(&b, "\\n", 2);
            continue;
        }
        if (*p == '"' || *p == '\\')
            buf_put(&b, "\\", 1);
        buf_put(&b, p, 1);
    }
    buf_put(&b, "\"", 2); /* and the end */
    char *text = buf_error(&b) == 0 ? (char *)buf_take(&b, NULL) : NULL;
    buf_done(&b);
    return text;
}
