/* What the control file says of the cache, and does with it. */
#include <errno.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "cache/cache.h"
#include "front_control.h"

static json_t *directory_json(const struct cache_directory_status *d)
{
    json_t *path = json_string(d->path);
    return json_pack("{s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "path",
                     path ? path : json_string("a name that is not UTF-8"), "health",
                     cache_health_name(d->health), "contents", (json_int_t)d->contents, "pages",
                     (json_int_t)d->pages, "bytes", (json_int_t)d->bytes, "capacity_bytes",
                     (json_int_t)d->capacity_bytes, "disk_free_bytes", (json_int_t)d->disk_free,
                     "disk_bytes", (json_int_t)d->disk_size);
}

json_t *control_cache_json(struct fs *fs)
{
    struct cache *cache = data_cache(fs->data);
    struct cache_status s;
    if (!cache)
        return json_null();
    cache_status(cache, &s);
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"contents", s.contents},
        {"pages", s.pages},
        {"bytes", s.bytes},
        {"memory_bytes", s.memory_bytes},
        {"hit_bytes", s.hit_bytes},
        {"miss_bytes", s.miss_bytes},
        {"read_bytes", s.read_bytes},
        {"filled_bytes", s.filled_bytes},
        {"evicted_bytes", s.evicted_bytes},
        {"fills_dropped", s.fills_dropped},
        {"corrupt_pages", s.corrupt_pages},
        {"read_errors", s.read_errors},
        {"write_errors", s.write_errors},
        {"timeouts", s.timeouts},
    };
    json_t *out = json_object();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        json_object_set_new(out, rows[i].name, json_integer((json_int_t)rows[i].value));
    json_t *directories = json_array();
    for (unsigned i = 0; i < s.directory_count; i++)
        json_array_append_new(directories, directory_json(&s.directories[i]));
    json_object_set_new(out, "directories", directories);
    return out;
}

/* --- Requests */

/* What concerns all users of the mount. */
static bool is_master(const struct control_handle *h)
{
    return h->caller.uid == 0 || h->caller.uid == h->fs->owner;
}

static int may(const struct control_handle *h, const struct meta_attr *attr)
{
    if (!S_ISREG(attr->mode))
        return S_ISDIR(attr->mode) ? -EISDIR : -EINVAL;
    if (h->request.op == CONTROL_CACHED)
        return control_may(&h->caller, attr, CONTROL_MAY_READ) ? 0 : -EACCES;
    if (h->request.op == CONTROL_EVICT)
        return is_master(h) || control_may(&h->caller, attr, CONTROL_MAY_WRITE) ? 0 : -EACCES;
    return is_master(h) ? 0 : -EPERM;
}

void control_run_cached(struct control_handle *h)
{
    struct meta_attr attr;
    struct data_cached cached;
    enum data_cached_do what = h->request.op == CONTROL_EVICT   ? DATA_CACHED_EVICT
                               : h->request.op == CONTROL_PIN   ? DATA_CACHED_PIN
                               : h->request.op == CONTROL_UNPIN ? DATA_CACHED_UNPIN
                                                                : DATA_CACHED_LOOK;
    int result = control_walk(h, &h->request.path, &attr);
    if (result == 0)
        result = may(h, &attr);
    if (result == 0)
        result = data_cached(h->fs->data, attr.ino, what, &cached);
    if (result < 0) {
        control_fail(h, result, result == -EOPNOTSUPP ? "this mount has no cache" : NULL);
        return;
    }
    control_put_json(&h->reply,
                     json_pack("{s:b,s:I,s:I,s:b}", "ok", 1, "size", (json_int_t)cached.size,
                               "cached_bytes", (json_int_t)cached.cached_bytes, "pinned",
                               (int)cached.pinned));
}

static bool still_wanted(void *arg, uint64_t pages, uint64_t total)
{
    struct control_handle *h = arg;
    (void)pages;
    (void)total;
    pthread_mutex_lock(&h->lock);
    bool wanted = !h->closed;
    pthread_mutex_unlock(&h->lock);
    return wanted;
}

void control_run_cache(struct control_handle *h)
{
    struct cache *cache = data_cache(h->fs->data);
    if (!cache || !is_master(h)) {
        control_fail(h, cache ? -EPERM : -EOPNOTSUPP,
                     cache ? "only root and who mounted may do this" : "this mount has no cache");
        return;
    }
    if (h->request.op == CONTROL_CACHE_CLEAR) {
        cache_clear(cache);
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
        return;
    }
    struct cache_verify_result found;
    int result = cache_verify(cache, still_wanted, h, &found);
    if (result < 0) {
        control_fail(h, result, NULL);
        return;
    }
    control_put_json(&h->reply, json_pack("{s:b,s:I,s:I,s:I,s:I}", "ok", 1, "pages",
                                          (json_int_t)found.pages, "bytes", (json_int_t)found.bytes,
                                          "corrupt_pages", (json_int_t)found.corrupt_pages,
                                          "unreadable_pages", (json_int_t)found.unreadable_pages));
}
