/* A listing by several streams: every key once and in order, however it was divided. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "import/list_plan.h"
#include "test.h"

#define PAGE 100
#define KEYS_MAX 40000
#define STREAMS 8

static char *keys[KEYS_MAX];
static size_t key_count;

static void add(const char *key)
{
    keys[key_count++] = strdup(key);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void clear(void)
{
    while (key_count)
        free(keys[--key_count]);
}

/* A server over the keys, which gives its answers in any order */

struct request {
    struct list_page page;
    struct store_list answer;
    char *token, *start_after;
    bool used, answered;
};

static struct request requests[1000];
static unsigned request_count, waiting, most_waiting;
static unsigned shuffle;
/* What start-after means for a common prefix that it lies in: left out, or shown again. */
static bool shows_prefix_again;

static unsigned next_random(void)
{
    shuffle = shuffle * 1103515245 + 12345;
    return shuffle >> 16;
}

/* With the first `len` bytes of `with`. */
static bool begins(const char *text, const char *with, size_t len)
{
    return strlen(text) >= len && memcmp(text, with, len) == 0;
}

static void serve(const struct list_range *range, struct request *r)
{
    size_t prefix = strlen(range->prefix), at = 0;
    const char *after = r->token ? r->token : r->start_after ? r->start_after : "";
    r->answer = (struct store_list){.entries = calloc(PAGE, sizeof(struct store_entry))};
    while (at < key_count &&
           (strncmp(keys[at], range->prefix, prefix) != 0 || strcmp(keys[at], after) <= 0))
        at++;
    while (at < key_count && !strncmp(keys[at], range->prefix, prefix)) {
        const char *slash = range->folders ? strchr(keys[at] + prefix, '/') : NULL;
        size_t len = slash ? (size_t)(slash - keys[at]) + 1 : strlen(keys[at]);
        bool again = slash && begins(after, keys[at], len) && (r->token || !shows_prefix_again);
        if (!again && r->answer.count == PAGE) {
            r->answer.next_token = strdup(r->answer.entries[PAGE - 1].name);
            return;
        }
        if (!again) {
            char *name = strndup(keys[at], len);
            r->answer.entries[r->answer.count++] =
                (struct store_entry){.name = name, .is_prefix = slash};
        }
        size_t same = at++;
        while (slash && at < key_count && begins(keys[at], keys[same], len))
            at++;
    }
}

static void request_end(struct request *r)
{
    for (size_t i = 0; i < r->answer.count; i++)
        free((char *)r->answer.entries[i].name);
    free(r->answer.entries);
    free(r->answer.next_token);
    free(r->token);
    free(r->start_after);
    list_page_done(&r->page);
    *r = (struct request){0};
}

static void ask_all(struct list_plan *plan)
{
    for (;;) {
        const char *start_after = NULL, *token = NULL;
        struct request *r = requests;
        while (r->used)
            r++;
        if (!list_plan_ask(plan, &r->page, &start_after, &token))
            return;
        r->used = true;
        r->token = token ? strdup(token) : NULL;
        r->start_after = start_after ? strdup(start_after) : NULL;
        request_count++;
        if (++waiting > most_waiting)
            most_waiting = waiting;
    }
}

static int answer_one(struct list_plan *plan)
{
    struct request *r;
    do
        r = &requests[next_random() % ARRAY_LEN(requests)];
    while (!r->used || r->answered);
    serve(&plan->range, r);
    r->answered = true;
    waiting--;
    return list_plan_answer(plan, &r->page, &r->answer);
}

/* The names that came, joined; `again`: each page that was taken is asked for a second time. */
static size_t list_all(const struct list_range *range, unsigned streams, bool again,
                       const char ***out)
{
    struct list_plan plan;
    const char **names = calloc(KEYS_MAX, sizeof(*names));
    size_t count = 0;
    bool last = false, repeated = false;
    request_count = most_waiting = waiting = 0;
    check_int(list_plan_init(&plan, range, streams), 0);
    while (plan.parts) {
        ask_all(&plan);
        if (waiting)
            check_int(answer_one(&plan), 0);
        struct list_page *page;
        while ((page = list_plan_take(&plan))) {
            struct request *r = container_of(page, struct request, page);
            if (again && !repeated) {
                check_int(list_plan_again(&plan, page), 0);
                repeated = true;
                request_end(r);
                break;
            }
            repeated = false;
            check(!last);
            last = page->last;
            for (size_t i = 0; i < page->count; i++) {
                check(count < KEYS_MAX);
                names[count++] = strdup(page->answer->entries[i].name);
            }
            request_end(r);
        }
    }
    check(last);
    check_uint(waiting, 0);
    list_plan_done(&plan);
    *out = names;
    return count;
}

static void drop(const char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free((char *)names[i]);
    free(names);
}

/* What a listing of the range must give, in one piece. */
static void check_listing(const struct list_range *range, unsigned streams, bool again)
{
    const char **names;
    struct request whole = {0};
    size_t count = list_all(range, streams, again, &names), at = 0;
    char *after = strdup(range->after ? range->after : "");
    for (;;) {
        whole.token = after;
        serve(range, &whole);
        for (size_t i = 0; i < whole.answer.count; i++) {
            const char *name = whole.answer.entries[i].name;
            if (range->skip && !strncmp(name, range->skip, strlen(range->skip)))
                continue;
            while (range->skip && at < count &&
                   !strncmp(names[at], range->skip, strlen(range->skip)))
                at++;
            check(at < count);
            check_str(names[at++], name);
        }
        after = whole.answer.next_token ? strdup(whole.answer.next_token) : NULL;
        request_end(&whole);
        if (!after)
            break;
    }
    while (range->skip && at < count && !strncmp(names[at], range->skip, strlen(range->skip)))
        at++;
    check_uint(at, count);
    drop(names, count);
}

/* Shapes of buckets */

static void numbers(size_t n)
{
    char key[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "d/part-%06zu.parquet", i);
        add(key);
    }
}

static void plain_numbers(size_t n)
{
    char key[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "d/%zu", i);
        add(key);
    }
}

static void hashes(size_t n)
{
    char key[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "d/%08x-%04x", (unsigned)(i * 2654435761u),
                 (unsigned)i & 0xffff);
        add(key);
    }
}

static void tree(size_t n)
{
    char key[96];
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "d/year=20%02zu/month=%02zu/f%zu%s", i / 3000, i % 12 + 1, i,
                 i % 7 ? "" : "/x");
        add(key);
    }
}

/* One cluster in a wide space, long names, names that are no ASCII. */
static void crowded(size_t n)
{
    char key[300];
    add("d/0");
    add("d/zzzz");
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "d/mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm-\xc3\xa4%c-%05zu",
                 (int)('a' + i % 3), i);
        add(key);
    }
}

static const struct {
    void (*make)(size_t n);
    bool even; /* the guess is to be good */
} shapes[] = {
    {numbers, true}, {plain_numbers, false}, {hashes, true}, {tree, false}, {crowded, false}};

TEST(list_plan, every_key_once_and_in_order)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        shapes[s].make(12345);
        add("c/before");
        add("e/behind");
        qsort(keys, key_count, sizeof(*keys), compare);
        for (unsigned v = 0; v < 8; v++) {
            struct list_range range = {.prefix = v & 1 ? "d/" : "",
                                       .after = v & 2 ? keys[key_count / 3] : NULL,
                                       .folders = v & 4};
            if (range.folders && range.after && strchr(range.after + strlen(range.prefix), '/'))
                range.after = NULL;
            shuffle = v + 1;
            shows_prefix_again = v & 2;
            check_listing(&range, STREAMS, false);
            check_listing(&range, STREAMS, true);
        }
        clear();
    }
}

TEST(list_plan, many_streams_and_few_requests_more)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        shapes[s].make(30000);
        qsort(keys, key_count, sizeof(*keys), compare);
        struct list_range range = {.prefix = "d/"};
        shuffle = 7;
        check_listing(&range, STREAMS, false);
        unsigned pages = (unsigned)(key_count + PAGE - 1) / PAGE;
        check(request_count <= pages + pages / 2);
        check(!shapes[s].even || most_waiting == STREAMS);
        check_listing(&range, 1, false);
        check_uint(request_count, pages);
        check_uint(most_waiting, 1);
        clear();
    }
}

TEST(list_plan, a_small_listing_costs_no_request_more)
{
    for (size_t n = 0; n < 2 * PAGE; n += 50) {
        plain_numbers(n);
        qsort(keys, key_count, sizeof(*keys), compare);
        struct list_range range = {.prefix = "d/"};
        check_listing(&range, STREAMS, false);
        check_uint(request_count, n <= PAGE ? 1 : 2);
        clear();
    }
}

TEST(list_plan, keys_that_are_skipped_are_not_asked_for)
{
    char key[64];
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(key, sizeof(key), "p/.sluice/o/%05u", i);
        add(key);
        if (i % 20)
            continue;
        snprintf(key, sizeof(key), "p/%s%05u", i % 40 ? "" : ".a", i);
        add(key);
    }
    qsort(keys, key_count, sizeof(*keys), compare);
    struct list_range range = {.prefix = "p/", .skip = "p/.sluice/"};
    check_listing(&range, STREAMS, false);
    check(request_count < 40);
    clear();
}

TEST(list_plan, a_server_without_order_is_not_divided)
{
    numbers(2000);
    for (size_t i = 0; i + 1 < key_count; i += 2) { /* neighbours change places */
        char *key = keys[i];
        keys[i] = keys[i + 1];
        keys[i + 1] = key;
    }
    struct list_range range = {.prefix = "d/"};
    struct list_plan plan;
    check_int(list_plan_init(&plan, &range, STREAMS), 0);
    most_waiting = waiting = 0;
    for (unsigned i = 0; i < 6; i++) {
        ask_all(&plan);
        check_uint(waiting, 1);
        check_int(answer_one(&plan), 0);
    }
    struct list_page *page;
    while ((page = list_plan_drop(&plan)))
        request_end(container_of(page, struct request, page));
    list_plan_done(&plan);
    clear();
}
