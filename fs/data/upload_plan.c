/* What a flush writes where: the snapshot, as segments of the file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "part_sums.h"
#include "passthrough.h"
#include "staging.h"
#include "upload_impl.h"

/* Patches that stand inline in a large file, until they are packed into an object. */
#define INLINE_PATCHES_MAX (1u << 20)

uint64_t upload_part_size(const struct data *data, unsigned index)
{
    return part_size(data->config.part_bytes, index);
}

uint64_t upload_part_offset(const struct data *data, unsigned index)
{
    return part_offset(data->config.part_bytes, index);
}

uint64_t upload_object_max(const struct data *data)
{
    return upload_part_offset(data, PARTS_MAX);
}

bool upload_is_new(const struct file *file)
{
    uint64_t old = MIN(MIN(file->committed_size, file->truncated_to), file->size);
    return old == 0 || staging_covers(file->staging, 0, old);
}

int upload_parts_grow(struct upload *upload, unsigned count)
{
    if (count > upload->part_cap) {
        unsigned cap = MAX(count, upload->part_cap * 2);
        struct upload_part *parts = realloc(upload->parts, cap * sizeof(*parts));
        if (!parts)
            return -ENOMEM;
        upload->parts = parts;
        upload->part_cap = cap;
    }
    for (unsigned i = upload->part_count; i < count; i++)
        upload->parts[i] = (struct upload_part){.got.number = i + 1};
    upload->part_count = MAX(upload->part_count, count);
    return 0;
}

static int add_segment(struct upload *upload, enum meta_extent_kind kind, uint64_t offset,
                       uint64_t length, uint64_t object_offset)
{
    size_t n = upload->segment_count;
    /* Room doubles at each power of two. */
    if ((n & (n - 1)) == 0) {
        size_t cap = n ? n * 2 : 1;
        struct upload_segment *segments =
            realloc(upload->segments, cap * sizeof(*upload->segments));
        if (!segments)
            return -ENOMEM;
        upload->segments = segments;
    }
    upload->segments[upload->segment_count++] = (struct upload_segment){
        .kind = kind, .offset = offset, .length = length, .object_offset = object_offset};
    return 0;
}

static void take_snapshot(struct upload *upload)
{
    struct file *file = upload->file;
    upload->finishing = true;
    upload->times_set = false;
    upload->epoch = staging_freeze(file->staging);
    upload->size = file->size;
    upload->mtime_ns = file->mtime_ns;
    upload->truncated_to = file->truncated_to;
    upload->truncated_since = UINT64_MAX;
    upload->valid = META_SET_SIZE | META_SET_MTIME; /* without it a commit sets the time of now */
}

/* What is not written goes. Of a service's volume another mount may have written it while this
 * one's commit is on its way, so there only who has cut the file says so; and a file that programs
 * write by passthrough, which is committed as a whole. */
static bool may_replace(const struct upload *upload)
{
    return !upload->data->inlined || upload->truncated_to != UINT64_MAX ||
           pass_is_staged_locked(upload->file);
}

/* The whole file inline: gaps are zeros. */
static int plan_inline_whole(struct upload *upload)
{
    struct staging *staging = upload->file->staging;
    upload->inlined = calloc(1, upload->size ? upload->size : 1);
    if (!upload->inlined)
        return -ENOMEM;
    uint64_t at = 0;
    for (struct staging_range r; at < upload->size && staging_next(staging, at, &r);
         at = r.offset + r.length) {
        int rc = r.hole ? 0 : staging_read(staging, r.offset, r.length, upload->inlined + r.offset);
        if (rc)
            return rc;
    }
    upload->flags |= may_replace(upload) ? META_REPLACE : 0;
    upload->inline_total = upload->size;
    return upload->size ? add_segment(upload, META_EXTENT_INLINE, 0, upload->size, 0) : 0;
}

static int fill_inlined(struct upload *upload, uint64_t bytes)
{
    struct staging *staging = upload->file->staging;
    upload->inlined = malloc(bytes ? bytes : 1);
    if (!upload->inlined)
        return -ENOMEM;
    upload->inline_total = bytes;
    for (size_t i = 0; i < upload->segment_count; i++) {
        const struct upload_segment *s = &upload->segments[i];
        if (s->kind != META_EXTENT_INLINE)
            continue;
        int rc = staging_read(staging, s->offset, s->length, upload->inlined + s->object_offset);
        if (rc)
            return rc;
    }
    return 0;
}

/* What was cut and not written since is a hole in [from, to). */
static int add_cut(struct upload *upload, uint64_t from, uint64_t to)
{
    from = MAX(from, upload->truncated_to);
    to = MIN(to, MIN(upload->file->committed_size, upload->size));
    return from < to ? add_segment(upload, META_EXTENT_HOLE, from, to - from, 0) : 0;
}

static int plan_ranges(struct upload *upload, enum meta_extent_kind kind)
{
    struct staging *staging = upload->file->staging;
    bool replace = upload->flags & META_REPLACE;
    uint64_t at = 0, bytes = 0, max = upload_object_max(upload->data);
    for (struct staging_range r; staging_next(staging, at, &r); at = r.offset + r.length) {
        int rc = replace ? 0 : add_cut(upload, at, r.offset);
        uint64_t length = r.length;
        if (!r.hole && length > max - bytes) {
            length = max - bytes;
            upload->partial = true;
        }
        if (!rc && r.hole && !replace)
            rc = add_segment(upload, META_EXTENT_HOLE, r.offset, length, 0);
        else if (!rc && !r.hole && length)
            rc = add_segment(upload, kind, r.offset, length, bytes);
        if (rc)
            return rc;
        if (!r.hole)
            bytes += length;
    }
    int rc = replace ? 0 : add_cut(upload, at, UINT64_MAX);
    if (rc)
        return rc;
    if (kind == META_EXTENT_INLINE)
        return fill_inlined(upload, bytes);
    upload->total = bytes;
    upload->internal = true;
    return 0;
}

static bool patches_fit(const struct file *file)
{
    uint64_t bytes = staging_dirty_bytes(file->staging);
    return bytes == 0 ||
           (bytes <= file->data->inline_max && file->inline_bytes + bytes <= INLINE_PATCHES_MAX);
}

static bool burst_has_room(struct data *data, uint64_t bytes)
{
    pthread_mutex_lock(&data->wait_lock);
    bool room = burst_take(&data->burst, bytes, clock_monotonic_ns());
    pthread_mutex_unlock(&data->wait_lock);
    return room;
}

/* A new file of this size: all of it with the commit. */
static bool whole_fits(struct file *file, uint64_t size)
{
    struct data *data = file->data;
    if (size <= data->inline_max)
        return true;
    return size <= data->inline_most && file->durability == DATA_STORE &&
           burst_has_room(data, size);
}

bool upload_is_inline(const struct file *file)
{
    if (upload_is_new(file) && file->size <= file->data->inline_max)
        return true;
    bool whole = file->size && staging_reach(file->staging, 0) >= file->size;
    return !whole && patches_fit(file);
}

static int plan(struct upload *upload)
{
    struct file *file = upload->file;
    struct staging *staging = file->staging;
    bool whole = staging_reach(staging, 0) >= upload->size, replace = may_replace(upload);
    bool is_new = upload_is_new(file) && (whole || replace);
    if (is_new && whole_fits(file, upload->size))
        return plan_inline_whole(upload);
    /* A cut that leaves nothing of the old content, or less than is written anew. */
    if (is_new && replace)
        upload->flags |= META_REPLACE;
    if (upload->size && whole) {
        upload->total = MIN(upload->size, upload_object_max(upload->data));
        upload->partial = upload->total < upload->size;
        upload->internal = file->avoid_natural;
        return add_segment(upload, META_EXTENT_OBJECT, 0, upload->total, 0);
    }
    if (patches_fit(file))
        return plan_ranges(upload, META_EXTENT_INLINE);
    return plan_ranges(upload, META_EXTENT_OBJECT);
}

/* Other mounts may change the size while this one's commit is on its way. So it says one only if it
 * made it: by a cut, or by a growth without bytes. Else the file ends where it does then, or behind
 * what is written. */
static void leave_size(struct upload *upload)
{
    uint64_t end = upload->file->committed_size;
    if (!upload->data->inlined || upload->flags & META_REPLACE ||
        upload->truncated_to != UINT64_MAX)
        return;
    for (size_t i = 0; i < upload->segment_count; i++)
        if (upload->segments[i].kind != META_EXTENT_HOLE)
            end = MAX(end, upload->segments[i].offset + upload->segments[i].length);
    if (upload->size <= end)
        upload->valid &= ~(uint32_t)META_SET_SIZE;
}

int upload_plan(struct upload *upload)
{
    take_snapshot(upload);
    int rc = plan(upload);
    if (rc == 0)
        leave_size(upload);
    return rc;
}

bool upload_plan_stream(struct upload *upload)
{
    struct file *file = upload->file;
    take_snapshot(upload);
    uint64_t sent = upload_part_offset(upload->data, upload->part_count);
    if (upload->stopped || !upload_is_new(file) || staging_reach(file->staging, 0) < upload->size ||
        upload->size < sent)
        return false;
    upload->total = MIN(upload->size, upload_object_max(upload->data));
    upload->partial = upload->total < upload->size;
    upload->flags |= may_replace(upload) ? META_REPLACE : 0;
    unsigned count = upload->part_count;
    while (upload_part_offset(upload->data, count) < upload->total)
        count++;
    if (add_segment(upload, META_EXTENT_OBJECT, 0, upload->total, 0) ||
        upload_parts_grow(upload, count))
        return false;
    upload_parts_redo(upload);
    leave_size(upload);
    return true;
}

void upload_plan_done(struct upload *upload)
{
    free(upload->segments);
    free(upload->inlined);
    free(upload->parts);
    free(upload->complete_parts);
    free(upload->extents);
    free(upload->upload_id);
}
