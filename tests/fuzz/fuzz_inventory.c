/* The text of an inventory: any is refused, or understood within its limits. The first byte chooses
 * between a manifest and a row. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "import/inventory_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inventory_manifest m = {.key = 0, .size = 1, .modified = 2, .etag = 3, .columns = 5};
    struct inventory_row row;
    struct error error = {0};
    m.latest = 4;
    m.deleted = m.of_bucket = -1;
    if (!size)
        return 0;
    if (data[0] & 1) {
        if (!inventory_manifest_parse(data + 1, size - 1, &m, &error))
            assert(m.bucket && m.key < m.columns && m.created_ns);
        inventory_manifest_done(&m);
        return 0;
    }
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    inventory_row_goes_on(text);
    if (!inventory_row_parse(&m, text, &row, &error))
        assert(row.key[0] && strlen(row.key) <= STORE_KEY_MAX);
    free(text);
    return 0;
}
