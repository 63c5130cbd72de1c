/* What the cache has of one file, and what may be done about it: for the control file. */
#include <errno.h>

#include "base/cleanup.h"
#include "cache/cache.h"
#include "read_op.h"

static uint64_t missing_of(struct cache *cache, uint64_t cid, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length, missing = 0;
    while (offset < end) {
        uint64_t run, run_length;
        if (!cid || !cache_peek(cache, cid, offset, end - offset, &run, &run_length))
            return missing + (end - offset);
        missing += run - offset;
        offset = run + run_length;
    }
    return missing;
}

static void look(const struct data *data, const struct meta_reply *reply, struct data_cached *out)
{
    struct cache *cache = data->config.cache;
    uint64_t missing = 0;
    const struct file_extents extents = {.reply = *reply};
    for (size_t i = 0; i < reply->extent_count; i++) {
        const struct meta_extent *e = &reply->extents[i];
        const struct meta_object *object =
            e->kind == META_EXTENT_OBJECT ? read_find_object(&extents, e->object) : NULL;
        if (object)
            missing +=
                missing_of(cache, read_cid(data->reads, object), e->object_offset, e->length);
    }
    out->cached_bytes = out->size - MIN(missing, out->size);
    out->pinned = reply->object_count > 0;
    for (size_t i = 0; i < reply->object_count; i++) {
        struct cache_content content;
        uint64_t cid = read_cid(data->reads, &reply->objects[i]);
        out->pinned &= cid && cache_content(cache, cid, &content) == 0 && content.pinned;
    }
}

static int act(struct data *data, const struct meta_reply *reply, enum data_cached_do what)
{
    int rc = 0;
    for (size_t i = 0; i < reply->object_count && rc == 0; i++) {
        uint64_t cid = read_cid(data->reads, &reply->objects[i]);
        if (!cid)
            continue;
        if (what == DATA_CACHED_EVICT)
            cache_evict(data->config.cache, cid);
        else if (what != DATA_CACHED_LOOK)
            rc = cache_pin(data->config.cache, cid, what == DATA_CACHED_PIN);
    }
    return rc;
}

int data_cached(struct data *data, uint64_t ino, enum data_cached_do what, struct data_cached *out)
{
    if (!data->config.cache)
        return -EOPNOTSUPP;
    struct meta_request request = {.op = {.kind = META_EXTENTS, .ino = ino, .length = UINT64_MAX}};
    int rc = meta_call(data->meta, &request);
    if (rc == 0) {
        rc = act(data, &request.reply, what);
        *out = (struct data_cached){.size = request.reply.attr.size};
        look(data, &request.reply, out);
    }
    meta_reply_done(&request.reply);
    return rc;
}
