#include "page_sums.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

/* Of 8 TiB; what lies behind is read when it is needed. */
#define PAGES_MAX (1ull << 26)
/* A page so far behind all others is behind holes: nobody asks for the sums of such a file. */
#define PAGES_NEAR 8192

void page_sums_done(struct page_sums *sums)
{
    free(sums->pages);
    *sums = (struct page_sums){0};
}

/* Without memory the page has no sum: it is read when it is needed. */
static void note(struct page_sums *sums, uint64_t page, uint32_t crc)
{
    if (page >= 2 * sums->count + PAGES_NEAR)
        return;
    if (page >= sums->cap) {
        uint64_t cap = MAX(page + 1, MIN(sums->cap * 2, PAGES_MAX));
        struct cache_page_sum *pages = realloc(sums->pages, cap * sizeof(*pages));
        if (!pages)
            return;
        memset(pages + sums->cap, 0, (cap - sums->cap) * sizeof(*pages));
        sums->pages = pages;
        sums->cap = cap;
    }
    sums->pages[page] = (struct cache_page_sum){.crc = crc, .known = true};
    sums->count = MAX(sums->count, page + 1);
}

void page_sums_write(struct page_sums *sums, uint64_t offset, const void *data, size_t len,
                     const uint32_t *blocks)
{
    const char *bytes = data;
    while (len > 0) {
        uint64_t page = offset / CACHE_PAGE;
        uint32_t at = (uint32_t)(offset % CACHE_PAGE);
        size_t piece = (size_t)MIN((uint64_t)len, CACHE_PAGE - at);
        if (page >= PAGES_MAX)
            return;
        if (at == 0) {
            sums->grows = true;
            sums->growing = page;
            sums->hash = (struct cache_page_hash){0};
        }
        if (page < sums->count)
            sums->pages[page].known = false;
        if (sums->grows && sums->growing == page && sums->hash.length == at) {
            size_t summed = blocks ? piece / HASH_BLOCK : 0;
            if (summed)
                cache_page_hash_add_blocks(&sums->hash, blocks, summed);
            cache_page_hash_add(&sums->hash, bytes + summed * HASH_BLOCK,
                                piece - summed * HASH_BLOCK);
            if (sums->hash.length == CACHE_PAGE) {
                note(sums, page, cache_page_hash_get(&sums->hash));
                sums->grows = false;
            }
        } else if (sums->growing == page) {
            sums->grows = false;
        }
        if (blocks)
            blocks += piece / HASH_BLOCK;
        bytes += piece;
        offset += piece;
        len -= piece;
    }
}

void page_sums_forget(struct page_sums *sums, uint64_t offset, uint64_t length)
{
    if (length == 0)
        return;
    uint64_t last = length > UINT64_MAX - offset ? UINT64_MAX : offset + length - 1;
    uint64_t from = offset / CACHE_PAGE, to = last / CACHE_PAGE;
    for (uint64_t i = from; i <= to && i < sums->count; i++)
        sums->pages[i].known = false;
    if (sums->growing >= from && sums->growing <= to)
        sums->grows = false;
}

void page_sums_end(struct page_sums *sums, uint64_t size)
{
    if (sums->grows && sums->growing * CACHE_PAGE + sums->hash.length == size)
        note(sums, sums->growing, cache_page_hash_get(&sums->hash));
    sums->grows = false;
}
