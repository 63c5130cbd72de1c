/* Entries of the bucket: any text is refused, or understood within its limits; what was understood
 * is printed and understood again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "volume/carry_entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct carry_entry entry, again;
    if (!carry_entry_parse(data, size, &entry)) {
        assert(strlen(entry.path) <= CARRY_PATH_MAX && entry.link_count <= CARRY_LINKS_MAX);
        char *text = carry_entry_print(&entry);
        assert(text);
        if (strlen(text) <= CARRY_ENTRY_MAX) {
            assert(!carry_entry_parse(text, strlen(text), &again));
            assert(!strcmp(entry.path, again.path) && entry.mode == again.mode);
            carry_entry_done(&again);
        }
        free(text);
    }
    carry_entry_done(&entry);
    return 0;
}
