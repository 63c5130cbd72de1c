/* The files of profiles, and the JSON that programs and metadata services answer with. */
#include <stdint.h>

#include "credentials_fetch.h"
#include "profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    if (data[0] % 4 == 3) {
        struct credential_set set = {0};
        if (credential_parse_json(text, size - 1, "Token", &set, NULL) == 0)
            credential_set_done(&set);
        return 0;
    }
    struct profiles profiles = {NULL};
    profiles_parse(&profiles, text, size - 1, data[0] & 1);
    profile_get(profiles_find(&profiles, "default"), "region");
    profiles_done(&profiles);
    return 0;
}
