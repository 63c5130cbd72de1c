/* Notifications of buckets: any text is refused or understood. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "notify_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *arg, const struct notify_event *event)
{
    size_t len = strlen(event->key);
    assert(len > 0 && len <= NOTIFY_KEY_MAX && event->bucket);
    ++*(int *)arg;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of its own size, so that the sanitizer sees a read past its end. */
    char *text = malloc(size + 1);
    struct error error = {0};
    bool more;
    int taken = 0;
    assert(text);
    memcpy(text, data, size);
    int rc = notify_events_parse(text, size, take, &taken, &more, &error);
    assert(rc >= 0 ? taken <= rc : taken == 0 && error.message[0]);
    free(text);
    return 0;
}
