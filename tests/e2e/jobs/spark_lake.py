"""One of several drivers that append to the same Delta and Iceberg tables. Says which appends were
acknowledged, and what the tables hold."""

import os
import time

import spark_session

spark, job = spark_session.begin()
delta = job["base"] + "/delta"
if job["create"]:
    spark.range(0).selectExpr("id", "'none' AS who").write.format("delta").save(delta)
    spark.sql("CREATE TABLE ice.e2e.t (id BIGINT, who STRING) USING iceberg TBLPROPERTIES "
              "('commit.retry.num-retries'='100', 'commit.retry.min-wait-ms'='10')")

# Drivers begin their appends together.
if job["appends"]:
    open(job["ready"], "w").close()
    deadline = time.monotonic() + 600
    while not os.path.exists(job["go"]) and time.monotonic() < deadline:
        time.sleep(0.01)

acknowledged = {"delta": [], "iceberg": []}
failed = []
for i in range(job["appends"]):
    row = spark.createDataFrame([(i, job["who"])], "id BIGINT, who STRING").coalesce(1)
    for name, write in (("delta", lambda: row.write.format("delta").mode("append").save(delta)),
                        ("iceberg", lambda: row.writeTo("ice.e2e.t").append())):
        try:
            write()
            acknowledged[name].append(i)
        except Exception as error:  # noqa: BLE001
            failed.append(name + ": " + str(error)[:300])

tables = {}
if not job["appends"]:
    tables["delta"] = [[r.who, r.id] for r in spark.read.format("delta").load(delta).collect()]
    tables["iceberg"] = [[r.who, r.id] for r in spark.table("ice.e2e.t").collect()]
spark_session.end(spark, job, {"acknowledged": acknowledged, "failed": failed, "tables": tables})
