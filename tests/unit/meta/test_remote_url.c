/* URLs of a service's volumes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meta/remote.h"
#include "test.h"

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

TEST(remote_url, good_ones)
{
    static const struct {
        const char *text, *host, *port, *path, *volume, *directory;
    } cases[] = {
        {"sluice://h:7/v", "h", "7", NULL, "v", NULL},
        {"sluice://h:7/v/", "h", "7", NULL, "v", NULL},
        {"sluice://[::1]:7/v/a", "::1", "7", NULL, "v", "a"},
        {"sluice://h:7/v//a/b c//", "h", "7", NULL, "v", "a/b c"},
        {"sluice://h:7/v/a:b/...", "h", "7", NULL, "v", "a:b/..."},
        {"sluice+unix:///run/s:v", NULL, NULL, "/run/s", "v", NULL},
        {"sluice+unix:///run/s:v/a:b/c", NULL, NULL, "/run/s", "v", "a:b/c"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct meta_remote_url url;
        check_int(meta_remote_url_parse(cases[i].text, &url, NULL), 0);
        check(same(url.host, cases[i].host));
        check(same(url.port, cases[i].port));
        check(same(url.path, cases[i].path));
        check(same(url.volume, cases[i].volume));
        check(same(url.directory, cases[i].directory));
        meta_remote_url_done(&url);
    }
}

TEST(remote_url, bad_ones)
{
    static const char *const cases[] = {
        "sluice://h:7",          "sluice://h:7/",        "sluice://h/v",
        "sluice://:7/v",         "sluice://h:7/.v",      "sluice://h:7/v/..",
        "sluice://h:7/v/a/../b", "sluice://h:7/v/./b",   "sluice://h:7//a",
        "sluice+unix://run/s:v", "sluice+unix:///run/s", "sluice+unix:///run/s:",
        "sluice://h:x/v/a",      "sluice://h:0/v",       "sluice://h:65536/v",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct meta_remote_url url;
        struct error error = {0};
        check_int(meta_remote_url_parse(cases[i], &url, &error), -EINVAL);
        check(error.message[0] != 0);
    }
}
