/* Reads an engine's configuration, says what it does on a mount, and prints the lines to use. */
#include "doctor_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli.h"
#include "options.h"

struct engine_options {
    char *conf;
};

static const struct option_spec specs[] = {
    {"conf", 'c', OPTION_STRING, offsetof(struct engine_options, conf), "FILE[,FILE…]",
     "The engine's configuration: spark-defaults.conf, hive-site.xml, core-site.xml, "
     "flink-conf.yaml or config.yaml; of several files the last one counts",
     .cli_only = true},
};

static const struct option_set option_set = {
    .specs = specs,
    .count = ARRAY_LEN(specs),
    .usage = "",
    .doc = "Reads the configuration of a data engine, says what is unsafe or slow on a mount, and "
           "prints the lines to use. Changes nothing."
           "\vExamples:\n"
           "  sluice doctor spark --conf /etc/spark/spark-defaults.conf\n"
           "  sluice doctor hive --conf core-site.xml,hive-site.xml\n"
           "  sluice doctor flink --conf conf/config.yaml\n\n"
           "Ends with 0 if nothing is unsafe, 1 if something is, 2 for a wrong call.",
};

struct consultation {
    struct findings findings;
    enum engine_conf_format format; /* of the last file */
    struct buf lines;               /* to use */
};

/* Whether a path, or what of it exists already, lies below a directory with .sluice/ctl. */
static bool on_mount(const char *path)
{
    char at[4096 + sizeof("/.sluice/ctl")];
    size_t len = strlen(path);
    if (len >= 4096)
        return false;
    memcpy(at, path, len + 1);
    while (len > 0) {
        memcpy(at + len, "/.sluice/ctl", sizeof("/.sluice/ctl"));
        if (access(at, F_OK) == 0)
            return true;
        do
            len--;
        while (len > 0 && at[len] != '/');
    }
    return false;
}

static void put_line(struct consultation *c, const char *name, const char *value)
{
    switch (c->format) {
    case ENGINE_CONF_XML:
        buf_printf(&c->lines, "  <property><name>%s</name><value>%s</value></property>\n", name,
                   value);
        break;
    case ENGINE_CONF_YAML:
        buf_printf(&c->lines, "%s: %s\n", name, value);
        break;
    case ENGINE_CONF_PROPERTIES:
        buf_printf(&c->lines, "%s %s\n", name, value);
        break;
    }
}

static void take_advice(void *arg, const struct advice *advice)
{
    struct consultation *c = arg;
    findings_say(&c->findings, advice->kind, advice->name, "%s", advice->text);
    if (advice->value)
        put_line(c, advice->name, advice->value);
}

static int read_file(const char *path, struct buf *out, struct error *error)
{
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    char part[65536];
    ssize_t got;
    while ((got = read(fd, part, sizeof(part))) > 0) {
        if (out->len + (size_t)got > ENGINE_CONF_TEXT_MAX)
            return error_set(error, -EFBIG, "%s: it has more than %u bytes", path,
                             ENGINE_CONF_TEXT_MAX);
        buf_put(out, part, (size_t)got);
    }
    if (got < 0)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    return buf_error(out) < 0 ? error_set(error, -ENOMEM, "no memory") : 0;
}

static int read_conf(enum engine engine, const char *path, struct engine_conf *conf,
                     enum engine_conf_format *format, struct error *error)
{
    struct buf text;
    buf_init(&text, 0);
    int result = read_file(path, &text, error);
    if (result == 0) {
        struct error why = {0};
        result = engine_conf_parse(conf, text.len ? (const char *)text.data : "", text.len,
                                   engine == ENGINE_FLINK, format, &why);
        if (result < 0)
            error_set(error, result, "%s: %s", path, error_text(&why));
    }
    buf_done(&text);
    return result;
}

static int read_all(enum engine engine, char *files, struct engine_conf *conf,
                    enum engine_conf_format *format, struct error *error)
{
    char *rest = files;
    int result = 0;
    for (char *path; result == 0 && (path = strsep(&rest, ","));)
        result = read_conf(engine, path, conf, format, error);
    return result;
}

static void consult(enum engine engine, const struct engine_conf *conf, struct consultation *c)
{
    buf_init(&c->lines, 0);
    engine_advise(engine, conf, on_mount, take_advice, c);
    if (engine == ENGINE_FLINK)
        findings_say(
            &c->findings, FINDING_GOOD, "sinks",
            "a sink writes each record by itself: mount with --writeback for it, unless the "
            "volume is a service's");
    if (c->lines.len)
        printf("\nThe lines to use:\n%.*s", (int)c->lines.len, (const char *)c->lines.data);
    if (c->findings.bad)
        printf("\n%u would not be safe as it is; see the lines marked BAD.\n", c->findings.bad);
    else if (c->findings.notes)
        printf("\nNothing is unsafe; the notes say what could be better.\n");
    else
        printf("\nAll is well.\n");
    buf_done(&c->lines);
}

int doctor_engine(int argc, char **argv)
{
    struct engine_options options = {0};
    struct option_result parsed;
    struct engine_conf conf = {0};
    struct consultation consultation = {0};
    struct error error = {0};
    enum engine engine = (enum engine)engine_by_name(argv[0]);
    char name[64];
    snprintf(name, sizeof(name), "sluice doctor %s", argv[0]);
    int r = options_parse(&option_set, name, argc, argv, &options, &parsed);
    if (r) {
        options_free(&option_set, &options);
        return r - 1;
    }
    if (!options.conf) {
        fprintf(stderr, "%s: --conf FILE is missing (%s --help)\n", name, name);
        return 2;
    }
    if (read_all(engine, options.conf, &conf, &consultation.format, &error) < 0) {
        cli_fail("doctor", &error);
        r = 2;
    } else {
        consult(engine, &conf, &consultation);
        r = consultation.findings.bad ? 1 : 0;
    }
    engine_conf_done(&conf);
    options_free(&option_set, &options);
    return r;
}
