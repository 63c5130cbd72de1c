/*
 * The configuration of a data engine, as its own files write it: Hadoop's XML (core-site.xml,
 * hive-site.xml), Java properties (spark-defaults.conf), or Flink's YAML, flat or nested. Which it
 * is shows in the text. Pure functions, any thread; bounded for any input
 * (tests/fuzz/fuzz_engine_conf.c).
 */
#ifndef SLUICE_CLI_ENGINE_CONF_H
#define SLUICE_CLI_ENGINE_CONF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define ENGINE_CONF_TEXT_MAX (4u << 20) /* bytes of a file */
#define ENGINE_CONF_ENTRIES_MAX 20000
#define ENGINE_CONF_NAME_MAX 1024

struct engine_conf_entry {
    char *name, *value; /* owned */
};

struct engine_conf {
    struct engine_conf_entry *entries;
    size_t count, room;
};

enum engine_conf_format { ENGINE_CONF_XML, ENGINE_CONF_PROPERTIES, ENGINE_CONF_YAML };

/* Adds what `text` sets to *out (zeroed before the first call). `yaml`: lines are "name: value" and
 * not "name value". -EINVAL with a sentence, -ENOMEM; what was added until then stays. */
int engine_conf_parse(struct engine_conf *out, const char *text, size_t len, bool yaml,
                      enum engine_conf_format *format, struct error *error);
void engine_conf_done(struct engine_conf *conf);
/* The last value that was set; NULL if there is none. */
const char *engine_conf_get(const struct engine_conf *conf, const char *name);

#endif
