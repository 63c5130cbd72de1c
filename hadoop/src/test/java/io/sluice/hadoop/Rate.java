package io.sluice.hadoop;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.mapreduce.JobContext;
import org.apache.hadoop.mapreduce.JobID;
import org.apache.hadoop.mapreduce.TaskAttemptContext;
import org.apache.hadoop.mapreduce.TaskAttemptID;
import org.apache.hadoop.mapreduce.TaskID;
import org.apache.hadoop.mapreduce.TaskType;
import org.apache.hadoop.mapreduce.lib.output.PathOutputCommitter;
import org.apache.hadoop.mapreduce.lib.output.PathOutputCommitterFactory;
import org.apache.hadoop.mapreduce.task.JobContextImpl;
import org.apache.hadoop.mapreduce.task.TaskAttemptContextImpl;

/**
 * How many calls in a second a file system takes: Rate BASE FILES THREADS COMMIT_FILES [NAME=VALUE …].
 * Without FILES (0) only the commit. No test: bench/run --only hadoop,magic-commit runs it.
 */
public final class Rate {
  private static final int BLOCK = 4096;
  private static final int DIRECTORIES = 16;
  private static final int PARTITIONS = 50;
  private static final int TASKS = 10;

  private final FileSystem fs;
  private final Path base;
  private final int files;
  private final int threads;

  private Rate(FileSystem fs, Path base, int files, int threads) {
    this.fs = fs;
    this.base = base;
    this.files = files;
    this.threads = threads;
  }

  private interface Step {
    void run(int i) throws IOException;
  }

  private Path path(String prefix, int i) {
    return new Path(base, "d" + i % DIRECTORIES + "/" + prefix + i);
  }

  private void measure(String name, int count, Step step) throws IOException {
    ExecutorService pool = Executors.newFixedThreadPool(threads);
    long begin = System.nanoTime();
    List<Future<?>> all = new ArrayList<>();
    for (int thread = 0; thread < threads; thread++) {
      int first = thread;
      all.add(pool.submit(() -> {
        for (int i = first; i < count; i += threads) {
          step.run(i);
        }
        return null;
      }));
    }
    try {
      for (Future<?> one : all) {
        one.get();
      }
    } catch (InterruptedException | ExecutionException e) {
      throw new IOException(name, e);
    } finally {
      pool.shutdown();
    }
    System.out.printf("%s %.0f%n", name, count / ((System.nanoTime() - begin) / 1e9));
  }

  private void calls() throws IOException {
    byte[] block = new byte[BLOCK];
    for (int i = 0; i < DIRECTORIES; i++) {
      fs.mkdirs(new Path(base, "d" + i));
    }
    measure("create", files, i -> fs.create(path("f", i), true).close());
    measure("write4k", files, i -> {
      try (FSDataOutputStream out = fs.create(path("w", i), true)) {
        out.write(block);
      }
    });
    measure("stat", files, i -> fs.getFileStatus(path("f", i)));
    measure("read4k", files, i -> {
      try (FSDataInputStream in = fs.open(path("w", i))) {
        in.readFully(0, new byte[BLOCK]);
      }
    });
    // Entries, not calls: each thread lists directories of many files.
    int rounds = 20 * DIRECTORIES;
    long begin = System.nanoTime();
    int[] seen = new int[threads];
    measure("list_calls", rounds, i ->
        seen[i % threads] += fs.listStatus(new Path(base, "d" + i % DIRECTORIES)).length);
    long entries = 0;
    for (int count : seen) {
      entries += count;
    }
    System.out.printf("list_entries %.0f%n", entries / ((System.nanoTime() - begin) / 1e9));
    measure("rename", files, i -> {
      if (!fs.rename(path("f", i), path("r", i))) {
        throw new IOException("not renamed: " + path("f", i));
      }
    });
    measure("delete", files, i -> {
      if (!fs.delete(path("r", i), false)) {
        throw new IOException("not deleted: " + path("r", i));
      }
    });
    begin = System.nanoTime();
    fs.delete(base, true);
    System.out.printf("delete_tree %.0f%n", files / ((System.nanoTime() - begin) / 1e9));
  }

  /** Seconds of the job's commit, by the committer of the configuration. */
  private void commit(int count) throws IOException {
    Configuration conf = new Configuration(fs.getConf());
    conf.setInt("mapreduce.fileoutputcommitter.algorithm.version", 1);
    Path output = new Path(base, "out");
    long commitNs = 0;
    for (int round = 0; round < 2; round++) { // into an empty table, then beside what is there
      conf.set("fs.s3a.committer.uuid", "rate-" + round);
      JobID id = new JobID("e2e", round);
      JobContext context = new JobContextImpl(conf, id);
      PathOutputCommitter jobCommitter = PathOutputCommitterFactory.createCommitter(output,
          new TaskAttemptContextImpl(conf, new TaskAttemptID(new TaskID(id, TaskType.MAP, 0), 0)));
      jobCommitter.setupJob(context);
      for (int task = 0; task < TASKS; task++) {
        TaskAttemptContext attempt = new TaskAttemptContextImpl(conf,
            new TaskAttemptID(new TaskID(id, TaskType.MAP, task), 0));
        PathOutputCommitter committer = PathOutputCommitterFactory.createCommitter(output, attempt);
        committer.setupTask(attempt);
        Path work = committer.getWorkPath();
        int from = task;
        int each = count / 2 / TASKS;
        int number = round;
        measure("task_files", each, i -> fs.create(new Path(work,
            "part=" + i % PARTITIONS + "/file-" + number + "-" + from + "-" + i), true).close());
        committer.commitTask(attempt);
      }
      long begin = System.nanoTime();
      jobCommitter.commitJob(context);
      commitNs += System.nanoTime() - begin;
    }
    System.out.printf("commit_files %d%ncommit_seconds %.2f%n", count / 2 / TASKS * TASKS * 2,
        commitNs / 1e9);
    fs.delete(base, true);
  }

  /** See the class. */
  public static void main(String[] args) throws IOException {
    Configuration conf = new Configuration();
    conf.set("fs.sluice.impl", SluiceFileSystem.class.getName());
    for (int i = 4; i < args.length; i++) {
      int equals = args[i].indexOf('=');
      conf.set(args[i].substring(0, equals), args[i].substring(equals + 1));
    }
    Path base = new Path(args[0]);
    FileSystem fs = base.getFileSystem(conf);
    fs.delete(base, true);
    Rate rate = new Rate(fs, base, Integer.parseInt(args[1]), Integer.parseInt(args[2]));
    if (rate.files > 0) {
      rate.calls();
    }
    rate.commit(Integer.parseInt(args[3]));
    fs.close();
  }
}
