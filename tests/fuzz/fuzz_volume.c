/* What the volume reads from the bucket: the owner's record, and the tags of an object. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/owner_record.h"
#include "volume/volume.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_record(const uint8_t *data, size_t size)
{
    struct owner_record record, again;
    if (owner_record_parse(data, size, &record))
        return;
    char *text = owner_record_print(&record);
    /* A text that was cut in the middle of a character is not printed. */
    if (text && owner_record_parse(text, strlen(text), &again))
        abort();
    free(text);
}

/* Lines of the input are the values of the tags. */
static void try_tags(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"sluice-volume", "sluice-object", "sluice-mode",
                                        "sluice-uid",    "sluice-gid",    "sluice-mtime"};
    struct meta_volume volume = {.id = "0123456789abcdef0123456789abcdef"};
    struct store_meta pairs[6];
    struct store_op op = {.out_meta = pairs};
    struct meta_attr attr;
    uint64_t found;
    char *text = malloc(size + 1);
    if (!text)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    char *rest = text;
    for (int i = 0; i < 6 && rest; i++) {
        char *line = strsep(&rest, "\n");
        pairs[op.out_meta_count++] = (struct store_meta){.name = names[i], .value = line};
    }
    if (tags_parse(&op, &attr) && (attr.mode & 07777) != attr.mode - S_IFREG)
        abort();
    tags_compare(&op, &volume, 5, &found);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        try_record(data + 1, size - 1);
    else
        try_tags(data + 1, size - 1);
    return 0;
}
