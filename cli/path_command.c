#include "path_command.h"

#include <stdio.h>

#include "base/cleanup.h"
#include "cli.h"
#include "control_client.h"
#include "control_wait.h"
#include "options.h"

struct path_options {
    bool json, wait;
};

static bool files_left(const char *path, uint64_t *out)
{
    json_t *reply = NULL;
    if (control_client_simple(path, "drift", &reply, NULL) < 0)
        return false;
    *out = (uint64_t)json_integer_value(json_object_get(reply, "files"));
    json_decref(reply);
    return true;
}

int path_command_ask(const char *op, const char *path, const char *progress, json_t **reply,
                     struct error *error)
{
    *reply = NULL;
    if (!progress)
        return control_client_simple(path, op, reply, error);
    return control_wait(path, json_pack("{s:s}", "op", op), progress, false, files_left, reply,
                        error);
}

int path_command_run(const struct path_command *command, int argc, char **argv)
{
    static const struct option_spec rows[] = {
        {"json", 0, OPTION_FLAG, offsetof(struct path_options, json), NULL,
         "Print the mount's answer as JSON"},
        {"wait", 0, OPTION_FLAG, offsetof(struct path_options, wait), NULL,
         "Return when it is done (the default)"},
    };
    struct option_spec specs[ARRAY_LEN(rows)];
    size_t count = 0;
    if (command->json)
        specs[count++] = rows[0];
    if (command->wait)
        specs[count++] = rows[1];
    struct option_set set = {.specs = specs,
                             .count = count,
                             .usage = command->usage,
                             .doc = command->doc,
                             .args_min = command->args_min,
                             .args_max = 1};
    struct path_options options = {0};
    struct option_result result;
    char name[64];
    snprintf(name, sizeof(name), "sluice %s", command->name);
    int r = options_parse(&set, name, argc, argv, &options, &result);
    if (r)
        return r - 1;
    json_t *reply = NULL;
    struct error error = {0};
    if (path_command_ask(command->op, result.arg_count ? result.args[0] : ".", command->progress,
                         &reply, &error) < 0)
        return cli_fail(command->name, &error);
    if (options.json) {
        json_t *part = command->part ? command->part(reply) : reply;
        json_dumpf(part, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    } else if (command->print) {
        command->print(reply);
    }
    json_decref(reply);
    return 0;
}
