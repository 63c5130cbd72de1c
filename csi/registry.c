#include "registry.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

struct registry {
    pthread_mutex_t lock; /* guards volumes; held while the small file is written, so that the last
                             state is the one that stays */
    json_t *volumes;      /* id → size */
    char *path, *fresh;
};

struct registry *registry_open(const char *state_dir)
{
    struct registry *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    pthread_mutex_init(&r->lock, NULL);
    if (asprintf(&r->path, "%s/registry.json", state_dir) < 0)
        r->path = NULL;
    if (asprintf(&r->fresh, "%s/registry.json.new", state_dir) < 0)
        r->fresh = NULL;
    r->volumes = r->path ? json_load_file(r->path, 0, NULL) : NULL;
    if (!json_is_object(r->volumes)) {
        json_decref(r->volumes);
        r->volumes = json_object();
    }
    if (r->path && r->fresh && r->volumes)
        return r;
    registry_close(r);
    return NULL;
}

void registry_close(struct registry *registry)
{
    if (!registry)
        return;
    json_decref(registry->volumes);
    free(registry->path);
    free(registry->fresh);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

static void save_locked(struct registry *r)
{
    if (json_dump_file(r->volumes, r->fresh, JSON_COMPACT) < 0 || rename(r->fresh, r->path) < 0)
        log_warn("the list of volumes could not be stored", "path=%s error=\"%s\"", r->path,
                 strerror(errno));
}

void registry_put(struct registry *registry, const char *id, int64_t size)
{
    pthread_mutex_lock(&registry->lock);
    if (json_object_set_new(registry->volumes, id, json_integer(size)) == 0)
        save_locked(registry);
    pthread_mutex_unlock(&registry->lock);
}

void registry_remove(struct registry *registry, const char *id)
{
    pthread_mutex_lock(&registry->lock);
    if (json_object_del(registry->volumes, id) == 0)
        save_locked(registry);
    pthread_mutex_unlock(&registry->lock);
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool fill_locked(struct registry *registry, const char *token, unsigned max,
                        struct registry_page *out)
{
    size_t all = json_object_size(registry->volumes), count = 0;
    const char **ids = calloc(all + 1, sizeof(*ids)), *id = NULL;
    json_t *size = NULL;
    out->entries = calloc(all + 1, sizeof(*out->entries));
    bool good = ids && out->entries;
    if (good)
        json_object_foreach(registry->volumes, id, size) if (strcmp(id, token) > 0) ids[count++] =
            id;
    if (good)
        qsort(ids, count, sizeof(*ids), compare_ids);
    size_t take = max && max < count ? max : count;
    for (size_t i = 0; good && i < take; i++) {
        out->entries[i].id = strdup(ids[i]);
        out->entries[i].size = json_integer_value(json_object_get(registry->volumes, ids[i]));
        out->count++;
        good = out->entries[i].id != NULL;
    }
    if (good && take < count)
        good = (out->next = strdup(ids[take - 1])) != NULL;
    free(ids);
    return good;
}

bool registry_page(struct registry *registry, const char *token, unsigned max,
                   struct registry_page *out)
{
    *out = (struct registry_page){0};
    if (*token && !strstr(token, "://"))
        return false;
    pthread_mutex_lock(&registry->lock);
    bool good = fill_locked(registry, token, max, out);
    pthread_mutex_unlock(&registry->lock);
    if (!good)
        registry_page_done(out);
    return good;
}

void registry_page_done(struct registry_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->entries[i].id);
    free(page->entries);
    free(page->next);
    *page = (struct registry_page){0};
}
