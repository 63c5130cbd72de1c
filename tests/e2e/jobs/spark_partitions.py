"""How long Spark looks for the partitions of a table, and how many there are."""

import time

import spark_session

spark, job = spark_session.begin()
spark.range(1).count()  # what begins with the first job only
began = time.perf_counter()
table = spark.read.schema("id BIGINT, part BIGINT").csv(job["base"] + "/table")
took = time.perf_counter() - began
rows = table.select("part").distinct().count()
spark_session.end(spark, job, {"seconds": took, "rows": rows})
