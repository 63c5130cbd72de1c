"""Loads the TPC-H tables into partitioned ones, and runs queries on those."""

import spark_session

spark, job = spark_session.begin()
base = job["base"]
for name in job["tables"]:
    frame = spark.read.parquet(base + "/raw/" + name + ".parquet")
    writer = frame.write.mode("overwrite")
    if name == "lineitem":
        frame.selectExpr("*", "year(l_shipdate) AS ship_year").write.mode("overwrite").partitionBy(
            "ship_year").parquet(base + "/tables/" + name)
    else:
        writer.parquet(base + "/tables/" + name)
    spark.read.parquet(base + "/tables/" + name).createOrReplaceTempView(name)
answers = {}
for name, text in job["queries"].items():
    answers[name] = [[str(x) for x in row] for row in spark.sql(text).collect()]
spark_session.end(spark, job, answers)
