/* The manifest of a backup, as it comes from a bucket. What is accepted is accepted again, the
 * same, after it was written again. */
#include <stdlib.h>
#include <string.h>

#include "meta/backup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct backup_manifest one, two;
    if (backup_manifest_parse(data, size, &one) < 0)
        return 0;
    char *text = backup_manifest_print(&one);
    if (!text || backup_manifest_parse(text, strlen(text), &two) < 0)
        abort();
    if (one.count != two.count || one.applied != two.applied ||
        memcmp(one.files, two.files, one.count * sizeof(*one.files)) != 0)
        abort();
    backup_manifest_done(&one);
    backup_manifest_done(&two);
    free(text);
    return 0;
}
