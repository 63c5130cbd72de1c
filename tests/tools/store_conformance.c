/*
 * Runs the conformance suite on a store with a URL, as a mount opens it, or on the bare backend:
 *
 *   store_conformance [--bare] [--probe] [--only=PART] [--verbose] URL [PREFIX]
 *
 * PREFIX ("…/") should be empty. With --probe the store is asked first what it honours. Exit status
 * 1 if a behaviour failed.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "conformance.h"
#include "s3/backend.h"

struct run {
    bool bare, probe, verbose;
    const char *only, *url, *prefix;
};

static int parse_arguments(struct run *run, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--bare") == 0)
            run->bare = true;
        else if (strcmp(argv[i], "--probe") == 0)
            run->probe = true;
        else if (strcmp(argv[i], "--verbose") == 0)
            run->verbose = true;
        else if (strncmp(argv[i], "--only=", 7) == 0)
            run->only = argv[i] + 7;
        else
            return -1;
    }
    if (i == argc || argc - i > 2)
        return -1;
    run->url = argv[i];
    run->prefix = argc - i == 2 ? argv[i + 1] : "";
    return 0;
}

static int open_store(const struct run *run, struct loop *loop, struct store **store,
                      struct error *error)
{
    cleanup(store_url_done) struct store_url url = {{0}};
    struct store_options options;
    store_options_init(&options);
    int rc = store_url_parse(run->url, &url, error);
    if (rc)
        return rc;
    if (!run->bare)
        return store_open(&url, &options, loop, NULL, store, error);
    if (strcmp(url.scheme, "file") == 0)
        return store_file_new(url.bucket, false, loop, store, error);
    return store_s3_new(&url, &options, loop, NULL, store, error);
}

static void print_finding(void *arg, const char *what, bool good, const char *text)
{
    printf("probe: %s: %s\n", what, text);
}

static int run_on(const struct run *run, struct store *store, struct error *error)
{
    int rc = run->probe ? store_probe(store, run->prefix, print_finding, NULL, error) : 0;
    if (rc) {
        fprintf(stderr, "%s\n", error_text(error));
        return 1;
    }
    struct conformance_result result =
        conformance_run(store, run->prefix, run->only, run->verbose, stdout);
    printf("%s: %u passed, %u different, %u failed\n", store_name(store), result.passed,
           result.different, result.failed);
    return result.failed > 0 || result.passed == 0;
}

int main(int argc, char **argv)
{
    struct run run = {0};
    if (parse_arguments(&run, argc, argv)) {
        fprintf(stderr, "usage: store_conformance [--bare] [--probe] [--only=PART] [--verbose] URL "
                        "[PREFIX]\n");
        return 2;
    }
    struct error error = {0};
    struct loop *loop;
    struct store *store = NULL;
    if (loop_new(&loop, "store")) {
        fprintf(stderr, "no event loop\n");
        return 1;
    }
    int status = 1;
    if (open_store(&run, loop, &store, &error))
        fprintf(stderr, "%s\n", error_text(&error));
    else
        status = run_on(&run, store, &error);
    store_free(store);
    loop_free(loop);
    return status;
}
