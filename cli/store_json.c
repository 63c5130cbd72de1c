#include "store_json.h"

static void set_text(json_t *object, const char *key, const char *value)
{
    if (value)
        json_object_set_new(object, key, json_string(value));
}

static void set_flag(json_t *object, const char *key, bool value)
{
    if (value)
        json_object_set_new(object, key, json_true());
}

json_t *store_json(const struct store_options *options)
{
    json_t *out = json_object();
    set_text(out, "endpoint", options->endpoint);
    set_text(out, "region", options->region);
    set_text(out, "profile", options->profile);
    set_text(out, "ca-file", options->ca_file);
    set_text(out, "storage-class", options->storage_class);
    set_text(out, "sse", options->sse);
    if (options->path_style >= 0)
        set_text(out, "addressing", options->path_style ? "path" : "virtual");
    set_flag(out, "anonymous", options->anonymous);
    set_flag(out, "no-verify-tls", options->no_verify_tls);
    set_flag(out, "request-payer", options->request_payer);
    if (options->connections)
        json_object_set_new(out, "connections", json_integer(options->connections));
    return out;
}
