/* Configurations of data engines: what is read of them, and what is said about it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_advice.h"
#include "engine_conf.h"
#include "test.h"

static int parse(struct engine_conf *conf, const char *text, bool yaml,
                 enum engine_conf_format *format, struct error *error)
{
    return engine_conf_parse(conf, text, strlen(text), yaml, format, error);
}

static void expect(const char *text, bool yaml, enum engine_conf_format wanted, const char *name,
                   const char *value)
{
    struct engine_conf conf = {0};
    enum engine_conf_format format = ENGINE_CONF_XML;
    check_int(parse(&conf, text, yaml, &format, NULL), 0);
    check_int(format, wanted);
    check_str(engine_conf_get(&conf, name), value);
    engine_conf_done(&conf);
}

TEST(engine_conf, reads_hadoops_xml)
{
    const char *text = "<?xml version=\"1.0\"?>\n<!-- a.b -->\n<configuration>\n"
                       " <property><name> a.b </name><value>\n1&amp;2 </value>"
                       "<description>x</description></property>\n"
                       " <property><name>c</name><final>true</final></property>\n"
                       "</configuration>";
    expect(text, false, ENGINE_CONF_XML, "a.b", "1&2");
    expect(text, true, ENGINE_CONF_XML, "c", "");
    expect(text, false, ENGINE_CONF_XML, "d", NULL);
}

TEST(engine_conf, reads_properties)
{
    const char *text = "# a\n! b\n\nspark.a   one two\nspark.b=x=y\nspark.c: z\r\n"
                       "spark.a three\nspark.d\n";
    expect(text, false, ENGINE_CONF_PROPERTIES, "spark.a", "three");
    expect(text, false, ENGINE_CONF_PROPERTIES, "spark.b", "x=y");
    expect(text, false, ENGINE_CONF_PROPERTIES, "spark.c", "z");
    expect(text, false, ENGINE_CONF_PROPERTIES, "spark.d", "");
}

TEST(engine_conf, reads_flat_and_nested_yaml)
{
    const char *text = "---\n# c\na.b: file:///x # y\nexecution:\n  checkpointing:\n"
                       "    dir: \"s3://b/c\"\n    list:\n      - 1\n  other: 'z'\nlast: 5\n";
    expect(text, true, ENGINE_CONF_YAML, "a.b", "file:///x");
    expect(text, true, ENGINE_CONF_YAML, "execution.checkpointing.dir", "s3://b/c");
    expect(text, true, ENGINE_CONF_YAML, "execution.other", "z");
    expect(text, true, ENGINE_CONF_YAML, "last", "5");
    expect(text, true, ENGINE_CONF_YAML, "execution.last", NULL);
}

TEST(engine_conf, refuses_with_a_reason)
{
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"<configuration><property>", "line 1"},
        {"<html></html>", "not <configuration>"},
        {"<!DOCTYPE c [<!ENTITY x \"y\">]><configuration>&x;</configuration>", "entities"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine_conf conf = {0};
        struct error error = {0};
        enum engine_conf_format format;
        check_int(parse(&conf, cases[i].text, false, &format, &error), -EINVAL);
        check(strstr(error_text(&error), cases[i].reason) != NULL);
        engine_conf_done(&conf);
    }
    struct engine_conf conf = {0};
    enum engine_conf_format format;
    check_int(engine_conf_parse(&conf, "a b\0c", 5, false, &format, NULL), -EINVAL);
    engine_conf_done(&conf);
}

TEST(engine_conf, bounds_names)
{
    struct engine_conf conf = {0};
    enum engine_conf_format format;
    char *text = malloc(3 * ENGINE_CONF_NAME_MAX);
    check(text != NULL);
    memset(text, 'x', ENGINE_CONF_NAME_MAX + 1);
    memcpy(text + ENGINE_CONF_NAME_MAX + 1, ": 1\n", 5);
    check_int(parse(&conf, text, true, &format, NULL), -EINVAL);
    check_int(parse(&conf, text, false, &format, NULL), -EINVAL);
    free(text);
    engine_conf_done(&conf);
}

/* --- Advice */
struct heard {
    const char *name;
    enum finding kind;
    bool has_value;
    unsigned told, bad;
};

static void hear(void *arg, const struct advice *advice)
{
    struct heard *h = arg;
    h->bad += advice->kind == FINDING_BAD;
    if (strcmp(advice->name, h->name) != 0)
        return;
    h->told++;
    h->kind = advice->kind;
    h->has_value = advice->value != NULL;
}

static bool below_mnt(const char *path)
{
    return strncmp(path, "/mnt", 4) == 0;
}

static struct heard advise(enum engine engine, const char *text, const char *name)
{
    struct engine_conf conf = {0};
    enum engine_conf_format format;
    struct heard heard = {.name = name};
    check_int(parse(&conf, text, engine == ENGINE_FLINK, &format, NULL), 0);
    engine_advise(engine, &conf, below_mnt, hear, &heard);
    engine_conf_done(&conf);
    return heard;
}

#define JAR "spark.hadoop.fs.s3a.impl io.sluice.hadoop.SluiceFileSystem\n"

TEST(engine_advice, warns)
{
    static const struct {
        enum engine engine;
        const char *text, *name;
        enum finding kind;
        bool no_line; /* nothing that could be set instead */
    } cases[] = {
        {ENGINE_SPARK, "", "spark.hadoop.fs.s3a.impl", FINDING_NOTE},
        {ENGINE_SPARK, JAR, "spark.hadoop.fs.sluice.mounts", FINDING_BAD},
        {ENGINE_SPARK, JAR, "spark.hadoop.fs.AbstractFileSystem.s3a.impl", FINDING_BAD},
        {ENGINE_SPARK, JAR, "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a",
         FINDING_BAD},
        {ENGINE_SPARK, "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version 2",
         "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version", FINDING_BAD},
        {ENGINE_SPARK, "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version 1",
         "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version", FINDING_GOOD},
        {ENGINE_SPARK, "spark.local.dir /tmp,/mnt/x", "spark.local.dir", FINDING_BAD},
        {ENGINE_SPARK, "spark.local.dir /tmp", "spark.local.dir", FINDING_GOOD},
        {ENGINE_SPARK, JAR "spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension",
         "spark.delta.logStore.s3a.impl", FINDING_BAD},
        {ENGINE_SPARK, "spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension",
         "spark.sql.extensions", FINDING_NOTE, true},
        {ENGINE_SPARK, JAR "spark.hadoop.fs.sluice.block.locations anywhere",
         "spark.hadoop.fs.sluice.block.locations", FINDING_NOTE},
        {ENGINE_SPARK, "spark.hadoop.fs.s3a.impl io.sluice.hadoop.SluiceLeaseFileSystem",
         "spark.hadoop.fs.sluice.mounts", FINDING_BAD},
        {ENGINE_HIVE,
         "fs.s3a.impl=io.sluice.hadoop.SluiceFileSystem\nfs.sluice.mounts=s3://b/=/mnt/b",
         "hive.blobstore.optimizations.enabled", FINDING_BAD},
        {ENGINE_HIVE, "mapreduce.cluster.local.dir=file:///mnt/a", "mapreduce.cluster.local.dir",
         FINDING_NOTE},
        {ENGINE_FLINK, "", "execution.checkpointing.dir", FINDING_NOTE},
        {ENGINE_FLINK, "state.checkpoints.dir: s3://b/c", "execution.checkpointing.dir",
         FINDING_NOTE},
        {ENGINE_FLINK, "state.checkpoints.dir: file:///mnt/c", "execution.checkpointing.dir",
         FINDING_GOOD},
        {ENGINE_FLINK, "io.tmp.dirs: /tmp:/mnt/t", "io.tmp.dirs", FINDING_BAD},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct heard heard = advise(cases[i].engine, cases[i].text, cases[i].name);
        check_uint(heard.told, 1);
        check_int(heard.kind, cases[i].kind);
        check_int(heard.has_value, cases[i].kind != FINDING_GOOD && !cases[i].no_line);
    }
}

TEST(engine_advice, finds_a_good_configuration_good)
{
    struct heard heard =
        advise(ENGINE_SPARK,
               JAR "spark.hadoop.fs.AbstractFileSystem.s3a.impl io.sluice.hadoop.SluiceFs\n"
                   "spark.hadoop.fs.sluice.mounts s3://b/=/mnt/b\n"
                   "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a "
                   "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory\n"
                   "spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension\n"
                   "spark.delta.logStore.s3a.impl io.delta.storage.HDFSLogStore\n",
               "spark.hadoop.fs.sluice.mounts");
    check_uint(heard.bad, 0);
    check_int(heard.kind, FINDING_GOOD);
}

struct lines {
    char text[4096];
    size_t len;
    unsigned wrong;
};

static void write_line(void *arg, const struct advice *advice)
{
    struct lines *lines = arg;
    if (advice->kind == FINDING_GOOD)
        return;
    lines->wrong++;
    int len = snprintf(lines->text + lines->len, sizeof(lines->text) - lines->len, "%s: %s\n",
                       advice->name, advice->value);
    lines->len += (size_t)len;
    check(lines->len < sizeof(lines->text));
}

TEST(engine_advice, is_content_with_its_own_lines)
{
    for (enum engine engine = ENGINE_SPARK; engine <= ENGINE_FLINK; engine++) {
        struct lines lines = {0};
        for (int round = 0; round < 2; round++) {
            struct engine_conf conf = {0};
            enum engine_conf_format format;
            check_int(parse(&conf, lines.text, true, &format, NULL), 0);
            lines.wrong = 0;
            engine_advise(engine, &conf, below_mnt, write_line, &lines);
            check(round == 0 ? lines.wrong > 0 : lines.wrong == 0);
            engine_conf_done(&conf);
        }
    }
}

TEST(engine_advice, knows_engines)
{
    check_int(engine_by_name("flink"), ENGINE_FLINK);
    check_int(engine_by_name("s3://bucket"), -1);
}
