#include "extents_diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "read_op.h"

/* Committed bytes one after the other, from one extent, or zeros. */
struct run {
    const struct meta_extent *extent; /* NULL: zeros */
    uint64_t offset, end;
};

struct runs {
    const struct file_extents *extents;
    struct run *list;
    size_t count, cap;
};

static int add_run(void *arg, const struct meta_extent *extent, uint64_t offset, uint64_t length)
{
    struct runs *runs = arg;
    if (runs->count == runs->cap) {
        size_t cap = runs->cap ? runs->cap * 2 : 16;
        struct run *list = realloc(runs->list, cap * sizeof(*list));
        if (!list)
            return -ENOMEM;
        runs->list = list;
        runs->cap = cap;
    }
    runs->list[runs->count++] = (struct run){extent, offset, offset + length};
    return 0;
}

/* All of [0, size), zeros where there are no extents. */
static int list_runs(struct runs *runs, const struct file_extents *extents, uint64_t size)
{
    runs->extents = extents;
    return size ? read_walk(extents, extents->size, 0, size, add_run, runs) : 0;
}

static bool is_same(const struct data_reads *reads, const struct runs *was, const struct run *a,
                    const struct runs *is, const struct run *b, uint64_t offset, uint64_t length)
{
    const struct meta_extent *x = a->extent, *y = b->extent;
    if (!x || !y)
        return !x && !y;
    if (x->kind != y->kind)
        return false;
    uint64_t x_at = offset - x->offset, y_at = offset - y->offset;
    if (x->kind == META_EXTENT_INLINE)
        return memcmp((const char *)x->data + x_at, (const char *)y->data + y_at, length) == 0;
    const struct meta_object *p = read_find_object(was->extents, x->object);
    const struct meta_object *q = read_find_object(is->extents, y->object);
    uint64_t cid = p ? read_cid(reads, p) : 0;
    return cid && q && read_cid(reads, q) == cid &&
           x->object_offset + x_at == y->object_offset + y_at;
}

static int compare(const struct data_reads *reads, const struct runs *was, const struct runs *is,
                   int (*differs)(void *arg, uint64_t offset, uint64_t length), void *arg)
{
    size_t i = 0, k = 0;
    while (k < is->count) {
        const struct run *a = &was->list[i], *b = &is->list[k];
        uint64_t offset = MAX(a->offset, b->offset), end = MIN(a->end, b->end);
        if (!is_same(reads, was, a, is, b, offset, end - offset)) {
            int rc = differs(arg, offset, end - offset);
            if (rc)
                return rc;
        }
        i += a->end == end;
        k += b->end == end;
    }
    return 0;
}

int extents_diff(const struct data_reads *reads, const struct file_extents *was,
                 const struct file_extents *is,
                 int (*differs)(void *arg, uint64_t offset, uint64_t length), void *arg)
{
    struct runs before = {0}, now = {0};
    int rc = list_runs(&before, was, is->size);
    if (rc == 0)
        rc = list_runs(&now, is, is->size);
    if (rc == 0)
        rc = compare(reads, &before, &now, differs, arg);
    free(before.list);
    free(now.list);
    return rc;
}
