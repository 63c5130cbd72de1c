/* The state of an interrupted rebuild: any text is refused, or understood within its limits. */
#include <assert.h>
#include <string.h>

#include "recover/rebuild_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rebuild_state state;
    if (!rebuild_state_parse(data, size, &state))
        assert(strlen(state.after) <= META_KEY_MAX);
    return 0;
}
