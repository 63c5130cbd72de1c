#include <stdio.h>

#include "cli.h"
#include "path_command.h"
#include "progress.h"

static void print_usage(json_t *reply)
{
    char bytes[32];
    printf("%s in %lld files, %lld directories\n",
           progress_bytes((uint64_t)json_integer_value(json_object_get(reply, "bytes")), bytes),
           (long long)json_integer_value(json_object_get(reply, "files")),
           (long long)json_integer_value(json_object_get(reply, "directories")));
}

int cli_du(int argc, char **argv)
{
    static const struct path_command command = {
        .name = "du",
        .op = "usage",
        .usage = "[PATH]",
        .doc = "Bytes, files and directories below a directory, from the counts that the metadata "
               "keeps: exact, and as quick for a million files as for one. A file with several "
               "names counts under each of them. (Also called `sluice usage`.)",
        .print = print_usage,
        .json = true,
    };
    return path_command_run(&command, argc, argv);
}
