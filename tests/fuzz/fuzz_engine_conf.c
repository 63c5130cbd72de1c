/* Configurations of engines, in all of their formats: any text is refused or understood. The first
 * byte says whether lines are YAML. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine_advice.h"
#include "engine_conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_mount(const char *path)
{
    assert(path[0] == '/');
    return strlen(path) % 2;
}

static void take(void *arg, const struct advice *advice)
{
    assert(advice->name[0] && advice->text && arg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* A copy of its own size, so that the sanitizer sees a read past its end. */
    char *text = malloc(size);
    assert(text);
    memcpy(text, data + 1, size - 1);
    struct engine_conf conf = {0};
    struct error error = {0};
    enum engine_conf_format format;
    int result = engine_conf_parse(&conf, text, size - 1, data[0] & 1, &format, &error);
    free(text);
    assert(result == 0 || error.message[0]);
    assert(conf.count <= ENGINE_CONF_ENTRIES_MAX);
    for (size_t i = 0; i < conf.count; i++)
        assert(strlen(conf.entries[i].name) <= ENGINE_CONF_NAME_MAX);
    for (int engine = ENGINE_SPARK; engine <= ENGINE_FLINK; engine++)
        engine_advise((enum engine)engine, &conf, on_mount, take, &conf);
    engine_conf_done(&conf);
    return 0;
}
