/* The records of the cache's index: any bytes behind a right checksum. What they leave must account
 * for itself, and survive being written and read again. */
#include <assert.h>
#include <stdlib.h>

#include "index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_all(struct buf *batch, const struct index *index)
{
    struct index_content *content, *tmp;
    buf_extend(batch, INDEX_BATCH_HEADER);
    HASH_ITER(hh, index->contents, content, tmp)
    {
        index_put_content(batch, content);
        for (uint32_t i = 0; i < content->segment_count; i++)
            if (content->segments[i])
                index_put_segment(batch, content->segments[i], 1000);
    }
    index_put_end(batch);
    index_seal_batch(batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096)
        return 0;
    struct policy policy;
    struct index index, again;
    struct buf batch;
    bool ended;
    if (policy_init(&policy, 1024) < 0)
        return 0;
    index_init(&index, &policy);
    buf_init(&batch, 0);
    buf_extend(&batch, INDEX_BATCH_HEADER);
    buf_put(&batch, data, size);
    index_seal_batch(&batch);
    if (index_replay(&index, batch.data, batch.len, 1000, &ended) >= 0 &&
        index_settle(&index) == 0) {
        uint64_t pages = index.pages, bytes = index.bytes, contents = index.content_count;
        assert(policy.small.bytes + policy.main.bytes == bytes);
        buf_reset(&batch);
        put_all(&batch, &index);
        index_done(&index);
        index_init(&again, &policy);
        if (!batch.failed && batch.len <= INDEX_BATCH_MAX) {
            int64_t good = index_replay(&again, batch.data, batch.len, 1000, &ended);
            assert(good == (int64_t)batch.len && ended);
            assert(index_settle(&again) == 0);
            assert(again.pages == pages && again.bytes == bytes && again.content_count == contents);
        }
        index_done(&again);
    }
    index_done(&index);
    assert(index.bytes == 0 && index.pages == 0);
    policy_done(&policy);
    buf_done(&batch);
    return 0;
}
