#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "conformance_cases.h"
#include "conformance_lib.h"
#include "s3/backend.h"

static void put_all(struct run *r, const char *const *keys, unsigned count)
{
    struct store_op *ops = run_alloc(r, count * sizeof(*ops));
    for (unsigned i = 0; i < count; i++)
        ops[i] = *run_begin(r, STORE_PUT, keys[i]);
    run_together(r, ops, count);
    for (unsigned i = 0; i < count; i++) {
        want_int(r, ops[i].result, 0);
        store_op_reset(&ops[i]);
    }
}

/* Lists all in pages of `max`, by token or by start_after; checks each page's size; appends the
 * names to one text as run_names does. */
static const char *list_paged(struct run *r, const char *prefix, const char *delimiter,
                              unsigned max, bool by_token, unsigned *pages)
{
    const char *all = "", *token = NULL, *after = NULL;
    *pages = 0;
    for (unsigned rounds = 0; rounds < 2000; rounds++) {
        struct store_op *op = run_begin(r, STORE_LIST, NULL);
        op->prefix = run_key(r, "%s%s", r->prefix, prefix);
        op->delimiter = delimiter;
        op->max_keys = max;
        if (by_token)
            op->token = token;
        else
            op->start_after = after;
        int rc = run_do(r);
        want_int(r, rc, 0);
        if (rc)
            break;
        ++*pages;
        size_t count = r->op.out_list.count;
        want(r, count <= max);
        const char *names = run_names(r);
        size_t len = strlen(all) + strlen(names) + 2;
        char *joined = run_alloc(r, len);
        snprintf(joined, len, "%s%s%s", all, *all && *names ? " " : "", names);
        all = joined;
        if (!r->op.out_list.next_token)
            break;
        want_int(r, (long long)count, max);
        token = run_keep(r, r->op.out_list.next_token);
        after = count ? run_keep(r, r->op.out_list.entries[count - 1].name) : after;
    }
    return all;
}

static void list_is_in_byte_order(struct run *r)
{
    static const char *const keys[] = {"b",   "a/z",   "a-b", "a0", "B",
                                       "a.b", "a/b/c", "ab",  "~",  "\xc3\xa4"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "B a-b a.b a/b/c a/z a0 ab b ~ \xc3\xa4");
    want(r, !r->op.out_list.next_token);
}

static void list_with_prefix(struct run *r)
{
    static const char *const keys[] = {"a", "ab/c", "abc", "abc/d", "b/ab"};
    put_all(r, keys, 2);
    put_all(r, keys + 3, 2);
    want_int(r, run_list(r, "ab", NULL), 0);
    want_str(r, run_names(r), "ab/c abc/d");
    want_int(r, run_list(r, "abc", NULL), 0);
    want_str(r, run_names(r), "abc/d");
    want_int(r, run_list(r, "abc/", NULL), 0);
    want_str(r, run_names(r), "abc/d");
    want_int(r, run_list(r, "abc/d", NULL), 0);
    want_str(r, run_names(r), "abc/d");
    want_int(r, run_list(r, "abc/d/", NULL), 0);
    want_str(r, run_names(r), "");
    want_int(r, run_list(r, "a/", NULL), 0);
    want_str(r, run_names(r), "");
}

static void list_with_delimiter(struct run *r)
{
    static const char *const keys[] = {"a", "b/1", "b/2/3", "b-", "b0", "c/d/e", "f"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_int(r, run_list(r, "", "/"), 0);
    want_str(r, run_names(r), "a b- (b/) b0 (c/) f");
    want_int(r, run_list(r, "b/", "/"), 0);
    want_str(r, run_names(r), "b/1 (b/2/)");
    want_int(r, run_list(r, "b", "/"), 0);
    want_str(r, run_names(r), "b- (b/) b0");
    want_int(r, run_list(r, "c/d", "/"), 0);
    want_str(r, run_names(r), "(c/d/)");
}

static void list_with_another_delimiter(struct run *r)
{
    static const char *const keys[] = {"a-1", "a-2", "b", "c-/d", "c-/e", "d/f-g"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_int(r, run_list(r, "", "-"), 0);
    want_str(r, run_names(r), "(a-) b (c-) (d/f-)");
    unsigned pages;
    want_str(r, list_paged(r, "", "-", 1, true, &pages), "(a-) b (c-) (d/f-)");
    want_int(r, pages, 4);
}

static void list_of_nothing(struct run *r)
{
    want_int(r, run_list(r, "", NULL), 0);
    want_int(r, (long long)r->op.out_list.count, 0);
    want(r, !r->op.out_list.next_token);
    want_int(r, run_list(r, "no/such/", "/"), 0);
    want_int(r, (long long)r->op.out_list.count, 0);
    want_int(r, run_list(r, "/", "/"), 0);
    want_int(r, (long long)r->op.out_list.count, 0);
}

enum { MANY = 230 };

static const char *put_many(struct run *r)
{
    const char *keys[MANY];
    char *names = run_alloc(r, MANY * 16), *at = names;
    for (unsigned i = 0; i < MANY; i++) {
        keys[i] = run_key(r, "d%u/f%03u", i / 100, i);
        at += sprintf(at, "%s%s", i ? " " : "", keys[i]);
    }
    put_all(r, keys, MANY);
    return names;
}

static void list_in_pages(struct run *r)
{
    static const unsigned sizes[] = {1, 7, 100, 229, 230, 231};
    const char *names = put_many(r);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        unsigned pages, expected = (MANY + sizes[i] - 1) / sizes[i];
        want_str(r, list_paged(r, "", NULL, sizes[i], true, &pages), names);
        want_int(r, pages, expected);
    }
    unsigned pages;
    want_str(r, list_paged(r, "", NULL, 50, false, &pages), names);
    want_int(r, pages, 5);
}

static void list_in_pages_with_delimiter(struct run *r)
{
    static const char *const keys[] = {"a", "b/1", "b/2", "c", "d/1", "d/2", "d/3", "e/1", "f"};
    put_all(r, keys, ARRAY_LEN(keys));
    for (unsigned max = 1; max < 8; max++) {
        unsigned pages;
        want_str(r, list_paged(r, "", "/", max, true, &pages), "a (b/) c (d/) (e/) f");
        want_int(r, pages, (6 + max - 1) / max);
    }
}

static const char *list_after(struct run *r, const char *after, const char *delimiter)
{
    struct store_op *op = run_begin(r, STORE_LIST, NULL);
    op->prefix = r->prefix;
    op->delimiter = delimiter;
    op->start_after = run_key(r, "%s%s", r->prefix, after);
    want_int(r, run_do(r), 0);
    return run_names(r);
}

static void list_start_after(struct run *r)
{
    static const char *const keys[] = {"a", "b/1", "b/2/x", "b/3", "c"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_str(r, list_after(r, "a", NULL), "b/1 b/2/x b/3 c");
    want_str(r, list_after(r, "a0", NULL), "b/1 b/2/x b/3 c");
    want_str(r, list_after(r, "b/1", NULL), "b/2/x b/3 c");
    want_str(r, list_after(r, "b/2/", NULL), "b/2/x b/3 c");
    want_str(r, list_after(r, "b/2/x", NULL), "b/3 c");
    want_str(r, list_after(r, "b/2/zz", NULL), "b/3 c");
    want_str(r, list_after(r, "b/zz", NULL), "c");
    want_str(r, list_after(r, "b0", NULL), "c");
    want_str(r, list_after(r, "c", NULL), "");
    want_str(r, list_after(r, "~", NULL), "");
    struct store_op *op = run_begin(r, STORE_LIST, NULL);
    op->prefix = run_key(r, "%sb/", r->prefix);
    op->start_after = "!";
    want_int(r, run_do(r), 0);
    want_str(r, run_names(r), "b/1 b/2/x b/3");
}

static void list_start_after_with_delimiter(struct run *r)
{
    static const char *const keys[] = {"a", "b/1", "b/3", "c"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_str(r, list_after(r, "a", "/"), "(b/) c");
    want_str(r, list_after(r, "b/3", "/"), "c");
    want_str(r, list_after(r, "b0", "/"), "c");
    want_str(r, list_after(r, "c", "/"), "");
}

/* b/3 is behind; gateways to filesystems leave out its prefix. */
static void list_start_after_in_a_common_prefix(struct run *r)
{
    static const char *const keys[] = {"a", "b/1", "b/3", "c"};
    put_all(r, keys, ARRAY_LEN(keys));
    want_str(r, list_after(r, "b/1", "/"), "(b/) c");
    want_str(r, list_after(r, "b/2", "/"), "(b/) c");
}

/* The second page shows what is there when it is asked for. */
static void list_pages_are_up_to_date(struct run *r)
{
    static const char *const keys[] = {"a", "b", "c", "e", "f"};
    put_all(r, keys, ARRAY_LEN(keys));
    struct store_op *op = run_begin(r, STORE_LIST, NULL);
    op->prefix = r->prefix;
    op->max_keys = 2;
    want_int(r, run_do(r), 0);
    want_str(r, run_names(r), "a b");
    const char *token = r->op.out_list.next_token ? run_keep(r, r->op.out_list.next_token) : NULL;
    want(r, token);
    want_int(r, run_delete(r, "c"), 0);
    want_int(r, run_put(r, "d", "new"), 0);
    want_int(r, run_put(r, "f", "longer than before"), 0);
    op = run_begin(r, STORE_LIST, NULL);
    op->prefix = r->prefix;
    op->token = token;
    want_int(r, run_do(r), 0);
    want_str(r, run_names(r), "d e f");
    if (r->op.out_list.count == 3)
        want_int(r, (long long)r->op.out_list.entries[2].size, 18);
}

static void list_of_many_at_once(struct run *r)
{
    const char *names = put_many(r);
    enum { COUNT = 8 };
    struct store_op *ops = run_alloc(r, COUNT * sizeof(*ops));
    for (unsigned i = 0; i < COUNT; i++) {
        ops[i] = *run_begin(r, STORE_LIST, NULL);
        ops[i].prefix = r->prefix;
    }
    run_together(r, ops, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        want_int(r, ops[i].result, 0);
        store_op_move_result(&r->op, &ops[i]);
        want_str(r, run_names(r), names);
        store_op_reset(&ops[i]);
    }
}

const struct conformance_case conformance_list_cases[] = {
    {"list_is_in_byte_order", list_is_in_byte_order},
    {"list_with_prefix", list_with_prefix},
    {"list_with_delimiter", list_with_delimiter},
    {"list_with_another_delimiter", list_with_another_delimiter},
    {"list_of_nothing", list_of_nothing},
    {"list_in_pages", list_in_pages},
    {"list_in_pages_with_delimiter", list_in_pages_with_delimiter},
    {"list_start_after", list_start_after},
    {"list_start_after_with_delimiter", list_start_after_with_delimiter},
    {"list_start_after_in_a_common_prefix", list_start_after_in_a_common_prefix,
     CONFORMANCE_FREE_KEYS},
    {"list_pages_are_up_to_date", list_pages_are_up_to_date},
    {"list_of_many_at_once", list_of_many_at_once},
    {NULL},
};
