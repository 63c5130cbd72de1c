/*
 * What an object store and our client of it can do: PUT, GET, ranges of one object, parts of an
 * upload, HEAD and LIST, at a given size and parallelism. Prints one line of JSON for each test:
 *
 *   {"op":"get","bytes":8388608,"parallel":16,"requests":128,"s":0.71,"mib_s":1442.3,
 *    "per_s":180.3,"cpu_s_gib":0.21,"mean_ms":85.1,"p99_ms":140.2}
 *
 * cpu_s_gib (cpu_us for requests without a body) is this process's processor time. The keys it made
 * are removed at the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "s3/open.h"

#define MIB (1024.0 * 1024)

struct bench {
    struct store *store;
    struct store_options options;
    const char *url, *ops, *prefix;
    size_t size;
    unsigned count, parallel;
    char run[17]; /* in all keys */
};

struct worker {
    struct store_op op;
    struct pass *pass;
    void *buf; /* owned */
    struct iovec iov;
    char key[STORE_KEY_MAX + 1];
    uint64_t start_ns;
    unsigned index;
};

/* One test: `count` requests, so many at once. */
struct pass {
    struct bench *bench;
    enum store_kind kind;
    bool one_object; /* ranges of object 0 */
    const char *upload_id;
    struct store_part *parts;
    uint64_t *latency_ns;
    unsigned started, ended, failed;
    struct error error;
    uv_sem_t done;
};

static void begin_next(struct worker *w);

static void on_done(struct store_op *op)
{
    struct worker *w = op->arg;
    struct pass *pass = w->pass;
    pass->latency_ns[w->index] = clock_monotonic_ns() - w->start_ns;
    if (op->result) {
        pass->failed++;
        pass->error = op->error;
    }
    if (pass->parts)
        pass->parts[w->index] = op->out_part;
    pass->ended++;
    begin_next(w);
    if (pass->ended == pass->bench->count)
        uv_sem_post(&pass->done);
}

static void begin_next(struct worker *w)
{
    struct pass *pass = w->pass;
    struct bench *bench = pass->bench;
    if (pass->started == bench->count)
        return;
    w->index = pass->started++;
    store_op_reset(&w->op);
    w->op = (struct store_op){.kind = pass->kind, .done = on_done, .arg = w, .key = w->key};
    snprintf(w->key, sizeof(w->key), "%sbench-%s/%06u", bench->prefix, bench->run,
             pass->one_object ? 0 : w->index);
    if (pass->kind == STORE_GET) {
        w->op.buf = w->buf;
        w->op.buf_len = w->op.length = bench->size;
        w->op.offset = pass->one_object ? (uint64_t)w->index * bench->size : 0;
    } else if (pass->kind == STORE_PUT || pass->kind == STORE_MPU_PART) {
        w->iov = (struct iovec){w->buf, bench->size};
        w->op.iov = &w->iov;
        w->op.iov_count = 1;
        w->op.upload_id = pass->upload_id;
        w->op.part_number = w->index + 1;
    } else if (pass->kind == STORE_LIST) {
        snprintf(w->key, sizeof(w->key), "%sbench-%s/", bench->prefix, bench->run);
        w->op.key = NULL;
        w->op.prefix = w->key;
    }
    w->start_ns = clock_monotonic_ns();
    store_submit(bench->store, &w->op);
}

struct start_call {
    struct worker *workers;
    unsigned count;
};

static void start_workers(void *arg)
{
    struct start_call *call = arg;
    for (unsigned i = 0; i < call->count; i++)
        begin_next(&call->workers[i]);
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int compare_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_result(struct pass *pass, const char *name, double s, double cpu, double bytes)
{
    const struct bench *bench = pass->bench;
    uint64_t sum = 0;
    for (unsigned i = 0; i < bench->count; i++)
        sum += pass->latency_ns[i];
    qsort(pass->latency_ns, bench->count, sizeof(uint64_t), compare_ns);
    uint64_t p99_ns = pass->latency_ns[99 * (uint64_t)bench->count / 100];
    printf("{\"op\":\"%s\",\"bytes\":%zu,\"parallel\":%u,\"requests\":%u,\"s\":%.3f,"
           "\"mib_s\":%.1f,\"per_s\":%.1f,\"cpu_us\":%.1f,\"cpu_s_gib\":%.3f,\"mean_ms\":%.3f,"
           "\"p99_ms\":%.3f}\n",
           name, bench->size, bench->parallel, bench->count, s, bytes / MIB / s, bench->count / s,
           cpu * 1e6 / bench->count, bytes > 0 ? cpu / (bytes / MIB / 1024) : 0,
           (double)sum / bench->count / 1e6, (double)p99_ns / 1e6);
    fflush(stdout);
}

static int run_pass(struct pass *pass, const char *name, bool has_body)
{
    struct bench *bench = pass->bench;
    unsigned workers = MIN(bench->parallel, bench->count);
    struct worker *all = calloc(workers, sizeof(*all));
    pass->latency_ns = calloc(bench->count, sizeof(uint64_t));
    int rc = all && pass->latency_ns ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < workers; i++) {
        all[i].pass = pass;
        all[i].buf = malloc(bench->size + 1);
        if (!all[i].buf)
            rc = -ENOMEM;
        else
            memset(all[i].buf, (int)i + 1, bench->size);
    }
    if (rc == 0) {
        uv_sem_init(&pass->done, 0);
        double cpu = cpu_s();
        uint64_t start = clock_monotonic_ns();
        struct start_call call = {all, workers};
        loop_call(store_loop(bench->store), start_workers, &call);
        uv_sem_wait(&pass->done);
        double s = (double)(clock_monotonic_ns() - start) / 1e9;
        double bytes = has_body ? (double)bench->size * bench->count : 0;
        cpu = cpu_s() - cpu;
        uv_sem_destroy(&pass->done);
        if (pass->failed) {
            fprintf(stderr, "%s: %u of %u failed: %s\n", name, pass->failed, bench->count,
                    error_text(&pass->error));
            rc = -EIO;
        } else if (name) {
            print_result(pass, name, s, cpu, bytes);
        }
    }
    for (unsigned i = 0; all && i < workers; i++) {
        store_op_reset(&all[i].op);
        free(all[i].buf);
    }
    free(all);
    free(pass->latency_ns);
    return rc;
}

/* Parts of object 0, then Complete, timed by itself. */
static int run_parts(struct bench *bench)
{
    char key[STORE_KEY_MAX + 1];
    snprintf(key, sizeof(key), "%sbench-%s/%06u", bench->prefix, bench->run, 0);
    struct store_op create = {.kind = STORE_MPU_CREATE, .key = key};
    struct store_part *parts = calloc(bench->count, sizeof(*parts));
    int rc = parts ? store_wait(bench->store, &create) : -ENOMEM;
    if (rc == 0) {
        struct pass pass = {.bench = bench,
                            .kind = STORE_MPU_PART,
                            .one_object = true,
                            .upload_id = create.out_upload_id,
                            .parts = parts};
        rc = run_pass(&pass, "part", true);
    }
    if (rc == 0) {
        struct store_op op = {.kind = STORE_MPU_COMPLETE,
                              .key = key,
                              .upload_id = create.out_upload_id,
                              .parts = parts,
                              .part_count = bench->count};
        uint64_t start = clock_monotonic_ns();
        rc = store_wait(bench->store, &op);
        if (rc)
            fprintf(stderr, "%s\n", error_text(&op.error));
        else
            printf("{\"op\":\"complete\",\"parts\":%u,\"s\":%.3f}\n", bench->count,
                   (double)(clock_monotonic_ns() - start) / 1e9);
        store_op_reset(&op);
    }
    store_op_reset(&create);
    free(parts);
    return rc;
}

static int run_all(struct bench *bench)
{
    static const struct {
        const char *name;
        enum store_kind kind;
        bool one_object, has_body;
    } tests[] = {
        {"put", STORE_PUT, false, true},  {"head", STORE_HEAD, false, false},
        {"get", STORE_GET, false, true},  {"list", STORE_LIST, false, false},
        {"range", STORE_GET, true, true}, {"delete", STORE_DELETE, false, false},
    };
    cleanup(free_ptr) char *ops = strdup(bench->ops);
    char *rest = ops;
    int rc = 0;
    for (char *name; rc == 0 && ops && (name = strsep(&rest, ","));) {
        if (strcmp(name, "parts") == 0) {
            rc = run_parts(bench);
            continue;
        }
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
            if (strcmp(tests[i].name, name) != 0)
                continue;
            known = true;
            struct pass pass = {
                .bench = bench, .kind = tests[i].kind, .one_object = tests[i].one_object};
            rc = run_pass(&pass, name, tests[i].has_body);
        }
        if (!known) {
            fprintf(stderr, "store_bench: unknown test %s\n", name);
            rc = -EINVAL;
        }
    }
    return rc;
}

/* Whatever the tests left behind. */
static void clean_up(struct bench *bench)
{
    unsigned count = bench->count;
    for (unsigned i = 0; i < count; i++) {
        char key[STORE_KEY_MAX + 1];
        snprintf(key, sizeof(key), "%sbench-%s/%06u", bench->prefix, bench->run, i);
        struct store_op op = {.kind = STORE_DELETE, .key = key};
        store_wait(bench->store, &op);
        store_op_reset(&op);
    }
}

static const char usage[] =
    "usage: store_bench [--size=BYTES] [--count=N] [--parallel=N] [--ops=put,get,parts,range,list,"
    "head,delete]\n"
    "                   [--no-hedge] URL\n"
    "URL: s3://BUCKET[/PREFIX] or file:///DIRECTORY; the endpoint and keys come from AWS_*.\n"
    "`get` reads what `put` wrote, `range` pieces of what `parts` wrote.\n";

static bool take_option(struct bench *bench, const char *text)
{
    if (strncmp(text, "--size=", 7) == 0)
        bench->size = strtoull(text + 7, NULL, 10);
    else if (strncmp(text, "--count=", 8) == 0)
        bench->count = (unsigned)strtoul(text + 8, NULL, 10);
    else if (strncmp(text, "--parallel=", 11) == 0)
        bench->parallel = (unsigned)strtoul(text + 11, NULL, 10);
    else if (strncmp(text, "--ops=", 6) == 0)
        bench->ops = text + 6;
    else if (strcmp(text, "--no-hedge") == 0)
        bench->options.hedge_after_ms = UINT32_MAX;
    else
        return false;
    return bench->count > 0 && bench->parallel > 0;
}

int main(int argc, char **argv)
{
    struct bench bench = {
        .size = 8u << 20, .count = 64, .parallel = 8, .ops = "put,get,parts,range"};
    store_options_init(&bench.options);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0 && !bench.url) {
            bench.url = argv[i];
        } else if (!take_option(&bench, argv[i])) {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!bench.url) {
        fputs(usage, stderr);
        return 2;
    }
    uint8_t random[8];
    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), bench.run);
    bench.options.connections = MAX(64u, bench.parallel);
    struct store_url url = {{0}};
    struct error error = {0};
    struct loop *loop = NULL;
    int rc = store_url_parse(bench.url, &url, &error);
    if (rc == 0)
        rc = loop_new(&loop, "store");
    if (rc == 0)
        rc = store_open(&url, &bench.options, loop, NULL, &bench.store, &error);
    if (rc) {
        fprintf(stderr, "%s\n", error_text(&error));
    } else {
        bench.prefix = url.prefix;
        rc = run_all(&bench);
        clean_up(&bench);
    }
    store_free(bench.store);
    loop_free(loop);
    store_url_done(&url);
    return rc ? 1 : 0;
}
