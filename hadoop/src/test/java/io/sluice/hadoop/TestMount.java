package io.sluice.hadoop;

import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.junit.Assume;

/** The live mount that tests run on: -Dsluice.test.mount=DIRECTORY. Without it they are skipped. */
final class TestMount {
  static final URI ROOT = URI.create("sluice://test/");

  private TestMount() {}

  static String directory() {
    String mount = System.getProperty("sluice.test.mount", "");
    Assume.assumeFalse("no -Dsluice.test.mount", mount.isEmpty());
    return mount;
  }

  static Configuration configure(Configuration conf) {
    conf.set("fs.sluice.impl", SluiceFileSystem.class.getName());
    conf.set("fs.AbstractFileSystem.sluice.impl", SluiceFs.class.getName());
    conf.set("fs.s3a.impl", SluiceFileSystem.class.getName());
    conf.set("fs.AbstractFileSystem.s3a.impl", SluiceFs.class.getName());
    conf.set("fs.sluice.mounts", "sluice://test/=" + directory() + ", s3://bucket/=" + directory()
        + "/bucket, s3://bucket/other/=" + directory() + "/elsewhere");
    return conf;
  }

  static FileSystem fileSystem() throws IOException {
    return FileSystem.newInstance(ROOT, configure(new Configuration()));
  }

  static void write(FileSystem fs, Path path, String text) throws IOException {
    try (FSDataOutputStream out = fs.create(path, true)) {
      out.write(text.getBytes(StandardCharsets.UTF_8));
    }
  }

  static String read(FileSystem fs, Path path) throws IOException {
    byte[] bytes = new byte[(int) fs.getFileStatus(path).getLen()];
    try (FSDataInputStream in = fs.open(path)) {
      in.readFully(bytes);
    }
    return new String(bytes, StandardCharsets.UTF_8);
  }

  static final class Contract extends AbstractFSContract {
    Contract(Configuration conf) {
      super(configure(conf));
      addConfResource("contract/sluice.xml");
    }

    @Override
    public FileSystem getTestFileSystem() throws IOException {
      return FileSystem.get(ROOT, getConf());
    }

    @Override
    public String getScheme() {
      return "sluice";
    }

    @Override
    public Path getTestPath() {
      return new Path("/test");
    }
  }
}
