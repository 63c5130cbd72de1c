#include "conformance.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "conformance_cases.h"
#include "conformance_lib.h"

/* Objects */

static void put_then_get(struct run *r)
{
    want_int(r, run_put(r, "k", "hello"), 0);
    run_want_object(r, "k", "hello", 5);
}

static void empty_object(struct run *r)
{
    want_int(r, run_put(r, "k", ""), 0);
    run_want_object(r, "k", "", 0);
    want_int(r, run_get(r, "k", 0, 0), 0);
    want_int(r, (long long)r->op.got, 0);
}

static void overwrite_replaces(struct run *r)
{
    want_int(r, run_put(r, "k", "a longer first text"), 0);
    want_int(r, run_put(r, "k", "second"), 0);
    run_want_object(r, "k", "second", 6);
}

static void etag_changes_with_content(struct run *r)
{
    char first[STORE_ETAG_MAX];
    want_int(r, run_put(r, "k", "one"), 0);
    strcpy(first, r->op.info.etag);
    want_int(r, run_put(r, "k", "two"), 0);
    want(r, strcmp(first, r->op.info.etag) != 0);
}

static void etag_is_the_same_everywhere(struct run *r)
{
    char etag[STORE_ETAG_MAX];
    want_int(r, run_put(r, "k", "one"), 0);
    strcpy(etag, r->op.info.etag);
    want(r, *etag && !strchr(etag, '"'));
    want_int(r, run_head(r, "k"), 0);
    want_str(r, r->op.info.etag, etag);
    want_int(r, run_get(r, "k", 0, 3), 0);
    want_str(r, r->op.info.etag, etag);
    want_int(r, run_list(r, "", NULL), 0);
    if (want(r, r->op.out_list.count == 1))
        want_str(r, r->op.out_list.entries[0].etag, etag);
}

static void times_and_sizes_agree(struct run *r)
{
    want_int(r, run_put(r, "k", "12345"), 0);
    want_int(r, run_head(r, "k"), 0);
    uint64_t mtime_ns = r->op.info.mtime_ns;
    uint64_t now_ns = clock_wall_ns(), day_ns = 86400 * NS_PER_S;
    want(r, mtime_ns > now_ns - day_ns && mtime_ns < now_ns + day_ns);
    want_int(r, run_list(r, "", NULL), 0);
    if (want(r, r->op.out_list.count == 1)) {
        want(r, r->op.out_list.entries[0].size == 5);
        /* HEAD gives whole seconds on S3, a listing may give more. */
        want(r, r->op.out_list.entries[0].mtime_ns / NS_PER_S == mtime_ns / NS_PER_S);
    }
}

static void missing_key_is_enoent(struct run *r)
{
    want_int(r, run_get(r, "none", 0, 1), -ENOENT);
    want_int(r, r->op.error.code, -ENOENT);
    want(r, *r->op.error.message);
    want_int(r, run_get(r, "none", 0, 0), -ENOENT);
    want_int(r, run_head(r, "none"), -ENOENT);
    want_int(r, run_head(r, "no/such/directory"), -ENOENT);
}

static void range_in_the_middle(struct run *r)
{
    want_int(r, run_put(r, "k", "0123456789"), 0);
    want_int(r, run_get(r, "k", 3, 4), 0);
    want(r, r->op.got == 4 && !memcmp(r->op.buf, "3456", 4));
    want(r, r->op.info.size == 10);
}

static void range_over_the_end_is_cut(struct run *r)
{
    want_int(r, run_put(r, "k", "0123456789"), 0);
    want_int(r, run_get(r, "k", 8, 100), 0);
    want(r, r->op.got == 2 && !memcmp(r->op.buf, "89", 2));
    want_int(r, run_get(r, "k", 9, 1), 0);
    want(r, r->op.got == 1);
}

static void range_past_the_end_is_erange(struct run *r)
{
    want_int(r, run_put(r, "k", "0123456789"), 0);
    want_int(r, run_get(r, "k", 10, 1), -ERANGE);
    want_int(r, run_get(r, "k", 1000000, 5), -ERANGE);
}

static void length_zero_gives_info_only(struct run *r)
{
    want_int(r, run_put(r, "k", "0123456789"), 0);
    want_int(r, run_get(r, "k", 0, 0), 0);
    want(r, r->op.got == 0 && r->op.info.size == 10 && *r->op.info.etag);
}

static void get_if_match(struct run *r)
{
    want_int(r, run_put(r, "k", "one"), 0);
    const char *etag = run_keep(r, r->op.info.etag);
    char buf[8];
    for (int changed = 0; changed < 2; changed++) {
        struct store_op *op = run_begin(r, STORE_GET, "k");
        op->buf = buf;
        op->buf_len = op->length = 3;
        op->if_match = etag;
        want_int(r, run_do(r), changed ? -EEXIST : 0);
        want_int(r, run_put(r, "k", "two"), 0);
    }
    run_begin(r, STORE_GET, "none")->if_match = etag;
    want_int(r, run_do(r), -ENOENT);
}

static void body_in_pieces(struct run *r)
{
    enum { PIECES = 1500 };
    struct iovec *iov = run_alloc(r, PIECES * sizeof(*iov));
    uint8_t *data = run_pattern(r, (size_t)PIECES * 40, 1);
    size_t len = 0;
    for (unsigned i = 0; i < PIECES; i++) {
        size_t n = i % 40; /* some are empty */
        iov[i] = (struct iovec){.iov_base = data + len, .iov_len = n};
        len += n;
    }
    struct store_op *op = run_begin(r, STORE_PUT, "k");
    op->iov = iov;
    op->iov_count = PIECES;
    want_int(r, run_do(r), 0);
    run_want_object(r, "k", data, len);
    want(r, iov[39].iov_len == 39 && iov[0].iov_base == data); /* the caller's is untouched */
}

static void large_object(struct run *r)
{
    size_t len = (9u << 20) + 3;
    uint8_t *data = run_pattern(r, len, 2);
    want_int(r, run_put_bytes(r, "k", data, len), 0);
    run_want_object(r, "k", data, len);
    want_int(r, run_get(r, "k", (5u << 20) + 1, 70000), 0);
    want(r, r->op.got == 70000 && !memcmp(r->op.buf, data + (5u << 20) + 1, 70000));
}

/* Metadata */

static void metadata_comes_back(struct run *r)
{
    const struct store_meta meta[] = {
        {"mode", "0644"}, {"note", "a b;c=\"d\" ~!%2F"}, {"x-y_z", ""}};
    struct store_op *op = run_begin(r, STORE_PUT, "k");
    op->meta = meta;
    op->meta_count = 2;
    run_body(r, op, "x", 1);
    want_int(r, run_do(r), 0);
    for (int get = 0; get < 2; get++) {
        want_int(r, get ? run_get(r, "k", 0, 1) : run_head(r, "k"), 0);
        want_int(r, r->op.out_meta_count, 2);
        want_str(r, store_op_meta(&r->op, "mode"), "0644");
        want_str(r, store_op_meta(&r->op, "note"), "a b;c=\"d\" ~!%2F");
        want(r, !store_op_meta(&r->op, "other"));
    }
}

static void metadata_goes_with_its_object(struct run *r)
{
    const struct store_meta meta = {"a", "1"}, other = {"b", "2"};
    for (int i = 0; i < 3; i++) {
        struct store_op *op = run_begin(r, STORE_PUT, "k");
        op->meta = i ? &other : &meta;
        op->meta_count = i < 2;
        want_int(r, run_do(r), 0);
    }
    want_int(r, run_head(r, "k"), 0);
    want_int(r, r->op.out_meta_count, 0);
}

static void metadata_up_to_two_kib(struct run *r)
{
    struct store_meta meta[8];
    char *value = run_alloc(r, 256);
    memset(value, 'v', 255);
    for (unsigned i = 0; i < 8; i++)
        meta[i] = (struct store_meta){run_key(r, "%u", i), value};
    struct store_op *op = run_begin(r, STORE_PUT, "k");
    op->meta = meta;
    op->meta_count = 8;
    want_int(r, run_do(r), 0);
    want_int(r, run_head(r, "k"), 0);
    want_int(r, r->op.out_meta_count, 8);
    want_str(r, store_op_meta(&r->op, "7"), value);
}

static void bad_metadata_is_refused(struct run *r)
{
    char *big = run_alloc(r, 2050);
    memset(big, 'x', 2049);
    const struct store_meta meta[] = {
        {"Upper", "1"}, {"", "1"},   {"a b", "1"}, {"a:", "1"}, {"a", "\x80"},
        {"a", "b\n"},   {"a", " b"}, {"a", "b "},  {"a", big},  {NULL, "1"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(meta); i++) {
        struct store_op *op = run_begin(r, STORE_PUT, "k");
        op->meta = &meta[i];
        op->meta_count = 1;
        want_int(r, run_do(r), -EINVAL);
    }
    want_int(r, run_head(r, "k"), -ENOENT);
}

/* Keys */

static void bad_keys_are_refused(struct run *r)
{
    static const char *const not_utf8[] = {
        "\xff", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x28\xa1"};
    run_begin(r, STORE_PUT, NULL)->key = "";
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_GET, NULL);
    want_int(r, run_do(r), -EINVAL);
    char *key = run_alloc(r, 1026);
    memset(key, 'k', 1025);
    run_begin(r, STORE_HEAD, NULL)->key = key;
    want_int(r, run_do(r), -ENAMETOOLONG);
    for (unsigned i = 0; i < ARRAY_LEN(not_utf8); i++)
        want_int(r, run_put(r, not_utf8[i], "x"), -EINVAL);
}

static void keys_of_1024_bytes(struct run *r)
{
    size_t len = 1024 - strlen(r->prefix);
    char *key = run_alloc(r, len + 1);
    for (size_t i = 0; i < len; i++)
        key[i] = i % 100 == 99 ? '/' : 'k';
    key[len - 1] = 'k';
    want_int(r, run_put(r, key, "deep"), 0);
    run_want_object(r, key, "deep", 4);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), key);
    want_int(r, run_delete(r, key), 0);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "");
}

static void keys_with_special_characters(struct run *r)
{
    static const char *const keys[] = {
        "a b",  "a+b",  "a%20b", "a&b=c", "a?b#c", "[a]{b}", "a'b\"c", "<a>", "a\\b",
        "a:b@", "$a!*", "a;b,c", "~a^b`", "a|b",   "%",      "=",      "...", "a=b/c=d e",
    };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        want_int(r, run_put(r, keys[i], keys[i]), 0);
        run_want_object(r, keys[i], keys[i], strlen(keys[i]));
        want_int(r, run_list(r, keys[i], NULL), 0);
        want(r, r->op.out_list.count >= 1);
        if (r->op.out_list.count)
            want_str(r, r->op.out_list.entries[0].name + strlen(r->prefix), keys[i]);
        want_int(r, run_copy(r, keys[i], "copy"), 0);
        run_want_object(r, "copy", keys[i], strlen(keys[i]));
    }
    want_int(r, run_list(r, "", NULL), 0);
    want_int(r, (long long)r->op.out_list.count, ARRAY_LEN(keys) + 1);
}

static void keys_in_utf8(struct run *r)
{
    static const char *const keys[] = {"\xc3\xa4\xc3\xb6", "\xe6\xbc\xa2\xe5\xad\x97",
                                       "\xf0\x9f\x92\xa7/\xc3\x9f", "e\xcc\x81"};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        want_int(r, run_put(r, keys[i], "x"), 0);
        want_int(r, run_head(r, keys[i]), 0);
    }
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r),
             "e\xcc\x81 \xc3\xa4\xc3\xb6 \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x92\xa7/\xc3\x9f");
}

static void keys_are_no_paths(struct run *r)
{
    static const char *const keys[] = {"a//b", "a/./b", "a/../c", "/x"};
    char *longer = run_alloc(r, 301);
    memset(longer, 'n', 300);
    want_int(r, run_put(r, longer, "x"), 0);
    want_int(r, run_head(r, longer), 0);
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        want_int(r, run_put(r, keys[i], keys[i]), 0);
        run_want_object(r, keys[i], keys[i], strlen(keys[i]));
    }
    want_int(r, run_list(r, "", NULL), 0);
    want_int(r, (long long)r->op.out_list.count, ARRAY_LEN(keys) + 1);
}

static void file_beside_directory(struct run *r)
{
    want_int(r, run_put(r, "a/b", "in"), 0);
    want_int(r, run_put(r, "a", "beside"), 0);
    want_int(r, run_put(r, "a/b/c", "deeper"), 0);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "a a/b a/b/c");
    want_int(r, run_list(r, "", "/"), 0);
    want_str(r, run_names(r), "a (a/)");
}

static void file_beside_directory_is_refused(struct run *r)
{
    want_int(r, run_put(r, "a/b", "in"), 0);
    int rc = run_put(r, "a", "beside");
    want(r, rc == -EISDIR || rc == -ENOTDIR);
    rc = run_put(r, "a/b/c", "deeper");
    want(r, rc == -EISDIR || rc == -ENOTDIR);
    want_int(r, run_head(r, "a"), -ENOENT);
    want_int(r, run_head(r, "a/b/c"), -ENOENT);
    run_want_object(r, "a/b", "in", 2);
    want_int(r, run_delete(r, "a/b"), 0);
    want_int(r, run_put(r, "a", "alone"), 0);
    run_want_object(r, "a", "alone", 5);
}

static void directory_marker(struct run *r)
{
    want_int(r, run_put(r, "d/e/", ""), 0);
    want_int(r, run_head(r, "d/e/"), 0);
    want_int(r, (long long)r->op.info.size, 0);
    want_int(r, run_head(r, "d/e"), -ENOENT);
    want_int(r, run_head(r, "d/"), -ENOENT);
    want_int(r, run_put(r, "d/e/f", "x"), 0);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "d/e/ d/e/f");
    want_int(r, run_list(r, "d/", "/"), 0);
    want_str(r, run_names(r), "(d/e/)");
    want_int(r, run_list(r, "d/e/", "/"), 0);
    want_str(r, run_names(r), "d/e/ d/e/f");
    want_int(r, run_delete(r, "d/e/f"), 0);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "d/e/");
    want_int(r, run_delete(r, "d/e/"), 0);
    want_int(r, run_head(r, "d/e/"), -ENOENT);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "");
}

/* Conditions */

static int put_if(struct run *r, const char *key, const char *text, bool none, const char *match)
{
    struct store_op *op = run_begin(r, STORE_PUT, key);
    op->if_none_match = none;
    op->if_match = match;
    run_body(r, op, text, strlen(text));
    return run_do(r);
}

static void put_if_none_match(struct run *r)
{
    want_int(r, put_if(r, "k", "first", true, NULL), 0);
    want_int(r, put_if(r, "k", "second", true, NULL), -EEXIST);
    run_want_object(r, "k", "first", 5);
    want_int(r, run_delete(r, "k"), 0);
    want_int(r, put_if(r, "k", "third", true, NULL), 0);
    run_want_object(r, "k", "third", 5);
}

static void put_if_match(struct run *r)
{
    want_int(r, run_put(r, "k", "one"), 0);
    const char *first = run_keep(r, r->op.info.etag);
    want_int(r, put_if(r, "k", "two", false, first), 0);
    want_int(r, put_if(r, "k", "three", false, first), -EEXIST);
    run_want_object(r, "k", "two", 3);
    want_int(r, put_if(r, "none", "x", false, first), -ENOENT);
    want_int(r, run_head(r, "none"), -ENOENT);
    want_int(r, put_if(r, "k", "x", true, first), -EINVAL);
}

/* `count` puts at once under one condition: the winners, and that the object is the winner's. */
static void race(struct run *r, bool none, const char *match)
{
    enum { COUNT = 16 };
    struct store_op *ops = run_alloc(r, COUNT * sizeof(*ops));
    for (unsigned i = 0; i < COUNT; i++) {
        struct store_op *op = run_begin(r, STORE_PUT, "k");
        const char *text = run_key(r, "writer %02u", i);
        run_body(r, op, text, strlen(text));
        op->if_none_match = none;
        op->if_match = match;
        ops[i] = *op;
    }
    run_together(r, ops, COUNT);
    unsigned winners = 0, winner = 0, losers = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (!ops[i].result)
            winner = i, winners++;
        losers += ops[i].result == -EEXIST;
    }
    want_int(r, winners, 1);
    want_int(r, losers, COUNT - 1);
    run_want_object(r, "k", ops[winner].iov->iov_base, 9);
    want_str(r, r->op.info.etag, ops[winner].info.etag);
    for (unsigned i = 0; i < COUNT; i++)
        store_op_reset(&ops[i]);
}

static void put_if_none_match_has_one_winner(struct run *r)
{
    for (int i = 0; i < 5; i++) {
        race(r, true, NULL);
        want_int(r, run_delete(r, "k"), 0);
    }
}

static void put_if_match_has_one_winner(struct run *r)
{
    for (int i = 0; i < 5; i++) {
        want_int(r, run_put(r, "k", "before"), 0);
        race(r, false, run_keep(r, r->op.info.etag));
    }
}

static void delete_if_match(struct run *r)
{
    want_int(r, run_put(r, "k", "one"), 0);
    const char *first = run_keep(r, r->op.info.etag);
    want_int(r, run_put(r, "k", "two"), 0);
    const char *second = run_keep(r, r->op.info.etag);
    run_begin(r, STORE_DELETE, "k")->if_match = first;
    want_int(r, run_do(r), -EEXIST);
    run_want_object(r, "k", "two", 3);
    run_begin(r, STORE_DELETE, "k")->if_match = second;
    want_int(r, run_do(r), 0);
    want_int(r, run_head(r, "k"), -ENOENT);
}

/* Deletion */

static void delete_removes(struct run *r)
{
    want_int(r, run_put(r, "d/k", "x"), 0);
    want_int(r, run_put(r, "d/l", "y"), 0);
    want_int(r, run_delete(r, "d/k"), 0);
    want_int(r, run_get(r, "d/k", 0, 1), -ENOENT);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "d/l");
    want_int(r, run_delete(r, "d/l"), 0);
    want_int(r, run_list(r, "", "/"), 0);
    want_str(r, run_names(r), "");
}

static void delete_of_nothing_succeeds(struct run *r)
{
    want_int(r, run_delete(r, "none"), 0);
    want_int(r, run_delete(r, "no/such/directory"), 0);
    want_int(r, run_put(r, "d/k", "x"), 0);
    want_int(r, run_delete(r, "d"), 0);
    run_want_object(r, "d/k", "x", 1);
}

static void delete_many(struct run *r)
{
    const char *keys[32];
    for (unsigned i = 0; i < 30; i++) {
        want_int(r, run_put(r, run_key(r, "d%u/k&%02u<", i % 3, i), "x"), 0);
        keys[i] = run_keep(r, r->op.key);
    }
    want_int(r, run_put(r, "stays", "x"), 0);
    keys[30] = run_key(r, "%snone", r->prefix);
    keys[31] = run_key(r, "%snone/either", r->prefix);
    struct store_op *op = run_begin(r, STORE_DELETE_MANY, NULL);
    op->keys = keys;
    op->key_count = 32;
    want_int(r, run_do(r), 0);
    want_int(r, (long long)r->op.out_list.count, 0);
    want_int(r, run_list(r, "", NULL), 0);
    want_str(r, run_names(r), "stays");
    run_begin(r, STORE_DELETE_MANY, NULL)->keys = keys;
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_DELETE_MANY, NULL)->key_count = 1001;
    want_int(r, run_do(r), -EINVAL);
}

/* Copies */

static void copy_has_content_and_new_metadata(struct run *r)
{
    const struct store_meta old = {"a", "1"}, new = {"b", "2"};
    struct store_op *op = run_begin(r, STORE_PUT, "from");
    op->meta = &old;
    op->meta_count = 1;
    run_body(r, op, "content", 7);
    want_int(r, run_do(r), 0);
    op = run_begin(r, STORE_COPY, "d/to");
    op->source_key = run_key(r, "%sfrom", r->prefix);
    op->meta = &new;
    op->meta_count = 1;
    want_int(r, run_do(r), 0);
    const char *etag = run_keep(r, r->op.info.etag);
    run_want_object(r, "d/to", "content", 7);
    want_str(r, r->op.info.etag, etag);
    want(r, !store_op_meta(&r->op, "a"));
    want_str(r, store_op_meta(&r->op, "b"), "2");
    run_want_object(r, "from", "content", 7);
}

static void copy_overwrites(struct run *r)
{
    want_int(r, run_put(r, "from", "new"), 0);
    want_int(r, run_put(r, "to", "old text"), 0);
    want_int(r, run_copy(r, "from", "to"), 0);
    run_want_object(r, "to", "new", 3);
}

static void copy_of_nothing_is_enoent(struct run *r)
{
    want_int(r, run_put(r, "to", "old"), 0);
    want_int(r, run_copy(r, "none", "to"), -ENOENT);
    run_want_object(r, "to", "old", 3);
}

static void copy_if_match(struct run *r)
{
    want_int(r, run_put(r, "from", "one"), 0);
    const char *first = run_keep(r, r->op.info.etag);
    for (int changed = 0; changed < 2; changed++) {
        struct store_op *op = run_begin(r, STORE_COPY, "to");
        op->source_key = run_key(r, "%sfrom", r->prefix);
        op->source_if_match = first;
        want_int(r, run_do(r), changed ? -EEXIST : 0);
        want_int(r, run_put(r, "from", "two"), 0);
    }
    run_want_object(r, "to", "one", 3);
}

static void copy_of_a_large_object(struct run *r)
{
    size_t len = (9u << 20) + 1;
    uint8_t *data = run_pattern(r, len, 3);
    want_int(r, run_put_bytes(r, "from", data, len), 0);
    want_int(r, run_copy(r, "from", "to"), 0);
    want_int(r, run_delete(r, "from"), 0);
    run_want_object(r, "to", data, len);
}

/* Input, cancelling */

static void bad_requests_are_refused(struct run *r)
{
    char buf[4];
    run_begin(r, STORE_KIND_COUNT, "k");
    want_int(r, run_do(r), -EINVAL);
    struct store_op *op = run_begin(r, STORE_GET, "k");
    op->buf = buf;
    op->buf_len = 4;
    op->length = 5;
    want_int(r, run_do(r), -EINVAL);
    op = run_begin(r, STORE_GET, "k");
    op->buf = buf;
    op->buf_len = 4;
    op->length = 4;
    op->offset = UINT64_MAX - 1;
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_GET, "k")->if_match = "\"quoted\"";
    want_int(r, run_do(r), -EINVAL);
    op = run_begin(r, STORE_MPU_PART, "k");
    op->upload_id = "x";
    want_int(r, run_do(r), -EINVAL);
    op->part_number = 10001;
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_MPU_PART, "k")->part_number = 1;
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_MPU_COMPLETE, "k")->upload_id = "x";
    want_int(r, run_do(r), -EINVAL);
    run_begin(r, STORE_LIST, NULL)->delimiter = "";
    want_int(r, run_do(r), -EINVAL);
    want(r, *r->op.error.message);
}

struct cancelling {
    struct store *store;
    struct store_op *op;
    bool submit;
    _Atomic bool ended;
};

static void has_ended(struct store_op *op)
{
    struct cancelling *c = op->arg;
    c->ended = true;
}

static void cancel_on_loop(void *arg)
{
    struct cancelling *c = arg;
    if (c->submit)
        store_submit(c->store, c->op);
    if (!c->ended)
        store_cancel(c->op);
}

static void look_on_loop(void *arg)
{
}

static void cancelled_requests_end_once(struct run *r)
{
    struct loop *loop = store_loop(r->store);
    size_t len = 1 << 20;
    uint8_t *data = run_pattern(r, len, 4);
    for (unsigned i = 0; i < 12; i++) {
        struct store_op *op = run_begin(r, STORE_PUT, "k");
        struct cancelling c = {.store = r->store, .op = op, .submit = i % 2};
        run_body(r, op, data, len);
        op->done = has_ended;
        op->arg = &c;
        if (!c.submit)
            store_submit(r->store, op);
        if (i % 3 == 2)
            usleep(1000);
        loop_call(loop, cancel_on_loop, &c);
        for (unsigned tries = 0; tries < 12000 && !c.ended; tries++) {
            usleep(tries ? 10000 : 0);
            loop_call(loop, look_on_loop, NULL);
        }
        want(r, c.ended);
        want(r, op->result == 0 || op->result == -ECANCELED);
    }
    int rc = run_head(r, "k");
    want(r, rc == -ENOENT || (!rc && r->op.info.size == len));
}

static const struct conformance_case cases[] = {
    {"put_then_get", put_then_get},
    {"empty_object", empty_object},
    {"overwrite_replaces", overwrite_replaces},
    {"etag_changes_with_content", etag_changes_with_content},
    {"etag_is_the_same_everywhere", etag_is_the_same_everywhere},
    {"times_and_sizes_agree", times_and_sizes_agree},
    {"missing_key_is_enoent", missing_key_is_enoent},
    {"range_in_the_middle", range_in_the_middle},
    {"range_over_the_end_is_cut", range_over_the_end_is_cut},
    {"range_past_the_end_is_erange", range_past_the_end_is_erange},
    {"length_zero_gives_info_only", length_zero_gives_info_only},
    {"get_if_match", get_if_match},
    {"body_in_pieces", body_in_pieces},
    {"large_object", large_object},
    {"metadata_comes_back", metadata_comes_back},
    {"metadata_goes_with_its_object", metadata_goes_with_its_object},
    {"metadata_up_to_two_kib", metadata_up_to_two_kib},
    {"bad_metadata_is_refused", bad_metadata_is_refused},
    {"bad_keys_are_refused", bad_keys_are_refused},
    {"keys_of_1024_bytes", keys_of_1024_bytes},
    {"keys_with_special_characters", keys_with_special_characters},
    {"keys_in_utf8", keys_in_utf8},
    {"keys_are_no_paths", keys_are_no_paths, CONFORMANCE_FREE_KEYS},
    {"file_beside_directory", file_beside_directory, CONFORMANCE_FREE_KEYS},
    {"file_beside_directory_is_refused", file_beside_directory_is_refused, CONFORMANCE_PATH_KEYS},
    {"directory_marker", directory_marker},
    {"put_if_none_match", put_if_none_match, CONFORMANCE_PUT_IF},
    {"put_if_match", put_if_match, CONFORMANCE_PUT_IF},
    {"put_if_none_match_has_one_winner", put_if_none_match_has_one_winner, CONFORMANCE_PUT_IF},
    {"put_if_match_has_one_winner", put_if_match_has_one_winner, CONFORMANCE_PUT_IF},
    {"delete_if_match", delete_if_match},
    {"delete_removes", delete_removes},
    {"delete_of_nothing_succeeds", delete_of_nothing_succeeds},
    {"delete_many", delete_many},
    {"copy_has_content_and_new_metadata", copy_has_content_and_new_metadata, CONFORMANCE_COPY},
    {"copy_overwrites", copy_overwrites, CONFORMANCE_COPY},
    {"copy_of_nothing_is_enoent", copy_of_nothing_is_enoent, CONFORMANCE_COPY},
    {"copy_if_match", copy_if_match, CONFORMANCE_COPY_IF},
    {"copy_of_a_large_object", copy_of_a_large_object, CONFORMANCE_COPY},
    {"bad_requests_are_refused", bad_requests_are_refused},
    {"cancelled_requests_end_once", cancelled_requests_end_once},
    {NULL},
};

/* The run */

static const char *missing(const struct store_caps *caps, enum conformance_need need)
{
    switch (need) {
    case CONFORMANCE_ANY:
        return NULL;
    case CONFORMANCE_FREE_KEYS:
        return caps->file_beside_directory ? NULL : "keys are paths";
    case CONFORMANCE_PATH_KEYS:
        return caps->file_beside_directory ? "keys are not paths" : NULL;
    case CONFORMANCE_PUT_IF:
        return caps->put_if_none_match ? NULL : "no conditional PUT";
    case CONFORMANCE_COMPLETE_IF:
        return caps->complete_if_none_match ? NULL : "no conditional COMPLETE";
    case CONFORMANCE_COPY:
        return caps->server_copy ? NULL : "no copies";
    case CONFORMANCE_COPY_IF:
        return caps->server_copy && caps->copy_if_match ? NULL : "no conditional copies";
    case CONFORMANCE_PART_MIN:
        return caps->part_min > 1 ? NULL : "parts may have any size";
    }
    return NULL;
}

/* Uploads first, then objects; what a failed behaviour left goes, too. */
static void clean_up(struct run *r)
{
    struct store_op list = {.kind = STORE_MPU_LIST, .prefix = r->prefix};
    if (!store_wait(r->store, &list))
        for (size_t i = 0; i < list.out_list.count; i++) {
            const struct store_entry *e = &list.out_list.entries[i];
            struct store_op abort = {.kind = STORE_MPU_ABORT,
                                     .key = e->name,
                                     .upload_id = e->upload_id ? e->upload_id : e->etag};
            store_wait(r->store, &abort);
            store_op_reset(&abort);
        }
    store_op_reset(&list);
    for (unsigned rounds = 0; rounds < 100; rounds++) {
        list = (struct store_op){.kind = STORE_LIST, .prefix = r->prefix};
        if (store_wait(r->store, &list) || !list.out_list.count)
            break;
        /* From the end: a gateway may want a directory empty before its marker goes. */
        for (size_t i = list.out_list.count; i > 0; i--) {
            struct store_op del = {.kind = STORE_DELETE, .key = list.out_list.entries[i - 1].name};
            store_wait(r->store, &del);
            store_op_reset(&del);
        }
        store_op_reset(&list);
    }
    store_op_reset(&list);
}

static void run_case(struct store *store, const char *prefix, const struct conformance_case *c,
                     bool verbose, FILE *out, struct conformance_result *result)
{
    char own[512];
    const struct store_caps *caps = store_caps(store);
    const char *why = missing(caps, c->need);
    snprintf(own, sizeof(own), "%s%s/", prefix, c->name);
    if (why) {
        fprintf(out, "differs %s: %s\n", c->name, why);
        result->different++;
        return;
    }
    struct run r = {.store = store, .caps = caps, .prefix = own};
    r.part_size = MAX(caps->part_min, 64u << 10);
    c->run(&r);
    clean_up(&r);
    run_end(&r);
    if (*r.failure)
        fprintf(out, "FAILED  %s: %s\n", c->name, r.failure);
    else if (verbose)
        fprintf(out, "passed  %s\n", c->name);
    result->failed += *r.failure != 0;
    result->passed += *r.failure == 0;
    fflush(out);
}

struct conformance_result conformance_run(struct store *store, const char *prefix, const char *only,
                                          bool verbose, FILE *out)
{
    const struct conformance_case *const tables[] = {cases, conformance_list_cases,
                                                     conformance_upload_cases};
    struct conformance_result result = {0};
    for (unsigned t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct conformance_case *c = tables[t]; c->name; c++)
            if (!only || strstr(c->name, only))
                run_case(store, prefix, c, verbose, out, &result);
    return result;
}
