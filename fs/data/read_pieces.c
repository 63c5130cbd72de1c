/* What a read is made of, and the answer that is made of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "read_op.h"

#define IOV_LIMIT 512u
#define ZEROS_SIZE (128u << 10)

static const char zeros[ZEROS_SIZE];

/* Memory of a try */

void read_try_reset(struct read_op *op)
{
    for (unsigned i = 0; i < op->slice_count; i++) {
        fetch_release(&op->slices[i]);
        if (op->waits && op->waits[i].cached.impl)
            cache_read_put(&op->waits[i].cached);
    }
    op->slice_count = op->piece_count = 0;
    free(TAKE_PTR(op->waits));
    free(TAKE_PTR(op->memory));
    if (op->view)
        staging_view_put(TAKE_PTR(op->view));
    if (op->extents)
        file_extents_unref(TAKE_PTR(op->extents));
}

void read_op_free(struct read_op *op)
{
    read_try_reset(op);
    buffers_return(op->reads->buffers, op->granted);
    free(op->slices);
    free(op->pieces);
    free(op->buffer.iov);
    free(op);
}

static void buffer_put(struct data_buffer *buffer)
{
    read_op_free(container_of(buffer, struct read_op, buffer));
}

void data_buffer_put(struct data_buffer *buffer)
{
    if (buffer)
        buffer->put(buffer);
}

static struct piece *piece_add(struct read_op *op, enum piece_kind kind, uint64_t offset,
                               uint64_t length)
{
    struct piece *last = op->piece_count ? &op->pieces[op->piece_count - 1] : NULL;
    if (last && last->kind == kind && (kind == PIECE_ZERO || kind == PIECE_VIEW)) {
        last->length += length;
        return last;
    }
    if (op->piece_count == op->piece_cap) {
        unsigned cap = op->piece_cap ? 2 * op->piece_cap : 4;
        struct piece *grown = reallocarray(op->pieces, cap, sizeof(*grown));
        if (!grown)
            return NULL;
        op->pieces = grown;
        op->piece_cap = cap;
    }
    struct piece *piece = &op->pieces[op->piece_count++];
    *piece = (struct piece){.kind = kind, .offset = offset, .length = length};
    return piece;
}

/* Where the byte `offset` of the file goes in memory of this read's own. */
static char *memory_at(struct read_op *op, uint64_t offset)
{
    if (!op->memory)
        op->memory = malloc(op->end - op->offset);
    return op->memory ? op->memory + (offset - op->offset) : NULL;
}

/* What is where */

const struct meta_object *read_find_object(const struct file_extents *extents, uint64_t id)
{
    for (size_t i = 0; i < extents->reply.object_count; i++)
        if (extents->reply.objects[i].id == id)
            return &extents->reply.objects[i];
    return NULL;
}

/* Without a database that lasts, ids are not the same the next time: the ETag names the bytes. One
 * that has none may change without anybody seeing it. */
uint64_t read_cid(const struct data_reads *reads, const struct meta_object *object)
{
    if (!reads->cache || !object->etag[0])
        return 0;
    if (!reads->cache_by_name)
        return object->cid;
    uint64_t hash = hash_bytes64(object->key, strlen(object->key), object->size);
    return hash_bytes64(object->etag, strlen(object->etag), hash);
}

struct fetch_source read_source(const struct data_reads *reads, const struct meta_object *object)
{
    return (struct fetch_source){.object = object->id,
                                 .key = object->key,
                                 .etag = object->etag,
                                 .size = object->size,
                                 .cid = read_cid(reads, object)};
}

/* The first extent that ends after `offset`. */
static size_t find_extent(const struct file_extents *extents, uint64_t offset)
{
    size_t low = 0, high = extents->reply.extent_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct meta_extent *extent = &extents->reply.extents[middle];
        if (extent->offset + extent->length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int read_walk(const struct file_extents *extents, uint64_t limit, uint64_t offset, uint64_t end,
              int (*run)(void *arg, const struct meta_extent *extent, uint64_t offset,
                         uint64_t length),
              void *arg)
{
    int rc = 0;
    size_t i = find_extent(extents, offset);
    while (offset < end && rc == 0) {
        const struct meta_extent *extent =
            i < extents->reply.extent_count ? &extents->reply.extents[i] : NULL;
        uint64_t to = end;
        if (offset >= limit) {
            extent = NULL;
        } else if (extent && extent->offset > offset) {
            to = MIN(end, extent->offset);
            extent = NULL;
        } else if (extent) {
            to = MIN(MIN(end, limit), extent->offset + extent->length);
            if (to == extent->offset + extent->length)
                i++;
        }
        if (extent && extent->kind == META_EXTENT_HOLE)
            extent = NULL;
        rc = run(arg, extent, offset, to - offset);
        offset = to;
    }
    return rc;
}

static int add_committed(void *arg, const struct meta_extent *extent, uint64_t offset,
                         uint64_t length)
{
    struct read_op *op = arg;
    enum piece_kind kind = !extent                              ? PIECE_ZERO
                           : extent->kind == META_EXTENT_INLINE ? PIECE_MEMORY
                                                                : PIECE_OBJECT;
    struct piece *piece = piece_add(op, kind, offset, length);
    if (!piece)
        return -ENOMEM;
    if (kind == PIECE_MEMORY)
        piece->data = (const char *)extent->data + (offset - extent->offset);
    if (kind == PIECE_OBJECT) {
        piece->object = read_find_object(op->extents, extent->object);
        piece->object_offset = extent->object_offset + (offset - extent->offset);
        if (!piece->object || piece->object_offset + length > piece->object->size)
            return -EIO;
    }
    return 0;
}

static int add_staged(struct read_op *op, const struct staging_range *range, uint64_t offset,
                      uint64_t length)
{
    struct staging *staging = op->file->staging;
    if (range->hole)
        return piece_add(op, PIECE_ZERO, offset, length) ? 0 : -ENOMEM;
    if (!op->view)
        op->view = staging_view_get(staging);
    if (op->view)
        return piece_add(op, PIECE_VIEW, offset, length) ? 0 : -ENOMEM;
    struct piece *piece = piece_add(op, PIECE_MEMORY, offset, length);
    char *to = memory_at(op, offset);
    if (!piece || !to)
        return -ENOMEM;
    piece->data = to;
    return staging_read(staging, offset, length, to);
}

int read_collect_locked(struct read_op *op)
{
    struct file *file = op->file;
    if (file->extents)
        op->extents = file_extents_ref(file->extents);
    uint64_t offset = op->offset;
    int rc = 0;
    while (offset < op->end && rc == 0) {
        struct staging_range range = {.offset = op->end};
        bool staged = op->handle && file->staging && staging_next(file->staging, offset, &range);
        uint64_t to;
        if (staged && range.offset <= offset) {
            to = MIN(op->end, range.offset + range.length);
            rc = add_staged(op, &range, offset, to - offset);
        } else {
            to = staged ? MIN(op->end, range.offset) : op->end;
            rc = op->extents
                     ? read_walk(op->extents, file->truncated_to, offset, to, add_committed, op)
                     : -EAGAIN;
        }
        offset = to;
    }
    return rc;
}

/* The answer */

static int copy_piece(struct read_op *op, const struct piece *piece, char *to)
{
    switch (piece->kind) {
    case PIECE_ZERO:
        memset(to, 0, piece->length);
        return 0;
    case PIECE_MEMORY:
        if (to != piece->data)
            memcpy(to, piece->data, piece->length);
        return 0;
    case PIECE_VIEW:
        return staging_view_read(op->view, piece->offset, piece->length, to);
    case PIECE_OBJECT:
        for (unsigned i = piece->first_slice; i < piece->first_slice + piece->slice_count; i++) {
            const struct fetch_slice *slice = &op->slices[i];
            const struct cache_read *cached = &op->waits[i].cached;
            if (slice->fetch)
                memcpy(to, fetch_data(slice), slice->length);
            for (size_t v = 0, at = 0; v < cached->iov_count; at += cached->iov[v++].iov_len)
                memcpy(to + at, cached->iov[v].iov_base, cached->iov[v].iov_len);
            to += slice->length;
        }
        return 0;
    }
    return -EIO;
}

static int copy_all(struct read_op *op, char *to)
{
    int rc = 0;
    for (unsigned i = 0; i < op->piece_count && rc == 0; i++)
        rc = copy_piece(op, &op->pieces[i], to + (op->pieces[i].offset - op->offset));
    return rc;
}

static unsigned iov_needed(const struct read_op *op)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < op->piece_count; i++) {
        const struct piece *piece = &op->pieces[i];
        if (piece->kind == PIECE_ZERO)
            count += (piece->length + ZEROS_SIZE - 1) / ZEROS_SIZE;
        else if (piece->kind != PIECE_OBJECT)
            count++;
        else
            for (unsigned s = 0; s < piece->slice_count; s++)
                count += op->slices[piece->first_slice + s].fetch
                             ? 1
                             : op->waits[piece->first_slice + s].cached.iov_count;
    }
    return (unsigned)MIN(count, UINT32_MAX);
}

static void iov_add(struct data_buffer *buffer, const void *data, uint64_t length)
{
    /* An answer is only read, but struct iovec knows no const. */
    buffer->iov[buffer->iov_count++] =
        (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
}

static int iov_add_piece(struct read_op *op, const struct piece *piece)
{
    struct data_buffer *buffer = &op->buffer;
    switch (piece->kind) {
    case PIECE_ZERO:
        for (uint64_t done = 0; done < piece->length; done += ZEROS_SIZE)
            iov_add(buffer, zeros, MIN(piece->length - done, ZEROS_SIZE));
        return 0;
    case PIECE_MEMORY:
        iov_add(buffer, piece->data, piece->length);
        return 0;
    case PIECE_VIEW: {
        char *to = memory_at(op, piece->offset);
        int rc = to ? copy_piece(op, piece, to) : -ENOMEM;
        if (rc == 0)
            iov_add(buffer, to, piece->length);
        return rc;
    }
    case PIECE_OBJECT:
        for (unsigned i = piece->first_slice; i < piece->first_slice + piece->slice_count; i++) {
            const struct cache_read *cached = &op->waits[i].cached;
            if (op->slices[i].fetch)
                iov_add(buffer, fetch_data(&op->slices[i]), op->slices[i].length);
            for (unsigned v = 0; v < cached->iov_count; v++)
                iov_add(buffer, cached->iov[v].iov_base, cached->iov[v].iov_len);
        }
        return 0;
    }
    return -EIO;
}

int read_answer(struct read_op *op)
{
    struct data_buffer *buffer = &op->buffer;
    if (op->into)
        return copy_all(op, op->into);
    buffer->put = buffer_put;
    buffer->fd = -1;
    buffer->length = op->end - op->offset;
    if (op->piece_count == 1 && op->pieces[0].kind == PIECE_VIEW) {
        buffer->fd = staging_view_fd(op->view);
        buffer->fd_offset = op->offset;
        return 0;
    }
    unsigned needed = iov_needed(op);
    bool assemble = needed > IOV_LIMIT;
    buffer->iov = calloc(assemble ? 1 : MAX(needed, 1u), sizeof(struct iovec));
    if (!buffer->iov)
        return -ENOMEM;
    int rc = 0;
    if (assemble) {
        char *to = memory_at(op, op->offset);
        rc = to ? copy_all(op, to) : -ENOMEM;
        if (rc == 0)
            iov_add(buffer, to, buffer->length);
    }
    for (unsigned i = 0; !assemble && i < op->piece_count && rc == 0; i++)
        rc = iov_add_piece(op, &op->pieces[i]);
    return rc;
}
