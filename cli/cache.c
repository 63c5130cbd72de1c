/* sluice cache status, verify, clear: the cache of a mount as a whole. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli.h"
#include "path_command.h"
#include "progress.h"

static uint64_t number(json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static json_t *cache_of(json_t *reply)
{
    return json_object_get(json_object_get(reply, "mount"), "cache");
}

static void print_status(json_t *reply)
{
    json_t *cache = cache_of(reply);
    char a[32], b[32];
    if (!json_is_object(cache)) {
        printf("this mount has no cache\n");
        return;
    }
    printf("%-12s %s in %" PRIu64 " pages of %" PRIu64 " contents\n", "cached",
           progress_bytes(number(cache, "bytes"), a), number(cache, "pages"),
           number(cache, "contents"));
    printf("%-12s %s were there, %s were not\n", "reads",
           progress_bytes(number(cache, "hit_bytes"), a),
           progress_bytes(number(cache, "miss_bytes"), b));
    printf("%-12s %s, %" PRIu64 " times there was no room or time\n", "filled",
           progress_bytes(number(cache, "filled_bytes"), a), number(cache, "fills_dropped"));
    printf("%-12s %s\n", "evicted", progress_bytes(number(cache, "evicted_bytes"), a));
    printf("%-12s %" PRIu64 " corrupt pages, %" PRIu64 " read errors, %" PRIu64
           " write errors, %" PRIu64 " reads given up\n",
           "faults", number(cache, "corrupt_pages"), number(cache, "read_errors"),
           number(cache, "write_errors"), number(cache, "timeouts"));
    size_t i;
    json_t *d;
    json_array_foreach(json_object_get(cache, "directories"), i, d)
    {
        uint64_t capacity = number(d, "capacity_bytes");
        printf("%-12s %s: %s, %s", "directory", json_string_value(json_object_get(d, "path")),
               json_string_value(json_object_get(d, "health")),
               progress_bytes(number(d, "bytes"), a));
        printf(" of %s; the disk has %s free\n",
               capacity ? progress_bytes(capacity, b) : "the free space",
               progress_bytes(number(d, "disk_free_bytes"), a));
    }
}

static void print_verified(json_t *reply)
{
    char room[32];
    printf("%" PRIu64 " pages, %s, checked: %" PRIu64 " corrupt and dropped, %" PRIu64
           " unreadable\n",
           number(reply, "pages"), progress_bytes(number(reply, "bytes"), room),
           number(reply, "corrupt_pages"), number(reply, "unreadable_pages"));
}

int cli_cache(int argc, char **argv)
{
    static const struct path_command commands[] = {
        {
            .name = "cache status",
            .op = "status",
            .usage = "[PATH]",
            .doc = "What the cache of the mount that holds PATH has, and how it is doing.",
            .print = print_status,
            .json = true,
            .part = cache_of,
        },
        {
            .name = "cache verify",
            .op = "cache-verify",
            .usage = "[PATH]",
            .doc =
                "Reads all that the mount's cache has, and compares it with its checksums. What "
                "is bad is dropped, and fetched again when it is read. For root and who mounted.",
            .print = print_verified,
            .json = true,
        },
        {
            .name = "cache clear",
            .op = "cache-clear",
            .usage = "[PATH]",
            .doc = "Drops all that is in the mount's cache and not in use. For root and who "
                   "mounted.",
            .json = true,
        },
    };
    const char *word = argc > 1 ? argv[1] : "--help";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(word, commands[i].name + strlen("cache ")) == 0)
            return path_command_run(&commands[i], argc - 1, argv + 1);
    bool help = argc > 1 && (strcmp(word, "--help") == 0 || strcmp(word, "-?") == 0);
    FILE *out = help ? stdout : stderr;
    if (argc > 1 && !help)
        fprintf(out, "sluice cache: there is no '%s'\n", word);
    fputs("Usage: sluice cache status|verify|clear [PATH]\n\n"
          "The cache of the mount that holds PATH (the current directory).\n"
          "  status   what it has, and how it is doing (--json)\n"
          "  verify   compare all of it with its checksums (--json)\n"
          "  clear    drop all that is not in use (--json)\n",
          out);
    return help ? 0 : 2;
}
