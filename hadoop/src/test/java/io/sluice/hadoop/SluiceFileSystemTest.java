package io.sluice.hadoop;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.PrivilegedExceptionAction;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.HadoopIllegalArgumentException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CommonPathCapabilities;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.InvalidPathException;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.QuotaUsage;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.security.AccessControlException;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.UserGroupInformation;
import org.junit.After;
import org.junit.Assume;
import org.junit.Before;
import org.junit.Test;

/** What Hadoop's own tests do not ask. */
public class SluiceFileSystemTest {
  private FileSystem fs;
  private Path base;

  /** An empty directory. */
  @Before
  public void setUp() throws IOException {
    fs = TestMount.fileSystem();
    base = new Path("/own");
    fs.delete(base, true);
    fs.mkdirs(base);
  }

  /** Nothing stays. */
  @After
  public void tearDown() throws IOException {
    if (fs != null) {
      fs.delete(base, true);
      fs.close();
    }
  }

  private Path path(String name) {
    return new Path(base, name);
  }

  private void write(Path path, String text) throws IOException {
    TestMount.write(fs, path, text);
  }

  private String read(Path path) throws IOException {
    return TestMount.read(fs, path);
  }

  private File local(String name) {
    return new File(TestMount.directory() + "/own", name);
  }

  @Test
  public void bucketsAreMountsWhateverTheirScheme() throws IOException {
    for (String prefix : Arrays.asList("s3a://bucket/", "s3a://bucket/other/")) {
      Path path = new Path(prefix + "a/f");
      FileSystem s3a = FileSystem.newInstance(path.toUri(), fs.getConf());
      assertEquals(URI.create("s3a://bucket"), s3a.getUri());
      try (FSDataOutputStream out = s3a.create(path)) {
        out.writeBytes("x");
      }
      assertEquals(path, s3a.listStatus(path.getParent())[0].getPath());
      assertTrue(new File(TestMount.directory(),
          prefix.endsWith("other/") ? "elsewhere/a/f" : "bucket/a/f").isFile());
      assertTrue(s3a.delete(path.getParent(), true));
      s3a.close();
    }
    assertThrows(IOException.class,
        () -> FileSystem.newInstance(URI.create("s3a://unknown/"), fs.getConf()));
  }

  @Test
  public void aLocalPathNeedsNoMapping() throws IOException {
    Configuration conf = new Configuration(fs.getConf());
    conf.unset("fs.sluice.mounts");
    FileSystem plain = FileSystem.newInstance(URI.create("sluice:///"), conf);
    write(path("f"), "x");
    Path path = new Path("sluice://" + TestMount.directory() + "/own/f");
    assertEquals(1, plain.getFileStatus(path).getLen());
    assertTrue(plain.rename(path, new Path(path.getParent(), "g")));
    assertTrue(fs.exists(path("g")));
    IOException e = assertThrows(IOException.class, () -> plain.create(new Path("sluice:///tmp/x")));
    assertTrue(e.getMessage(), e.getMessage().contains("not on a mount"));
    plain.close();
  }

  @Test
  public void renameNeverReplaces() throws IOException {
    write(path("a"), "a");
    write(path("b"), "b");
    assertFalse(fs.rename(path("a"), path("b")));
    assertEquals("b", read(path("b")));
    FileContext context = FileContext.getFileContext(TestMount.ROOT, fs.getConf());
    assertThrows(FileAlreadyExistsException.class, () -> context.rename(path("a"), path("b")));
    assertEquals("a", read(path("a")));
    context.rename(path("a"), path("b"), Options.Rename.OVERWRITE);
    assertEquals("a", read(path("b")));
    assertFalse(fs.exists(path("a")));
  }

  @Test
  public void renameIntoADirectoryNests() throws IOException {
    fs.mkdirs(path("target"));
    write(path("dir/f"), "x");
    assertTrue(fs.rename(path("dir"), path("target")));
    assertEquals("x", read(path("target/dir/f")));
    fs.mkdirs(path("dir"));
    assertFalse(fs.rename(path("dir"), path("target")));
    assertTrue(fs.rename(path("target/dir/f"), path("dir")));
    assertEquals("x", read(path("dir/f")));
  }

  @Test
  public void oneOfManyCommitsWins() throws Exception {
    int writers = 4;
    ExecutorService pool = Executors.newFixedThreadPool(writers);
    try {
      for (int round = 0; round < 20; round++) {
        Path target = path(round + ".json");
        List<Future<Boolean>> results = new ArrayList<>();
        for (int i = 0; i < writers; i++) {
          Path temporary = path("." + round + "." + i + ".tmp");
          write(temporary, temporary.getName());
          results.add(pool.submit(() -> fs.rename(temporary, target)));
        }
        int winner = -1;
        for (int i = 0; i < writers; i++) {
          if (results.get(i).get()) {
            assertEquals("two renames to one name succeeded", -1, winner);
            winner = i;
          }
        }
        assertEquals("." + round + "." + winner + ".tmp", read(target));
      }
    } finally {
      pool.shutdown();
    }
  }

  @Test
  public void overwriteIsSeenWholeOrNotAtAll() throws Exception {
    write(path("f"), "old!");
    ExecutorService pool = Executors.newSingleThreadExecutor();
    try {
      Future<Integer> reads = pool.submit(() -> {
        int count = 0;
        for (String text = ""; !text.equals("last"); count++) {
          text = read(path("f"));
          assertEquals(4, text.length());
        }
        return count;
      });
      for (int i = 0; i < 100; i++) {
        write(path("g"), i == 99 ? "last" : "new!");
        FileContext.getFileContext(TestMount.ROOT, fs.getConf())
            .rename(path("g"), path("f"), Options.Rename.OVERWRITE);
      }
      assertTrue(reads.get() > 0);
    } finally {
      pool.shutdown();
    }
  }

  @Test
  public void deleteTakesATree() throws IOException {
    for (int i = 0; i < 30; i++) {
      write(path("t/" + i % 3 + "/" + i % 5 + "/f" + i), "x");
    }
    assertThrows(IOException.class, () -> fs.delete(path("t"), false));
    assertTrue(fs.delete(path("t"), true));
    assertFalse(fs.delete(path("t"), true));
    assertEquals(0, local("").list().length);
  }

  @Test
  public void summaryCounts() throws IOException {
    write(path("t/a/f"), "12345");
    write(path("t/g"), "12");
    ContentSummary summary = fs.getContentSummary(path("t"));
    assertEquals(7, summary.getLength());
    assertEquals(2, summary.getFileCount());
    assertEquals(2, summary.getDirectoryCount());
    assertEquals(0, fs.getContentSummary(path("t/g")).getDirectoryCount());
    assertThrows(FileNotFoundException.class, () -> fs.getContentSummary(path("none")));
  }

  @Test
  public void listingsGoOnFromPageToPage() throws IOException {
    int count = 5003;
    for (int i = 0; i < count; i++) {
      assertTrue(local("d" + i).mkdir());
    }
    assertEquals(count, fs.listStatus(base).length);
    RemoteIterator<FileStatus> each = fs.listStatusIterator(base);
    for (int i = 0; i < count; i++) {
      assertTrue(each.next().isDirectory());
    }
    assertFalse(each.hasNext());
    FileStatus one = fs.listStatus(base)[0];
    FileStatus same = fs.getFileStatus(one.getPath());
    assertEquals(same, one);
    assertEquals(same.getModificationTime(), one.getModificationTime());
    assertEquals(same.getPermission(), one.getPermission());
    assertEquals(same.getOwner(), one.getOwner());
  }

  @Test
  public void namesOfAllKinds() throws IOException {
    for (String name : Arrays.asList("a b", "ts=2020-01-01 10:00:00", "grün", "\"quoted\\", "𝄞", "a%20b", "a?b#c;d&e", "...", "a%zz")) {
      Path path = new Path("sluice", "test", "/own/" + name);
      write(path, name);
      assertEquals(path, fs.listStatus(path)[0].getPath());
      Path moved = new Path("sluice", "test", "/own/moved " + name);
      assertTrue(fs.rename(path, moved));
      FileStatus[] all = fs.listStatus(base);
      assertEquals(1, all.length);
      assertEquals(moved, all[0].getPath());
      assertEquals(name, read(moved));
      assertTrue(fs.delete(moved, true));
    }
  }

  @Test
  public void syncedBytesAreSeenBeforeTheClose() throws IOException {
    try (FSDataOutputStream out = fs.create(path("f"))) {
      out.writeBytes("abc");
      out.hflush();
      assertEquals("abc", read(path("f")));
      out.writeBytes("def");
      out.hsync();
      assertEquals("abcdef", read(path("f")));
    }
    try (FSDataOutputStream out = fs.append(path("f"))) {
      assertEquals(6, out.getPos());
      out.writeBytes("ghi");
    }
    assertTrue(fs.truncate(path("f"), 4));
    assertEquals("abcd", read(path("f")));
    assertThrows(HadoopIllegalArgumentException.class, () -> fs.truncate(path("f"), 5));
  }

  @Test
  public void modesDoNotDependOnTheProcess() throws IOException {
    Configuration conf = new Configuration(fs.getConf());
    conf.set("fs.permissions.umask-mode", "000");
    FileSystem open = FileSystem.newInstance(TestMount.ROOT, conf);
    open.create(path("f"), new FsPermission((short) 0666), true, 4096, (short) 1, 1 << 20, null)
        .close();
    open.mkdirs(path("d"), new FsPermission((short) 0777));
    assertEquals(0666, open.getFileStatus(path("f")).getPermission().toShort());
    assertEquals(0777, open.getFileStatus(path("d")).getPermission().toShort());
    open.setPermission(path("d"), new FsPermission((short) 01770));
    assertEquals(01770, open.getFileStatus(path("d")).getPermission().toShort());
    open.close();
  }

  @Test
  public void extendedAttributes() throws IOException {
    write(path("f"), "x");
    byte[] value = {1, 0, 2};
    fs.setXAttr(path("f"), "user.a", value);
    assertArrayEquals(value, fs.getXAttr(path("f"), "user.a"));
    assertEquals(Arrays.asList("user.a"), fs.listXAttrs(path("f")));
    assertThrows(IOException.class,
        () -> fs.setXAttr(path("f"), "user.a", value, EnumSet.of(XAttrSetFlag.CREATE)));
    assertThrows(IOException.class,
        () -> fs.setXAttr(path("f"), "user.b", value, EnumSet.of(XAttrSetFlag.REPLACE)));
    fs.removeXAttr(path("f"), "user.a");
    assertThrows(IOException.class, () -> fs.getXAttr(path("f"), "user.a"));
    assertThrows(FileNotFoundException.class, () -> fs.getXAttrs(path("none")));
  }

  @Test
  public void checksumsAreThoseOfHdfs() throws IOException {
    write(path("f"), "123456789");
    // The check value of CRC-32C.
    assertArrayEquals(new byte[] {(byte) 0xe3, 0x06, (byte) 0x92, (byte) 0x83},
        fs.getFileChecksum(path("f")).getBytes());
    assertEquals("COMPOSITE-CRC32C", fs.getFileChecksum(path("f")).getAlgorithmName());
  }

  @Test
  public void noFileHasACompanion() throws IOException {
    write(path("f"), "x");
    assertArrayEquals(new String[] {"f"}, local("").list());
  }

  @Test
  public void capabilities() throws IOException {
    assertTrue(fs.hasPathCapability(base, CommonPathCapabilities.FS_APPEND));
    assertTrue(fs.hasPathCapability(base, CommonPathCapabilities.FS_XATTRS));
    assertTrue(fs.hasPathCapability(base, CommonPathCapabilities.FS_CONCAT));
    assertTrue(fs.hasPathCapability(base, CommonPathCapabilities.FS_ACLS));
    assertFalse(fs.hasPathCapability(base, CommonPathCapabilities.FS_SYMLINKS));
    try (FSDataOutputStream out = fs.create(path("f"))) {
      assertTrue(out.hasCapability("hsync"));
    }
  }

  @Test
  public void concatAppendsAndTakesTheSources() throws IOException {
    write(path("a"), "one");
    write(path("b"), "two");
    write(path("c"), "");
    write(path("d"), "three");
    fs.concat(path("a"), new Path[] {path("b"), path("c"), path("d")});
    assertEquals("onetwothree", read(path("a")));
    assertArrayEquals(new String[] {"a"}, local("").list());
    assertThrows(FileNotFoundException.class,
        () -> fs.concat(path("a"), new Path[] {path("none")}));
    write(path("b"), "x");
    assertThrows(HadoopIllegalArgumentException.class,
        () -> fs.concat(path("a"), new Path[] {path("b"), path("b")}));
    fs.mkdirs(path("dir"));
    assertThrows(FileNotFoundException.class,
        () -> fs.concat(path("a"), new Path[] {path("b"), path("dir")}));
    assertEquals("onetwothree", read(path("a")));
    assertEquals("x", read(path("b")));
  }

  @Test
  public void blocksAreWhereTheCacheIs() throws IOException, InterruptedException {
    Configuration conf = new Configuration(fs.getConf());
    conf.set("fs.sluice.hostname", "this.host");
    FileSystem named = FileSystem.newInstance(TestMount.ROOT, conf);
    byte[] data = new byte[300_000];
    try (FSDataOutputStream out = named.create(path("f"))) {
      out.write(data);
    }
    try (FSDataInputStream in = named.open(path("f"))) {
      in.readFully(new byte[data.length]);
    }
    FileStatus status = named.getFileStatus(path("f"));
    // A file that is read while it goes to the cache is copied there, soon.
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
    while (!Locations.isWarm(new Place(path("f"), local("f").getPath())) && System.nanoTime() < end) {
      Thread.sleep(20);
    }
    assertArrayEquals(new String[] {"this.host"},
        named.getFileBlockLocations(status, 0, data.length)[0].getHosts());
    assertArrayEquals(new String[] {"this.host"},
        named.listLocatedStatus(base).next().getBlockLocations()[0].getHosts());
    assertEquals(0, named.getFileBlockLocations(status, data.length, 1).length);
    // Evicted: every host is as good.
    Mount mount = Mount.of(local("f").getPath());
    // What the kernel still reads by itself stays, and it tells of a close after the close.
    Object left = mount.control().call("evict", "path", "\"/own/f\"").get("cached_bytes");
    while (!left.equals(0L) && System.nanoTime() < end) {
      Thread.sleep(20);
      left = mount.control().call("evict", "path", "\"/own/f\"").get("cached_bytes");
    }
    assertEquals(0L, left);
    assertArrayEquals(new String[] {"localhost"},
        named.getFileBlockLocations(status, 0, data.length)[0].getHosts());
    assertArrayEquals(new String[] {"localhost"},
        named.listLocatedStatus(base).next().getBlockLocations()[0].getHosts());
    named.close();
    conf.set("fs.sluice.block.locations", "nowhere");
    assertThrows(IOException.class, () -> FileSystem.newInstance(TestMount.ROOT, conf));
  }

  @Test
  public void openFileTakesHints() throws Exception {
    write(path("f"), "abcdef");
    try (FSDataInputStream in = fs.openFile(path("f")).must("fs.option.openfile.length", "6")
        .opt("fs.option.openfile.read.policy", "unknown, whole-file").build().get()) {
      in.seek(4);
      assertEquals('e', in.read());
    }
    assertThrows(IllegalArgumentException.class,
        () -> fs.openFile(path("f")).must("fs.option.other", "1").build());
  }

  @Test
  public void quotasAreShownAndSet() throws IOException {
    fs.mkdirs(path("q"));
    write(path("q/f"), "12345");
    assertEquals(-1, fs.getQuotaUsage(path("q")).getQuota());
    fs.setQuota(path("q"), 10, 1 << 20);
    QuotaUsage usage = fs.getQuotaUsage(path("q"));
    assertEquals(10, usage.getQuota());
    assertEquals(1 << 20, usage.getSpaceQuota());
    assertEquals(5, usage.getSpaceConsumed());
    assertEquals(2, usage.getFileAndDirectoryCount());
    assertEquals(10, fs.getContentSummary(path("q")).getQuota());
    assertEquals(-1, fs.getQuotaUsage(base).getQuota());
    fs.mkdirs(path("q/below"));
    assertEquals(-1, fs.getQuotaUsage(path("q/below")).getQuota());
    fs.setQuota(path("q"), -1, Long.MAX_VALUE);
    assertEquals(-1, fs.getQuotaUsage(path("q")).getQuota());
    assertEquals(1 << 20, fs.getQuotaUsage(path("q")).getSpaceQuota());
    fs.setQuota(path("q"), -1, -1);
    assertEquals(-1, fs.getQuotaUsage(path("q")).getSpaceQuota());
  }

  @Test
  public void flagsOfCreate() throws IOException {
    FileContext context = FileContext.getFileContext(TestMount.ROOT, fs.getConf());
    context.create(path("f"), EnumSet.of(CreateFlag.CREATE)).close();
    assertThrows(FileAlreadyExistsException.class,
        () -> context.create(path("f"), EnumSet.of(CreateFlag.CREATE)));
    try (FSDataOutputStream out = context.create(path("f"), EnumSet.of(CreateFlag.APPEND))) {
      out.writeBytes("x");
    }
    assertEquals("x", read(path("f")));
    assertThrows(FileNotFoundException.class, () -> fs.createNonRecursive(path("no/f"), true, 4096,
        (short) 1, 1 << 20, null));
  }

  @Test
  public void aStreamSurvivesAnInterrupt() throws IOException {
    write(path("f"), "abc");
    try (FSDataInputStream in = fs.open(path("f"))) {
      Thread.currentThread().interrupt();
      byte[] one = new byte[1];
      in.readFully(0, one);
      assertTrue(Thread.interrupted());
      in.readFully(2, one);
      assertEquals('c', one[0]);
    }
  }

  @Test
  public void aWriterSurvivesAnInterruptThatCameBefore() throws IOException {
    try (FSDataOutputStream out = fs.create(path("f"))) {
      Thread.currentThread().interrupt();
      out.write(new byte[200_000]);
      out.writeBytes("abc");
      out.hflush();
      assertTrue(Thread.interrupted());
      Thread.currentThread().interrupt();
    }
    assertTrue(Thread.interrupted());
    assertEquals(200_003, fs.getFileStatus(path("f")).getLen());
  }

  @Test
  public void afterALostWriteNothingIsAcknowledged() throws IOException {
    fs.mkdirs(path("q"));
    fs.setQuota(path("q"), Long.MAX_VALUE, 100_000);
    FSDataOutputStream out = fs.create(path("q/f"));
    // The mount may take it, and refuse when it goes out.
    assertThrows(IOException.class, () -> {
      out.write(new byte[200_000]);
      out.hflush();
    });
    fs.setQuota(path("q"), Long.MAX_VALUE, -1);
    assertThrows(IOException.class, () -> {
      out.writeBytes("tail");
      out.hflush();
    });
    IOException e = assertThrows(IOException.class, out::close);
    assertTrue(e.getMessage(), e.getMessage().contains("earlier write"));
    out.close();
  }

  @Test
  public void aClosedStreamMayBeFlushed() throws IOException {
    FSDataOutputStream out = fs.create(path("f"));
    out.close();
    out.flush();
    assertThrows(IOException.class, out::hflush);
  }

  @Test
  public void whatOpenStreamsHoldIsWrittenWhenTheFileSystemIsClosed() throws IOException {
    FileSystem other = FileSystem.newInstance(TestMount.ROOT, fs.getConf());
    FSDataOutputStream out = other.create(path("f"));
    out.writeBytes("abc");
    other.close();
    assertEquals("abc", read(path("f")));
    out.writeBytes("def");
    out.close();
    assertEquals("abcdef", read(path("f")));
  }

  @Test
  public void whatCannotBeOpenedIsNotCalledMissing() throws IOException {
    Files.createSymbolicLink(local("loop").toPath(), Paths.get("loop"));
    IOException e = assertThrows(IOException.class, () -> fs.open(path("loop")));
    assertFalse(e.toString(), e instanceof FileNotFoundException);
    assertThrows(FileNotFoundException.class, () -> fs.open(path("none")));
    assertThrows(FileNotFoundException.class, () -> fs.open(base));
    write(path("f"), "x");
    assertThrows(FileNotFoundException.class, () -> fs.open(path("f/below")));
  }

  @Test
  public void aNameThatIsTooLongIsNotThere() throws IOException {
    Path path = path(new String(new char[300]).replace('\0', 'x'));
    assertFalse(fs.exists(path));
    assertThrows(FileNotFoundException.class, () -> fs.open(path));
    IOException e = assertThrows(IOException.class, () -> fs.create(path));
    assertFalse(e.toString(), e instanceof FileNotFoundException);
  }

  @Test
  public void noPathLeadsOut() {
    for (String name : Arrays.asList("/../evil", "/..", "../../../evil")) {
      assertThrows(InvalidPathException.class, () -> fs.create(new Path(name)));
    }
    assertFalse(new File(TestMount.directory(), "../evil").exists());
  }

  @Test
  public void noTokensAreAskedFor() throws IOException {
    assertNull(fs.getCanonicalServiceName());
    assertEquals(0, fs.addDelegationTokens("renewer", new Credentials()).length);
    assertNull(FileContext.getFileContext(TestMount.ROOT, fs.getConf()).getDefaultFileSystem()
        .getCanonicalServiceName());
  }

  @Test
  public void accessIsTheKernelsAnswer() throws Exception {
    Assume.assumeTrue("only root may read all", "root".equals(System.getProperty("user.name")));
    write(path("f"), "x");
    fs.setOwner(path("f"), "nobody", null);
    fs.setPermission(path("f"), new FsPermission((short) 0600));
    fs.access(path("f"), FsAction.READ_WRITE);
    FileContext.getFileContext(TestMount.ROOT, fs.getConf()).access(path("f"), FsAction.READ_WRITE);
    assertThrows(AccessControlException.class, () -> fs.access(path("f"), FsAction.EXECUTE));
    assertThrows(FileNotFoundException.class, () -> fs.access(path("none"), FsAction.READ));
    UserGroupInformation other = UserGroupInformation.createUserForTesting("other", new String[0]);
    assertThrows(AccessControlException.class,
        () -> other.doAs((PrivilegedExceptionAction<Void>) () -> {
          fs.access(path("f"), FsAction.READ);
          return null;
        }));
  }

  @Test
  public void oneOfManyCreatesOfAMissingDirectorysFileWins() throws Exception {
    int writers = 4;
    ExecutorService pool = Executors.newFixedThreadPool(writers);
    try {
      for (int round = 0; round < 20; round++) {
        Path target = path(round + "/a/f");
        List<Future<Boolean>> results = new ArrayList<>();
        for (int i = 0; i < writers; i++) {
          results.add(pool.submit(() -> {
            try {
              fs.create(target, false).close();
              return true;
            } catch (FileAlreadyExistsException e) {
              return false;
            }
          }));
        }
        int won = 0;
        for (Future<Boolean> result : results) {
          won += result.get() ? 1 : 0;
        }
        assertEquals(1, won);
      }
    } finally {
      pool.shutdown();
    }
  }

  @Test
  public void whoIsNotKnownIsNamed() throws IOException {
    write(path("f"), "x");
    IOException e = assertThrows(IOException.class,
        () -> fs.setOwner(path("f"), "no-such-user-here", null));
    assertTrue(e.getMessage(), e.getMessage().contains("no-such-user-here"));
  }

  @Test
  public void anAbsentMountIsNotWrittenBelow() {
    Configuration conf = new Configuration(fs.getConf());
    conf.set("fs.sluice.mounts", "s3://other/=/tmp");
    IOException e = assertThrows(IOException.class,
        () -> FileSystem.newInstance(URI.create("s3a://other/"), conf).mkdirs(new Path("/no-mount-of-sluice")));
    assertTrue(e.getMessage(), e.getMessage().contains("not on a mount"));
    assertFalse(Files.exists(Paths.get("/tmp/no-mount-of-sluice")));
  }
}
