/*
 * Unit tests: TEST(suite, name) { … check(…); … }. The suite is the function (or module) under
 * test, the name is the behaviour.
 *
 * Over Criterion each test runs in a process of its own. With -DTEST_PLAIN_RUNNER (the thread
 * sanitizer) test_plain.c has main(), and all run in one process; so a test leaves no thread and
 * no changed process-wide state behind. The first failed check ends its test. Checks are for the
 * test's own thread: other threads put what they saw where the test can check it.
 *
 * Options follow the name: TEST(suite, name, .init = make_things, .fini = remove_things). With
 * .timeout (seconds) Criterion ends a test that hangs.
 */
#ifndef SLUICE_TESTS_TEST_H
#define SLUICE_TESTS_TEST_H

#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef TEST_PLAIN_RUNNER

struct plain_test {
    const char *suite, *name;
    void (*run)(void);
    void (*init)(void), (*fini)(void);
    double timeout;
    bool disabled;
    struct plain_test *next;
};
void plain_test_add(struct plain_test *test);
/* Does not return: back to the runner. */
void plain_test_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
/* Ends the test without a verdict: neither passed nor failed. */
void plain_test_skip(const char *why) __attribute__((noreturn));

#define TEST(suite_, name_, ...)                                                                   \
    static void suite_##_##name_##_run(void);                                                      \
    static struct plain_test suite_##_##name_##_test = {                                           \
        .suite = #suite_, .name = #name_, .run = suite_##_##name_##_run, __VA_ARGS__};             \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)                          \
    {                                                                                              \
        plain_test_add(&suite_##_##name_##_test);                                                  \
    }                                                                                              \
    static void suite_##_##name_##_run(void)

#define test_fail(...) plain_test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define test_skip(why) plain_test_skip(why)

#else

#include <criterion/criterion.h>

#define TEST(suite_, name_, ...) Test(suite_, name_, ##__VA_ARGS__)
#define test_fail(...) cr_assert_fail(__VA_ARGS__)
#define test_skip(why) cr_skip_test("%s", why)

#endif

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail("%s", #condition);                                                           \
    } while (0)

/* Signed integers (result codes, offsets). */
#define check_int(got, expected)                                                                   \
    do {                                                                                           \
        intmax_t got_ = (got), expected_ = (expected);                                             \
        if (got_ != expected_)                                                                     \
            test_fail("%s is %jd, expected %s = %jd", #got, got_, #expected, expected_);           \
    } while (0)

/* Unsigned integers (sizes, counts, bits). */
#define check_uint(got, expected)                                                                  \
    do {                                                                                           \
        uintmax_t got_ = (got), expected_ = (expected);                                            \
        if (got_ != expected_)                                                                     \
            test_fail("%s is %ju (0x%jx), expected %s = %ju (0x%jx)", #got, got_, got_, #expected, \
                      expected_, expected_);                                                       \
    } while (0)

/* C strings; NULL is equal to NULL only. */
#define check_str(got, expected)                                                                   \
    do {                                                                                           \
        const char *got_ = (got), *expected_ = (expected);                                         \
        if (got_ && expected_ ? strcmp(got_, expected_) != 0 : got_ != expected_)                  \
            test_fail("%s is \"%s\", expected \"%s\"", #got, got_ ? got_ : "(null)",               \
                      expected_ ? expected_ : "(null)");                                           \
    } while (0)

/* `len` bytes. */
#define check_mem(got, expected, len)                                                              \
    do {                                                                                           \
        const unsigned char *got_ = (const void *)(got);                                           \
        const unsigned char *expected_ = (const void *)(expected);                                 \
        size_t len_ = (len), at_ = 0;                                                              \
        while (at_ < len_ && got_[at_] == expected_[at_])                                          \
            at_++;                                                                                 \
        if (at_ < len_)                                                                            \
            test_fail("%s differs from %s at byte %zu of %zu: 0x%02x, expected 0x%02x", #got,      \
                      #expected, at_, len_, got_[at_], expected_[at_]);                            \
    } while (0)

/* A new empty directory; the test removes it with test_dir_remove. */
static inline void test_dir_make(char path[4096])
{
    const char *base = getenv("TMPDIR");
    snprintf(path, 4096, "%s/sluice-unit-XXXXXX", base && *base ? base : "/tmp");
    check(mkdtemp(path) != NULL);
}

static inline int test_dir_remove_entry(const char *path, const struct stat *st, int flag,
                                        struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void test_dir_remove(const char *path)
{
    nftw(path, test_dir_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
