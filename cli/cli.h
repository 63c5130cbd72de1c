/* The sub-commands (one file each) and what they share. Each returns the exit code: 0, 1 (failed),
 * 2 (wrong call). */
#ifndef SLUICE_CLI_CLI_H
#define SLUICE_CLI_CLI_H

#include <jansson.h>

#include "base/error.h"

int cli_mount(int argc, char **argv);
int cli_umount(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_refresh(int argc, char **argv);
int cli_notify(int argc, char **argv);
int cli_settle(int argc, char **argv);
int cli_du(int argc, char **argv);
int cli_quota(int argc, char **argv);
int cli_store(int argc, char **argv);
int cli_migrate(int argc, char **argv);
int cli_backup(int argc, char **argv);
int cli_restore(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_fsck(int argc, char **argv);
int cli_gc(int argc, char **argv);
int cli_import(int argc, char **argv);
int cli_rebuild(int argc, char **argv);
int cli_prefix(int argc, char **argv);
int cli_csi(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_bench_service(int argc, char **argv);
int cli_bench_store(int argc, char **argv);
int cli_trace(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_volume(int argc, char **argv);
int cli_warm(int argc, char **argv);
int cli_evict(int argc, char **argv);
int cli_pin(int argc, char **argv);
int cli_unpin(int argc, char **argv);
int cli_cache(int argc, char **argv);
int cli_version(int argc, char **argv);

/* Prints "sluice NAME: message" and returns 1. */
int cli_fail(const char *name, const struct error *error);

#endif
