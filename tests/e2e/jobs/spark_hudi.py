"""Hudi tables of both kinds: insert, upsert, delete. And what another driver reads of them."""

from pyspark.sql import functions as F

import spark_session

spark, job = spark_session.begin()
rows = job["rows"]
tables = {}
for kind in ("COPY_ON_WRITE", "MERGE_ON_READ"):
    base = job["base"] + "/hudi-" + kind.lower()

    def write(frame, operation, mode="append"):
        (frame.withColumn("part", F.col("id") % 4).coalesce(2).write.format("hudi").mode(mode).options(**{
            "hoodie.table.name": "t",
            "hoodie.datasource.write.table.type": kind,
            "hoodie.datasource.write.operation": operation,
            "hoodie.datasource.write.recordkey.field": "id",
            "hoodie.datasource.write.partitionpath.field": "part",
            "hoodie.datasource.write.precombine.field": "ts",
            "hoodie.datasource.write.hive_style_partitioning": "true",
            "hoodie.upsert.shuffle.parallelism": "2",
            "hoodie.insert.shuffle.parallelism": "2",
            "hoodie.delete.shuffle.parallelism": "2",
        }).save(base))

    if job["write"]:
        write(spark.range(rows).selectExpr("id", "'first' AS text", "0L AS ts"), "insert", "overwrite")
        write(spark.range(0, rows + rows // 2, 3).selectExpr("id", "'second' AS text", "1L AS ts"), "upsert")
        write(spark.range(0, rows, 10).selectExpr("id", "'' AS text", "2L AS ts"), "delete")
    else:
        read = spark.read.format("hudi").load(base)
        tables[kind] = sorted([r.id, r.text, r.part] for r in read.select("id", "text", "part").collect())
spark_session.end(spark, job, {"tables": tables})
