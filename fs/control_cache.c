/* What the control file says of the cache, and does with it. */
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
