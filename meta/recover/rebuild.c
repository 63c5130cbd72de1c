/*
 * Rebuild from one flat listing. Names come from keys in rebuild_tree.c.
 */
#include "meta/rebuild.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "engine/names.h"
#include "rebuild_entries.h"
#include "rebuild_state.h"
#include "rebuild_tree.h"
#include "volume/bucket_list.h"
#include "volume/many.h"
#include "volume/volume.h"

#define PARALLEL_DEFAULT 64
#define SAVE_NS (5 * NS_PER_S)

struct rebuild {
    const struct rebuild_config *config;
    struct meta *meta;
    struct rebuild_tree tree;
    unsigned parallel;
    struct rebuild_state state;
    uint64_t saved_ns;
    struct error *error;
};

static bool is_internal(const struct rebuild *r, const char *key)
{
    return !strncmp(key, r->meta->internal, strlen(r->meta->internal));
}

static bool is_absence(int result)
{
    return result == -ENOENT || result == -ENOTDIR || result == -EISDIR;
}

static int apply_looked(struct rebuild *r, const struct store_entry *e, struct store_op *op)
{
    struct meta_entry file = {.mtime_ns = e->mtime_ns, .size = e->size};
    if (!op->key) {
        memcpy(file.etag, e->etag, sizeof(file.etag));
        return rebuild_tree_add(&r->tree, e->name, &file);
    }
    if (is_absence(op->result))
        return 0; /* deleted since it was listed */
    if (op->result) {
        *r->error = op->error;
        error_prefix(r->error, "cannot read the attributes of %s", e->name);
        return op->result;
    }
    file.size = op->info.size;
    file.mtime_ns = op->info.mtime_ns;
    memcpy(file.etag, op->info.etag, sizeof(file.etag));
    file.has_attr = tags_parse(op, &file.attr);
    return rebuild_tree_add(&r->tree, e->name, &file);
}

static int apply_page(struct rebuild *r, const struct store_list *list)
{
    cleanup(free_ptr) struct store_op *heads = calloc(list->count + 1, sizeof(*heads));
    if (!heads)
        return -ENOMEM;
    for (size_t i = 0; i < list->count; i++) {
        const char *key = list->entries[i].name;
        size_t len = strlen(key);
        if (!is_internal(r, key) && len && key[len - 1] != '/')
            heads[i] =
                (struct store_op){.kind = STORE_HEAD, .key = r->config->no_attributes ? NULL : key};
    }
    if (!r->config->no_attributes)
        many_run(r->meta->store, heads, list->count, r->parallel);
    int rc = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct store_entry *e = &list->entries[i];
        if (!rc && strlen(e->name) >= r->tree.prefix_len && !is_internal(r, e->name))
            rc = apply_looked(r, e, &heads[i]);
        store_op_reset(&heads[i]);
    }
    return rc;
}

/* Saving how far it came */

static int save(struct rebuild *r, const char *after)
{
    int rc = rebuild_tree_flush(&r->tree);
    if (rc > 0)
        return 0; /* not to be decided yet: later */
    if (!rc)
        rc = engine_sync(r->meta->engine);
    crash_point("rebuild.synced");
    if (rc)
        return rc;
    snprintf(r->state.after, sizeof(r->state.after), "%s", after);
    rc = rebuild_state_save(r->meta->directory, "rebuild", &r->state, r->error);
    crash_point("rebuild.saved");
    return rc;
}

static int list_all(struct rebuild *r)
{
    struct bucket_list list;
    const struct store_list *page;
    /* The volume's own keys may be many: they are jumped over. */
    char after[META_KEY_MAX + 1];
    struct list_range range = {
        .prefix = r->meta->format.prefix, .after = after, .skip = r->meta->internal};
    int rc;
    snprintf(after, sizeof(after), "%s", r->state.after);
    bucket_list_init(&list, r->meta->store, STORE_LIST, &range);
    while ((rc = bucket_list_next(&list, &page, r->error)) > 0) {
        rc = apply_page(r, page);
        crash_point("rebuild.page");
        if (!rc && page->count && clock_monotonic_ns() > r->saved_ns + SAVE_NS) {
            rc = save(r, page->entries[page->count - 1].name);
            r->saved_ns = clock_monotonic_ns();
        }
        if (r->config->progress)
            r->config->progress(r->config->arg, &r->state.counts);
        if (rc)
            break;
    }
    bucket_list_done(&list);
    int end = rebuild_tree_end(&r->tree, !rc);
    return rc ? rc : end;
}

static int run(struct rebuild *r)
{
    r->saved_ns = clock_monotonic_ns();
    int rc = rebuild_tree_begin(&r->tree, r->meta, &r->state.counts, r->error);
    if (!rc)
        rc = list_all(r);
    if (!rc)
        rc = rebuild_entries(r->meta, r->parallel, &r->state.counts.entries, r->error);
    if (!rc)
        rc = engine_sync(r->meta->engine);
    return rc;
}

int meta_rebuild(const struct rebuild_config *config, struct rebuild_counts *counts, json_t *hidden,
                 struct error *error)
{
    struct error own = {0};
    struct rebuild r = {.config = config, .error = error ? error : &own};
    struct meta_config volume = config->volume;
    volume.no_settle = true;
    error_clear(r.error);
    int rc = rebuild_state_begin(volume.directory, &r.state, r.error);
    if (!rc)
        rc = meta_open(&volume, &r.meta, r.error);
    if (rc) {
        rebuild_state_drop(volume.directory);
        return rc;
    }
    r.parallel = config->parallel ? config->parallel : PARALLEL_DEFAULT;
    rc = run(&r);
    *counts = r.state.counts;
    if (hidden && r.tree.hidden)
        names_hidden_status(r.tree.hidden, hidden);
    names_hidden_free(r.tree.hidden);
    meta_close(r.meta);
    crash_point("rebuild.closed");
    if (!rc)
        rc = rebuild_state_end(volume.directory, "rebuild", r.error);
    if (rc && !r.error->code)
        error_set(r.error, rc, "rebuild: %s", strerror(-rc));
    return rc;
}
