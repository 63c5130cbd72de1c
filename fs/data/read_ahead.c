/* What the streams of a handle (stream.h) want ahead, in terms of objects. */
#include <errno.h>
#include <stdlib.h>

#include "read_op.h"

_Static_assert(STREAM_COUNT <= FETCH_STREAMS_MAX, "each stream of a handle keeps its fetches");

struct ahead_walk {
    struct read_op *op;
    unsigned stream;
    bool waited_for;
    uint64_t missed; /* where it could not go on */
};

static int get_ahead(void *arg, const struct meta_extent *extent, uint64_t offset, uint64_t length)
{
    struct ahead_walk *walk = arg;
    if (!extent || extent->kind != META_EXTENT_OBJECT)
        return 0;
    const struct file_extents *extents = walk->op->extents;
    const struct meta_object *object = read_find_object(extents, extent->object);
    uint64_t object_offset = extent->object_offset + (offset - extent->offset);
    if (!object || object_offset + length > object->size)
        return 0;
    struct fetch_source source = read_source(walk->op->reads, object);
    struct read_streams *streams = walk->op->handle->streams;
    uint64_t got = fetch_ahead(walk->op->reads->fetches, &streams->owner, walk->stream,
                               walk->waited_for ? UINT64_MAX : offset + length, walk->waited_for,
                               &source, object_offset, length);
    if (got >= length)
        return 0;
    walk->missed = offset + got;
    return -EAGAIN;
}

static bool range_ahead(struct read_op *op, unsigned stream, const struct stream_range *range,
                        bool waited_for)
{
    struct ahead_walk walk = {.op = op, .stream = stream, .waited_for = waited_for};
    int rc = read_walk(op->extents, op->file->truncated_to, range->offset,
                       range->offset + range->length, get_ahead, &walk);
    if (rc < 0 && !waited_for)
        stream_missed(&op->handle->streams->set, stream, walk.missed);
    return rc == 0;
}

void read_plan_locked(struct read_op *op, struct stream_plan *plan)
{
    struct data_handle *handle = op->handle;
    plan->ahead_count = 0;
    if (!handle || op->planned || !op->extents)
        return;
    op->planned = true;
    if (!handle->streams) {
        handle->streams = calloc(1, sizeof(*handle->streams));
        if (!handle->streams)
            return;
        handle->streams->reads = op->reads;
        stream_init(&handle->streams->set, op->file->data->config.readahead_bytes);
    }
    struct fetch_owner *owner = &handle->streams->owner;
    struct stream_set *set = &handle->streams->set;
    uint64_t share = fetch_ahead_share(op->reads->fetches, &set->sharing);
    set->window_max =
        MIN((uint64_t)op->file->data->config.readahead_bytes, MAX(share, STREAM_WINDOW_MIN));
    set->picks |= op->file->picks;
    stream_read(set, op->offset, op->end - op->offset, op->file->size, plan);
    op->forwards = op->file->picks = set->picks;
    fetch_owner_forget(op->reads->fetches, owner, plan->forget);
    if (plan->position > STREAM_SLACK)
        fetch_owner_passed(op->reads->fetches, owner, plan->stream, plan->position - STREAM_SLACK);
    if (plan->keep)
        range_ahead(op, plan->stream, &plan->demand, true);
}

void read_ahead_locked(struct read_op *op, const struct stream_plan *plan)
{
    for (unsigned i = 0; i < plan->ahead_count; i++)
        if (!range_ahead(op, plan->stream, &plan->ahead[i], false))
            break;
}
