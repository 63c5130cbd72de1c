#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

void index_init(struct index *index, struct policy *policy)
{
    *index = (struct index){.policy = policy};
}

void index_done(struct index *index)
{
    struct index_content *content, *tmp;
    HASH_ITER(hh, index->contents, content, tmp)
    {
        index_remove(index, content);
    }
}

struct index_content *index_find(const struct index *index, uint64_t cid)
{
    struct index_content *content;
    HASH_FIND(hh, index->contents, &cid, sizeof(cid), content);
    return content;
}

static bool set_size(struct index *index, struct index_content *content, uint64_t size)
{
    uint32_t count = (uint32_t)((size + CACHE_SEGMENT - 1) / CACHE_SEGMENT);
    content->segments = calloc(count, sizeof(struct index_segment *));
    if (!content->segments)
        return false;
    content->size = size;
    content->segment_count = count;
    index->memory += count * sizeof(struct index_segment *);
    return true;
}

struct index_content *index_make(struct index *index, uint64_t cid, uint64_t size)
{
    if (size > INDEX_SIZE_MAX)
        return NULL;
    struct index_content *content = index_find(index, cid);
    if (content) {
        if (size == 0 || content->size == size)
            return content;
        return content->size == 0 && set_size(index, content, size) ? content : NULL;
    }
    content = calloc(1, sizeof(*content));
    if (!content)
        return NULL;
    content->cid = cid;
    if (size > 0 && !set_size(index, content, size)) {
        free(content);
        return NULL;
    }
    HASH_ADD(hh, index->contents, cid, sizeof(content->cid), content);
    index->content_count++;
    index->memory += sizeof(*content);
    return content;
}

void index_remove(struct index *index, struct index_content *content)
{
    for (uint32_t i = 0; i < content->segment_count; i++)
        if (content->segments[i])
            index_segment_free(index, content->segments[i]);
    HASH_DEL(index->contents, content);
    index->content_count--;
    index->memory -= sizeof(*content) + content->segment_count * sizeof(struct index_segment *);
    free(content->segments);
    free(content);
}

static uint64_t round_up(uint64_t v, uint64_t unit)
{
    return (v + unit - 1) / unit * unit;
}

bool index_complete(const struct index_content *content)
{
    return content->size > 0 && content->cached == round_up(content->size, CACHE_BLOCK);
}

bool index_verified(const struct index_content *content)
{
    for (uint32_t i = 0; i < content->segment_count; i++) {
        const struct index_segment *segment = content->segments[i];
        for (unsigned page = 0; segment && page < segment->page_count; page++)
            if (segment->pages[page].valid && !(segment->verified >> page & 1))
                return false;
    }
    return true;
}

struct index_segment *index_segment(const struct index_content *content, uint32_t number)
{
    return number < content->segment_count ? content->segments[number] : NULL;
}

static size_t segment_memory(unsigned page_count)
{
    return sizeof(struct index_segment) + page_count * sizeof(struct index_page);
}

struct index_segment *index_segment_make(struct index *index, struct index_content *content,
                                         uint32_t number)
{
    if (number >= content->segment_count)
        return NULL;
    if (content->segments[number])
        return content->segments[number];
    uint64_t left = content->size - (uint64_t)number * CACHE_SEGMENT;
    unsigned pages = (unsigned)((MIN(left, CACHE_SEGMENT) + CACHE_PAGE - 1) / CACHE_PAGE);
    struct index_segment *segment = calloc(1, segment_memory(pages));
    if (!segment)
        return NULL;
    segment->content = content;
    segment->number = number;
    segment->page_count = (uint8_t)pages;
    segment->item.key = hash_u64(content->cid) + number;
    content->segments[number] = segment;
    index->segment_count++;
    index->memory += segment_memory(pages);
    return segment;
}

static void account(struct index *index, struct index_segment *segment, int64_t bytes)
{
    segment->content->cached += (uint64_t)bytes;
    index->bytes += (uint64_t)bytes;
    policy_resize(index->policy, &segment->item, segment->item.bytes + (uint32_t)bytes);
}

void index_segment_free(struct index *index, struct index_segment *segment)
{
    policy_remove(index->policy, &segment->item);
    for (unsigned page = 0; page < segment->page_count; page++)
        index->pages -= segment->pages[page].valid != 0;
    account(index, segment, -(int64_t)segment->item.bytes);
    segment->content->segments[segment->number] = NULL;
    index->segment_count--;
    index->memory -= segment_memory(segment->page_count);
    free(segment);
}

void index_set_page(struct index *index, struct index_segment *segment, unsigned page,
                    uint32_t valid, uint32_t crc, uint32_t now_s)
{
    struct index_page *p = &segment->pages[page];
    int blocks = __builtin_popcount(valid) - __builtin_popcount(p->valid);
    index->pages += (valid != 0) - (uint64_t)(p->valid != 0);
    p->valid = valid;
    p->crc = valid ? crc : 0;
    account(index, segment, (int64_t)blocks * CACHE_BLOCK);
    if (segment->item.bytes > 0 && segment->item.queue == POLICY_NONE && !segment->going)
        policy_insert(index->policy, &segment->item, now_s);
    else if (segment->item.bytes == 0)
        policy_remove(index->policy, &segment->item);
}

uint32_t index_mask(uint64_t begin, uint64_t end)
{
    unsigned first = (unsigned)(begin / CACHE_BLOCK);
    unsigned last = (unsigned)((end + CACHE_BLOCK - 1) / CACHE_BLOCK);
    uint64_t mask = (1ull << last) - (1ull << first);
    return (uint32_t)mask;
}

uint32_t index_full_mask(const struct index_content *content, uint32_t segment, unsigned page)
{
    uint64_t begin = (uint64_t)segment * CACHE_SEGMENT + (uint64_t)page * CACHE_PAGE;
    return begin >= content->size ? 0 : index_mask(0, MIN(content->size - begin, CACHE_PAGE));
}

uint32_t index_block_crc(unsigned block, const void *data)
{
    return hash_crc32c(block + 1, data, CACHE_BLOCK);
}

/* Records */

#define BATCH_MAGIC 0x534c4358u /* "SLCX" */

enum record {
    RECORD_CONTENT = 1, /* cid, size, flags */
    RECORD_SEGMENT, /* of the content before it: number, queue, freq, age, count, {valid, crc}... */
    RECORD_PAGE,    /* cid, size, page of the content, valid, crc */
    RECORD_EVICT,   /* cid, segment */
    RECORD_DROP,    /* cid */
    RECORD_PIN,     /* cid, pinned */
    RECORD_END,
};

void index_put_content(struct buf *out, const struct index_content *content)
{
    buf_put_u8(out, RECORD_CONTENT);
    buf_put_u64(out, content->cid);
    buf_put_u64(out, content->size);
    buf_put_u8(out, content->pinned);
}

void index_put_segment(struct buf *out, const struct index_segment *segment, uint32_t now_s)
{
    const struct policy_item *item = &segment->item;
    buf_put_u8(out, RECORD_SEGMENT);
    buf_put_u32(out, segment->number);
    buf_put_u8(out, item->queue);
    buf_put_u8(out, item->freq);
    buf_put_u32(out, now_s > item->last_s ? now_s - item->last_s : 0);
    buf_put_u8(out, segment->page_count);
    for (unsigned i = 0; i < segment->page_count; i++) {
        buf_put_u32(out, segment->pages[i].valid);
        buf_put_u32(out, segment->pages[i].crc);
    }
}

void index_put_page(struct buf *out, const struct index_segment *segment, unsigned page)
{
    buf_put_u8(out, RECORD_PAGE);
    buf_put_u64(out, segment->content->cid);
    buf_put_u64(out, segment->content->size);
    buf_put_u32(out, segment->number * INDEX_SEGMENT_PAGES + page);
    buf_put_u32(out, segment->pages[page].valid);
    buf_put_u32(out, segment->pages[page].crc);
}

void index_put_evict(struct buf *out, const struct index_segment *segment)
{
    buf_put_u8(out, RECORD_EVICT);
    buf_put_u64(out, segment->content->cid);
    buf_put_u32(out, segment->number);
}

void index_put_drop(struct buf *out, uint64_t cid)
{
    buf_put_u8(out, RECORD_DROP);
    buf_put_u64(out, cid);
}

void index_put_pin(struct buf *out, uint64_t cid, bool pinned)
{
    buf_put_u8(out, RECORD_PIN);
    buf_put_u64(out, cid);
    buf_put_u8(out, pinned);
}

void index_put_end(struct buf *out)
{
    buf_put_u8(out, RECORD_END);
}

static void put_u32_at(uint8_t *p, uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8)
        p[i] = (uint8_t)v;
}

void index_seal_batch(struct buf *batch)
{
    size_t len = batch->len - INDEX_BATCH_HEADER;
    put_u32_at(batch->data, BATCH_MAGIC);
    put_u32_at(batch->data + 4, (uint32_t)len);
    put_u32_at(batch->data + 8, hash_crc32c(0, batch->data + INDEX_BATCH_HEADER, len));
}

/* Replay. A record that makes no sense fails its reader: the batch, and what follows, is not used.
 */

struct replay {
    struct index *index;
    struct reader in;
    struct index_content *content; /* of the last RECORD_CONTENT */
    uint32_t now_s;
    bool ended, no_memory;
};

static void replay_page(struct replay *r, struct index_content *content, uint32_t number,
                        unsigned page, uint32_t valid, uint32_t crc)
{
    struct index_segment *segment = index_segment(content, number);
    if (!segment && !valid)
        return;
    if (!segment)
        segment = index_segment_make(r->index, content, number);
    if (!segment) {
        r->no_memory = true;
        return;
    }
    if (page >= segment->page_count || (valid & ~index_full_mask(content, number, page)) != 0) {
        r->in.failed = true;
        return;
    }
    /* Out of the queues until index_settle. */
    segment->going = true;
    index_set_page(r->index, segment, page, valid, crc, r->now_s);
    segment->going = false;
    segment->item.last_s = r->now_s;
    if (segment->item.bytes == 0)
        index_segment_free(r->index, segment);
}

static void replay_content(struct replay *r)
{
    uint64_t cid = reader_u64(&r->in), size = reader_u64(&r->in);
    bool pinned = reader_u8(&r->in) != 0;
    r->content = NULL;
    if (r->in.failed)
        return;
    struct index_content *content = index_find(r->index, cid);
    if (content && content->size != 0 && size != 0 && content->size != size)
        index_remove(r->index, content);
    r->content = index_make(r->index, cid, size);
    if (r->content)
        r->content->pinned = pinned;
    else if (size > INDEX_SIZE_MAX)
        r->in.failed = true;
    else
        r->no_memory = true;
}

static void replay_segment(struct replay *r)
{
    uint32_t number = reader_u32(&r->in);
    uint8_t queue = reader_u8(&r->in), freq = reader_u8(&r->in);
    uint32_t age = reader_u32(&r->in);
    unsigned count = reader_u8(&r->in);
    if (r->in.failed || !r->content || number >= r->content->segment_count ||
        count > INDEX_SEGMENT_PAGES) {
        r->in.failed = true;
        return;
    }
    for (unsigned page = 0; page < count && !r->in.failed && !r->no_memory; page++) {
        uint32_t valid = reader_u32(&r->in), crc = reader_u32(&r->in);
        if (!r->in.failed)
            replay_page(r, r->content, number, page, valid, crc);
    }
    struct index_segment *segment = index_segment(r->content, number);
    if (segment) {
        /* index_settle reads them back. */
        segment->item.freq = MIN(freq, POLICY_FREQ_MAX);
        segment->item.touched = queue == POLICY_MAIN;
        segment->item.last_s = r->now_s - MIN(age, r->now_s);
    }
}

static void replay_single_page(struct replay *r)
{
    uint64_t cid = reader_u64(&r->in), size = reader_u64(&r->in);
    uint32_t page = reader_u32(&r->in), valid = reader_u32(&r->in), crc = reader_u32(&r->in);
    uint32_t number = page / INDEX_SEGMENT_PAGES;
    if (r->in.failed || size == 0 || size > INDEX_SIZE_MAX || page > (size - 1) / CACHE_PAGE) {
        r->in.failed = true;
        return;
    }
    struct index_content *content = index_find(r->index, cid);
    if (content && content->size != 0 && content->size != size) {
        if (r->content == content)
            r->content = NULL;
        index_remove(r->index, content);
    }
    content = index_make(r->index, cid, size);
    if (content)
        replay_page(r, content, number, page % INDEX_SEGMENT_PAGES, valid, crc);
    else
        r->no_memory = true;
}

static void replay_record(struct replay *r)
{
    struct index_content *content;
    r->ended = false;
    switch (reader_u8(&r->in)) {
    case RECORD_CONTENT:
        replay_content(r);
        return;
    case RECORD_SEGMENT:
        replay_segment(r);
        return;
    case RECORD_PAGE:
        replay_single_page(r);
        return;
    case RECORD_EVICT: {
        content = index_find(r->index, reader_u64(&r->in));
        uint32_t number = reader_u32(&r->in);
        struct index_segment *segment = content ? index_segment(content, number) : NULL;
        if (segment && !r->in.failed)
            index_segment_free(r->index, segment);
        return;
    }
    case RECORD_DROP:
        content = index_find(r->index, reader_u64(&r->in));
        if (content && !r->in.failed) {
            if (r->content == content)
                r->content = NULL;
            index_remove(r->index, content);
        }
        return;
    case RECORD_PIN: {
        uint64_t cid = reader_u64(&r->in);
        bool pinned = reader_u8(&r->in) != 0;
        content = r->in.failed ? NULL : index_make(r->index, cid, 0);
        if (content)
            content->pinned = pinned;
        return;
    }
    case RECORD_END:
        r->ended = true;
        return;
    default:
        r->in.failed = true;
    }
}

int64_t index_replay(struct index *index, const void *data, size_t len, uint32_t now_s, bool *ended)
{
    struct replay r = {.index = index, .now_s = now_s};
    struct reader in;
    int64_t good = 0;
    reader_init(&in, data, len);
    while (reader_left(&in) > 0) {
        uint32_t magic = reader_u32(&in), batch_len = reader_u32(&in), crc = reader_u32(&in);
        if (in.failed || magic != BATCH_MAGIC || batch_len > INDEX_BATCH_MAX)
            break;
        const uint8_t *batch = reader_raw(&in, batch_len);
        if (!batch || hash_crc32c(0, batch, batch_len) != crc)
            break;
        reader_init(&r.in, batch, batch_len);
        while (reader_left(&r.in) > 0 && !r.in.failed && !r.no_memory)
            replay_record(&r);
        if (r.no_memory)
            return -ENOMEM;
        if (r.in.failed)
            break;
        good = (int64_t)in.pos;
    }
    *ended = r.ended;
    return good;
}

static int by_age(const void *a, const void *b)
{
    const struct index_segment *x = *(struct index_segment *const *)a;
    const struct index_segment *y = *(struct index_segment *const *)b;
    return x->item.last_s < y->item.last_s ? -1 : x->item.last_s > y->item.last_s;
}

int index_settle(struct index *index)
{
    size_t count = 0;
    struct index_segment **all = calloc(index->segment_count + 1, sizeof(*all));
    if (!all)
        return -ENOMEM;
    struct index_content *content, *tmp;
    HASH_ITER(hh, index->contents, content, tmp)
    {
        if (content->cached == 0 && !content->pinned) {
            index_remove(index, content);
            continue;
        }
        for (uint32_t i = 0; i < content->segment_count; i++)
            if (content->segments[i])
                all[count++] = content->segments[i];
    }
    qsort(all, count, sizeof(*all), by_age);
    for (size_t i = 0; i < count; i++) {
        struct policy_item *item = &all[i]->item;
        policy_restore(index->policy, item, item->touched ? POLICY_MAIN : POLICY_SMALL, item->freq,
                       item->last_s);
    }
    free(all);
    return 0;
}
