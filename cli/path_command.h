/* What the commands share that ask a mount about one path and print an answer. */
#ifndef SLUICE_CLI_PATH_COMMAND_H
#define SLUICE_CLI_PATH_COMMAND_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct path_command {
    const char *name;  /* of the sub-command */
    const char *op;    /* of the control request */
    const char *usage; /* of its arguments */
    const char *doc;
    unsigned args_min;    /* 0: without an argument the current directory */
    const char *progress; /* "settling": waits with a bar that shows the drift; NULL: no bar */
    void (*print)(
        json_t *reply); /* NULL: prints nothing; with --json the reply is printed instead */
    bool json;          /* has --json */
    json_t *(*part)(json_t *reply); /* what --json prints (borrowed); NULL: all of it */
    bool wait;                      /* has --wait (which is the default, and says so) */
};

/* One request about one path, with that bar on a terminal. `reply` (owned by the caller; NULL after
 * an error). 0 or -errno, the reason in `error`. */
int path_command_ask(const char *op, const char *path, const char *progress, json_t **reply,
                     struct error *error);

/* The whole sub-command: parses, asks, prints. The exit code. */
int path_command_run(const struct path_command *command, int argc, char **argv);

#endif
