package io.sluice.hadoop;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LeaseRecoverable;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** Who writes a file, and who takes it over (fs.sluice.leases). */
public class LeaseTest {
  private static final Path BASE = new Path("/lease");
  private static final Path LOG = new Path(BASE, "log");
  private FileSystem fs;
  private LeaseRecoverable leases;

  /** A file system with leases. */
  @Before
  public void setUp() throws IOException {
    Configuration conf = TestMount.configure(new Configuration());
    conf.set("fs.sluice.impl", SluiceLeaseFileSystem.class.getName());
    conf.setBoolean("fs.sluice.leases", true);
    fs = FileSystem.newInstance(TestMount.ROOT, conf);
    leases = (LeaseRecoverable) fs;
    fs.delete(BASE, true);
    fs.mkdirs(BASE);
  }

  /** Nothing stays. */
  @After
  public void tearDown() throws IOException {
    if (fs != null) {
      fs.delete(BASE, true);
      fs.close();
    }
  }

  @Test
  public void aLivingWriterIsFenced() throws IOException {
    FSDataOutputStream old = fs.create(LOG);
    old.writeBytes("acknowledged");
    old.hflush();
    assertFalse(leases.isFileClosed(LOG));
    fs.setPermission(LOG, new FsPermission((short) 0604));
    assertTrue(leases.recoverLease(LOG));
    assertTrue(leases.isFileClosed(LOG));
    assertEquals(0604, fs.getFileStatus(LOG).getPermission().toShort());
    assertTrue(leases.recoverLease(LOG));
    try (FSDataOutputStream out = fs.append(LOG)) {
      out.writeBytes(", and more");
      out.hflush();
      old.writeBytes(" LOST");
      assertThrows(IOException.class, old::hflush);
    }
    assertThrows(IOException.class, old::close);
    assertEquals("acknowledged, and more", TestMount.read(fs, LOG));
    assertEquals(1, new File(TestMount.directory() + "/lease").list().length);
  }

  @Test
  public void oneWritesAtATime() throws IOException {
    fs.create(LOG).close();
    FSDataOutputStream out = fs.append(LOG);
    out.writeBytes("a");
    IOException e = assertThrows(IOException.class, () -> fs.append(LOG));
    assertTrue(e.getMessage(), e.getMessage().contains("recoverLease"));
    out.close();
    try (FSDataOutputStream again = fs.append(LOG)) {
      again.writeBytes("b");
    }
    assertEquals("ab", TestMount.read(fs, LOG));
    assertTrue(fs.listXAttrs(LOG).isEmpty());
  }

  @Test
  public void whoCreatesAnewTakesTheFile() throws IOException {
    FSDataOutputStream old = fs.create(LOG);
    old.writeBytes("old");
    try (FSDataOutputStream out = fs.create(LOG, true)) {
      out.writeBytes("new");
      assertThrows(IOException.class, old::hsync);
    }
    assertThrows(IOException.class, old::close);
    assertTrue(leases.isFileClosed(LOG));
  }

  @Test
  public void whoLostTheFileDoesNotWriteIntoTheNewOne() throws IOException {
    FSDataOutputStream old = fs.create(LOG);
    old.writeBytes("old");
    old.hflush();
    try (FSDataOutputStream out = fs.create(LOG, true)) {
      out.writeBytes("new");
    }
    old.write(new byte[256 << 10]);
    assertThrows(IOException.class, old::close);
    assertEquals("new", TestMount.read(fs, LOG));
  }

  @Test
  public void whatIsBeingWrittenIsNotCutNorLengthenedByOthers() throws IOException {
    Path other = new Path(BASE, "other");
    TestMount.write(fs, other, "x");
    try (FSDataOutputStream out = fs.create(LOG)) {
      out.writeBytes("abc");
      out.hflush();
      assertThrows(IOException.class, () -> fs.truncate(LOG, 1));
      assertThrows(IOException.class, () -> fs.concat(LOG, new Path[] {other}));
      out.writeBytes("def");
    }
    assertEquals("abcdef", TestMount.read(fs, LOG));
    assertTrue(fs.truncate(LOG, 1));
  }

  @Test
  public void whoRenamesTheDirectoryFencesItsWriters() throws IOException {
    Path dir = new Path(BASE, "server");
    FSDataOutputStream old = fs.create(new Path(dir, "log"));
    old.writeBytes("a");
    old.hflush();
    Path moved = new Path(BASE, "server-splitting");
    assertTrue(fs.rename(dir, moved));
    old.writeBytes("b");
    assertThrows(IOException.class, old::hflush);
    assertTrue(leases.recoverLease(new Path(moved, "log")));
    assertThrows(IOException.class, old::close);
  }

  @Test
  public void whatIsNotThereIsSaidSo() {
    assertThrows(FileNotFoundException.class, () -> leases.recoverLease(LOG));
    assertThrows(FileNotFoundException.class, () -> leases.isFileClosed(LOG));
    assertThrows(FileNotFoundException.class, () -> leases.recoverLease(BASE));
  }
}
