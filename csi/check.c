#include "check.h"

#include <inttypes.h>
#include <string.h>

typedef Csi__V1__VolumeCapability__AccessMode__Mode mode_type;
#define MODE(name) CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__##name

int check_id(struct csi_call *call, const char *field, const char *value)
{
    if (!*value)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s is missing", field);
    if (strlen(value) > CHECK_ID_MAX)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s is longer than %d bytes", field,
                        CHECK_ID_MAX);
    return CSI_OK;
}

int check_path(struct csi_call *call, const char *field, const char *value)
{
    size_t len = strlen(value);
    if (!len)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s is missing", field);
    if (value[0] != '/' || len < 2 || len > 4095)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s must be an absolute path", field);
    for (const char *p = value; p; p = strchr(p + 1, '/')) {
        size_t part = strcspn(p + 1, "/");
        bool dots = (part == 1 && p[1] == '.') || (part == 2 && p[1] == '.' && p[2] == '.');
        if (!part || dots || part > 255)
            return csi_fail(call, CSI_INVALID_ARGUMENT,
                            "%s must be a plain path, without '.', '..' and empty components",
                            field);
    }
    return CSI_OK;
}

int check_capability(struct csi_call *call, const Csi__V1__VolumeCapability *capability)
{
    if (!capability)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "volume_capability is missing");
    if (capability->access_type_case == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
        return csi_fail(
            call, CSI_INVALID_ARGUMENT,
            "volumes of this driver are filesystems; volumeMode: Block is not possible");
    if (capability->access_type_case != CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "the volume capability has no access type");
    if (!capability->access_mode || capability->access_mode->mode <= MODE(UNKNOWN) ||
        capability->access_mode->mode > MODE(SINGLE_NODE_MULTI_WRITER))
        return csi_fail(call, CSI_INVALID_ARGUMENT, "the volume capability has no access mode");
    return CSI_OK;
}

int check_capabilities(struct csi_call *call, size_t count,
                       Csi__V1__VolumeCapability *const *capabilities)
{
    if (!count)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "volume_capabilities are missing");
    for (size_t i = 0; i < count; i++) {
        int code = check_capability(call, capabilities[i]);
        if (code != CSI_OK)
            return code;
    }
    return CSI_OK;
}

int check_capacity(struct csi_call *call, const Csi__V1__CapacityRange *range, int64_t default_size,
                   int64_t *out)
{
    int64_t required = range ? range->required_bytes : 0, limit = range ? range->limit_bytes : 0;
    if (required < 0 || limit < 0)
        return csi_fail(call, CSI_OUT_OF_RANGE, "a size cannot be negative");
    if (limit && required > limit)
        return csi_fail(call, CSI_OUT_OF_RANGE,
                        "required_bytes %" PRId64 " is more than limit_bytes %" PRId64, required,
                        limit);
    if (!required)
        required = limit && limit < default_size ? limit : default_size;
    *out = required;
    return CSI_OK;
}

bool mode_is_read_only(const Csi__V1__VolumeCapability *capability)
{
    mode_type mode = capability->access_mode->mode;
    return mode == MODE(SINGLE_NODE_READER_ONLY) || mode == MODE(MULTI_NODE_READER_ONLY);
}

bool mode_is_shared(const Csi__V1__VolumeCapability *capability)
{
    mode_type mode = capability->access_mode->mode;
    return mode == MODE(MULTI_NODE_SINGLE_WRITER) || mode == MODE(MULTI_NODE_MULTI_WRITER);
}

const char *pair_value(size_t count, Csi__V1__Pair *const *pairs, const char *key)
{
    for (size_t i = count; i > 0; i--)
        if (strcmp(pairs[i - 1]->key, key) == 0)
            return *pairs[i - 1]->value ? pairs[i - 1]->value : NULL;
    return NULL;
}
