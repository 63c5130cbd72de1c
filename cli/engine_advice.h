/*
 * What is unsafe or slow on a mount in the configuration of a data engine, and what to write in its
 * place: docs/spark.md, docs/hive.md, docs/flink.md say why. Pure: asks the machine only through
 * `on_mount`. Any thread.
 */
#ifndef SLUICE_CLI_ENGINE_ADVICE_H
#define SLUICE_CLI_ENGINE_ADVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine_conf.h"
#include "findings.h"

enum engine { ENGINE_SPARK, ENGINE_HIVE, ENGINE_FLINK };

/* -1: none has this name. */
int engine_by_name(const char *name);

struct advice {
    enum finding kind;
    const char *name; /* of the setting, as the file has it or should have it; until take returns */
    const char *text; /* why */
    const char *value; /* to be written; NULL: nothing is to be set */
};

/* Calls `take` for each finding, good ones too. `on_mount`: whether a local path lies on a mount of
 * Sluice. */
void engine_advise(enum engine engine, const struct engine_conf *conf,
                   bool (*on_mount)(const char *path),
                   void (*take)(void *arg, const struct advice *advice), void *arg);

#endif
