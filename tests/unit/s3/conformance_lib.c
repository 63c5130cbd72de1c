#include "conformance_lib.h"

#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>

struct owned {
    struct owned *next;
    max_align_t data[];
};

bool run_want(struct run *r, bool holds, const char *file, int line, const char *text)
{
    const char *slash = strrchr(file, '/');
    if (!holds && !*r->failure)
        snprintf(r->failure, sizeof(r->failure), "%s:%d: not so: %s (last: %s)",
                 slash ? slash + 1 : file, line, text, r->op.error.message);
    return holds;
}

void run_want_int(struct run *r, long long got, long long expected, const char *file, int line,
                  const char *text)
{
    char all[256];
    snprintf(all, sizeof(all), "%s is %lld, expected %lld", text, got, expected);
    run_want(r, got == expected, file, line, all);
}

void run_want_str(struct run *r, const char *got, const char *expected, const char *file, int line,
                  const char *text)
{
    char all[384];
    snprintf(all, sizeof(all), "%s is \"%s\", expected \"%s\"", text, got ? got : "(null)",
             expected);
    run_want(r, got && !strcmp(got, expected), file, line, all);
}

void *run_alloc(struct run *r, size_t len)
{
    struct owned *o = calloc(1, sizeof(*o) + len);
    if (!o)
        abort();
    o->next = r->owned;
    r->owned = o;
    return o->data;
}

const char *run_keep(struct run *r, const char *text)
{
    return strcpy(run_alloc(r, strlen(text) + 1), text);
}

const char *run_key(struct run *r, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    /* clang-tidy 14 does not see the va_start. */
    vsnprintf(text, sizeof(text), fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(ap);
    return run_keep(r, text);
}

uint8_t *run_pattern(struct run *r, size_t len, unsigned seed)
{
    uint8_t *data = run_alloc(r, len + 1);
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (uint8_t)(x >> 24);
    }
    return data;
}

void run_end(struct run *r)
{
    store_op_reset(&r->op);
    for (struct owned *o = r->owned, *next; o; o = next) {
        next = o->next;
        free(o);
    }
    r->owned = NULL;
}

static const char *full(struct run *r, const char *key)
{
    char *text = run_alloc(r, strlen(r->prefix) + strlen(key) + 1);
    strcpy(text, r->prefix);
    return strcat(text, key);
}

struct store_op *run_begin(struct run *r, enum store_kind kind, const char *key)
{
    store_op_reset(&r->op);
    r->op = (struct store_op){.kind = kind, .key = key ? full(r, key) : NULL};
    return &r->op;
}

int run_do(struct run *r)
{
    return store_wait(r->store, &r->op);
}

void run_body(struct run *r, struct store_op *op, const void *data, size_t len)
{
    struct iovec *iov = run_alloc(r, sizeof(*iov));
    *iov = (struct iovec){.iov_base = (void *)data, .iov_len = len};
    op->iov = iov;
    op->iov_count = 1;
}

int run_put_bytes(struct run *r, const char *key, const void *data, size_t len)
{
    run_body(r, run_begin(r, STORE_PUT, key), data, len);
    return run_do(r);
}

int run_put(struct run *r, const char *key, const char *text)
{
    return run_put_bytes(r, key, text, strlen(text));
}

int run_get(struct run *r, const char *key, uint64_t offset, size_t len)
{
    struct store_op *op = run_begin(r, STORE_GET, key);
    op->buf = run_alloc(r, len + 1);
    op->buf_len = len;
    op->offset = offset;
    op->length = len;
    return run_do(r);
}

int run_head(struct run *r, const char *key)
{
    run_begin(r, STORE_HEAD, key);
    return run_do(r);
}

int run_delete(struct run *r, const char *key)
{
    run_begin(r, STORE_DELETE, key);
    return run_do(r);
}

int run_copy(struct run *r, const char *from, const char *to)
{
    struct store_op *op = run_begin(r, STORE_COPY, to);
    op->source_key = full(r, from);
    return run_do(r);
}

int run_list(struct run *r, const char *prefix, const char *delimiter)
{
    struct store_op *op = run_begin(r, STORE_LIST, NULL);
    op->prefix = full(r, prefix);
    op->delimiter = delimiter;
    return run_do(r);
}

const char *run_create(struct run *r, const char *key)
{
    run_begin(r, STORE_MPU_CREATE, key);
    int rc = run_do(r);
    want_int(r, rc, 0);
    return rc ? "none" : run_keep(r, r->op.out_upload_id);
}

int run_part(struct run *r, const char *key, const char *id, uint32_t number, const void *data,
             size_t len, struct store_part *out)
{
    struct store_op *op = run_begin(r, STORE_MPU_PART, key);
    op->upload_id = id;
    op->part_number = number;
    run_body(r, op, data, len);
    int rc = run_do(r);
    if (!rc && out)
        *out = r->op.out_part;
    return rc;
}

int run_complete(struct run *r, const char *key, const char *id, const struct store_part *parts,
                 unsigned count)
{
    struct store_op *op = run_begin(r, STORE_MPU_COMPLETE, key);
    op->upload_id = id;
    op->parts = parts;
    op->part_count = count;
    return run_do(r);
}

int run_abort(struct run *r, const char *key, const char *id)
{
    run_begin(r, STORE_MPU_ABORT, key)->upload_id = id;
    return run_do(r);
}

void run_want_object(struct run *r, const char *key, const void *data, size_t len)
{
    /* One byte more is asked for, to see the end. */
    if (len) {
        want_int(r, run_get(r, key, 0, len + 1), 0);
        if (want(r, r->op.got == len))
            want(r, !memcmp(r->op.buf, data, len));
    } else {
        want_int(r, run_head(r, key), 0);
    }
    want_int(r, (long long)r->op.info.size, (long long)len);
}

const char *run_names(struct run *r)
{
    const struct store_list *list = &r->op.out_list;
    size_t cap = 1, skip = strlen(r->prefix);
    for (size_t i = 0; i < list->count; i++)
        cap += strlen(list->entries[i].name) + 3;
    char *text = run_alloc(r, cap), *at = text;
    for (size_t i = 0; i < list->count; i++) {
        const struct store_entry *e = &list->entries[i];
        const char *name = strlen(e->name) >= skip ? e->name + skip : "?";
        at += sprintf(at, e->is_prefix ? "%s(%s)" : "%s%s", i ? " " : "", name);
    }
    return text;
}

struct together {
    sem_t ended;
};

static void one_ended(struct store_op *op)
{
    struct together *t = op->arg;
    sem_post(&t->ended);
}

void run_together(struct run *r, struct store_op *ops, unsigned count)
{
    struct together t;
    sem_init(&t.ended, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        ops[i].done = one_ended;
        ops[i].arg = &t;
        store_submit(r->store, &ops[i]);
    }
    for (unsigned i = 0; i < count; i++)
        while (sem_wait(&t.ended) < 0)
            ;
    sem_destroy(&t.ended);
}
