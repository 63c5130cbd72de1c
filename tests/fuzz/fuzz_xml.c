/* Every parser of S3's XML replies: the first byte says which. */
#include <string.h>

#include "s3/backend.h"
#include "xml.h"

static int code_to_errno(const char *code)
{
    return code[0] == 'N' ? -2 : -5;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xml_failure failure;
    struct error error = {0};
    struct store_op op = {.kind = STORE_LIST};
    char text[64];
    if (size == 0)
        return 0;
    const void *reply = data + 1;
    size_t len = size - 1;
    switch (data[0] % 5) {
    case 0:
        xml_parse_list(reply, len, &op, &failure, &error);
        break;
    case 1:
        xml_parse_uploads(reply, len, &op, &failure, &error);
        break;
    case 2:
        xml_parse_delete(reply, len, &op, code_to_errno, &failure, &error);
        break;
    case 3:
        xml_parse_value(reply, len, "CopyObjectResult", "ETag", text, sizeof(text), &failure,
                        &error);
        break;
    case 4:
        xml_parse_failure(reply, len, &failure, &error);
        break;
    }
    store_op_reset(&op);
    return 0;
}
