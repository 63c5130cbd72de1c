/* The stores of a volume and its migrations, for people. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "remote/remote_stores.h"
#include "stores_link.h"
#include "volume.h"

static json_t *path_json(struct meta *meta, uint64_t ino)
{
    struct meta_op op = {.kind = META_PATH, .ino = ino};
    struct meta_reply reply;
    json_t *out = NULL;
    if (ino && volume_read(meta, &op, &reply) == 0)
        out = json_stringn(reply.data_len ? reply.data : "", reply.data_len);
    if (ino)
        meta_reply_done(&reply);
    return out ? out : json_null();
}

static json_t *own_json(struct meta *meta)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:s, s:b, s:b}", "name", META_STORE_OWN, "number", 0,
                     "url", meta->format.store, "prefix", meta->format.prefix, "path", "",
                     "read_only", meta->config.read_only, "connected", true);
}

/* A copy of what is shown, so that nothing is locked while the paths are found. */
struct shown {
    struct meta_store info;
    bool connected;
    char why[256];
};

static unsigned copy_links(struct stores *stores, struct shown *out)
{
    unsigned count = 0;
    pthread_mutex_lock(&stores->lock);
    for (unsigned i = 1; i <= META_STORES_MAX; i++) {
        const struct link *l = stores->links[i];
        if (!l)
            continue;
        out[count].info = l->info;
        out[count].connected = l->connected;
        memcpy(out[count++].why, l->why, sizeof(l->why));
    }
    pthread_mutex_unlock(&stores->lock);
    return count;
}

static json_t *shown_json(struct meta *meta, const struct shown *s)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:o, s:b, s:b, s:b, s:s, s:o*}", "name", s->info.name,
                     "number", (int)s->info.number, "url", s->info.url, "prefix", s->info.prefix,
                     "path", path_json(meta, s->info.root), "read_only", s->info.read_only,
                     "connected", s->connected, "detaching", s->info.detaching, "error", s->why,
                     "options", json_loads(s->info.options, 0, NULL));
}

static const char *name_of(const struct shown *shown, unsigned count, unsigned number)
{
    for (unsigned i = 0; i < count; i++)
        if (shown[i].info.number == number)
            return shown[i].info.name;
    return number ? "?" : META_STORE_OWN;
}

static json_t *place_json(struct meta *meta, const struct engine_place *place, const char *to)
{
    struct meta_op usage = {.kind = META_USAGE, .ino = place->ino};
    struct meta_op drift = {.kind = META_DRIFT, .ino = place->ino};
    struct meta_reply total, left;
    int rc = volume_read(meta, &usage, &total);
    if (rc == 0)
        rc = volume_read(meta, &drift, &left);
    json_t *out =
        rc ? NULL
           : json_pack("{s:o, s:s, s:s, s:I, s:b, s:b, s:I, s:I, s:I, s:I}", "path",
                       path_json(meta, place->ino), "to", to, "class", place->class, "after",
                       (json_int_t)place->after_s, "paused", place->paused, "listing",
                       place->queued, "files", (json_int_t)total.usage.files, "bytes",
                       (json_int_t)total.usage.bytes, "left_files", (json_int_t)left.drift.files,
                       "left_bytes", (json_int_t)left.drift.bytes);
    if (rc == 0)
        meta_reply_done(&left);
    meta_reply_done(&total);
    return out;
}

json_t *meta_stores_json(struct meta *meta)
{
    if (meta->remote)
        return remote_stores_json(meta->remote);
    cleanup(free_ptr) struct shown *shown = calloc(META_STORES_MAX, sizeof(*shown));
    cleanup(free_ptr) struct engine_place *places = NULL;
    if (!shown)
        return NULL;
    unsigned count = copy_links(meta->stores, shown);
    json_t *list = json_array(), *moves = json_array();
    json_array_append_new(list, own_json(meta));
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list, shown_json(meta, &shown[i]));
    int place_count = engine_places(meta->engine, &places);
    for (int i = 0; i < place_count; i++)
        if (!places[i].attached)
            json_array_append_new(
                moves, place_json(meta, &places[i], name_of(shown, count, places[i].store)));
    return json_pack("{s:o, s:o}", "stores", list, "migrations", moves);
}
