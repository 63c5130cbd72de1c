/*
 * One listing of one directory: pages are fetched ahead of the one that is being applied, of a
 * large directory by several streams (list_plan.h). They are applied in the order of the keys.
 *
 * A store lists keys bytewise, the namespace orders names. They differ where a directory's name is
 * a prefix of other names: "a-b" < "a/" in the store, "a" < "a-b" here. So at the end of a page
 * a directory may be still to come whose name lies inside the range of names that the page covers.
 * Such names are prefixes of the page's last key, followed by a character below '/'. What the
 * database has under them as directories is kept until the end of the listing (`doubts`); what
 * comes late is applied by its name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "import.h"
#include "list_plan.h"
#include "list_snapshot.h"

#define REFETCH_MAX 20

struct page {
    struct list_page page;
    struct import_fetch fetch;
    struct listing *listing;
    char *token, *start_after; /* owned */
    bool asked;
};

/* A name that a later page may say more about. */
struct doubt {
    struct doubt *next;
    bool has_file; /* a file of this name was listed */
    struct meta_entry file;
    size_t len;
    char name[META_NAME_MAX + 1];
};

struct listing {
    uint64_t ino;
    struct importer *importer;
    struct meta *meta;
    char prefix[META_KEY_MAX + 1];
    size_t prefix_len;
    uint64_t asked_ns;
    bool known_before; /* the mount may have cached names of it */
    struct list_plan plan;
    unsigned in_flight;
    int failed; /* ends when all pages are back */
    struct error error;
    struct meta_object marker; /* of the directory itself; no ETag: there is none */
    unsigned refetches, page_count, moves;
    char from[META_NAME_MAX + 1]; /* names up to here are applied */
    size_t from_len;
    struct doubt *files;  /* listed as files; directories of these names may come */
    struct doubt *doubts; /* directories of the database that were not listed yet */
    struct doubt *looks;  /* files that are asked for by name before the listing ends */
    struct import_wait look;
    struct import_wait *waits, *again;
    UT_hash_handle hh;
};

/* A page as it goes to the engine. */
struct batch {
    struct meta_entry *entries; /* owned */
    size_t count, cap;
    char last_key[META_KEY_MAX + 1]; /* below the prefix */
};

/* By name; a directory before a file of the same name. */
static int compare_entries(const void *a, const void *b)
{
    const struct meta_entry *x = a, *y = b;
    int order = names_compare(x->name, x->name_len, y->name, y->name_len);
    return order ? order : y->is_dir - x->is_dir;
}

static struct meta_entry *batch_find(const struct batch *batch, const char *name, size_t len)
{
    struct meta_entry key = {.name = name, .name_len = len, .is_dir = true};
    size_t low = 0, high = batch->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare_entries(&batch->entries[mid], &key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    struct meta_entry *e = &batch->entries[low];
    return low < batch->count && !names_compare(e->name, e->name_len, name, len) ? e : NULL;
}

static int batch_insert(struct batch *batch, const struct meta_entry *entry)
{
    if (batch->count == batch->cap) {
        size_t cap = batch->cap ? 2 * batch->cap : 64;
        struct meta_entry *grown = reallocarray(batch->entries, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        batch->entries = grown;
        batch->cap = cap;
    }
    size_t at = batch->count;
    while (at && compare_entries(&batch->entries[at - 1], entry) > 0)
        at--;
    memmove(batch->entries + at + 1, batch->entries + at,
            (batch->count - at) * sizeof(*batch->entries));
    batch->entries[at] = *entry;
    batch->count++;
    return 0;
}

static struct doubt *doubt_find(struct doubt *list, const char *name, size_t len)
{
    while (list && names_compare(list->name, list->len, name, len))
        list = list->next;
    return list;
}

static struct doubt *doubt_add(struct doubt **list, const char *name, size_t len)
{
    struct doubt *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    memcpy(d->name, name, len);
    d->len = len;
    LL_PREPEND(*list, d);
    return d;
}

static void doubts_free(struct doubt **list)
{
    while (*list) {
        struct doubt *d = *list;
        *list = d->next;
        free(d);
    }
}

static void hide(struct listing *l, const char *name, size_t len, enum names_problem problem)
{
    char key[META_KEY_MAX + 1];
    len = MIN(len, META_KEY_MAX - l->prefix_len);
    memcpy(key, l->prefix, l->prefix_len);
    memcpy(key + l->prefix_len, name, len);
    key[l->prefix_len + len] = '\0';
    names_hidden_add(l->importer->hidden, l->ino, key, problem);
}

/* Page → batch */

static void take_marker(struct listing *l, const struct store_entry *from)
{
    l->marker.mtime_ns = from->mtime_ns;
    memcpy(l->marker.etag, from->etag, sizeof(l->marker.etag));
}

/* 1: left out, 0: filled, -EAGAIN: the page is older than a change of ours. */
static int convert(struct listing *l, const struct page *page, const struct store_entry *from,
                   struct meta_entry *to)
{
    if (strncmp(from->name, l->prefix, l->prefix_len))
        return 1;
    const char *name = from->name + l->prefix_len;
    size_t len = strlen(name);
    struct import_change *change;
    HASH_FIND_STR(page->fetch.changes, from->name, change);
    if (!len && !from->is_prefix) {
        if (from->size)
            hide(l, name, len, NAMES_SLASH_DATA);
        else if (!change)
            take_marker(l, from);
        return 1;
    }
    if (from->is_prefix)
        len--;
    if (import_is_internal(l->importer, l->prefix, name, len))
        return 1;
    enum names_problem problem = names_check(name, len);
    if (problem) {
        hide(l, name, strlen(name), problem);
        return 1;
    }
    if (change && (change->written || from->is_prefix))
        return -EAGAIN; /* (Of a prefix it is the marker that is gone.) */
    if (change)
        return 1;
    *to = (struct meta_entry){.name = name,
                              .name_len = len,
                              .is_dir = from->is_prefix,
                              .mtime_ns = from->mtime_ns,
                              .size = from->size};
    memcpy(to->etag, from->etag, sizeof(to->etag));
    return 0;
}

/* A key of this directory that we wrote while the page was fetched may be missing in it. */
static bool wrote_meanwhile(const struct listing *l, const struct page *page)
{
    const char *begin = page->page.begin, *end = page->page.end;
    for (const struct import_change *c = page->fetch.changes; c; c = c->hh.next)
        if (c->written && !strchr(c->key + l->prefix_len, '/') &&
            (!begin || strcmp(c->key, begin) > 0) && (!end || strcmp(c->key, end) <= 0))
            return true;
    return false;
}

static int fill_batch(struct listing *l, const struct page *page, struct batch *batch)
{
    const struct store_entry *listed = page->page.answer->entries;
    size_t count = page->page.count;
    if (wrote_meanwhile(l, page))
        return -EAGAIN;
    if (!page->page.begin)
        l->marker = (struct meta_object){0};
    batch->cap = count + 16;
    batch->entries = calloc(batch->cap, sizeof(*batch->entries));
    if (!batch->entries)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        int rc = convert(l, page, &listed[i], &batch->entries[batch->count]);
        if (rc < 0)
            return rc;
        batch->count += !rc;
    }
    if (count) {
        const char *last = listed[count - 1].name;
        snprintf(batch->last_key, sizeof(batch->last_key), "%s",
                 strlen(last) >= l->prefix_len ? last + l->prefix_len : "");
    }
    qsort(batch->entries, batch->count, sizeof(*batch->entries), compare_entries);
    return 0;
}

/* A directory hides the file of the same name, on this page or an earlier one. */
static void hide_twins(struct listing *l, struct batch *batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct meta_entry *e = &batch->entries[i];
        const struct meta_entry *before = kept ? &batch->entries[kept - 1] : NULL;
        if (before && !names_compare(before->name, before->name_len, e->name, e->name_len)) {
            hide(l, e->name, e->name_len, NAMES_BESIDE);
            continue;
        }
        struct doubt *doubt = e->is_dir ? doubt_find(l->doubts, e->name, e->name_len) : NULL;
        if (e->is_dir && (doubt_find(l->files, e->name, e->name_len) || (doubt && doubt->has_file)))
            hide(l, e->name, e->name_len, NAMES_BESIDE);
        if (doubt) {
            LL_DELETE(l->doubts, doubt);
            free(doubt);
        }
        batch->entries[kept++] = *e;
    }
    batch->count = kept;
}

/* A directory of this name may still come. If the database has one, it stays for now. */
static int keep_doubtful(struct listing *l, struct batch *batch, const char *name, size_t len)
{
    if (names_compare(name, len, l->from, l->from_len) <= 0 || names_check(name, len))
        return 0;
    struct meta_entry *listed = batch_find(batch, name, len);
    if (listed && listed->is_dir)
        return 0;
    struct meta_op op = {.kind = META_LOOKUP, .parent = l->ino, .name = {name, len}};
    struct meta_reply reply;
    int rc = volume_read(l->meta, &op, &reply);
    bool is_dir = !rc && S_ISDIR(reply.attr.mode);
    meta_reply_done(&reply);
    if (!is_dir)
        return 0;
    struct doubt *doubt = doubt_add(&l->doubts, name, len);
    if (!doubt)
        return -ENOMEM;
    if (listed) {
        doubt->has_file = true;
        doubt->file = *listed;
        doubt->file.name = doubt->name;
        *listed = (struct meta_entry){.name = doubt->name, .name_len = len, .is_dir = true};
        return 0;
    }
    struct meta_entry entry = {.name = doubt->name, .name_len = len, .is_dir = true};
    return batch_insert(batch, &entry);
}

/* Whether the directory `name` may be listed after `last`. */
static bool may_come_back(const char *last, const char *name, size_t len)
{
    return !strncmp(last, name, len) && (unsigned char)last[len] < '/';
}

/* For each prefix of the last key that may come back as a directory. */
static int keep_all_doubtful(struct listing *l, struct batch *batch)
{
    const char *last = batch->last_key;
    for (size_t i = 1; last[i - 1] && last[i - 1] != '/' && i <= META_NAME_MAX; i++) {
        int rc = may_come_back(last, last, i) ? keep_doubtful(l, batch, last, i) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* Remembers the files whose names may come again as directories. */
static int remember_files(struct listing *l, const struct batch *batch)
{
    struct doubt *d, *next;
    LL_FOREACH_SAFE(l->files, d, next)
    {
        if (!may_come_back(batch->last_key, d->name, d->len)) {
            LL_DELETE(l->files, d);
            free(d);
        }
    }
    for (size_t i = 0; i < batch->count; i++) {
        const struct meta_entry *e = &batch->entries[i];
        if (!e->is_dir && may_come_back(batch->last_key, e->name, e->name_len) &&
            !doubt_add(&l->files, e->name, e->name_len))
            return -ENOMEM;
    }
    return 0;
}

/* Applying a page */

static int apply_range(struct listing *l, const struct batch *batch, size_t first, bool last)
{
    size_t count = batch->count - first;
    const struct meta_entry *end = count ? &batch->entries[batch->count - 1] : NULL;
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = l->ino,
                         .name = {l->from, l->from_len},
                         .data = l->prefix,
                         .data_len = l->prefix_len,
                         .attr.mtime_ns = l->asked_ns,
                         .entries = batch->entries + first,
                         .entry_count = count,
                         .objects = &l->marker,
                         .object_count = last && l->marker.etag[0],
                         .flags = last ? META_IMPORT_LAST : 0};
    if (!last)
        op.new_name = (struct meta_name){end->name, end->name_len};
    struct list_snapshot before = {0}, after = {0};
    struct meta_reply reply;
    int rc =
        l->known_before ? list_snapshot_take(l->meta, l->ino, &op.name, &op.new_name, &before) : 0;
    if (!rc) {
        rc = volume_apply(l->meta, &op, &reply);
        if (!rc)
            volume_names_gone(l->meta, &reply);
        for (size_t i = 0; !rc && i < reply.entry_count; i++)
            if (!reply.entries[i].ino &&
                !doubt_add(&l->looks, reply.entries[i].name, reply.entries[i].name_len))
                rc = -ENOMEM;
        meta_reply_done(&reply);
    }
    if (!rc && l->known_before) {
        rc = list_snapshot_take(l->meta, l->ino, &op.name, &op.new_name, &after);
        if (!rc)
            list_snapshot_tell(l->meta, l->ino, &before, &after);
    }
    list_snapshot_done(&before);
    list_snapshot_done(&after);
    if (!rc && end) {
        memcpy(l->from, end->name, end->name_len);
        l->from_len = end->name_len;
    }
    l->importer->listed_keys += count;
    metric_add(l->importer->keys, count);
    return rc;
}

/* Directories of the database that the listing did not show after all. */
static int resolve_doubts(struct listing *l)
{
    int rc = 0;
    struct import_question question = {l->prefix, l->asked_ns};
    for (struct doubt *d = l->doubts; d && !rc; d = d->next) {
        struct meta_name name = {d->name, d->len};
        rc = import_one(l->importer, l->ino, &question, &name, d->has_file ? &d->file : NULL);
    }
    return rc;
}

static int apply_page(struct listing *l, const struct page *page)
{
    bool last = page->page.last;
    struct batch batch = {0};
    int rc = fill_batch(l, page, &batch);
    if (!rc)
        hide_twins(l, &batch);
    if (!rc && !last)
        rc = keep_all_doubtful(l, &batch);
    size_t first = 0;
    while (!rc && first < batch.count && l->from_len &&
           names_compare(batch.entries[first].name, batch.entries[first].name_len, l->from,
                         l->from_len) <= 0) {
        const struct meta_entry *late = &batch.entries[first++];
        struct meta_name name = {late->name, late->name_len};
        struct import_question question = {l->prefix, l->asked_ns};
        rc = import_one(l->importer, l->ino, &question, &name, late);
    }
    if (!rc && !last)
        rc = remember_files(l, &batch);
    if (!rc && (last || first < batch.count))
        rc = apply_range(l, &batch, first, last);
    if (!rc && last)
        rc = resolve_doubts(l);
    free(batch.entries);
    return rc;
}

/* The way of a listing */

static void page_done(struct work_op *work);

static void set_failed(struct listing *l, int rc, const struct error *error)
{
    if (l->failed)
        return;
    l->failed = rc;
    l->error = error ? *error : (struct error){0};
}

static void page_free(struct page *page)
{
    if (!page)
        return;
    if (page->asked)
        import_fetch_done(page->listing->importer, &page->fetch);
    store_op_reset(&page->fetch.work.op);
    list_page_done(&page->page);
    free(page->token);
    free(page->start_after);
    free(page);
}

static void fetch_page(struct listing *l, struct page *page)
{
    struct import_fetch *fetch = &page->fetch;
    fetch->work.op = (struct store_op){.kind = STORE_LIST,
                                       .priority = STORE_DEMAND,
                                       .prefix = l->prefix,
                                       .delimiter = "/",
                                       .start_after = page->start_after,
                                       .token = page->token};
    fetch->work.done = page_done;
    fetch->work.arg = page;
    memcpy(fetch->watch, l->prefix, l->prefix_len + 1);
    page->asked = true;
    l->in_flight++;
    import_fetch_submit(l->importer, fetch);
}

/* All listings share the streams of one. */
static unsigned streams_of(const struct listing *l)
{
    if (!store_caps_at(l->meta->store, l->prefix)->lists_at_once)
        return 1;
    return MAX(LIST_STREAMS / MAX(l->importer->running, 1), 1);
}

/* As many pages as there may be. */
static void ask(struct listing *l)
{
    l->plan.streams = streams_of(l);
    while (!l->failed) {
        const char *start_after = NULL, *token = NULL;
        struct page *page = calloc(1, sizeof(*page));
        if (!page || !list_plan_ask(&l->plan, &page->page, &start_after, &token)) {
            page_free(page);
            return;
        }
        page->listing = l;
        page->token = token ? strdup(token) : NULL;
        page->start_after = start_after ? strdup(start_after) : NULL;
        if ((token && !page->token) || (start_after && !page->start_after))
            set_failed(l, -ENOMEM, NULL);
        else
            fetch_page(l, page);
    }
}

/* No page is in flight. */
static void forget_pages(struct listing *l)
{
    struct list_page *page;
    while ((page = list_plan_drop(&l->plan)))
        page_free(container_of(page, struct page, page));
    list_plan_done(&l->plan);
}

static void call_waits(struct import_wait *wait, int rc, const struct error *error)
{
    for (struct import_wait *next; wait; wait = next) {
        next = wait->next;
        wait->done(wait, rc, error);
    }
}

static void start(struct listing *l);

static void finish(struct listing *l, int rc, const struct error *error)
{
    struct importer *importer = l->importer;
    forget_pages(l);
    struct import_dir *dir = import_dir_get(importer, l->ino);
    if (rc) {
        import_failed(importer, error);
    } else {
        import_reached(importer);
        l->known_before = true;
        importer->listed_dirs++;
        metric_add(importer->listings_total, 1);
        if (dir) {
            dir->pages = l->page_count;
            dir->singles = 0;
        }
    }
    struct import_wait *waits = TAKE_PTR(l->waits);
    if (l->again && !importer->stopped) {
        l->waits = TAKE_PTR(l->again);
        start(l);
        call_waits(waits, rc, error);
        return;
    }
    struct import_wait *again = TAKE_PTR(l->again);
    HASH_DEL(importer->listings, l);
    importer->running--;
    struct meta *meta = l->meta;
    call_waits(waits, rc, error);
    call_waits(again, rc ? rc : -ECANCELED, error);
    doubts_free(&l->files);
    doubts_free(&l->doubts);
    doubts_free(&l->looks);
    free(l);
    work_end(meta);
}

static void look_next(struct listing *l);

static void looked(struct import_wait *wait, int rc, const struct error *error)
{
    struct listing *l = container_of(wait, struct listing, look);
    if (rc)
        finish(l, rc, error);
    else
        look_next(l);
}

/* All pages are applied. */
static void look_next(struct listing *l)
{
    struct doubt *d = l->looks;
    if (!d) {
        finish(l, 0, NULL);
        return;
    }
    char text[META_NAME_MAX + 1];
    struct meta_name name = {text, d->len};
    memcpy(text, d->name, d->len);
    l->looks = d->next;
    free(d);
    l->look.done = looked;
    import_ask(l->importer, l->ino, &name, &l->look);
}

/* The directory comes from another prefix by now: that one is listed. False: from none, or it moves
 * too often. */
static bool list_elsewhere(struct listing *l, int *rc)
{
    uint64_t listed_ns;
    int got = engine_origin(l->meta->engine, l->ino, l->prefix, &listed_ns);
    if (got == -ENODATA)
        *rc = 0; /* there is nothing to be listed */
    if (got || l->moves++ == REFETCH_MAX)
        return false;
    l->prefix_len = strlen(l->prefix);
    l->known_before = l->known_before || listed_ns;
    start(l);
    return true;
}

static void fail(struct listing *l)
{
    int rc = l->failed;
    struct error error = l->error;
    if (rc == -ESTALE) {
        forget_pages(l);
        if (list_elsewhere(l, &rc))
            return;
    }
    if (rc && !error.code)
        error_set(&error, rc, "listing of \"%s\": %s", l->prefix,
                  l->plan.unordered ? "the server does not list in order" : strerror(-rc));
    finish(l, rc, &error);
}

/* True: the listing is over. */
static bool take_page(struct listing *l, struct page *page)
{
    bool last = page->page.last;
    int rc = apply_page(l, page);
    bool again = rc == -EAGAIN && ++l->refetches < REFETCH_MAX;
    if (again)
        rc = list_plan_again(&l->plan, &page->page);
    else if (!rc)
        l->page_count++;
    page_free(page);
    if (rc)
        set_failed(l, rc, NULL); /* here, not in the store */
    else if (last && !again)
        look_next(l);
    return !rc && last && !again;
}

static void advance(struct listing *l)
{
    for (;;) {
        if (l->importer->stopped)
            set_failed(l, -ECANCELED, NULL);
        if (l->failed) {
            if (!l->in_flight)
                fail(l);
            return;
        }
        ask(l);
        struct list_page *page = list_plan_take(&l->plan);
        if (page && take_page(l, container_of(page, struct page, page)))
            return;
        if (!page && l->in_flight)
            return;
        if (!page)
            set_failed(l, -ENOMEM, NULL); /* nothing could be asked */
    }
}

static void page_done(struct work_op *work)
{
    struct page *page = container_of(work, struct page, fetch.work);
    struct listing *l = page->listing;
    int rc = work->op.result;
    l->in_flight--;
    if (rc)
        set_failed(l, rc, &work->op.error);
    else if (!l->failed)
        rc = list_plan_answer(&l->plan, &page->page, &work->op.out_list);
    if (rc)
        set_failed(l, rc, NULL);
    advance(l);
}

static void start(struct listing *l)
{
    struct list_range range = {.prefix = l->prefix, .folders = true};
    doubts_free(&l->files);
    doubts_free(&l->doubts);
    doubts_free(&l->looks);
    l->failed = 0;
    l->refetches = l->page_count = 0;
    l->from_len = 0;
    l->asked_ns = meta_time_ns(l->meta);
    names_hidden_reset(l->importer->hidden, l->ino);
    int rc = list_plan_init(&l->plan, &range, streams_of(l));
    if (rc)
        set_failed(l, rc, NULL);
    advance(l);
}

static struct listing *listing_new(struct importer *importer, uint64_t ino, int *rc)
{
    struct listing *l = calloc(1, sizeof(*l));
    uint64_t listed_ns = 0;
    *rc = -ENOMEM;
    if (!l)
        return NULL;
    *rc = importer->stopped ? -ECANCELED
                            : engine_origin(importer->meta->engine, ino, l->prefix, &listed_ns);
    if (*rc) {
        free(l);
        return NULL;
    }
    l->ino = ino;
    l->importer = importer;
    l->meta = importer->meta;
    l->prefix_len = strlen(l->prefix);
    l->known_before = listed_ns != 0;
    HASH_ADD(hh, importer->listings, ino, sizeof(l->ino), l);
    importer->running++;
    work_begin(l->meta);
    return l;
}

static void join(struct importer *importer, uint64_t ino, struct import_wait *wait, bool again)
{
    struct listing *l;
    HASH_FIND(hh, importer->listings, &ino, sizeof(ino), l);
    if (wait)
        wait->next = NULL;
    if (l) {
        if (wait && again)
            LL_PREPEND(l->again, wait);
        else if (wait)
            LL_PREPEND(l->waits, wait);
        return;
    }
    int rc;
    l = listing_new(importer, ino, &rc);
    if (!l) {
        struct error error;
        error_set(&error, rc, "cannot list a directory: %s", strerror(-rc));
        if (wait)
            wait->done(wait, rc, &error);
        return;
    }
    if (wait)
        LL_PREPEND(l->waits, wait);
    start(l);
}

void listing_join(struct importer *importer, uint64_t ino, struct import_wait *wait)
{
    join(importer, ino, wait, false);
}

void listing_again(struct importer *importer, uint64_t ino, struct import_wait *wait)
{
    join(importer, ino, wait, true);
}
