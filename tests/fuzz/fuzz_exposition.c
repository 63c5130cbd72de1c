/* Metrics of several processes that are brought together: what came out goes in again, and comes
 * out the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "exposition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exposition *e = exposition_new(1 << 20), *again = exposition_new(1 << 22);
    struct buf one, two;
    if (!e || !again)
        abort();
    buf_init(&one, 0);
    buf_init(&two, 0);
    size_t half = size / 2;
    exposition_add(e, (const char *)data, half, "volume=\"a\"");
    exposition_add(e, (const char *)data + half, size - half, NULL);
    exposition_print(e, &one);
    if (exposition_add(again, (const char *)one.data, one.len, NULL) < 0)
        abort();
    exposition_print(again, &two);
    if (one.len != two.len || (one.len && memcmp(one.data, two.data, one.len) != 0))
        abort();
    buf_done(&one);
    buf_done(&two);
    exposition_free(e);
    exposition_free(again);
    return 0;
}
