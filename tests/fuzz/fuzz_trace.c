/* Lines of a trace: refused with a sentence, or a call whose names stay below the directory. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bench/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const char *path)
{
    assert(path && strlen(path) <= TRACE_PATH_MAX && path[0] != '/');
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        assert(len > 0 && !(len == 1 && at[0] == '.') &&
               !(len == 2 && at[0] == '.' && at[1] == '.'));
        at += len + (at[len] == '/');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size ? size : 1), *room = malloc(TRACE_LINE_MAX);
    assert(text && room);
    memcpy(text, data, size);
    struct trace_event event;
    struct error error = {0};
    int result = trace_parse(text, size, room, &event, &error);
    free(text);
    if (result < 0) {
        assert(error.message[0]);
    } else {
        if (event.op <= TRACE_OPEN)
            check_name(event.path);
        if (event.op == TRACE_RENAME || event.op == TRACE_LINK)
            check_name(event.to);
        assert(event.op < TRACE_OP_COUNT && event.result >= -4095);
    }
    free(room);
    return 0;
}
