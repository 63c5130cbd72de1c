/* The checkpoint of an open volume, for backups: one at a time. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "volume/volume.h"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_all(const struct meta *meta)
{
    char unfinished[PATH_MAX + 32]; /* RocksDB's */
    snprintf(unfinished, sizeof(unfinished), "%s.tmp", meta->checkpoint);
    nftw(meta->checkpoint, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    nftw(unfinished, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void checkpoint_init(struct meta *meta)
{
    snprintf(meta->checkpoint, sizeof(meta->checkpoint), "%s/checkpoint", meta->directory);
    remove_all(meta);
}

int meta_checkpoint(struct meta *meta, const char **directory, uint64_t *applied,
                    struct error *error)
{
    if (meta->remote)
        return error_set(error, -EOPNOTSUPP,
                         "the metadata is with the service; `sluice backup` is for its host");
    if (meta->remote)
        return error_set(error, -EOPNOTSUPP,
                         "the metadata is with the service: its host makes the backup");
    if (meta->config.read_only)
        return error_set(error, -EROFS, "a read-only mount has no metadata of its own");
    if (atomic_exchange(&meta->checkpointed, true))
        return error_set(error, -EBUSY, "a backup of this volume is being made");
    *applied = engine_sequence(meta->engine);
    int rc = engine_checkpoint(meta->engine, meta->checkpoint, error);
    if (rc < 0)
        meta_checkpoint_drop(meta);
    else
        *directory = meta->checkpoint;
    return rc;
}

void meta_checkpoint_drop(struct meta *meta)
{
    remove_all(meta);
    atomic_store(&meta->checkpointed, false);
}
