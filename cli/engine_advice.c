#include "engine_advice.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define FS_CLASS "io.sluice.hadoop.SluiceFileSystem"
#define LEASE_CLASS "io.sluice.hadoop.SluiceLeaseFileSystem"
#define CONTEXT_CLASS "io.sluice.hadoop.SluiceFs"
#define COMMITTER "mapreduce.fileoutputcommitter.algorithm.version"
#define FACTORY "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory"

enum { SPARK = 1 << ENGINE_SPARK, HIVE = 1 << ENGINE_HIVE, FLINK = 1 << ENGINE_FLINK };

enum test {
    IS,       /* set to `wanted` */
    IS_NOT,   /* not set, or to another value */
    OTHER,    /* set, and to another value */
    UNSET,    /* not set */
    ON_MOUNT, /* a list of local paths, one of which lies on a mount */
    REMOTE,   /* a path of S3 */
};

/* Whether the engine's S3 paths are mounts, by the jar in hadoop/. */
enum jar { ANY, WITH_JAR, WITHOUT_JAR };

struct rule {
    unsigned engines;
    enum jar jar;
    enum test test;
    enum finding kind;
    bool of_hadoop; /* Spark writes spark.hadoop. before it */
    const char *name, *wanted;
    const char *value; /* to be written */
    const char *text;
};

static const struct rule rules[] = {
    {SPARK | HIVE, WITHOUT_JAR, IS_NOT, FINDING_NOTE, true, "fs.s3a.impl", FS_CLASS, FS_CLASS,
     "s3a:// paths go around the mount, and file:// paths have local rules: a fork of chmod and a "
     ".crc file for each file, a rename that replaces, a copy in place of a rename that fails, and "
     "blocks that are nowhere. The jar in hadoop/ has HDFS's rules"},
    {SPARK | HIVE, WITHOUT_JAR, UNSET, FINDING_NOTE, true, "fs.sluice.mounts", NULL,
     "s3://BUCKET/=/mnt/BUCKET", "with the jar: which paths are which mounts"},
    {SPARK | HIVE, WITHOUT_JAR, IS_NOT, FINDING_NOTE, true, "fs.AbstractFileSystem.s3a.impl",
     CONTEXT_CLASS, CONTEXT_CLASS, "with the jar: FileContext's paths go to the mount, too"},
    {SPARK | HIVE, WITHOUT_JAR, IS_NOT, FINDING_NOTE, true,
     "mapreduce.outputcommitter.factory.scheme.s3a", FACTORY, FACTORY,
     "with the jar: jobs commit by rename"},
    {HIVE, WITHOUT_JAR, IS_NOT, FINDING_NOTE, false, "hive.blobstore.optimizations.enabled",
     "false", "false", "with the jar: Hive renames its results into place"},
    {SPARK | HIVE, WITH_JAR, UNSET, FINDING_BAD, true, "fs.sluice.mounts", NULL,
     "s3://BUCKET/=/mnt/BUCKET", "the jar does not know where a bucket is mounted"},
    {SPARK | HIVE, WITH_JAR, IS_NOT, FINDING_BAD, true, "fs.AbstractFileSystem.s3a.impl",
     CONTEXT_CLASS, CONTEXT_CLASS,
     "FileContext (streaming checkpoints, Delta) still goes to S3 itself, around the mount"},
    {SPARK | HIVE, WITH_JAR, IS_NOT, FINDING_BAD, true,
     "mapreduce.outputcommitter.factory.scheme.s3a", FACTORY, FACTORY,
     "Hadoop's default for s3a is a committer that works around the lack of a rename, and needs "
     "S3A's own file system"},
    {SPARK | HIVE, WITH_JAR, IS, FINDING_NOTE, true, "fs.sluice.block.locations", "anywhere",
     "cache", "tasks do not go to the hosts whose cache has what they read"},
    {SPARK | HIVE, ANY, IS, FINDING_BAD, true, COMMITTER, "2", "1",
     "version 2 shows each task's files before the job's commit, and leaves them if the job fails; "
     "a rename of a directory costs nothing here"},
    {SPARK | HIVE, ANY, OTHER, FINDING_BAD, true, "fs.s3a.committer.name", "file", "file",
     "S3A's committers write to S3 around the mount"},
    {SPARK, ANY, IS, FINDING_BAD, false, "spark.sql.sources.commitProtocolClass",
     "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
     "org.apache.spark.sql.execution.datasources.SQLHadoopMapReduceCommitProtocol",
     "it refuses dynamic partition overwrite where a committer for S3 is meant; a mount has the "
     "rename that the ordinary protocol needs"},
    {SPARK, ANY, ON_MOUNT, FINDING_BAD, false, "spark.local.dir", NULL, "/tmp",
     "shuffle and spill files would be uploaded; use a local disk"},
    {HIVE, ANY, ON_MOUNT, FINDING_NOTE, false, "mapreduce.cluster.local.dir", NULL,
     "/tmp/hive-local", "Hive's jobs copy their jars there, 83 MB each; use a local disk"},
    {HIVE, ANY, ON_MOUNT, FINDING_NOTE, false, "mapreduce.jobtracker.staging.root.dir", NULL,
     "/tmp/hive-staging", "Hive's jobs copy their jars there, 83 MB each; use a local disk"},
    {HIVE, ANY, ON_MOUNT, FINDING_NOTE, false, "hive.exec.local.scratchdir", NULL, "/tmp/hive",
     "what is only for this process would be uploaded; use a local disk"},
    {HIVE, WITH_JAR, IS_NOT, FINDING_BAD, false, "hive.blobstore.optimizations.enabled", "false",
     "false",
     "Hive takes s3a:// for a store without rename: it writes results elsewhere and copies them"},
    {HIVE, ANY, OTHER, FINDING_NOTE, false, "hive.exec.stagingdir", ".hive-staging",
     ".hive-staging",
     "a name in the table's own directory moves by rename; the mount keeps .hive-staging* away "
     "from "
     "the bucket until then. Other names need --staging-patterns"},
    {FLINK, ANY, REMOTE, FINDING_NOTE, false, "execution.checkpointing.dir", NULL,
     "file:///mnt/BUCKET/flink/checkpoints",
     "checkpoints go to S3 around the mount; there is no rename, and no file is appended"},
    {FLINK, ANY, UNSET, FINDING_NOTE, false, "execution.checkpointing.dir", NULL,
     "file:///mnt/BUCKET/flink/checkpoints",
     "checkpoints stay in memory and are lost with the JobManager"},
    {FLINK, ANY, REMOTE, FINDING_NOTE, false, "execution.checkpointing.savepoint-dir", NULL,
     "file:///mnt/BUCKET/flink/savepoints", "savepoints go to S3 around the mount"},
    {FLINK, ANY, REMOTE, FINDING_NOTE, false, "high-availability.storageDir", NULL,
     "file:///mnt/BUCKET/flink/ha", "job graphs go to S3 around the mount"},
    {FLINK, ANY, ON_MOUNT, FINDING_BAD, false, "io.tmp.dirs", NULL, "/tmp",
     "spill files and the state's working copy would be uploaded; use a local disk"},
    {FLINK, ANY, ON_MOUNT, FINDING_BAD, false, "state.backend.rocksdb.localdir", NULL,
     "/tmp/flink-rocksdb", "RocksDB's working copy would be uploaded; use a local disk"},
    {FLINK, ANY, ON_MOUNT, FINDING_NOTE, false, "execution.state-recovery.from-local-dirs", NULL,
     "/tmp/flink-recovery", "copies for a quick recovery belong on a local disk"},
};

/* Names that a setting had or has beside its own. */
static const struct {
    const char *name, *other;
} aliases[] = {
    {"execution.checkpointing.dir", "state.checkpoints.dir"},
    {"execution.checkpointing.savepoint-dir", "state.savepoints.dir"},
    {"high-availability.storageDir", "high-availability.storage-dir"},
    {"fs.s3a.impl", "fs.s3.impl"},
};

int engine_by_name(const char *name)
{
    static const char *const names[] = {"spark", "hive", "flink"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return (int)i;
    return -1;
}

static const char *get(enum engine engine, const struct engine_conf *conf, const char *name)
{
    char whole[256];
    const char *value = NULL;
    if (engine == ENGINE_SPARK) {
        snprintf(whole, sizeof(whole), "spark.hadoop.%s", name);
        value = engine_conf_get(conf, whole);
    }
    if (!value)
        value = engine_conf_get(conf, name);
    for (size_t i = 0; !value && i < ARRAY_LEN(aliases); i++)
        if (strcmp(aliases[i].name, name) == 0)
            value = get(engine, conf, aliases[i].other);
    return value;
}

static bool is_remote(const char *value)
{
    return strncmp(value, "s3:", 3) == 0 || strncmp(value, "s3a:", 4) == 0 ||
           strncmp(value, "s3n:", 4) == 0 || strncmp(value, "s3p:", 4) == 0;
}

/* Whether one of "a,b:c" is on a mount. */
static bool any_on_mount(const char *list, bool (*on_mount)(const char *path))
{
    char path[4096];
    if (strncmp(list, "file:", 5) == 0)
        list += 5;
    while (*list) {
        size_t len = strcspn(list, ",:");
        size_t skip = strspn(list, " /");
        skip = skip > 0 && skip <= len ? skip - 1 : 0; /* "///mnt" is "/mnt" */
        if (len - skip > 0 && len - skip < sizeof(path)) {
            memcpy(path, list + skip, len - skip);
            path[len - skip] = 0;
            if (path[0] == '/' && on_mount(path))
                return true;
        }
        list += len + (list[len] ? 1 : 0);
    }
    return false;
}

static bool applies(const struct rule *rule, const char *value, bool (*on_mount)(const char *path))
{
    switch (rule->test) {
    case IS:
        return value && strcmp(value, rule->wanted) == 0;
    case IS_NOT:
        return !value || strcmp(value, rule->wanted) != 0;
    case OTHER:
        return value && strcmp(value, rule->wanted) != 0;
    case UNSET:
        return !value;
    case ON_MOUNT:
        return value && any_on_mount(value, on_mount);
    case REMOTE:
        return value && is_remote(value);
    }
    return false;
}

static void tell(enum engine engine, const struct rule *rule, enum finding kind, const char *text,
                 void (*take)(void *arg, const struct advice *advice), void *arg)
{
    char name[256];
    snprintf(name, sizeof(name), "%s%s",
             engine == ENGINE_SPARK && rule->of_hadoop ? "spark.hadoop." : "", rule->name);
    struct advice advice = {.kind = kind,
                            .name = name,
                            .text = text,
                            .value = kind == FINDING_GOOD ? NULL : rule->value};
    take(arg, &advice);
}

/* Delta chooses how it commits by the path's scheme: for s3a one that is safe in one driver only.
 */
static const struct rule delta = {
    .name = "spark.delta.logStore.s3a.impl",
    .wanted = "io.delta.storage.HDFSLogStore",
    .value = "io.delta.storage.HDFSLogStore",
    .text = "Delta's store for s3a:// is safe with one driver only; this one commits by the jar's "
            "rename, which never replaces"};

/* Both look for the next version's name, and rename to it then. */
static const struct rule one_driver = {
    .name = "spark.sql.extensions",
    .text = "on file:// paths let one driver at a time write a table of Delta or of an Iceberg "
            "catalog of type hadoop: a rename that replaces can lose one of two commits. Through "
            "the jar none is lost"};

static void advise_tables(const struct engine_conf *conf, bool with_jar,
                          void (*take)(void *arg, const struct advice *advice), void *arg)
{
    const char *extensions = engine_conf_get(conf, one_driver.name);
    if (!extensions)
        return;
    bool is_delta = strstr(extensions, "delta") != NULL;
    if (with_jar && is_delta) {
        const char *store = engine_conf_get(conf, delta.name);
        bool good = store && strcmp(store, delta.wanted) == 0;
        tell(ENGINE_SPARK, &delta, good ? FINDING_GOOD : FINDING_BAD, good ? store : delta.text,
             take, arg);
    }
    if (!with_jar && (is_delta || strstr(extensions, "iceberg")))
        tell(ENGINE_SPARK, &one_driver, FINDING_NOTE, one_driver.text, take, arg);
}

void engine_advise(enum engine engine, const struct engine_conf *conf,
                   bool (*on_mount)(const char *path),
                   void (*take)(void *arg, const struct advice *advice), void *arg)
{
    const char *class = get(engine, conf, "fs.s3a.impl");
    bool is_ours = class && (strcmp(class, FS_CLASS) == 0 || strcmp(class, LEASE_CLASS) == 0);
    enum jar jar = is_ours ? WITH_JAR : WITHOUT_JAR;
    const char *told = ""; /* several rules may ask for one name: they stand together */
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        const struct rule *rule = &rules[i];
        if (!(rule->engines & 1u << engine) || (rule->jar != ANY && rule->jar != jar))
            continue;
        const char *value = get(engine, conf, rule->name);
        bool wrong = applies(rule, value, on_mount);
        if (!wrong && (!value || strcmp(told, rule->name) == 0))
            continue;
        tell(engine, rule, wrong ? rule->kind : FINDING_GOOD, wrong ? rule->text : value, take,
             arg);
        told = rule->name;
    }
    if (engine == ENGINE_SPARK)
        advise_tables(conf, jar == WITH_JAR, take, arg);
}
