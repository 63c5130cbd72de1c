/* Requests of the control file: any text is refused or understood, never more; what is understood
 * has a path without empty names, "." and "..". */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "control/front_control_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(const struct control_text *path)
{
    if (!path->bytes)
        return;
    assert(strlen(path->bytes) == path->len && path->len <= CONTROL_PATH_MAX);
    const char *at = path->bytes;
    size_t total = 0;
    while (*at) {
        struct meta_name name = control_path_next(&at);
        assert(name.len > 0 && name.len <= META_NAME_MAX);
        assert(!(name.len == 1 && name.bytes[0] == '.'));
        assert(!(name.len == 2 && memcmp(name.bytes, "..", 2) == 0));
        total += name.len + (*at ? 1 : 0);
    }
    assert(total == path->len);
    struct control_text parent;
    struct meta_name last;
    control_path_split(path, &parent, &last);
    assert(parent.len + last.len <= path->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of its own size, so that the sanitizer sees a read past its end. */
    char *text = malloc(size ? size : 1);
    assert(text);
    memcpy(text, data, size);
    struct control_request request;
    struct error error = {0};
    int result = control_parse(text, size, &request, &error);
    free(text);
    if (result < 0) {
        assert(error.message[0]);
        return 0;
    }
    check_path(&request.path);
    check_path(&request.to);
    assert(request.after_len <= META_NAME_MAX && request.limit <= CONTROL_LIST_MAX);
    for (size_t i = 0; i < request.acl_count; i++)
        assert(request.acl[i].perm <= 7 && request.acl[i].tag);
    control_request_done(&request);
    return 0;
}
