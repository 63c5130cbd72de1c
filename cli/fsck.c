/* sluice fsck: checks the metadata of a volume that is not mounted, every record against the
 * others. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/engine.h"
#include "options.h"
#include "places.h"

struct fsck_options {
    char *meta_dir, *endpoint;
};

static const struct option_spec specs[] = {
    {"meta-dir", 0, OPTION_STRING, offsetof(struct fsck_options, meta_dir), "DIR",
     "Metadata of the volume (as `sluice mount` chooses it for this URL)"},
    {"endpoint", 0, OPTION_STRING, offsetof(struct fsck_options, endpoint), "URL",
     "The S3 server, if the mount was given one: it is part of the default place"},
};

static const struct option_set fsck_option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "URL",
    .doc = "Checks the metadata of a volume that is not mounted: names, inodes, extents, objects, "
           "keys and usage against each other. Changes nothing."
           "\vEnds with 0 if all is consistent, 1 if not (one line for each violation) or if the "
           "metadata cannot be read, 2 for a wrong call.",
    .args_min = 1,
    .args_max = 1,
    .reads_config = true,
};

static void print_violation(void *arg, const char *text)
{
    (void)arg;
    printf("%s\n", text);
}

static int check(const char *directory)
{
    struct error error = {0};
    struct engine *engine = NULL;
    struct engine_options options = {.path = directory, .read_only = true};
    if (engine_open(&options, &engine, &error) < 0)
        return cli_fail("fsck", &error);
    int found = engine_check(engine, print_violation, NULL);
    engine_close(engine);
    if (found < 0) {
        error_set(&error, found, "%s: the check ended early: %s", directory, strerror(-found));
        return cli_fail("fsck", &error);
    }
    if (found)
        printf("%d violations in %s\n", found, directory);
    else
        printf("%s is consistent\n", directory);
    return found > 0;
}

int cli_fsck(int argc, char **argv)
{
    struct fsck_options options = {0};
    struct option_result result;
    struct store_url url = {0};
    struct error error = {0};
    int r = options_parse(&fsck_option_set, "sluice fsck", argc, argv, &options, &result);
    if (r) {
        options_free(&fsck_option_set, &options);
        return r - 1;
    }
    if (store_url_parse(result.args[0], &url, &error) < 0) {
        r = cli_fail("fsck", &error);
    } else {
        cleanup(free_ptr) char *place =
            options.meta_dir ? strdup(options.meta_dir) : places_default(&url, options.endpoint);
        r = place ? check(place) : 1;
    }
    store_url_done(&url);
    options_free(&fsck_option_set, &options);
    return r;
}
