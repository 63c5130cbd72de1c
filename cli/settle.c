#include "cli.h"
#include "path_command.h"

int cli_settle(int argc, char **argv)
{
    static const struct path_command command = {
        .name = "settle",
        .op = "settle",
        .usage = "[PATH]",
        .doc = "Brings every file at or below PATH to one plain object at its own key, without the "
               "usual delay, and returns when all are: the barrier before another S3 client reads "
               "what was written. Files that are still being written are brought there as far as "
               "they were closed. Without PATH: the current directory."
               "\vEnds with 0 when all is settled, 1 if something cannot be (another program's "
               "object holds the key, the store refuses); the message says what.",
        .progress = "settling",
        .wait = true,
    };
    return path_command_run(&command, argc, argv);
}
