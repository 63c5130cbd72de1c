/*
 * The bucket cannot be reached: for a while (config.offline_ms) what is known of it is answered as
 * if it had been looked at just now, so that what is cached stays readable. Meanwhile it is asked
 * again now and then, for one of the names that were wanted; the first good answer ends it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "import.h"

#define PROBE_EVERY_NS (5 * NS_PER_S)

/* Asks for a name, or a listing, for nobody. */
struct probe {
    struct loop_task task;
    struct import_wait wait;
    struct importer *importer;
    uint64_t dir;
    size_t name_len; /* 0: the listing */
    char name[META_NAME_MAX];
};

void import_unreachable(struct importer *importer, const struct error *error)
{
    /* A server that answers is there, whatever it says of this request. */
    bool answered = error->http_status > 0 && error->http_status < 500;
    if (answered || error->code == -ECANCELED || atomic_load(&importer->unreachable_ns))
        return;
    atomic_store(&importer->unreachable_ns, clock_monotonic_ns());
    if (importer->meta->config.offline_ms > 0)
        log_warn("the bucket cannot be reached: names are answered as they were known", "for_ms=%u",
                 importer->meta->config.offline_ms);
}

void import_reached(struct importer *importer)
{
    if (atomic_exchange(&importer->unreachable_ns, 0) && importer->meta->config.offline_ms > 0)
        log_info("the bucket can be reached again");
}

bool importer_offline(struct importer *importer)
{
    uint64_t since = atomic_load_explicit(&importer->unreachable_ns, memory_order_relaxed);
    return since && clock_monotonic_ns() - since < importer->meta->config.offline_ms * NS_PER_MS;
}

static void probe_done(struct import_wait *wait, int result, const struct error *error)
{
    free(container_of(wait, struct probe, wait));
}

static void run_probe(struct loop_task *task)
{
    struct probe *probe = container_of(task, struct probe, task);
    struct meta_name name = {probe->name, probe->name_len};
    if (probe->name_len)
        import_ask(probe->importer, probe->dir, &name, &probe->wait);
    else
        listing_join(probe->importer, probe->dir, &probe->wait);
}

void importer_probe(struct importer *importer, const struct meta_op *op)
{
    uint64_t now = clock_monotonic_ns(), due = atomic_load(&importer->probe_due_ns);
    bool listing = op->kind == META_READDIR;
    if ((!listing && op->kind != META_LOOKUP) || now < due || op->name.len > META_NAME_MAX ||
        !atomic_compare_exchange_strong(&importer->probe_due_ns, &due, now + PROBE_EVERY_NS))
        return;
    struct probe *probe = calloc(1, sizeof(*probe));
    if (!probe)
        return;
    probe->task.run = run_probe;
    probe->wait.done = probe_done;
    probe->importer = importer;
    probe->dir = listing ? op->ino : op->parent;
    probe->name_len = listing ? 0 : op->name.len;
    memcpy(probe->name, op->name.bytes, probe->name_len);
    loop_post(importer->meta->work, &probe->task);
}
