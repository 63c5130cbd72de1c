#include "cli.h"

#include <curl/curl.h>
#include <expat.h>
#include <fuse_lowlevel.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <uv.h>

int cli_version(int argc, char **argv)
{
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "Usage: sluice version\nPrints the version of sluice and "
                                        "of the libraries that it runs with.\n");
        return help ? 0 : 2;
    }
    struct utsname system;
    printf("sluice %s\n", SLUICE_VERSION);
    printf("libfuse %s, libcurl %s, %s, libuv %s, %s, jansson %s\n", fuse_pkgversion(),
           curl_version_info(CURLVERSION_NOW)->version, OpenSSL_version(OPENSSL_VERSION),
           uv_version_string(), XML_ExpatVersion(), jansson_version_str());
    if (uname(&system) == 0)
        printf("%s %s %s\n", system.sysname, system.release, system.machine);
    return 0;
}

int cli_fail(const char *name, const struct error *error)
{
    fprintf(stderr, "sluice %s: %s\n", name, error_text(error));
    return 1;
}
