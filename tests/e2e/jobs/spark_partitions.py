"""How long Spark looks for the partitions of a table, how many there are and the sum of their numbers."""

import time

import spark_session

spark, job = spark_session.begin()
spark.range(1).count()  # what begins with the first job only
began = time.perf_counter()
table = spark.read.schema("id BIGINT, part BIGINT").csv(job["base"] + "/table")
took = time.perf_counter() - began
# Answered from what was found: no file is opened.
spark.conf.set("spark.sql.optimizer.metadataOnly", "true")
(row,) = table.select("part").distinct().selectExpr("count(part)", "sum(part)").collect()
spark_session.end(spark, job, {"seconds": took, "rows": list(row)})
