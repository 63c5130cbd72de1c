/*
 * Options from one table, whatever way they come: command line (argp), environment (SLUICE_NAME),
 * configuration file (JSON), and `-o name=value,…` of mount(8). The first of these in this order
 * wins: command line and -o, environment, file, default.
 *
 * A command declares a table over a struct of its own; options_parse fills it. Sizes take K, M, G,
 * T (powers of 1,024), times take ms, s, m, h, d.
 */
#ifndef SLUICE_CLI_OPTIONS_H
#define SLUICE_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum option_type {
    OPTION_STRING,   /* char *, owned by the struct */
    OPTION_SECRET,   /* the same; scrubbed from the command line, never printed */
    OPTION_FLAG,     /* bool */
    OPTION_SIZE,     /* uint64_t bytes */
    OPTION_DURATION, /* uint32_t ms */
    OPTION_UINT,     /* unsigned */
    OPTION_CHOICE,   /* char *, one of `choices` */
};

struct option_spec {
    const char *name; /* long option, and key of the file */
    char letter;      /* 0: none */
    enum option_type type;
    size_t offset;       /* of the field */
    const char *arg;     /* "SIZE", … in the help; NULL for flags */
    const char *help;    /* what it does, with the default */
    uint64_t min, max;   /* SIZE, DURATION, UINT; max 0 = no limit but the type's */
    const char *choices; /* CHOICE: "auto|classic|uring" */
    bool cli_only;       /* not in the file nor the environment */
    int group;           /* for the help: see option_group */
};

struct option_group {
    int number;
    const char *title;
};

struct option_set {
    const struct option_spec *specs;
    size_t count;
    const struct option_group *groups; /* ended by title NULL; may be NULL */
    const char *usage;                 /* "URL MOUNTPOINT" */
    const char *doc; /* what stands before and (after a vertical tab) behind the list of options */
    unsigned args_min, args_max;
    bool reads_config; /* has --config and the environment */
};

#define OPTIONS_ARGS_MAX 24

struct option_result {
    char *args[OPTIONS_ARGS_MAX]; /* borrowed from argv */
    unsigned arg_count;
};

/* Fills `target` (defaults set by the caller before). On a bad option prints one line and returns
 * the exit code + 1 for `main` to use (2: usage); 0 to go on. --help and --usage exit by
 * themselves. `name` is the command as the user called it: "sluice mount". */
int options_parse(const struct option_set *set, const char *name, int argc, char **argv,
                  void *target, struct option_result *result);
void options_free(const struct option_set *set, void *target);

/* The parts, for tests and fuzzing. -EINVAL with a sentence. */
int options_set(const struct option_set *set, void *target, const char *name, const char *value,
                struct error *error);
int options_parse_size(const char *text, uint64_t *out);
int options_parse_duration_ms(const char *text, uint32_t *out);
/* "a=b,c,d=e" as given to -o; unknown names of mount(8) itself (rw, noauto, _netdev, …) are
 * ignored. `seen` as in options_from_json. */
int options_from_mount_list(const struct option_set *set, void *target, const char *list,
                            bool *seen, struct error *error);
/* A JSON object: keys are option names. Those that are `seen` already are checked but not set;
 * those set become seen. `where` is the file's name for messages. */
int options_from_json(const struct option_set *set, void *target, const char *text, size_t len,
                      const char *where, bool *seen, struct error *error);

#endif
