/*
 * Runs the tests of one executable in this process, in the order of suite and name. Usage:
 * EXECUTABLE [PART-OF-suite/name …]. Prints a line for each failure and one with the counts.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include "test.h"

enum outcome { PASSED, FAILED, SKIPPED };

static struct {
    struct plain_test *tests;
    pthread_t thread;
    sigjmp_buf back;
    const struct plain_test *current;
} runner;

void plain_test_add(struct plain_test *test)
{
    struct plain_test **at = &runner.tests;
    while (*at) {
        int c = strcmp((*at)->suite, test->suite);
        if (c > 0 || (c == 0 && strcmp((*at)->name, test->name) > 0))
            break;
        at = &(*at)->next;
    }
    test->next = *at;
    *at = test;
}

void plain_test_fail(const char *file, int line, const char *fmt, ...)
{
    fprintf(stderr, "%s:%d: %s/%s: ", file, line, runner.current->suite, runner.current->name);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (!pthread_equal(runner.thread, pthread_self())) {
        fputs("a check failed on a thread that is not the test's\n", stderr);
        abort();
    }
    siglongjmp(runner.back, FAILED);
}

void plain_test_skip(const char *why)
{
    printf("skipped %s/%s: %s\n", runner.current->suite, runner.current->name, why);
    siglongjmp(runner.back, SKIPPED);
}

static enum outcome run(const struct plain_test *test)
{
    runner.current = test;
    switch (sigsetjmp(runner.back, 0)) {
    case FAILED:
        return FAILED;
    case SKIPPED:
        return SKIPPED;
    default:
        break;
    }
    if (test->init)
        test->init();
    test->run();
    if (test->fini)
        test->fini();
    return PASSED;
}

static bool wanted(const struct plain_test *test, int argc, char **argv)
{
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", test->suite, test->name);
    bool any = argc < 2;
    for (int i = 1; i < argc; i++)
        any |= strstr(full, argv[i]) != NULL;
    return any && !test->disabled;
}

int main(int argc, char **argv)
{
    unsigned count[3] = {0};
    runner.thread = pthread_self();
    for (struct plain_test *test = runner.tests; test; test = test->next) {
        if (wanted(test, argc, argv))
            count[run(test)]++;
    }
    printf("%u passed, %u failed\n", count[PASSED], count[FAILED]);
    return count[FAILED] != 0;
}
