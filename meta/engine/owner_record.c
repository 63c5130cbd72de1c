#include "owner_record.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static void copy_text(char *out, size_t cap, const json_t *from)
{
    const char *text = json_string_value(from);
    snprintf(out, cap, "%s", text ? text : "");
}

int owner_record_parse(const void *data, size_t len, struct owner_record *out)
{
    json_t *root = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        return -EBADMSG;
    *out = (struct owner_record){.held = json_is_true(json_object_get(root, "held"))};
    copy_text(out->volume, sizeof(out->volume), json_object_get(root, "volume"));
    copy_text(out->instance, sizeof(out->instance), json_object_get(root, "instance"));
    copy_text(out->host, sizeof(out->host), json_object_get(root, "host"));
    copy_text(out->owner, sizeof(out->owner), json_object_get(root, "owner"));
    json_int_t epoch = json_integer_value(json_object_get(root, "epoch"));
    json_int_t renewed = json_integer_value(json_object_get(root, "renewed_ns"));
    json_decref(root);
    if (epoch < 0 || renewed < 0 || strlen(out->volume) != 32 || !out->instance[0])
        return -EBADMSG;
    out->epoch = (uint64_t)epoch;
    out->renewed_ns = (uint64_t)renewed;
    return 0;
}

char *owner_record_print(const struct owner_record *r)
{
    json_t *root = json_pack("{s:i, s:s, s:I, s:b, s:s, s:s, s:s, s:I, s:s}", "format", 1, "volume",
                             r->volume, "epoch", (json_int_t)r->epoch, "held", r->held, "instance",
                             r->instance, "host", r->host, "owner", r->owner, "renewed_ns",
                             (json_int_t)r->renewed_ns, "version", SLUICE_VERSION);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}
