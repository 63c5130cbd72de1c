/* sluice migrate: moves the data of a directory to another store while it is used. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli.h"
#include "control_client.h"
#include "control_wait.h"
#include "options.h"
#include "progress.h"

struct migrate_options {
    char *to, *class, *after;
    bool wait, pause, resume, cancel, json;
};

#define AT(field) offsetof(struct migrate_options, field)

static const struct option_spec specs[] = {
    {"to", 0, OPTION_STRING, AT(to), "STORE",
     "The store that files below PATH belong to from now on; main is the volume's own"},
    {"class", 0, OPTION_STRING, AT(class), "NAME",
     "The storage class that objects of files below PATH get, where they are (STANDARD_IA, …)"},
    {"after", 0, OPTION_STRING, AT(after), "TIME",
     "With --to or --class: only files that were not changed for so long, now and from now on "
     "(30d, 12h, "
     "90m)"},
    {"wait", 0, OPTION_FLAG, AT(wait), NULL,
     "Return when all is moved, and show how far it is; files in use are not waited to be quiet"},
    {"pause", 0, OPTION_FLAG, AT(pause), NULL, "Move nothing more for now"},
    {"resume", 0, OPTION_FLAG, AT(resume), NULL, "Go on"},
    {"cancel", 0, OPTION_FLAG, AT(cancel), NULL,
     "Files belong where those of the directory above do again: what was moved goes back"},
    {"json", 0, OPTION_FLAG, AT(json), NULL, "Print how far it is as JSON"},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "PATH",
    .doc =
        "Moves the data of a directory, with all below it, to another store in the background. "
        "Names, open files and what is read and written stay as they are.\v"
        "Without an option it says how far it is. Every file is copied, compared, taken over and "
        "only then deleted at its old place; after a crash it goes on where it was. `sluice store "
        "add` makes the place to move to.\nExamples:\n"
        "  sluice migrate /mnt/data --to new --wait\n"
        "  sluice migrate /mnt/data\n"
        "  sluice migrate /mnt/data --pause\n"
        "  sluice migrate /mnt/logs --to cold --after 30d\n"
        "  sluice migrate /mnt/logs --class STANDARD_IA --after 30d",
    .args_min = 1,
    .args_max = 1,
};

/* Seconds; 0: it is no time. */
static uint64_t parse_age(const char *text)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || number > UINT32_MAX || !*end || end[1])
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (units[i].unit == *end)
            return number * units[i].seconds;
    return 0;
}

static int ask(const char *path, const struct migrate_options *o, struct error *error)
{
    struct control_client client;
    json_t *reply = NULL;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    json_t *request = json_pack("{s:s}", "op", "migrate");
    if (o->to)
        json_object_set_new(request, "to", json_string(o->to));
    else if (o->class)
        json_object_set_new(request, "class", json_string(o->class));
    else
        json_object_set_new(request, "do",
                            json_string(o->pause    ? "pause"
                                        : o->resume ? "resume"
                                                    : "cancel"));
    if (o->after)
        json_object_set_new(request, "age", json_integer((json_int_t)parse_age(o->after)));
    r = control_client_call_at(&client, path, request, &reply, error);
    json_decref(reply);
    control_client_close(&client);
    return r;
}

/* The migration of the directory, a new reference; NULL: there is none. */
static int look(const char *path, json_t **out, struct error *error)
{
    struct control_client client;
    json_t *reply = NULL, *move;
    size_t i;
    *out = NULL;
    int r = control_client_open(path, &client, error);
    if (r < 0)
        return r;
    r = control_client_call(&client, json_pack("{s:s}", "op", "store-list"), &reply, error);
    json_array_foreach(json_object_get(reply, "migrations"), i, move)
    {
        const char *at = json_string_value(json_object_get(move, "path"));
        if (at && strcmp(at, client.inside + 1) == 0)
            *out = json_incref(move);
    }
    json_decref(reply);
    control_client_close(&client);
    return r;
}

static uint64_t number(json_t *move, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(move, key));
}

/* The store, or the class that objects get where they are. */
static const char *target(json_t *move)
{
    const char *class = json_string_value(json_object_get(move, "class"));
    return class && *class ? class : json_string_value(json_object_get(move, "to"));
}

static int show(const char *path, bool json, struct error *error)
{
    char left[32], all[32];
    json_t *move;
    int r = look(path, &move, error);
    if (r < 0)
        return r;
    if (!move)
        return error_set(error, -ENODATA, "%s was not migrated", path);
    if (json) {
        json_dumpf(move, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (json_is_true(json_object_get(move, "paused"))) {
        printf("to %s: paused\n", target(move));
    } else {
        if (number(move, "after"))
            printf("files not changed for %s ", progress_time(number(move, "after"), left));
        printf("to %s: %llu of %llu files, %s of %s left%s\n", target(move),
               (unsigned long long)number(move, "left_files"),
               (unsigned long long)number(move, "files"),
               progress_bytes(number(move, "left_bytes"), left),
               progress_bytes(number(move, "bytes"), all),
               json_is_true(json_object_get(move, "listing")) ? " at least" : "");
    }
    json_decref(move);
    return 0;
}

static bool left_to_move(const char *path, uint64_t *out)
{
    json_t *move = NULL;
    bool known = look(path, &move, NULL) == 0 && move;
    if (known)
        *out =
            number(move, json_is_true(json_object_get(move, "listing")) ? "bytes" : "left_bytes");
    json_decref(move);
    return known;
}

/* The barrier of settle is that of a migration too: nothing below is anywhere else. */
static int wait_for(const char *path, struct error *error)
{
    json_t *reply = NULL;
    int r = control_wait(path, json_pack("{s:s}", "op", "settle"), "moving", true, left_to_move,
                         &reply, error);
    json_decref(reply);
    return r;
}

static int run(const char *path, const struct migrate_options *o, struct error *error)
{
    int words = (o->to != NULL) + (o->class != NULL) + o->pause + o->resume + o->cancel;
    if (words > 1)
        return error_set(error, -EINVAL,
                         "--to, --class, --pause, --resume and --cancel exclude each other");
    bool rule = o->to || o->class;
    if (o->after && (!rule || !parse_age(o->after)))
        return error_set(error, -EINVAL,
                         rule ? "--after: '%s' is not a time (a number, then s, m, h, d or w)"
                              : "--after %s is for --to and --class",
                         o->after);
    int r = words ? ask(path, o, error) : 0;
    if (r == 0 && o->wait)
        r = wait_for(path, error);
    if (r < 0 || ((words || o->wait) && !o->json))
        return r;
    return show(path, o->json, error);
}

int cli_migrate(int argc, char **argv)
{
    struct migrate_options options = {0};
    struct option_result result;
    struct error error = {0};
    int r = options_parse(&option_set, "sluice migrate", argc, argv, &options, &result);
    if (r)
        return r - 1;
    r = run(result.args[0], &options, &error);
    options_free(&option_set, &options);
    if (r < 0)
        return cli_fail("migrate", &error) + (error.code == -EINVAL);
    return 0;
}
