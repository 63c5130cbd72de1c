"""How each of the Spark jobs begins: JOB.py CONFIGURATION, a JSON file with conf and the job's own."""

import json
import sys

from pyspark.sql import SparkSession


def begin():
    """(session, the job's configuration)."""
    with open(sys.argv[1]) as file:
        job = json.load(file)
    builder = SparkSession.builder.appName(sys.argv[0])
    for name, value in job["conf"].items():
        builder = builder.config(name, value)
    if job.get("hive"):
        builder = builder.enableHiveSupport()
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    return spark, job


def end(spark, job, answers):
    with open(job["answers"], "w") as file:
        json.dump(answers, file)
    spark.stop()
