/*
 * What a volume is made of: a URL and the options of its mount, from StorageClass parameters,
 * volume attributes or the volume id. Names and values are checked here against a list; nothing
 * else of a request reaches a command line.
 *
 * The id of a volume that the driver made is its URL, with the endpoint and region where they are
 * given: s3://bucket/prefix/name;endpoint=http://host:9000;region=r, or
 * sluice://host:7700/volume/prefix/name (sluices:// with TLS). So DeleteVolume needs nothing but
 * the id.
 */
#ifndef SLUICE_CSI_SOURCE_H
#define SLUICE_CSI_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

#include "call.h"
#include "csi.pb-c.h"

enum source_kind { SOURCE_S3, SOURCE_FILE, SOURCE_SERVICE };

#define SOURCE_OPTIONS_MAX 64

struct source {
    enum source_kind kind;
    char *url;
    char *endpoint, *region; /* NULL: none */
    char *directory;         /* below the volume's root: only this is published; NULL: all */
    char *options[SOURCE_OPTIONS_MAX]; /* "--memory=128M", of `sluice mount` */
    unsigned option_count;
    bool read_only, take_over;
    bool delete_data; /* onDelete: delete */
    bool pin;         /* topology: node */
    bool import_only; /* onMove: import */
    bool anonymous;
    bool pod_identity;                 /* identity: pod */
    char *role, *sts, *token_audience; /* of it; NULL: none */
    char *selinux_context;             /* for all files; NULL: none */
    bool managed;                      /* made by CreateVolume: the bucket holds a record of it */
};

/* Pairs of a StorageClass, volume_context or an inline volume. Keys of Kubernetes itself
 * (csi.storage.k8s.io/…, storage.kubernetes.io/…) are ignored, others that are not known refused.
 * CSI_OK with *out to be released, or INVALID_ARGUMENT. `allow_file`: file:// is allowed. */
int source_from_pairs(struct csi_call *call, size_t count, Csi__V1__Pair *const *pairs,
                      bool allow_file, struct source *out);
/* Pairs name a source (and not only options of it). */
bool source_in_pairs(size_t count, Csi__V1__Pair *const *pairs);
/* An id as source_id makes it. INVALID_ARGUMENT if it is another one. */
int source_from_id(struct csi_call *call, const char *id, bool allow_file, struct source *out);
/* Options of PersistentVolume.spec.mountOptions, added to a source. Flags of the kernel are left to
 * mounts_flags. */
int source_add_flags(struct csi_call *call, struct source *source, size_t count,
                     char *const *flags);
void source_done(struct source *source);

/* It has a place of its own, which this driver may have made. A volume of a service as a whole was
 * made there. */
bool source_is_made(const struct source *source);
/* Makes the volume `name` below the source: its own directory. Deterministic. */
int source_descend(struct csi_call *call, struct source *source, const char *name);
/* Owned by the caller. NULL without memory, or if it were longer than CHECK_NAME_MAX. */
char *source_id(const struct source *source);
/* The service can be written by many nodes, the others by one. INVALID_ARGUMENT with the reason if
 * the mode cannot hold. */
int source_allows(struct csi_call *call, const struct source *source,
                  const Csi__V1__VolumeCapability *capability);

#endif
