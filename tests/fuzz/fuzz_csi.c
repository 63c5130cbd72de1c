/* Requests of the CSI driver: decoding with its bounds. The first byte chooses the method. */
#include <stdlib.h>

#include "csi.pb-c.h"
#include "registration.pb-c.h"
#include "wire.h"

static const ProtobufCServiceDescriptor *const services[] = {
    &csi__v1__identity__descriptor,
    &csi__v1__controller__descriptor,
    &csi__v1__node__descriptor,
    &pluginregistration__registration__descriptor,
};

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
    struct buf again;
    buf_init(&again, 0);
    if (wire_encode(m.message, &again) < 0)
        abort();
    buf_done(&again);
    wire_message_done(&m);
    return 0;
}
