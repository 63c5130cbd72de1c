#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "doctor_engine.h"
#include "findings.h"
#include "mount_options.h"
#include "places.h"

#define FILES_WANTED 65536        /* RLIMIT_NOFILE */
#define DEADLINE_MS 10000         /* of a request, unless --deadline says another */
#define SPACE_WANTED (1ull << 30) /* bytes free under the metadata and written data */

static bool has_sys_admin(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data) < 0)
        return false;
    return data[0].effective & (1u << CAP_SYS_ADMIN);
}

static void check_kernel(struct findings *f)
{
    struct utsname system;
    char *dot = NULL;
    unsigned long major = 0, minor = 0;
    if (uname(&system) == 0)
        major = strtoul(system.release, &dot, 10);
    if (!dot || *dot != '.') {
        findings_say(f, FINDING_NOTE, "kernel", "its version cannot be read");
        return;
    }
    minor = strtoul(dot + 1, NULL, 10);
    if (major < 5 || (major == 5 && minor < 4))
        findings_say(f, FINDING_BAD, "kernel", "%s is too old: 5.4 or newer is needed",
                     system.release);
    else if (major < 6 || (major == 6 && minor < 9))
        findings_say(f, FINDING_NOTE, "kernel",
                     "%s works; 6.9 or newer can pass reads through to the local disk",
                     system.release);
    else
        findings_say(f, FINDING_GOOD, "kernel", "%s", system.release);
    if (has_sys_admin() && (major > 6 || (major == 6 && minor >= 9)))
        findings_say(f, FINDING_GOOD, "passthrough",
                     "cached files can be read at the speed of the local disk");
    else
        findings_say(f, FINDING_NOTE, "passthrough", "%s: every read comes to the mount",
                     has_sys_admin() ? "needs kernel 6.9" : "needs CAP_SYS_ADMIN");
}

static void check_fuse(struct findings *f)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        findings_say(f, FINDING_BAD, "/dev/fuse", "%s: %s", strerror(errno),
                     errno == EACCES
                         ? "mount as root, or let users open it (chmod 0666 /dev/fuse)"
                         : "load the module (modprobe fuse); in a container, pass the device in");
    else
        findings_say(f, FINDING_GOOD, "/dev/fuse", "can be opened");
    if (fd >= 0)
        close(fd);
    if (has_sys_admin())
        findings_say(f, FINDING_GOOD, "rights to mount", "CAP_SYS_ADMIN");
    else if (access("/usr/bin/fusermount3", X_OK) == 0 || access("/bin/fusermount3", X_OK) == 0)
        findings_say(f, FINDING_GOOD, "rights to mount", "through fusermount3");
    else
        findings_say(f, FINDING_BAD, "rights to mount",
                     "not root, and there is no fusermount3: install the package fuse3");
    fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
    char value = 0;
    if (fd >= 0 && read(fd, &value, 1) == 1 && value == 'Y')
        findings_say(f, FINDING_GOOD, "FUSE over io_uring", "the kernel offers it");
    else
        findings_say(f, FINDING_NOTE, "FUSE over io_uring", "%s",
                     fd >= 0 ? "off; as root: echo Y > /sys/module/fuse/parameters/enable_uring"
                             : "this kernel has none (6.14 or newer); the classic device is used");
    if (fd >= 0)
        close(fd);
}

static void check_limits(struct findings *f)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < FILES_WANTED)
        findings_say(f, FINDING_NOTE, "open files",
                     "at most %llu; raise it (ulimit -Hn, LimitNOFILE=) to %d for many open files",
                     (unsigned long long)limit.rlim_max, FILES_WANTED);
    else
        findings_say(f, FINDING_GOOD, "open files", "at most %llu",
                     (unsigned long long)limit.rlim_max);
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t free_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    findings_say(f, free_bytes >= 256u << 20 ? FINDING_GOOD : FINDING_NOTE, "memory",
                 "%llu MiB free, a mount uses up to 256 MiB (--memory)",
                 (unsigned long long)(free_bytes >> 20));
}

static void check_space(struct findings *f, const char *path)
{
    struct statvfs st;
    cleanup(free_ptr) char *at = strdup(path);
    if (!at)
        return;
    while (statvfs(at, &st) < 0) {
        char *slash = strrchr(at, '/');
        if (!slash || slash == at)
            return;
        *slash = 0;
    }
    uint64_t free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    findings_say(f, free_bytes >= SPACE_WANTED ? FINDING_GOOD : FINDING_BAD, "local disk",
                 "%llu MiB free under %s%s", (unsigned long long)(free_bytes >> 20), at,
                 free_bytes >= SPACE_WANTED
                     ? ""
                     : ": metadata and written data need more; choose another disk "
                       "with --meta-dir and --cache-dir");
}

static void take_finding(void *arg, const char *what, bool good, const char *text)
{
    findings_say(arg, good ? FINDING_GOOD : FINDING_NOTE, what, "%s", text);
}

static int check_store(struct findings *f, const struct mount_options *options, const char *text)
{
    struct store_url url = {0};
    struct error error = {0};
    struct store_options store_options;
    struct loop *loop = NULL;
    struct store *store = NULL;
    mount_options_store(options, &store_options);
    if (store_url_parse(text, &url, &error) < 0) {
        cli_fail("doctor", &error);
        return 2;
    }
    cleanup(free_ptr) char *place = places_default(&url, options->endpoint);
    check_space(f, place ? place : "/var/lib");
    int r = loop_new(&loop, "store");
    if (r < 0)
        error_set(&error, r, "event loop: %s", strerror(-r));
    if (r == 0)
        r = store_open(&url, &store_options, loop, NULL, &store, &error);
    if (r < 0) {
        findings_say(f, FINDING_BAD, "store", "%s", error_text(&error));
    } else {
        findings_say(f, FINDING_GOOD, "store", "%s", store_name(store));
        r = store_probe(store, url.prefix, take_finding, f, &error);
        if (r < 0)
            findings_say(f, FINDING_BAD, "bucket", "%s", error_text(&error));
    }
    store_free(store);
    loop_free(loop);
    store_url_done(&url);
    return 0;
}

int cli_doctor(int argc, char **argv)
{
    struct mount_options options;
    struct option_result result;
    struct findings findings = {0};
    if (argc > 1 && engine_by_name(argv[1]) >= 0)
        return doctor_engine(argc - 1, argv + 1);
    mount_options_init(&options);
    options.deadline_ms = DEADLINE_MS;
    log_set_level(LOG_ERROR); /* a request that failed is in the report */
    int r = options_parse(&store_option_set, "sluice doctor", argc, argv, &options, &result);
    if (r) {
        mount_options_free(&options);
        return r - 1;
    }
    check_kernel(&findings);
    check_fuse(&findings);
    check_limits(&findings);
    if (result.arg_count)
        r = check_store(&findings, &options, result.args[0]);
    mount_options_free(&options);
    if (r)
        return r;
    if (findings.bad)
        printf("\n%u will not work as it is; see the lines marked BAD.\n", findings.bad);
    else if (findings.notes)
        printf("\nAll that is needed is there; the notes say what could be better.\n");
    else
        printf("\nAll is well.\n");
    return findings.bad ? 1 : 0;
}
