/* Operations as bytes: whatever is accepted comes out the same when it is written again. */
#include <stdlib.h>
#include <string.h>

#include "meta/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct meta_decoded_op one, two;
    struct buf first, second;
    if (meta_codec_op_get(data, size, &one) < 0)
        return 0;
    buf_init(&first, 0);
    buf_init(&second, 0);
    meta_codec_op_put(&first, &one.op);
    if (buf_error(&first) < 0 || meta_codec_op_get(first.data, first.len, &two) < 0)
        abort();
    meta_codec_op_put(&second, &two.op);
    if (second.len != first.len || memcmp(second.data, first.data, first.len) != 0)
        abort();
    meta_codec_op_done(&one);
    meta_codec_op_done(&two);
    buf_done(&first);
    buf_done(&second);
    return 0;
}
