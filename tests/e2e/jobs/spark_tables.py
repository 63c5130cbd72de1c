"""Writes tables in each way that commits differently, and says what Spark reads back."""

from pyspark.sql import functions as F

import spark_session

spark, job = spark_session.begin()
base, rows = job["base"], job["rows"]


def table(shift=0, count=rows, slices=8):
    """id, a text made of it, and part = id % 5."""
    ids = spark.range(shift, shift + count, 1, slices)
    return ids.select("id", F.concat(F.lit("v"), F.col("id")).alias("text"), (F.col("id") % 5).alias("part"))


def answer(frame):
    row = frame.select(F.count("*"), F.sum("id"), F.sum(F.length("text")),
                       F.countDistinct("id"), F.sum(F.col("part").cast("long"))).first()
    return [int(x) for x in row]


answers = {}
for version in ("1", "2"):
    path = base + "/committer" + version
    for _ in range(2):  # the second one overwrites
        (table().write.partitionBy("part").mode("overwrite")
         .option("mapreduce.fileoutputcommitter.algorithm.version", version).parquet(path))
    answers["committer" + version] = answer(spark.read.parquet(path))
    table(rows, 500).write.mode("append").partitionBy("part").parquet(path)
    answers["appended" + version] = answer(spark.read.parquet(path))

path = base + "/dynamic"
table().write.partitionBy("part").parquet(path)
(table(10 * rows, 1000).where("part in (1, 3)").write.partitionBy("part").mode("overwrite")
 .option("partitionOverwriteMode", "dynamic").parquet(path))
answers["dynamic"] = answer(spark.read.parquet(path))

for name in ("orc", "json", "csv"):
    path = base + "/" + name
    table().write.format(name).option("header", "true").save(path)
    answers[name] = answer(spark.read.format(name).option("header", "true").schema(table().schema).load(path))

# A write onto a table that is there must fail, and leave it as it was.
try:
    table(0, 10).write.parquet(base + "/committer1")
    answers["errorifexists"] = "written"
except Exception as error:  # noqa: BLE001
    answers["errorifexists"] = "refused" if "already exists" in str(error) else str(error)
answers["untouched"] = answer(spark.read.parquet(base + "/committer1"))

# Two attempts of one task, at once: speculation. The slow one is killed when the other has committed.
slow = spark.sparkContext.parallelize(range(8), 8)


def straggle(index, items):
    import time

    from pyspark import TaskContext
    if index == 7 and TaskContext.get().attemptNumber() == 0:
        time.sleep(25)
    return (str(i) for i in items)


slow.mapPartitionsWithIndex(straggle).saveAsTextFile(base + "/speculation")
answers["speculation"] = sorted(spark.sparkContext.textFile(base + "/speculation").collect())

if job.get("hive"):
    spark.sql("CREATE DATABASE IF NOT EXISTS e2e LOCATION '%s/e2e.db'" % base)
    spark.sql("CREATE TABLE e2e.t (id BIGINT, text STRING) PARTITIONED BY (part BIGINT) STORED AS PARQUET")
    spark.sql("SET hive.exec.dynamic.partition.mode=nonstrict")
    table().createOrReplaceTempView("source")
    spark.sql("INSERT INTO e2e.t PARTITION (part) SELECT id, text, part FROM source")
    spark.sql("INSERT OVERWRITE TABLE e2e.t PARTITION (part=2) SELECT id + 1000000, text FROM source WHERE part=2")
    spark.sql("ALTER TABLE e2e.t DROP PARTITION (part=4)")
    spark.sql("CREATE TABLE e2e.u STORED AS ORC AS SELECT * FROM e2e.t")
    answers["hive"] = answer(spark.table("e2e.t"))
    answers["hive_ctas"] = answer(spark.table("e2e.u"))
    spark.sql("DROP TABLE e2e.u")
    answers["hive_tables"] = [row.tableName for row in spark.sql("SHOW TABLES IN e2e").collect()
                              if not row.isTemporary]

spark_session.end(spark, job, answers)
