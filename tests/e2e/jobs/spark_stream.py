"""A stream of files into a table, one file in each batch, until there are no more."""

from pyspark.sql import functions as F

import spark_session

spark, job = spark_session.begin()
base = job["base"]
query = (spark.readStream.schema("id BIGINT, text STRING").option("maxFilesPerTrigger", "1")
         .json(base + "/in").withColumn("part", F.col("id") % 3)
         .writeStream.format("parquet").partitionBy("part").option("path", base + "/out")
         .option("checkpointLocation", base + "/checkpoint").trigger(availableNow=True).start())
query.awaitTermination()
row = spark.read.parquet(base + "/out").select(
    F.count("*"), F.sum("id"), F.countDistinct("id")).first()
spark_session.end(spark, job, {"stream": [int(x) for x in row]})
