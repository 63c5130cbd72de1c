/* What fsck and gc found in the bucket, as JSON: the commands' --json, and the control file. */
#include "meta/check.h"

static json_t *text_of(const char *text)
{
    json_t *out = json_string(text);
    return out ? out : json_string("(not UTF-8)");
}

static uint64_t number_of(const json_t *from, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(from, name));
}

json_t *check_finding_json(const struct check_finding *finding)
{
    return json_pack("{s:s, s:o, s:o, s:s?}", "kind", check_kind_name(finding->kind), "key",
                     text_of(finding->key), "text", text_of(finding->text), "repaired",
                     finding->repaired);
}

json_t *check_counts_json(const struct check_counts *c, json_t *findings)
{
    json_t *kinds = json_object();
    for (int i = 0; i < CHECK_KIND_COUNT; i++)
        json_object_set_new(kinds, check_kind_name(i), json_integer((json_int_t)c->found[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "objects", (json_int_t)c->objects,
                     "keys", (json_int_t)c->keys, "unknown_keys", (json_int_t)c->unknown,
                     "bytes_read", (json_int_t)c->bytes, "compared_by_md5", (json_int_t)c->by_md5,
                     "repaired", (json_int_t)c->repaired, "found", kinds, "findings", findings);
}

void check_counts_from_json(const json_t *from, struct check_counts *out)
{
    const json_t *kinds = json_object_get(from, "found");
    *out = (struct check_counts){.objects = number_of(from, "objects"),
                                 .keys = number_of(from, "keys"),
                                 .unknown = number_of(from, "unknown_keys"),
                                 .bytes = number_of(from, "bytes_read"),
                                 .by_md5 = number_of(from, "compared_by_md5"),
                                 .repaired = number_of(from, "repaired")};
    for (int i = 0; i < CHECK_KIND_COUNT; i++)
        out->found[i] = number_of(kinds, check_kind_name(i));
}

json_t *orphan_json(const struct orphan *orphan)
{
    return json_pack("{s:s, s:o, s:I, s:I, s:b}", "kind", orphan_kind_name(orphan->kind), "key",
                     text_of(orphan->key), "size", (json_int_t)orphan->size, "age_s",
                     (json_int_t)orphan->age_s, "young", orphan->young);
}

json_t *orphan_counts_json(const struct orphan_counts *c, json_t *list)
{
    json_t *found = json_object();
    for (int i = 0; i < ORPHAN_KIND_COUNT; i++)
        json_object_set_new(found, orphan_kind_name(i),
                            json_pack("{s:I, s:I}", "count", (json_int_t)c->found[i], "bytes",
                                      (json_int_t)c->bytes[i]));
    return json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "keys", (json_int_t)c->keys,
                     "uploads", (json_int_t)c->uploads, "found", found, "young",
                     (json_int_t)c->young, "foreign_uploads", (json_int_t)c->foreign_uploads,
                     "deleted", (json_int_t)c->deleted, "deleted_bytes",
                     (json_int_t)c->deleted_bytes, "failed", (json_int_t)c->failed, "list", list);
}

void orphan_counts_from_json(const json_t *from, struct orphan_counts *out)
{
    const json_t *found = json_object_get(from, "found");
    *out = (struct orphan_counts){.keys = number_of(from, "keys"),
                                  .uploads = number_of(from, "uploads"),
                                  .young = number_of(from, "young"),
                                  .deleted = number_of(from, "deleted"),
                                  .deleted_bytes = number_of(from, "deleted_bytes"),
                                  .failed = number_of(from, "failed"),
                                  .foreign_uploads = number_of(from, "foreign_uploads")};
    for (int i = 0; i < ORPHAN_KIND_COUNT; i++) {
        const json_t *kind = json_object_get(found, orphan_kind_name(i));
        out->found[i] = number_of(kind, "count");
        out->bytes[i] = number_of(kind, "bytes");
    }
}
