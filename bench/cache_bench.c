/*
 * Measures the SSD cache by itself (docs/cache.md):
 *
 *   cache_bench index PAGES DIRECTORY   writes an index of so many pages, loads it: time, memory
 *   cache_bench read DIRECTORY MIB      random 4 KiB and sequential 1 MiB reads of a cached file,
 * by the threads themselves and by the ring, beside the same reads of the file itself, in turns
 *   cache_bench policy                  hit ratios of the eviction policy, LRU and the optimum
 * (which knows the future) on made traces
 *   cache_bench replay FILE PAGES...    the same for a file of page numbers in the order in which
 * they are read, each as decimal text, with room for so many pages; 32 pages are a segment
 *
 * Prints lines of `name value unit`.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "cache/cache.h"
#include "index.h"
#include "journal.h"
#include "policy.h"

static void fail(const char *what, int rc)
{
    fprintf(stderr, "cache_bench: %s: %s\n", what, strerror(-rc));
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* index */

static long resident_kib(void)
{
    char line[128] = "";
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return 0;
    char *got = fgets(line, sizeof(line), f);
    fclose(f);
    const char *second = got ? strchr(line, ' ') : NULL;
    return second ? strtol(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}

static void write_index(int dir_fd, uint64_t pages, struct policy *policy)
{
    const uint64_t content_pages = 8192; /* contents of 1 GiB */
    struct index index;
    struct journal journal;
    struct journal_checkpoint checkpoint;
    struct buf batch;
    index_init(&index, policy);
    int rc = journal_open(&journal, dir_fd, &index, 1);
    if (rc == 0)
        rc = journal_checkpoint_begin(&journal, &checkpoint);
    if (rc < 0)
        fail("index", rc);
    journal_batch_init(&batch);
    for (uint64_t cid = 1; pages > 0; cid++) {
        struct index_content *content = index_make(&index, cid, content_pages * CACHE_PAGE);
        index_put_content(&batch, content);
        for (uint32_t s = 0; s < content->segment_count && pages > 0; s++) {
            struct index_segment *segment = index_segment_make(&index, content, s);
            for (unsigned p = 0; p < segment->page_count && pages > 0; p++, pages--)
                index_set_page(&index, segment, p, UINT32_MAX, (uint32_t)(cid * s + p), 1);
            index_put_segment(&batch, segment, 1);
            if (batch.len > INDEX_BATCH_MAX / 4)
                rc = journal_checkpoint_put(&checkpoint, &batch);
        }
        index_remove(&index, content);
        if (rc < 0)
            fail("index", rc);
    }
    rc = journal_checkpoint_put(&checkpoint, &batch);
    if (rc == 0)
        rc = journal_checkpoint_end(&checkpoint);
    if (rc < 0)
        fail("index", rc);
    buf_done(&batch);
    index_done(&index);
    journal_close(&journal);
}

static int run_index(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t pages = strtoull(argv[2], NULL, 10);
    if (mkdir(argv[3], 0700) < 0 && errno != EEXIST)
        fail(argv[3], -errno);
    int dir_fd = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct policy policy;
    if (dir_fd < 0 || policy_init(&policy, 1u << 17) < 0)
        fail(argv[3], -errno);
    write_index(dir_fd, pages, &policy);
    struct index index;
    struct journal journal;
    index_init(&index, &policy);
    long before = resident_kib();
    uint64_t start = clock_monotonic_ns();
    int rc = journal_open(&journal, dir_fd, &index, 1);
    uint64_t took = clock_monotonic_ns() - start;
    if (rc < 0 || index.pages != pages)
        fail("load", rc < 0 ? rc : -EBADMSG);
    printf("index_load %.3f s\n", (double)took / 1e9);
    printf("index_pages %" PRIu64 " pages\n", index.pages);
    printf("index_memory %.1f MiB/million-pages\n",
           (double)(resident_kib() - before) / 1024 / ((double)pages / 1e6));
    journal_close(&journal);
    index_done(&index);
    policy_done(&policy);
    close(dir_fd);
    return 0;
}

/* read */

struct reader_thread {
    pthread_t thread;
    struct cache *cache; /* NULL: the file */
    bool here;           /* the thread reads the disk itself; else by the ring */
    int fd;
    uint64_t size, length, seed, count;
    bool sequential;
};

struct one_read {
    struct cache_read read;
    sem_t ended;
};

static void one_done(struct cache_read *read)
{
    sem_post(&container_of(read, struct one_read, read)->ended);
}

static void *read_thread(void *arg)
{
    struct reader_thread *t = arg;
    void *buffer;
    if (posix_memalign(&buffer, 4096, t->length) != 0)
        return NULL;
    struct one_read one;
    sem_init(&one.ended, 0, 0);
    for (uint64_t i = 0; i < t->count; i++) {
        uint64_t places = t->size / t->length;
        uint64_t offset = (t->sequential ? i % places : next_random(&t->seed) % places) * t->length;
        if (!t->cache) {
            if (pread(t->fd, buffer, t->length, (off_t)offset) != (ssize_t)t->length)
                fail("pread", -errno);
            continue;
        }
        one.read = (struct cache_read){
            .cid = 1, .offset = offset, .length = t->length, .may_wait = t->here, .done = one_done};
        int rc = cache_read(t->cache, &one.read);
        if (rc == -EINPROGRESS) {
            while (sem_wait(&one.ended) < 0 && errno == EINTR)
                ;
            rc = one.read.result;
        }
        if (rc < 0)
            fail("cache_read", rc);
        cache_read_put(&one.read);
    }
    sem_destroy(&one.ended);
    free(buffer);
    return NULL;
}

static uint64_t process_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct measured {
    double per_s, cpu_us; /* reads; processor time of the whole process for each */
};

static struct measured measure(struct cache *cache, bool here, int fd, uint64_t size,
                               uint64_t length, bool sequential, unsigned threads, uint64_t count)
{
    struct reader_thread all[16];
    uint64_t start = clock_monotonic_ns(), cpu = process_cpu_ns();
    for (unsigned i = 0; i < threads; i++) {
        all[i] = (struct reader_thread){.cache = cache,
                                        .here = here,
                                        .fd = fd,
                                        .size = size,
                                        .length = length,
                                        .seed = start + i,
                                        .count = count / threads,
                                        .sequential = sequential};
        if (pthread_create(&all[i].thread, NULL, read_thread, &all[i]) != 0)
            fail("thread", -EAGAIN);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(all[i].thread, NULL);
    double took_ns = (double)(clock_monotonic_ns() - start);
    return (struct measured){.per_s = (double)count / (took_ns / 1e9),
                             .cpu_us = (double)(process_cpu_ns() - cpu) / 1e3 / (double)count};
}

static void fill_all(struct cache *cache, uint64_t size)
{
    char *page = malloc(CACHE_PAGE);
    if (!page)
        fail("memory", -ENOMEM);
    uint64_t seed = 1;
    uint64_t start = clock_monotonic_ns();
    for (uint64_t at = 0; at < size; at += CACHE_PAGE) {
        for (size_t i = 0; i < CACHE_PAGE; i += 8)
            *(uint64_t *)(void *)(page + i) = next_random(&seed);
        int rc;
        while ((rc = cache_fill(cache, 1, size, at, page, CACHE_PAGE, true)) == -EAGAIN)
            usleep(100);
        if (rc < 0)
            fail("fill", rc);
    }
    cache_drain(cache);
    printf("fill %.0f MiB/s\n",
           (double)size / 1048576 / ((double)(clock_monotonic_ns() - start) / 1e9));
    free(page);
}

static void print_row(const char *row, const struct measured best[3])
{
    static const char *const ways[] = {"file", "cache", "ring"};
    for (unsigned i = 0; i < 3; i++)
        printf("%s_%s %.0f reads/s\n%s_%s_cpu %.1f us/read\n", row, ways[i], best[i].per_s, row,
               ways[i], best[i].cpu_us);
    for (unsigned i = 1; i < 3; i++)
        printf("%s_%s_ratio %.2f\n", row, ways[i], best[i].per_s / best[0].per_s);
}

static int run_read(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t size = strtoull(argv[3], NULL, 10) << 20;
    const char *directories[] = {argv[2]};
    struct cache_config config;
    struct cache *cache;
    struct error error = {0};
    cache_config_init(&config);
    config.directories = directories;
    config.directory_count = 1;
    config.volume = "bench";
    config.free_low_percent = config.free_high_percent = 0;
    config.slow_ms = 60000;
    int rc = cache_open(&config, &cache, &error);
    if (rc < 0)
        fail(error_text(&error), rc);
    fill_all(cache, size);
    char path[4200];
    snprintf(path, sizeof(path), "%s/bench/files/01/0000000000000001", argv[2]);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        fail(path, -errno);
    static const struct {
        const char *name;
        uint64_t length;
        bool sequential;
        unsigned threads;
        uint64_t count;
    } rows[] = {{"random_4k_1", 4096, false, 1, 20000},
                {"random_4k_16", 4096, false, 16, 64000},
                {"sequential_1m_1", 1 << 20, true, 1, 2000},
                {"sequential_1m_4", 1 << 20, true, 4, 2000}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct measured best[3] = {{0, 1e9}, {0, 1e9}, {0, 1e9}};
        for (int round = 0; round < 9; round++) {
            int way = round % 3;
            struct measured now =
                measure(way == 0 ? NULL : cache, way == 1, fd, size, rows[i].length,
                        rows[i].sequential, rows[i].threads, rows[i].count);
            best[way].per_s = MAX(best[way].per_s, now.per_s);
            best[way].cpu_us = MIN(best[way].cpu_us, now.cpu_us);
        }
        print_row(rows[i].name, best);
    }
    close(fd);
    cache_clear(cache);
    cache_close(cache);
    return 0;
}

/* policy: segments of equal size, each read whole */

#define SEGMENTS 20000u

struct lru_item {
    struct lru_item *prev, *next;
    bool cached;
};

static bool never_busy(const struct policy_item *item)
{
    return false;
}

static double hits_of_policy(const uint32_t *trace, size_t len, unsigned room)
{
    struct policy policy;
    struct policy_item *items = calloc(SEGMENTS, sizeof(*items));
    unsigned cached = 0;
    uint64_t hits = 0;
    if (!items || policy_init(&policy, 4 * room) < 0)
        fail("memory", -ENOMEM);
    for (size_t i = 0; i < len; i++) {
        struct policy_item *item = &items[trace[i]];
        if (item->queue != POLICY_NONE) {
            hits++;
        } else {
            while (cached >= room && policy_victim(&policy, never_busy))
                cached--;
            item->key = trace[i];
            policy_insert(&policy, item, (uint32_t)i);
            policy_resize(&policy, item, CACHE_SEGMENT);
            cached++;
        }
        policy_touch(item, 0, POLICY_PAGES, (uint32_t)i);
    }
    policy_done(&policy);
    free(items);
    return (double)hits / (double)len;
}

static double hits_of_lru(const uint32_t *trace, size_t len, uint32_t segments, unsigned room)
{
    struct lru_item *items = calloc(segments, sizeof(*items)), *list = NULL;
    unsigned cached = 0;
    uint64_t hits = 0;
    if (!items)
        fail("memory", -ENOMEM);
    for (size_t i = 0; i < len; i++) {
        struct lru_item *item = &items[trace[i]];
        if (item->cached) {
            hits++;
            DL_DELETE(list, item);
        } else if (cached == room) {
            struct lru_item *last = list->prev;
            DL_DELETE(list, last);
            last->cached = false;
        } else {
            cached++;
        }
        item->cached = true;
        DL_PREPEND(list, item);
    }
    free(items);
    return (double)hits / (double)len;
}

struct heap_entry {
    size_t next;
    uint32_t segment;
};

static void heap_push(struct heap_entry *heap, size_t *count, struct heap_entry entry)
{
    size_t i = (*count)++;
    for (; i > 0 && heap[(i - 1) / 2].next < entry.next; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = entry;
}

static struct heap_entry heap_pop(struct heap_entry *heap, size_t *count)
{
    struct heap_entry top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *count)
            break;
        if (child + 1 < *count && heap[child + 1].next > heap[child].next)
            child++;
        if (heap[child].next <= last.next)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Belady: what is needed last goes. */
static double hits_of_optimum(const uint32_t *trace, size_t len, uint32_t segments, unsigned room)
{
    size_t *next = calloc(len, sizeof(*next)), *seen = malloc(segments * sizeof(*seen));
    size_t *current = calloc(segments, sizeof(*current));
    struct heap_entry *heap = calloc(len, sizeof(*heap));
    bool *cached = calloc(segments, sizeof(*cached));
    if (!next || !seen || !current || !heap || !cached)
        fail("memory", -ENOMEM);
    for (unsigned i = 0; i < segments; i++)
        seen[i] = SIZE_MAX;
    for (size_t i = len; i-- > 0;) {
        next[i] = seen[trace[i]];
        seen[trace[i]] = i;
    }
    unsigned count = 0;
    uint64_t hits = 0;
    size_t heap_count = 0;
    for (size_t i = 0; i < len; i++) {
        uint32_t s = trace[i];
        hits += cached[s];
        while (!cached[s] && count == room) {
            struct heap_entry entry = heap_pop(heap, &heap_count);
            if (cached[entry.segment] && current[entry.segment] == entry.next) {
                cached[entry.segment] = false;
                count--;
            }
        }
        count += !cached[s];
        cached[s] = true;
        current[s] = next[i];
        heap_push(heap, &heap_count, (struct heap_entry){next[i], s});
    }
    free(next);
    free(seen);
    free(current);
    free(heap);
    free(cached);
    return (double)hits / (double)len;
}

/* Popularity falls with rank, about as 1/rank: every doubling of the rank is as likely. */
static uint32_t skewed(uint64_t *seed, uint32_t count)
{
    unsigned doublings = 32 - (unsigned)__builtin_clz(count - 1);
    uint32_t low = 1u << next_random(seed) % doublings;
    return (low - 1 + (uint32_t)(next_random(seed) % low)) % count;
}

static size_t make_trace(const char *name, uint32_t *trace, size_t len, unsigned room)
{
    uint64_t seed = 7;
    for (size_t i = 0; i < len; i++) {
        if (!strcmp(name, "skewed"))
            trace[i] = skewed(&seed, SEGMENTS);
        else if (!strcmp(name,
                         "hot_and_scan")) /* a set of 0.6 of the room, and a scan of 4 of it */
            trace[i] = i % 2 ? (uint32_t)(next_random(&seed) % (room * 6 / 10))
                             : room + (uint32_t)(i / 2 % (4 * room));
        else if (!strcmp(name, "loop")) /* again and again, a bit larger than the room */
            trace[i] = (uint32_t)(i % (room * 13 / 10));
        else /* shifting: the hot set moves on */
            trace[i] = (uint32_t)((i / 50 + next_random(&seed) % (room * 8 / 10)) % SEGMENTS);
    }
    return len;
}

static int run_policy(int argc, char **argv)
{
    static const char *const names[] = {"skewed", "hot_and_scan", "loop", "shifting"};
    const unsigned room = 1000;
    const size_t len = 200000;
    uint32_t *trace = calloc(len, sizeof(*trace));
    if (!trace)
        fail("memory", -ENOMEM);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        make_trace(names[i], trace, len, room);
        printf("%s_policy %.3f hits\n", names[i], hits_of_policy(trace, len, room));
        printf("%s_lru %.3f hits\n", names[i], hits_of_lru(trace, len, SEGMENTS, room));
        printf("%s_optimum %.3f hits\n", names[i], hits_of_optimum(trace, len, SEGMENTS, room));
    }
    free(trace);
    return 0;
}

/* replay: pages of segments, as the cache has them */

static double hits_of_pages(const uint32_t *trace, size_t len, uint32_t pages, unsigned room)
{
    struct policy policy;
    uint32_t segments = pages / POLICY_PAGES + 1;
    struct policy_item *items = calloc(segments, sizeof(*items));
    uint64_t cached = 0, hits = 0;
    uint32_t *here = calloc(segments, sizeof(*here)); /* a bit for each page */
    if (!items || !here || policy_init(&policy, MAX(4 * room / POLICY_PAGES, 16u)) < 0)
        fail("memory", -ENOMEM);
    for (size_t i = 0; i < len; i++) {
        uint32_t s = trace[i] / POLICY_PAGES, page = trace[i] % POLICY_PAGES;
        if (here[s] & 1u << page) {
            hits++;
        } else {
            struct policy_item *gone;
            while (cached >= room && (gone = policy_victim(&policy, never_busy))) {
                cached -= (unsigned)__builtin_popcount(here[gone->key]);
                here[gone->key] = 0;
            }
            items[s].key = s;
            if (items[s].queue == POLICY_NONE)
                policy_insert(&policy, &items[s], (uint32_t)i);
            here[s] |= 1u << page;
            cached++;
            policy_resize(&policy, &items[s], (uint32_t)__builtin_popcount(here[s]) * CACHE_PAGE);
        }
        policy_touch(&items[s], page, 1, (uint32_t)i);
    }
    policy_done(&policy);
    free(items);
    free(here);
    return (double)hits / (double)len;
}

static uint32_t *read_pages(const char *path, size_t *count, uint32_t *pages)
{
    FILE *f = fopen(path, "r");
    if (!f)
        fail(path, -errno);
    uint32_t *trace = NULL;
    size_t cap = 0;
    char line[32];
    *count = 0;
    *pages = 0;
    while (fgets(line, sizeof(line), f)) {
        char *end;
        errno = 0;
        unsigned long number = strtoul(line, &end, 10);
        if (errno || end == line || *end != '\n' || number >= UINT32_MAX)
            fail(path, -EBADMSG);
        if (*count == cap) {
            cap = cap ? 2 * cap : 1024;
            trace = realloc(trace, cap * sizeof(*trace));
            if (!trace)
                fail("memory", -ENOMEM);
        }
        trace[(*count)++] = (uint32_t)number;
        *pages = MAX(*pages, (uint32_t)number + 1);
    }
    fclose(f);
    if (*count == 0)
        fail(path, -ENODATA);
    return trace;
}

static int run_replay(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    size_t len;
    uint32_t pages;
    cleanup(free_ptr) uint32_t *trace = read_pages(argv[2], &len, &pages);
    for (int i = 3; i < argc; i++) {
        unsigned room = (unsigned)strtoul(argv[i], NULL, 10);
        if (room == 0)
            return 2;
        printf("%u_policy %.3f hits\n", room, hits_of_pages(trace, len, pages, room));
        printf("%u_lru %.3f hits\n", room, hits_of_lru(trace, len, pages, room));
        printf("%u_optimum %.3f hits\n", room, hits_of_optimum(trace, len, pages, room));
    }
    return 0;
}

int main(int argc, char **argv)
{
    log_set_level(LOG_WARN);
    int rc = 2;
    if (argc > 1 && !strcmp(argv[1], "index"))
        rc = run_index(argc, argv);
    else if (argc > 1 && !strcmp(argv[1], "read"))
        rc = run_read(argc, argv);
    else if (argc > 1 && !strcmp(argv[1], "policy"))
        rc = run_policy(argc, argv);
    else if (argc > 1 && !strcmp(argv[1], "replay"))
        rc = run_replay(argc, argv);
    if (rc == 2)
        fputs("Usage: cache_bench index PAGES DIRECTORY | read DIRECTORY MIB | policy | "
              "replay FILE PAGES...\n",
              stderr);
    return rc;
}
