/* sluice quota set|get|list|check */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli.h"
#include "control_client.h"
#include "options.h"
#include "progress.h"

#define CHECK_TRIES 3
#define OPEN_DIRECTORIES 32

struct quota_options {
    char *bytes, *inodes;
    bool json;
};

static const struct option_spec specs[] = {
    {"bytes", 0, OPTION_STRING, offsetof(struct quota_options, bytes), "SIZE",
     "set: the most bytes below PATH (10G), or none"},
    {"inodes", 0, OPTION_STRING, offsetof(struct quota_options, inodes), "COUNT",
     "set: the most files and directories below PATH (1M), or none"},
    {"json", 0, OPTION_FLAG, offsetof(struct quota_options, json), NULL,
     "get, list: print the mount's answer as JSON"},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "set|get|list|check PATH",
    .doc =
        "Limits what a directory of a mount may hold, with all below it. A write, create, link or "
        "rename that would pass a limit fails with EDQUOT (\"Disk quota exceeded\"), at the byte.\v"
        "  set    gives PATH the limits of --bytes and --inodes; others stay\n"
        "  get    the limits that bind PATH: its own, and those above it\n"
        "  list   all limits at and below PATH\n"
        "  check  counts what lies below each of them, compares that with what is\n"
        "         recorded, and says what is over its limit. Ends with 1 if anything\n"
        "         is wrong or over\n\n"
        "`df PATH` shows the tightest limit. Examples:\n"
        "  sluice quota set /mnt/home/ann --bytes 10G --inodes 1M\n"
        "  sluice quota set /mnt/home/ann --inodes none\n"
        "  sluice quota list /mnt",
    .args_min = 2,
    .args_max = 2,
};

static int add_limit(json_t *request, const char *key, const char *option, const char *text,
                     struct error *error)
{
    uint64_t limit = 0;
    if (!text)
        return 0;
    bool none = strcmp(text, "none") == 0;
    if (!none && (options_parse_size(text, &limit) < 0 || limit > INT64_MAX))
        return error_set(error, -EINVAL,
                         "--%s: '%s' is neither a number (then K, M, G or T) nor none", option,
                         text);
    json_object_set_new(request, key, none ? json_null() : json_integer((json_int_t)limit));
    return 0;
}

static int quota_set(const char *path, const struct quota_options *options, struct error *error)
{
    struct control_client client;
    if (!options->bytes && !options->inodes)
        return error_set(error, -EINVAL, "set needs --bytes or --inodes");
    json_t *request = json_object();
    int r = add_limit(request, "max_bytes", "bytes", options->bytes, error);
    if (r == 0)
        r = add_limit(request, "max_inodes", "inodes", options->inodes, error);
    if (r == 0)
        r = control_client_open(path, &client, error);
    if (r < 0) {
        json_decref(request);
        return r;
    }
    json_object_set_new(request, "op", json_string("quota-set"));
    json_t *reply = NULL;
    r = control_client_call_at(&client, path, request, &reply, error);
    json_decref(reply);
    control_client_close(&client);
    return r;
}

static uint64_t number(json_t *quota, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(quota, key));
}

static bool is_limited(json_t *quota, const char *key)
{
    return json_is_integer(json_object_get(quota, key));
}

static uint64_t used_bytes(json_t *quota)
{
    return number(quota, "bytes") + number(quota, "reserved_bytes");
}

static uint64_t used_inodes(json_t *quota)
{
    return number(quota, "files") + number(quota, "directories");
}

static const char *path_of(json_t *quota)
{
    const char *path = json_string_value(json_object_get(quota, "path"));
    return path ? path : "(a name that is not UTF-8)";
}

static void print_quotas(json_t *quotas)
{
    size_t i;
    json_t *quota;
    if (json_array_size(quotas) == 0)
        printf("no quota\n");
    json_array_foreach(quotas, i, quota)
    {
        char used[32], most[32] = "no limit";
        if (is_limited(quota, "max_bytes"))
            progress_bytes(number(quota, "max_bytes"), most);
        printf("/%s: %s of %s, %llu of ", path_of(quota), progress_bytes(used_bytes(quota), used),
               most, (unsigned long long)used_inodes(quota));
        if (is_limited(quota, "max_inodes"))
            printf("%llu inodes\n", (unsigned long long)number(quota, "max_inodes"));
        else
            printf("any number of inodes\n");
    }
}

/* ---- check ---- */

/* nftw has no argument for its callback. */
static __thread struct {
    uint64_t bytes, inodes;
    bool failed;
} counted;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path;
    if (type == FTW_DNR || type == FTW_NS)
        counted.failed = true;
    if (at->level == 0)
        return 0;
    counted.inodes++;
    if (type == FTW_F && S_ISREG(st->st_mode))
        counted.bytes += (uint64_t)st->st_size;
    return 0;
}

static int list_quotas(const char *path, const char *op, json_t **quotas, struct error *error)
{
    json_t *reply = NULL;
    int r = control_client_simple(path, op, &reply, error);
    if (r == 0)
        *quotas = json_incref(json_object_get(reply, "quotas"));
    json_decref(reply);
    return r;
}

/* The quota of a directory as it is now; a new reference, or NULL. */
static json_t *quota_again(const char *directory, uint64_t ino)
{
    json_t *quotas = NULL, *found = NULL, *quota;
    size_t i;
    if (list_quotas(directory, "quota-get", &quotas, NULL) < 0)
        return NULL;
    json_array_foreach(quotas, i, quota)
    {
        if (number(quota, "ino") == ino)
            found = json_incref(quota);
    }
    json_decref(quotas);
    return found;
}

/* 0: right; 1: something was printed. */
static int check_one(const char *mountpoint, json_t *quota)
{
    cleanup(free_ptr) char *directory = NULL;
    const char *path = path_of(quota);
    if (asprintf(&directory, "%s/%s", mountpoint, path) < 0)
        return 1;
    bool same = false, over = false;
    for (int i = 0; i < CHECK_TRIES && !same; i++) {
        memset(&counted, 0, sizeof(counted));
        if (nftw(directory, count_one, OPEN_DIRECTORIES, FTW_PHYS | FTW_MOUNT) < 0 ||
            counted.failed) {
            printf("/%s: cannot be read by this user\n", path);
            return 1;
        }
        json_t *now = quota_again(directory, number(quota, "ino"));
        if (!now)
            return 0; /* removed meanwhile */
        same = counted.bytes == used_bytes(now) && counted.inodes == used_inodes(now);
        over = (is_limited(now, "max_bytes") && used_bytes(now) > number(now, "max_bytes")) ||
               (is_limited(now, "max_inodes") && used_inodes(now) > number(now, "max_inodes"));
        if (!same && i == CHECK_TRIES - 1)
            printf("/%s: %llu bytes and %llu inodes are recorded, %llu and %llu were found (or it "
                   "is being changed)\n",
                   path, (unsigned long long)used_bytes(now), (unsigned long long)used_inodes(now),
                   (unsigned long long)counted.bytes, (unsigned long long)counted.inodes);
        json_decref(now);
    }
    if (over)
        printf("/%s: over its limit\n", path);
    return !same || over;
}

static int quota_check(const char *path, struct error *error)
{
    struct control_client client;
    json_t *quotas = NULL, *quota;
    size_t i;
    int r = list_quotas(path, "quota-list", &quotas, error);
    if (r == 0)
        r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    json_array_foreach(quotas, i, quota)
    {
        r |= check_one(client.mountpoint, quota);
    }
    if (r == 0)
        printf("%zu quotas: all right\n", json_array_size(quotas));
    control_client_close(&client);
    json_decref(quotas);
    return r;
}

static int show(const char *path, const char *op, bool json, struct error *error)
{
    json_t *quotas = NULL;
    int r = list_quotas(path, op, &quotas, error);
    if (r == 0 && json) {
        json_dumpf(quotas, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (r == 0) {
        print_quotas(quotas);
    }
    json_decref(quotas);
    return r;
}

int cli_quota(int argc, char **argv)
{
    struct quota_options options = {0};
    struct option_result result;
    struct error error = {0};
    int r = options_parse(&option_set, "sluice quota", argc, argv, &options, &result);
    if (r)
        return r - 1;
    const char *verb = result.args[0], *path = result.args[1];
    bool lists = strcmp(verb, "get") == 0 || strcmp(verb, "list") == 0;
    if (options.json && !lists)
        r = error_set(&error, -EINVAL, "--json is for get and list");
    else if (strcmp(verb, "set") == 0)
        r = quota_set(path, &options, &error);
    else if (strcmp(verb, "get") == 0)
        r = show(path, "quota-get", options.json, &error);
    else if (strcmp(verb, "list") == 0)
        r = show(path, "quota-list", options.json, &error);
    else if (strcmp(verb, "check") == 0)
        r = quota_check(path, &error);
    else
        r = error_set(&error, -EINVAL, "'%s' is none of set, get, list, check", verb);
    options_free(&option_set, &options);
    if (r < 0)
        return cli_fail("quota", &error) + (error.code == -EINVAL);
    return r;
}
