/* The sluice command: finds the sub-command and runs it. */
#include "cli.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"mount", cli_mount, "mount a bucket or directory as a filesystem"},
    {"umount", cli_umount, "unmount, after everything written is in the store"},
    {"status", cli_status, "what a mount does: volume, drift, usage, requests, errors"},
    {"refresh", cli_refresh, "look again at what others changed in the bucket"},
    {"notify", cli_notify, "take the bucket's notifications of what others changed"},
    {"settle", cli_settle, "bring files to their own keys now, and wait for it"},
    {"du", cli_du, "bytes, files and directories below a path, at once"},
    {"usage", cli_du, "the same as du"},
    {"warm", cli_warm, "bring files into the cache of their mount"},
    {"evict", cli_evict, "drop files from the cache"},
    {"pin", cli_pin, "keep files in the cache"},
    {"unpin", cli_unpin, "let the cache evict them again"},
    {"cache", cli_cache, "status, verify or clear the cache of a mount"},
    {"quota", cli_quota, "limits on bytes and inodes of a directory"},
    {"store", cli_store, "attach other buckets to a mount, list and detach them"},
    {"migrate", cli_migrate, "move the data of a directory to another store while it is used"},
    {"doctor", cli_doctor, "check this host and a bucket, and say what to do"},
    {"fsck", cli_fsck, "check the metadata of a volume, and with the bucket"},
    {"gc", cli_gc, "find and delete what crashes left in the bucket"},
    {"import", cli_import, "names of a large bucket from its inventory in place of listings"},
    {"rebuild", cli_rebuild, "make lost metadata anew from what is in the bucket"},
    {"prefix", cli_prefix, "a bucket prefix as a volume with a name and a size"},
    {"backup", cli_backup, "copy the metadata of a volume to a bucket"},
    {"restore", cli_restore, "bring the metadata of a volume back from a backup"},
    {"csi", cli_csi, "the CSI driver: volumes for Kubernetes"},
    {"bench", cli_bench, "measure a directory of any filesystem"},
    {"bench-service", cli_bench_service, "measure a metadata service, without mounts"},
    {"bench-store", cli_bench_store, "measure a bucket, and show what it supports"},
    {"trace", cli_trace, "record what programs do with a directory, and do it again elsewhere"},
    {"serve", cli_serve, "serve the metadata of volumes to many mounts"},
    {"volume", cli_volume, "make, show, change and delete the volumes of a service"},
    {"version", cli_version, "versions of sluice and of the libraries it runs with"},
};

static void print_help(FILE *out)
{
    fputs("sluice: S3 buckets as a POSIX filesystem; the bucket stays plain objects.\n\n"
          "Usage: sluice COMMAND [OPTION…]\n\nCommands:\n",
          out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "  %-13s %s\n", commands[i].name, commands[i].help);
    fputs("\n`sluice COMMAND --help` tells more. First steps:\n"
          "  sluice doctor s3://BUCKET\n"
          "  sluice mount s3://BUCKET /mnt\n"
          "  sluice status /mnt\n",
          out);
}

/* A report that is cut off, because the disk is full for one, is no success. */
static void check_output(void)
{
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout) == 0 && !failed)
        return;
    fprintf(stderr, "sluice: the output could not be written%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    _exit(1);
}

static int run(int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, argv[0]) == 0)
            return commands[i].run(argc, argv);
    fprintf(stderr, "sluice: there is no command '%s'; `sluice --help` lists them\n", argv[0]);
    return 2;
}

int main(int argc, char **argv)
{
    atexit(check_output); /* --help and --usage of a command exit by themselves */
    /* As a helper of mount(8): `mount.fuse.sluice URL DIR -o …`, or from mount.fuse: `sluice URL
     * DIR -o …`. */
    const char *base = strrchr(argv[0], '/');
    base = base ? base + 1 : argv[0];
    if (strncmp(base, "mount.", 6) == 0 || (argc > 2 && strstr(argv[1], "://")))
        return cli_mount(argc, argv);
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    const char *name = argv[1];
    char version[] = "version"; /* in the block of the call below */
    bool help = strcmp(name, "help") == 0;
    if (help && argc > 2) {
        char *asked[] = {argv[2], (char[]){"--help"}, NULL};
        return run(2, asked);
    }
    if (help || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        argv[1] = version;
    return run(argc - 1, argv + 1);
}
