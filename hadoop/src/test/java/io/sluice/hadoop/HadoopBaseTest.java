package io.sluice.hadoop;

import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSMainOperationsBaseTest;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileContextCreateMkdirBaseTest;
import org.apache.hadoop.fs.FileContextMainOperationsBaseTest;
import org.apache.hadoop.fs.FileContextPermissionBase;
import org.apache.hadoop.fs.FileContextURIBase;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FileSystemContractBaseTest;
import org.apache.hadoop.fs.Path;
import org.junit.Assume;
import org.junit.Before;
import org.junit.experimental.runners.Enclosed;
import org.junit.runner.RunWith;

/** Hadoop's older base tests of FileSystem, and those of FileContext. */
@RunWith(Enclosed.class)
public class HadoopBaseTest {
  static FileContext context() throws IOException {
    return FileContext.getFileContext(TestMount.ROOT, TestMount.configure(new Configuration()));
  }

  /** FileSystem, as HDFS runs it. */
  public static class Contract extends FileSystemContractBaseTest {
    /** A file system on the mount. */
    @Before
    public void setUp() throws IOException {
      Configuration conf = TestMount.configure(new Configuration());
      conf.set(org.apache.hadoop.fs.CommonConfigurationKeys.FS_PERMISSIONS_UMASK_KEY,
          FileSystemContractBaseTest.TEST_UMASK);
      fs = FileSystem.newInstance(TestMount.ROOT, conf);
    }

    @Override
    protected Path getTestBaseDir() {
      return new Path("/contract-base");
    }

    @Override
    protected int getGlobalTimeout() {
      return 120_000;
    }
  }

  /** FileSystem's main operations. */
  public static class MainOperations extends FSMainOperationsBaseTest {
    /** Below a directory of its own. */
    public MainOperations() {
      super("/main-operations");
    }

    @Override
    protected FileSystem createFileSystem() throws IOException {
      return TestMount.fileSystem();
    }

    @Override
    public void testListStatusThrowsExceptionForUnreadableDir() throws Exception {
      assumeNotRoot();
      super.testListStatusThrowsExceptionForUnreadableDir();
    }

    @Override
    public void testGlobStatusThrowsExceptionForUnreadableDir() throws Exception {
      assumeNotRoot();
      super.testGlobStatusThrowsExceptionForUnreadableDir();
    }

    private static void assumeNotRoot() {
      Assume.assumeFalse("root may read all", "root".equals(System.getProperty("user.name")));
    }
  }

  /** FileContext's main operations. */
  public static class ContextMainOperations extends FileContextMainOperationsBaseTest {
    @Override
    @Before
    public void setUp() throws Exception {
      fc = context();
      super.setUp();
    }

    @Override
    protected boolean listCorruptedBlocksSupported() {
      return false;
    }
  }

  /** FileContext.create and mkdir. */
  public static class ContextCreateMkdir extends FileContextCreateMkdirBaseTest {
    @Override
    @Before
    public void setUp() throws Exception {
      fc = context();
      super.setUp();
    }
  }

  /** FileContext's permissions. */
  public static class ContextPermission extends FileContextPermissionBase {
    @Override
    protected FileContext getFileContext() throws IOException {
      return context();
    }
  }

  /** FileContext with paths of whole URIs. */
  public static class ContextUri extends FileContextURIBase {
    @Override
    @Before
    public void setUp() throws Exception {
      fc1 = context();
      fc2 = context();
      super.setUp();
    }
  }
}
