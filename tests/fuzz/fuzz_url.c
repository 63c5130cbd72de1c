/* Store URLs: what is taken has the form that the header promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "s3/open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    struct store_url url;
    struct error error = {0};
    if (store_url_parse(text, &url, &error) == 0) {
        size_t len = strlen(url.prefix);
        if (!url.bucket[0] || strstr(url.prefix, "//") || url.prefix[0] == '/' ||
            (len > 0 && url.prefix[len - 1] != '/'))
            abort();
        store_url_done(&url);
    }
    free(text);
    return 0;
}
