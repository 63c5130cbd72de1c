/* sluice store attach|add|detach|list */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli.h"
#include "control_client.h"
#include "options.h"
#include "progress.h"
#include "store_json.h"

struct store_command {
    char *name, *endpoint, *region, *profile, *ca_file, *storage_class, *sse, *addressing;
    bool read_only, anonymous, no_verify_tls, request_payer, json;
    unsigned connections;
};

#define AT(field) offsetof(struct store_command, field)

static const struct option_spec specs[] = {
    {"name", 0, OPTION_STRING, AT(name), "NAME",
     "attach, add: what the store is called (the bucket's name)"},
    {"read-only", 0, OPTION_FLAG, AT(read_only), NULL,
     "attach: nothing is ever written or deleted there"},
    {"profile", 0, OPTION_STRING, AT(profile), "NAME",
     "Profile with the credentials, read by the mount (its environment, or the host's role)"},
    {"endpoint", 0, OPTION_STRING, AT(endpoint), "URL", "http[s]://HOST[:PORT] of the S3 server"},
    {"region", 0, OPTION_STRING, AT(region), "NAME", "Region for signatures"},
    {"addressing", 0, OPTION_CHOICE, AT(addressing), "STYLE", "auto, path or virtual",
     .choices = "auto|path|virtual"},
    {"anonymous", 0, OPTION_FLAG, AT(anonymous), NULL, "Send unsigned requests (public buckets)"},
    {"storage-class", 0, OPTION_STRING, AT(storage_class), "NAME",
     "Storage class of the objects that are written there"},
    {"sse", 0, OPTION_CHOICE, AT(sse), "KIND", "Encryption at the server: AES256 or aws:kms",
     .choices = "AES256|aws:kms"},
    {"request-payer", 0, OPTION_FLAG, AT(request_payer), NULL, "Pay for the requests"},
    {"connections", 0, OPTION_UINT, AT(connections), "N", "Connections at once (64)", .min = 1,
     .max = 1024},
    {"ca-file", 0, OPTION_STRING, AT(ca_file), "FILE", "Certificates to trust, PEM"},
    {"no-verify-tls", 0, OPTION_FLAG, AT(no_verify_tls), NULL,
     "Accept any certificate: only for tests"},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "list: print the mount's answer as JSON"},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "attach URL DIR\nadd URL MOUNT\ndetach NAME MOUNT\nlist [MOUNT]",
    .doc = "Other buckets, of any provider, beside the one that is mounted."
           "\v  attach  the bucket's files appear in DIR, an empty directory of a mount;\n"
           "          what is made below DIR is written there\n"
           "  add     a place to move files to, with `sluice migrate`\n"
           "  detach  takes the names away; the objects stay. Refused while something\n"
           "          else needs the store\n"
           "  list    the stores of a mount, and the migrations\n\n"
           "The mount must run, and must be yours (or you are root). Credentials are never "
           "recorded: they come from a profile, from the mount's environment or the host's role.\n"
           "Examples:\n"
           "  sluice store attach s3://archive/2019 /mnt/old --read-only --profile archive\n"
           "  sluice store add s3://new-home /mnt --name new --region eu-central-1\n"
           "  sluice migrate /mnt/data --to new --wait\n"
           "  sluice store detach archive /mnt",
    .args_min = 1,
    .args_max = 3,
};

static json_t *options_json(const struct store_command *c)
{
    bool automatic = !c->addressing || strcmp(c->addressing, "auto") == 0;
    struct store_options options = {
        .endpoint = c->endpoint,
        .region = c->region,
        .profile = c->profile,
        .ca_file = c->ca_file,
        .storage_class = c->storage_class,
        .sse = c->sse,
        .path_style = automatic ? -1 : strcmp(c->addressing, "path") == 0,
        .anonymous = c->anonymous,
        .no_verify_tls = c->no_verify_tls,
        .request_payer = c->request_payer,
        .connections = c->connections,
    };
    return store_json(&options);
}

static int call(const char *path, json_t *request, bool with_path, struct error *error)
{
    struct control_client client;
    json_t *reply = NULL;
    int r = control_client_open(path, &client, error);
    if (r < 0) {
        json_decref(request);
        return r;
    }
    if (with_path)
        control_client_set_path(&client, request);
    r = control_client_call(&client, request, &reply, error);
    json_decref(reply);
    control_client_close(&client);
    return r;
}

static int attach(const struct store_command *c, const char *url, const char *path, bool at_path,
                  struct error *error)
{
    if (!at_path && c->read_only)
        return error_set(error, -EINVAL, "nothing can be moved to a store that is --read-only");
    json_t *request = json_pack("{s:s, s:s, s:b, s:o}", "op", "store-attach", "url", url,
                                "read_only", (int)c->read_only, "options", options_json(c));
    if (!request)
        return error_set(error, -EINVAL, "the arguments are not UTF-8");
    if (c->name)
        json_object_set_new(request, "name", json_string(c->name));
    return call(path, request, at_path, error);
}

static int detach(const char *name, const char *path, struct error *error)
{
    json_t *request = json_pack("{s:s, s:s}", "op", "store-detach", "name", name);
    return request ? call(path, request, false, error)
                   : error_set(error, -EINVAL, "the name is not UTF-8");
}

static const char *text(json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static void print_store(json_t *store)
{
    json_t *path = json_object_get(store, "path");
    printf("%s: %s, %s%s", text(store, "name"), text(store, "url"),
           json_is_string(path) ? "at /" : "attached nowhere",
           json_is_string(path) ? json_string_value(path) : "");
    if (json_is_true(json_object_get(store, "read_only")))
        printf(", read-only");
    if (json_is_true(json_object_get(store, "detaching")))
        printf(", being detached");
    if (!json_is_true(json_object_get(store, "connected")))
        printf(", NOT CONNECTED: %s", text(store, "error"));
    putchar('\n');
}

static void print_move(json_t *move)
{
    char bytes[32];
    json_int_t files = json_integer_value(json_object_get(move, "left_files"));
    uint64_t left = (uint64_t)json_integer_value(json_object_get(move, "left_bytes"));
    bool listing = json_is_true(json_object_get(move, "listing"));
    bool class = *text(move, "class");
    printf("/%s %s %s", text(move, "path"), class ? "gets class" : "belongs to",
           text(move, class ? "class" : "to"));
    json_int_t after = json_integer_value(json_object_get(move, "after"));
    if (after)
        printf(" when not changed for %s", progress_time((uint64_t)after, bytes));
    printf(": ");
    if (json_is_true(json_object_get(move, "paused")))
        printf("paused\n");
    else if (files == 0 && !listing)
        printf("all is there\n");
    else
        printf("%lld files, %s left%s\n", (long long)files, progress_bytes(left, bytes),
               listing ? " at least" : "");
}

static int list(const char *path, bool json, struct error *error)
{
    json_t *reply = NULL, *one;
    struct control_client client;
    size_t i;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    r = control_client_call(&client, json_pack("{s:s}", "op", "store-list"), &reply, error);
    control_client_close(&client);
    if (r < 0)
        return r;
    if (json) {
        json_dumpf(reply, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        json_array_foreach(json_object_get(reply, "stores"), i, one)
        {
            print_store(one);
        }
        json_array_foreach(json_object_get(reply, "migrations"), i, one)
        {
            print_move(one);
        }
    }
    json_decref(reply);
    return 0;
}

int cli_store(int argc, char **argv)
{
    struct store_command command = {0};
    struct option_result result;
    struct error error = {0};
    int r = options_parse(&option_set, "sluice store", argc, argv, &command, &result);
    if (r)
        return r - 1;
    const char *verb = result.args[0], *a = result.args[1], *b = result.args[2];
    unsigned count = result.arg_count;
    if (strcmp(verb, "list") == 0 && count <= 2)
        r = list(count == 2 ? a : ".", command.json, &error);
    else if (strcmp(verb, "attach") == 0 && count == 3)
        r = attach(&command, a, b, true, &error);
    else if (strcmp(verb, "add") == 0 && count == 3)
        r = attach(&command, a, b, false, &error);
    else if (strcmp(verb, "detach") == 0 && count == 3)
        r = detach(a, b, &error);
    else
        r = error_set(&error, -EINVAL,
                      "use attach URL DIR, add URL MOUNT, detach NAME MOUNT, or list [MOUNT]");
    options_free(&option_set, &command);
    if (r < 0)
        return cli_fail("store", &error) + (error.code == -EINVAL);
    return 0;
}
