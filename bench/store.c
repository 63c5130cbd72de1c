#include "bench/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"

#define GIVE_UP 3 /* removals that failed in a row: the store does not answer */

struct store_bench {
    struct store *store;
    const char *prefix;
    atomic_bool *stop;
    char run[17];  /* in all keys */
    unsigned made; /* objects of the last PUT */
    size_t made_size;
    unsigned most_made; /* in all passes: what is to be removed */
    unsigned parts;     /* of the object that PARTS made */
    size_t part_size;
    unsigned left; /* could not be removed */
};

struct worker {
    struct store_op op;
    struct pass *pass;
    void *buf; /* owned */
    struct iovec iov;
    char key[STORE_KEY_MAX + 1], source[STORE_KEY_MAX + 1];
    char *token; /* of a listing, owned */
    uint64_t start_ns;
    unsigned index;
};

/* One row while it runs. Its fields belong to the loop thread after the start. */
struct pass {
    struct store_bench *bench;
    enum store_bench_op op;
    size_t size;
    unsigned count;
    uint64_t until_ns;
    const char *upload_id;
    struct store_part *parts;
    unsigned started, running;
    struct store_bench_row *row;
    uv_sem_t done;
};

static const struct {
    const char *name;
    enum store_kind kind;
    bool has_body;
} kinds[] = {
    [STORE_BENCH_PUT] = {"put", STORE_PUT, true},
    [STORE_BENCH_PUT_NEW] = {"put_new", STORE_PUT, true},
    [STORE_BENCH_HEAD] = {"head", STORE_HEAD, false},
    [STORE_BENCH_GET] = {"get", STORE_GET, true},
    [STORE_BENCH_COPY] = {"copy", STORE_COPY, true},
    [STORE_BENCH_LIST] = {"list", STORE_LIST, false},
    [STORE_BENCH_DELETE] = {"delete", STORE_DELETE, false},
    [STORE_BENCH_PARTS] = {"parts", STORE_MPU_PART, true},
    [STORE_BENCH_COMPLETE] = {"complete", STORE_MPU_COMPLETE, false},
    [STORE_BENCH_RANGE] = {"range", STORE_GET, true},
};

const char *store_bench_name(enum store_bench_op op)
{
    return kinds[op].name;
}

int store_bench_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* kind: 'o' objects, 'n' new ones, 'c' copies, 'u' the upload. */
static void key_of(const struct store_bench *bench, char *room, char kind, unsigned i)
{
    snprintf(room, STORE_KEY_MAX + 1, "%ssluice-bench-%s/%c%06u", bench->prefix, bench->run, kind,
             i);
}

static void begin_next(struct worker *w);

static void take_result(struct worker *w)
{
    struct pass *pass = w->pass;
    struct store_bench_row *row = pass->row;
    row->requests++;
    if (w->op.result) {
        row->failed++;
        row->error = w->op.error;
        return;
    }
    histogram_add(&row->latency, clock_monotonic_ns() - w->start_ns);
    if (pass->parts)
        pass->parts[w->index] = w->op.out_part;
}

static void on_done(struct store_op *op)
{
    struct worker *w = op->arg;
    struct pass *pass = w->pass;
    take_result(w);
    if (pass->op == STORE_BENCH_LIST && op->result == 0) {
        free(w->token);
        w->token = op->out_list.next_token ? strdup(op->out_list.next_token) : NULL;
    }
    pass->running--;
    begin_next(w);
    if (pass->running == 0)
        uv_sem_post(&pass->done);
}

static bool may_begin(const struct pass *pass)
{
    const struct store_bench *bench = pass->bench;
    return pass->started < pass->count && clock_monotonic_ns() < pass->until_ns &&
           !(bench->stop && atomic_load_explicit(bench->stop, memory_order_relaxed)) &&
           !(pass->parts && pass->row->failed);
}

static void begin_next(struct worker *w)
{
    struct pass *pass = w->pass;
    struct store_bench *bench = pass->bench;
    if (!may_begin(pass))
        return;
    w->index = pass->started++;
    store_op_reset(&w->op);
    w->op =
        (struct store_op){.kind = kinds[pass->op].kind, .done = on_done, .arg = w, .key = w->key};
    key_of(bench, w->key,
           pass->op == STORE_BENCH_PUT_NEW ? 'n'
           : pass->op == STORE_BENCH_COPY  ? 'c'
                                           : 'o',
           w->index);
    switch (pass->op) {
    case STORE_BENCH_PUT_NEW:
        w->op.if_none_match = true;
        /* fall through */
    case STORE_BENCH_PUT:
    case STORE_BENCH_PARTS:
        w->iov = (struct iovec){w->buf, pass->size};
        w->op.iov = &w->iov;
        w->op.iov_count = 1;
        if (pass->op == STORE_BENCH_PARTS) {
            key_of(bench, w->key, 'u', 0);
            w->op.upload_id = pass->upload_id;
            w->op.part_number = w->index + 1;
        }
        break;
    case STORE_BENCH_RANGE:
        key_of(bench, w->key, 'u', 0);
        w->op.offset = (uint64_t)(w->index % bench->parts) * pass->size;
        /* fall through */
    case STORE_BENCH_GET:
        w->op.buf = w->buf;
        w->op.buf_len = w->op.length = pass->size;
        break;
    case STORE_BENCH_COPY:
        key_of(bench, w->source, 'o', w->index);
        w->op.source_key = w->source;
        break;
    case STORE_BENCH_LIST:
        snprintf(w->key, sizeof(w->key), "%ssluice-bench-%s/", bench->prefix, bench->run);
        w->op.key = NULL;
        w->op.prefix = w->key;
        w->op.token = w->token;
        break;
    default:
        break;
    }
    pass->running++;
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
    struct pass *pass = call->workers[0].pass;
    pass->running++; /* keeps the end off until all have begun */
    for (unsigned i = 0; i < call->count; i++)
        begin_next(&call->workers[i]);
    if (--pass->running == 0)
        uv_sem_post(&pass->done);
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int run_pass(struct pass *pass)
{
    struct store_bench_row *row = pass->row;
    unsigned workers = MIN(row->parallel, pass->count);
    struct worker *all = calloc(workers, sizeof(*all));
    int rc = all ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < workers; i++) {
        all[i].pass = pass;
        all[i].buf = malloc(pass->size + 1);
        if (!all[i].buf)
            rc = -ENOMEM;
        else
            memset(all[i].buf, (int)i + 1, pass->size);
    }
    if (rc == 0) {
        uv_sem_init(&pass->done, 0);
        double cpu = cpu_s();
        uint64_t start = clock_monotonic_ns();
        struct start_call call = {all, workers};
        loop_call(store_loop(pass->bench->store), start_workers, &call);
        uv_sem_wait(&pass->done);
        row->seconds = (double)(clock_monotonic_ns() - start) / (double)NS_PER_S;
        row->cpu_s = cpu_s() - cpu;
        uv_sem_destroy(&pass->done);
    }
    for (unsigned i = 0; all && i < workers; i++) {
        store_op_reset(&all[i].op);
        free(all[i].token);
        free(all[i].buf);
    }
    free(all);
    return rc;
}

/* By batches; what a batch fails to remove is tried once more by itself, until it is clear that the
 * store does not answer. */
static void remove_keys(struct store_bench *bench, char kind, unsigned count)
{
    enum { BATCH = STORE_DELETE_MANY_MAX };
    cleanup(free_ptr) char *room = malloc((size_t)BATCH * (STORE_KEY_MAX + 1));
    const char *keys[BATCH];
    unsigned failed = 0; /* in a row */
    for (unsigned from = 0; room && from < count; from += BATCH) {
        unsigned n = MIN(count - from, (unsigned)BATCH);
        for (unsigned i = 0; i < n; i++) {
            keys[i] = room + (size_t)i * (STORE_KEY_MAX + 1);
            key_of(bench, room + (size_t)i * (STORE_KEY_MAX + 1), kind, from + i);
        }
        struct store_op op = {.kind = STORE_DELETE_MANY, .keys = keys, .key_count = n};
        bool all = failed >= GIVE_UP || store_wait(bench->store, &op) < 0;
        for (unsigned i = 0; i < (all ? n : op.out_list.count); i++) {
            struct store_op one = {.kind = STORE_DELETE,
                                   .key = all ? keys[i] : op.out_list.entries[i].name};
            failed = failed < GIVE_UP && store_wait(bench->store, &one) == 0 ? 0 : failed + 1;
            bench->left += failed > 0;
            store_op_reset(&one);
        }
        store_op_reset(&op);
    }
}

/* Create, the parts (one row), Complete (another one, `complete`; NULL: not wanted). */
static int run_parts(struct pass *pass, struct store_bench_row *complete, struct error *error)
{
    struct store_bench *bench = pass->bench;
    char key[STORE_KEY_MAX + 1];
    key_of(bench, key, 'u', 0);
    struct store_op create = {.kind = STORE_MPU_CREATE, .key = key};
    pass->parts = calloc(pass->count, sizeof(*pass->parts));
    int rc = pass->parts ? store_wait(bench->store, &create) : -ENOMEM;
    if (rc < 0)
        *error = create.error;
    if (rc == 0) {
        pass->upload_id = create.out_upload_id;
        rc = run_pass(pass);
    }
    if (rc == 0 && pass->row->failed == 0 && pass->row->requests) {
        struct store_op op = {.kind = STORE_MPU_COMPLETE,
                              .key = key,
                              .upload_id = create.out_upload_id,
                              .parts = pass->parts,
                              .part_count = pass->row->requests};
        uint64_t start = clock_monotonic_ns();
        double cpu = cpu_s();
        int result = store_wait(bench->store, &op);
        uint64_t took = clock_monotonic_ns() - start;
        *complete = (struct store_bench_row){.op = STORE_BENCH_COMPLETE,
                                             .parallel = 1,
                                             .requests = 1,
                                             .failed = result != 0,
                                             .seconds = (double)took / (double)NS_PER_S,
                                             .cpu_s = cpu_s() - cpu,
                                             .error = op.error};
        if (result == 0) {
            histogram_add(&complete->latency, took);
            bench->parts = pass->row->requests;
            bench->part_size = pass->size;
        }
        store_op_reset(&op);
    } else if (create.out_upload_id) {
        struct store_op op = {
            .kind = STORE_MPU_ABORT, .key = key, .upload_id = create.out_upload_id};
        store_wait(bench->store, &op);
        store_op_reset(&op);
    }
    store_op_reset(&create);
    free(TAKE_PTR(pass->parts));
    return rc;
}

int store_bench_run(struct store_bench *bench, enum store_bench_op op, size_t size, unsigned count,
                    unsigned parallel, uint32_t time_ms, struct store_bench_row row[2],
                    struct error *error)
{
    bool uses_made = op == STORE_BENCH_HEAD || op == STORE_BENCH_GET || op == STORE_BENCH_COPY ||
                     op == STORE_BENCH_DELETE;
    if (uses_made) {
        count = MIN(count, bench->made);
        size = bench->made_size;
    } else if (op == STORE_BENCH_RANGE) {
        size = bench->part_size;
    }
    if ((uses_made && bench->made == 0) || (op == STORE_BENCH_RANGE && bench->parts == 0))
        return error_set(error, -ENOENT, "%s needs what %s makes, and there is nothing",
                         kinds[op].name, uses_made ? "put" : "parts");
    if (op == STORE_BENCH_COMPLETE || count == 0 || parallel == 0)
        return error_set(error, -EINVAL, "%s cannot be run so", kinds[op].name);
    memset(row, 0, 2 * sizeof(*row));
    row->op = op;
    row->size = kinds[op].has_body ? size : 0;
    row->parallel = parallel;
    struct pass pass = {.bench = bench,
                        .op = op,
                        .size = size,
                        .count = count,
                        .until_ns = clock_monotonic_ns() + time_ms * NS_PER_MS,
                        .row = row};
    int rc = op == STORE_BENCH_PARTS ? run_parts(&pass, row + 1, error) : run_pass(&pass);
    if (op == STORE_BENCH_PUT) {
        bench->made = row->requests;
        bench->made_size = size;
        bench->most_made = MAX(bench->most_made, pass.started);
    } else if (op == STORE_BENCH_DELETE) {
        bench->made = 0;
    } else if (op == STORE_BENCH_PUT_NEW) {
        remove_keys(bench, 'n', pass.started);
    } else if (op == STORE_BENCH_COPY) {
        remove_keys(bench, 'c', pass.started);
    }
    if (rc == -ENOMEM)
        error_set(error, rc, "no memory for %u requests of %zu bytes", parallel, size);
    return rc;
}

int store_bench_new(struct store *store, const char *prefix, atomic_bool *stop,
                    struct store_bench **out)
{
    uint8_t random[8];
    struct store_bench *bench = calloc(1, sizeof(*bench));
    if (!bench)
        return -ENOMEM;
    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), bench->run);
    bench->store = store;
    bench->prefix = prefix;
    bench->stop = stop;
    *out = bench;
    return 0;
}

unsigned store_bench_done(struct store_bench *bench)
{
    if (!bench)
        return 0;
    remove_keys(bench, 'o', bench->most_made);
    remove_keys(bench, 'u', bench->parts ? 1 : 0);
    unsigned left = bench->left;
    free(bench);
    return left;
}
