#include "exposition.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "test.h"

static int add(struct exposition *e, const char *text, const char *label)
{
    return exposition_add(e, text, strlen(text), label);
}

static void check_text(const struct exposition *e, const char *wanted)
{
    struct buf out;
    buf_init(&out, 0);
    exposition_print(e, &out);
    buf_put_u8(&out, 0);
    check_str((const char *)out.data, wanted);
    buf_done(&out);
}

TEST(exposition_add, brings_families_together)
{
    struct exposition *e = exposition_new(1 << 20);
    check_int(add(e, "# HELP a first.\n# TYPE a gauge\na 1\na{op=\"x\"} 2\n", "v=\"1\""), 0);
    check_int(add(e, "# HELP b B.\n# TYPE b counter\nb 7\n# HELP a again.\n# TYPE a gauge\na 3\n",
                  "v=\"2\""),
              0);
    check_int(add(e, "# HELP a own.\n# TYPE a gauge\na{} 4\n", NULL), 0);
    check_text(e, "# HELP a first.\n# TYPE a gauge\na{v=\"1\"} 1\na{v=\"1\",op=\"x\"} 2\n"
                  "a{v=\"2\"} 3\na{} 4\n# HELP b B.\n# TYPE b counter\nb{v=\"2\"} 7\n");
    exposition_free(e);
}

TEST(exposition_add, leaves_out_histograms_without_observations)
{
    struct exposition *e = exposition_new(1 << 20);
    const char *text =
        "# HELP s S.\n# TYPE s histogram\n"
        "s_bucket{op=\"a\",le=\"+Inf\"} 0\ns_sum{op=\"a\"} 0.000\ns_count{op=\"a\"} 0\n"
        "s_bucket{op=\"b\",le=\"+Inf\"} 10\ns_sum{op=\"b\"} 1.5\ns_count{op=\"b\"} 10\n";
    check_int(add(e, text, NULL), 0);
    check_text(e, "# HELP s S.\n# TYPE s histogram\n"
                  "s_bucket{op=\"b\",le=\"+Inf\"} 10\ns_sum{op=\"b\"} 1.5\ns_count{op=\"b\"} 10\n");
    exposition_free(e);
}

TEST(exposition_add, leaves_out_what_is_not_of_the_format)
{
    static const char *const texts[] = {
        "a 1\n",
        "# TYPE a\n",
        "# TYPE  \n",
        "# HELP a x\n# TYPE a gauge\nb 1\naa 1\na_other 1\na\n",
        "# HELP a x\n# TYPE a gauge\na 1",
        "\n\n",
        "# HELP a x",
        "# just words\n",
        "{ 1\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct exposition *e = exposition_new(1 << 20);
        check_int(add(e, texts[i], "v=\"1\""), 0);
        check_text(e, "");
        exposition_free(e);
    }
}

TEST(exposition_add, keeps_the_first_type)
{
    struct exposition *e = exposition_new(1 << 20);
    check_int(add(e, "# HELP a A.\n# TYPE a gauge\na 1\n", NULL), 0);
    check_int(add(e, "# HELP a A.\n# TYPE a counter\na 2\n", "v=\"1\""), 0);
    check_text(e, "# HELP a A.\n# TYPE a gauge\na 1\n");
    exposition_free(e);
}

TEST(exposition_add, is_bounded)
{
    struct exposition *e = exposition_new(1000);
    check_int(add(e, "# HELP a A.\n# TYPE a gauge\n", NULL), 0);
    int r = 0;
    for (int i = 0; i < 100 && r == 0; i++)
        r = add(e, "# HELP a A.\n# TYPE a gauge\na 1234567890\n", "v=\"1\"");
    check_int(r, -E2BIG);
    check_int(add(e, "# HELP b B.\n# TYPE b gauge\nb 1\n", NULL), -E2BIG);
    struct buf out;
    buf_init(&out, 0);
    exposition_print(e, &out);
    check(out.len > 100 && out.len < 1000);
    buf_done(&out);
    exposition_free(e);
}

TEST(exposition_label, escapes)
{
    cleanup(free_ptr) char *label = exposition_label("volume", "a\"b\\c\nd");
    check_str(label, "volume=\"a\\\"b\\\\c\\nd\"");
}
