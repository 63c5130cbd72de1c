#include "cli.h"
#include "path_command.h"

int cli_refresh(int argc, char **argv)
{
    static const struct path_command command = {
        .name = "refresh",
        .op = "refresh",
        .usage = "[PATH]",
        .doc =
            "Looks again at what the bucket holds at PATH and in the directories below it that "
            "were listed before: objects that others put, replaced or deleted are seen when this "
            "returns. Without PATH: the current directory.",
    };
    return path_command_run(&command, argc, argv);
}
