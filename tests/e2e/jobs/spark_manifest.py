"""Writes a table and adds to it, by the committer of the configuration."""

from pyspark.sql import functions as F

import spark_session

spark, job = spark_session.begin()
base, rows = job["base"], job["rows"]


def table(shift=0, count=rows):
    ids = spark.range(shift, shift + count, 1, 8)
    return ids.select("id", F.concat(F.lit("v"), F.col("id")).alias("text"), (F.col("id") % 5).alias("part"))


def answer(path):
    row = spark.read.parquet(path).select(F.count("*"), F.sum("id"), F.sum(F.length("text")), F.countDistinct("id"),
                                          F.sum(F.col("part").cast("long"))).first()
    return [int(x) for x in row]


answers = {}
table().write.partitionBy("part").parquet(base + "/written")
answers["written"] = answer(base + "/written")
table(rows, 500).write.mode("append").partitionBy("part").parquet(base + "/written")
answers["appended"] = answer(base + "/written")
spark_session.end(spark, job, answers)
