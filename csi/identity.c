/* Identity: who the driver is and what it can do; and the same for the kubelet's registration. */
#include "base/cleanup.h"
#include "base/log.h"
#include "csi.pb-c.h"
#include "driver.h"
#include "registration.pb-c.h"

static int get_plugin_info(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    (void)request;
    Csi__V1__GetPluginInfoResponse reply = CSI__V1__GET_PLUGIN_INFO_RESPONSE__INIT;
    reply.name = (char *)csi->config.name;
    reply.vendor_version = (char *)SLUICE_VERSION;
    return csi_reply(call, &reply.base);
}

static int get_plugin_capabilities(struct csi *csi, struct csi_call *call,
                                   const ProtobufCMessage *request)
{
    (void)request;
    Csi__V1__GetPluginCapabilitiesResponse reply = CSI__V1__GET_PLUGIN_CAPABILITIES_RESPONSE__INIT;
    Csi__V1__PluginCapability__Service controller = CSI__V1__PLUGIN_CAPABILITY__SERVICE__INIT,
                                       topology = CSI__V1__PLUGIN_CAPABILITY__SERVICE__INIT;
    Csi__V1__PluginCapability__VolumeExpansion expansion =
        CSI__V1__PLUGIN_CAPABILITY__VOLUME_EXPANSION__INIT;
    controller.type = CSI__V1__PLUGIN_CAPABILITY__SERVICE__TYPE__CONTROLLER_SERVICE;
    topology.type = CSI__V1__PLUGIN_CAPABILITY__SERVICE__TYPE__VOLUME_ACCESSIBILITY_CONSTRAINTS;
    expansion.type = CSI__V1__PLUGIN_CAPABILITY__VOLUME_EXPANSION__TYPE__ONLINE;
    Csi__V1__PluginCapability entries[3] = {CSI__V1__PLUGIN_CAPABILITY__INIT,
                                            CSI__V1__PLUGIN_CAPABILITY__INIT,
                                            CSI__V1__PLUGIN_CAPABILITY__INIT};
    entries[0].type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_VOLUME_EXPANSION;
    entries[0].volume_expansion = &expansion;
    entries[1].type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_SERVICE;
    entries[1].service = &topology;
    entries[2].type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_SERVICE;
    entries[2].service = &controller;
    Csi__V1__PluginCapability *list[] = {&entries[0], &entries[1], &entries[2]};
    reply.capabilities = list;
    /* A node plugin is beside a controller of its own elsewhere, so both say the same. */
    reply.n_capabilities = ARRAY_LEN(list);
    (void)csi;
    return csi_reply(call, &reply.base);
}

static int probe(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    (void)csi;
    (void)request;
    Csi__V1__ProbeResponse reply = CSI__V1__PROBE_RESPONSE__INIT;
    Csi__V1__BoolValue ready = CSI__V1__BOOL_VALUE__INIT;
    ready.value = true;
    reply.ready = &ready;
    return csi_reply(call, &reply.base);
}

const struct csi_method csi_identity_methods[] = {
    CSI_METHOD(csi__v1__identity__descriptor, "GetPluginInfo", get_plugin_info),
    CSI_METHOD(csi__v1__identity__descriptor, "GetPluginCapabilities", get_plugin_capabilities),
    CSI_METHOD(csi__v1__identity__descriptor, "Probe", probe),
    {0},
};

static int get_info(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    (void)request;
    Pluginregistration__PluginInfo reply = PLUGINREGISTRATION__PLUGIN_INFO__INIT;
    char *versions[] = {(char *)"1.0.0"};
    reply.type = (char *)"CSIPlugin";
    reply.name = (char *)csi->config.name;
    reply.endpoint =
        (char *)(csi->config.kubelet_endpoint ? csi->config.kubelet_endpoint : csi->socket);
    reply.n_supported_versions = ARRAY_LEN(versions);
    reply.supported_versions = versions;
    return csi_reply(call, &reply.base);
}

static int notify_registration(struct csi *csi, struct csi_call *call,
                               const ProtobufCMessage *request)
{
    const Pluginregistration__RegistrationStatus *status = (const void *)request;
    Pluginregistration__RegistrationStatusResponse reply =
        PLUGINREGISTRATION__REGISTRATION_STATUS_RESPONSE__INIT;
    char text[600];
    (void)csi;
    if (status->plugin_registered)
        log_info("the kubelet has registered the driver");
    else
        log_error("the kubelet refused the driver", "error=%s",
                  log_quote(status->error, text, sizeof(text)));
    return csi_reply(call, &reply.base);
}

const struct csi_method csi_registration_methods[] = {
    CSI_METHOD(pluginregistration__registration__descriptor, "GetInfo", get_info),
    CSI_METHOD(pluginregistration__registration__descriptor, "NotifyRegistrationStatus",
               notify_registration),
    {0},
};
