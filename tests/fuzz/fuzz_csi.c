/* Requests of the CSI driver: decoding with its bounds, and the checks of names, paths and
 * parameters. The first byte chooses the method. */
#include <stdlib.h>

#include "check.h"
#include "csi.pb-c.h"
#include "mounts.h"
#include "registration.pb-c.h"
#include "source.h"
#include "token.h"
#include "wire.h"

static const ProtobufCServiceDescriptor *const services[] = {
    &csi__v1__identity__descriptor,
    &csi__v1__controller__descriptor,
    &csi__v1__node__descriptor,
    &pluginregistration__registration__descriptor,
};

static void check_text(struct csi_call *call, const char *text)
{
    struct source source;
    struct mount_entry entry;
    check_path(call, "path", text);
    if (source_from_id(call, text, true, &source) == CSI_OK) {
        source_is_made(&source);
        if (source_descend(call, &source, text) != CSI_OK)
            abort();
        free(source_id(&source));
        source_done(&source);
    }
    free(token_pick(text, NULL));
    mounts_parse_line(text, &entry);
    free(entry.mountpoint);
    free(entry.type);
    free(entry.source);
}

static void check_create(struct csi_call *call, const Csi__V1__CreateVolumeRequest *r)
{
    struct source source;
    check_capabilities(call, r->n_volume_capabilities, r->volume_capabilities);
    if (source_from_pairs(call, r->n_parameters, r->parameters, true, &source) != CSI_OK)
        return;
    for (size_t i = 0; i < r->n_volume_capabilities; i++)
        if (check_capability(call, r->volume_capabilities[i]) == CSI_OK)
            source_add_flags(call, &source, r->volume_capabilities[i]->mount->n_mount_flags,
                             r->volume_capabilities[i]->mount->mount_flags);
    source_done(&source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct wire_message m;
    if (!len)
        return 0;
    const ProtobufCServiceDescriptor *service = services[data[0] & 3];
    const ProtobufCMethodDescriptor *method =
        &service->methods[(data[0] >> 2) % service->n_methods];
    if (wire_decode(method->input, data + 1, len - 1, &m, NULL) < 0)
        return 0;
    struct csi_call call;
    struct buf again;
    csi_call_init(&call, 0);
    const char *id = wire_string(m.message, "volume_id");
    if (id)
        check_text(&call, id);
    if (method->input == &csi__v1__create_volume_request__descriptor)
        check_create(&call, (const void *)m.message);
    buf_init(&again, 0);
    if (wire_encode(m.message, &again) < 0)
        abort();
    buf_done(&again);
    wire_message_done(&m);
    return 0;
}
