#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "path_command.h"
#include "progress.h"

static uint64_t number(json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const char *text(json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "-";
}

static void print_row(const char *what, uint64_t bytes, uint64_t n, const char *of_what)
{
    char room[32];
    printf("%-12s %s in %" PRIu64 " %s\n", what, progress_bytes(bytes, room), n, of_what);
}

static void print_counts(json_t *part, const char *title)
{
    const char *key;
    json_t *value;
    bool any = false;
    json_object_foreach(part, key, value)
    {
        if (json_is_integer(value) && json_integer_value(value) != 0) {
            printf("%s%s %" JSON_INTEGER_FORMAT, any ? ", " : "", key, json_integer_value(value));
            any = true;
        } else if (json_is_string(value) && *json_string_value(value)) {
            printf("%s%s %s", any ? ", " : "", key, json_string_value(value));
            any = true;
        }
    }
    printf("%s\n", any ? "" : title);
}

static void print_cache(json_t *cache)
{
    char bytes[32], hits[32], misses[32];
    if (!json_is_object(cache)) {
        printf("%-12s none\n", "cache");
        return;
    }
    printf("%-12s %s of %" PRIu64 " files; %s of reads were there, %s were not\n", "cache",
           progress_bytes(number(cache, "bytes"), bytes), number(cache, "contents"),
           progress_bytes(number(cache, "hit_bytes"), hits),
           progress_bytes(number(cache, "miss_bytes"), misses));
    size_t i;
    json_t *directory;
    json_array_foreach(json_object_get(cache, "directories"), i, directory)
    {
        const char *health = text(directory, "health");
        if (strcmp(health, "good") != 0)
            printf("%-12s %s is %s\n", "", text(directory, "path"), health);
    }
}

static void print_backlog(json_t *backlog, json_t *scratch)
{
    if (number(backlog, "files")) {
        print_row("backlog", number(backlog, "bytes"), number(backlog, "files"),
                  "files on this disk that are not uploaded yet");
        printf("%-12s the oldest for %" PRIu64 " s%s\n", "", number(backlog, "age_ms") / 1000,
               json_is_true(json_object_get(backlog, "writers_wait")) ? ": WRITERS WAIT" : "");
    }
    if (number(scratch, "files"))
        print_row("scratch", number(scratch, "bytes"), number(scratch, "files"),
                  "files that go with the mount");
}

static void print_stores(json_t *stores)
{
    size_t i;
    json_t *store;
    json_array_foreach(stores, i, store)
    {
        if (i > 0 && json_is_true(json_object_get(store, "connected")))
            printf("%-12s %s: %s\n", "store", text(store, "name"), text(store, "url"));
        else if (i > 0)
            printf("%-12s %s: %s, NOT CONNECTED: %s\n", "store", text(store, "name"),
                   text(store, "url"), text(store, "error"));
    }
}

static void print_status(json_t *reply)
{
    json_t *mount = json_object_get(reply, "mount"), *data = json_object_get(mount, "data");
    json_t *volume = json_object_get(reply, "volume"), *usage = json_object_get(volume, "usage");
    json_t *drift = json_object_get(volume, "drift"), *identity = json_object_get(volume, "volume");
    printf("%s on %s%s\n", text(mount, "source"), text(mount, "mountpoint"),
           json_is_true(json_object_get(mount, "read_only")) ? ", read-only" : "");
    if (json_is_true(json_object_get(identity, "refuses_changes")))
        printf("CHANGES ARE REFUSED: see the log\n");
    printf("%-12s %s, process %" PRIu64 ", up %" PRIu64 " s, sluice %s\n", "volume",
           text(identity, "id"), number(mount, "pid"), number(mount, "uptime_s"),
           text(mount, "version"));
    print_stores(json_object_get(volume, "stores"));
    print_row("usage", number(usage, "bytes"), number(usage, "files"), "files");
    print_row("drift", number(drift, "bytes"), number(drift, "files"),
              "files that are not one object at their own key yet");
    uint64_t oldest_ns = number(drift, "oldest_ns"), now_ns = clock_wall_ns();
    if (number(drift, "files") && oldest_ns && oldest_ns < now_ns)
        printf("%-12s the oldest for %" PRIu64 " s\n", "",
               (uint64_t)((now_ns - oldest_ns) / NS_PER_S));
    print_row("unused", number(drift, "garbage_bytes"), number(drift, "garbage_objects"),
              "objects that wait to be deleted");
    print_row("not flushed", number(data, "dirty_bytes"), number(data, "dirty_files"), "files");
    print_backlog(json_object_get(data, "backlog"), json_object_get(data, "scratch"));
    if (number(mount, "failed_renames"))
        printf("%-12s %" PRIu64 " failed (some programs copy instead)\n", "renames",
               number(mount, "failed_renames"));
    print_cache(json_object_get(mount, "cache"));
    char now[32], peak[32];
    printf("%-12s %s, at most %s so far\n", "buffers",
           progress_bytes(number(data, "buffer_bytes"), now),
           progress_bytes(number(data, "buffer_peak_bytes"), peak));
    static const char *const parts[] = {"settle", "gc", "import"};
    for (unsigned i = 0; i < 3; i++) {
        printf("%-12s ", parts[i]);
        print_counts(json_object_get(volume, parts[i]), "nothing to do");
    }
}

int cli_status(int argc, char **argv)
{
    static const struct path_command command = {
        .name = "status",
        .op = "status",
        .usage = "[PATH]",
        .doc = "What the mount that holds PATH does: volume, usage, drift (files that are not one "
               "plain object at their own key yet), data that was not flushed, and the work of "
               "settle, "
               "garbage collection and import. Without PATH: the current directory's.",
        .print = print_status,
        .json = true,
    };
    return path_command_run(&command, argc, argv);
}
