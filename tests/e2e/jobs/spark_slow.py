"""One write of many tasks, long enough to be killed in between."""

from pyspark.sql import functions as F

import spark_session

spark, job = spark_session.begin()
ids = spark.range(0, job["rows"], 1, 40)
for _ in range(4):
    ids = ids.withColumn("text", F.sha2(F.concat(F.lit("x"), F.col("id").cast("string")), 512))
ids.write.mode("overwrite").parquet(job["base"] + "/killed")
row = spark.read.parquet(job["base"] + "/killed").select(
    F.count("*"), F.sum("id"), F.countDistinct("id")).first()
spark_session.end(spark, job, {"killed": [int(x) for x in row]})
