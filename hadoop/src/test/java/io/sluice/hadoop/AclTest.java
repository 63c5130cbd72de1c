package io.sluice.hadoop;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.stream.Collectors;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsPermission;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** Access control lists, as HDFS changes and shows them; the mount has --posix-acl. */
public class AclTest {
  private static final Path BASE = new Path("/acl");
  private FileSystem fs;
  private Path dir;
  private Path file;

  /** A directory of 0750, a file of 0640. */
  @Before
  public void setUp() throws IOException {
    fs = TestMount.fileSystem();
    fs.delete(BASE, true);
    dir = new Path(BASE, "d");
    file = new Path(BASE, "f");
    fs.mkdirs(dir);
    TestMount.write(fs, file, "x");
    fs.setPermission(dir, new FsPermission((short) 0750));
    fs.setPermission(file, new FsPermission((short) 0640));
  }

  /** Nothing stays. */
  @After
  public void tearDown() throws IOException {
    if (fs != null) {
      fs.delete(BASE, true);
      fs.close();
    }
  }

  private String shown(Path path) throws IOException {
    AclStatus status = fs.getAclStatus(path);
    assertEquals(fs.getFileStatus(path).getPermission(), status.getPermission());
    return status.getEntries().stream().map(AclEntry::toString).collect(Collectors.joining(","))
        + " " + status.getPermission();
  }

  private static java.util.List<AclEntry> spec(String text) {
    return AclEntry.parseAclSpec(text, true);
  }

  private static java.util.List<AclEntry> names(String text) {
    return AclEntry.parseAclSpec(text, false);
  }

  @Test
  public void aPlainFileHasNone() throws IOException {
    assertEquals(" rw-r-----", shown(file));
  }

  @Test
  public void modifyAddsAndCountsTheMask() throws IOException {
    fs.modifyAclEntries(file, spec("user:nobody:rw-,group:12345:r--"));
    assertEquals("user:nobody:rw-,group::r--,group:12345:r-- rw-rw----", shown(file));
    fs.modifyAclEntries(file, spec("user:nobody:r--"));
    assertEquals("user:nobody:r--,group::r--,group:12345:r-- rw-r-----", shown(file));
    fs.modifyAclEntries(file, spec("mask::---"));
    assertEquals("user:nobody:r--,group::r--,group:12345:r-- rw-------", shown(file));
  }

  @Test
  public void removeTakesEntries() throws IOException {
    fs.modifyAclEntries(file, spec("user:nobody:rwx,user:12345:r--"));
    fs.removeAclEntries(file, names("user:nobody"));
    assertEquals("user:12345:r--,group::r-- rw-r-----", shown(file));
    assertThrows(IOException.class, () -> fs.removeAclEntries(file, names("mask:")));
    fs.removeAcl(file);
    assertEquals(" rw-r-----", shown(file));
  }

  @Test
  public void setReplaces() throws IOException {
    fs.modifyAclEntries(file, spec("user:nobody:rwx"));
    fs.setAcl(file, spec("user::rwx,user:12345:r--,group::---,other::---"));
    assertEquals("user:12345:r--,group::--- rwxr-----", shown(file));
    assertThrows(IOException.class, () -> fs.setAcl(file, spec("user::rwx")));
    assertThrows(IOException.class,
        () -> fs.modifyAclEntries(file, spec("user:nosuchuserhere:rwx")));
    assertEquals("user:12345:r--,group::--- rwxr-----", shown(file));
  }

  @Test
  public void defaultsComeDown() throws IOException {
    fs.modifyAclEntries(dir, spec("default:user:nobody:r-x"));
    assertEquals("default:user::rwx,default:user:nobody:r-x,default:group::r-x,default:mask::r-x,"
        + "default:other::--- rwxr-x---", shown(dir));
    Path below = new Path(dir, "below");
    fs.mkdirs(below);
    assertEquals("user:nobody:r-x,group::r-x,default:user::rwx,default:user:nobody:r-x,"
        + "default:group::r-x,default:mask::r-x,default:other::--- rwxr-x---", shown(below));
    fs.setAcl(dir, spec("user::rwx,group::r--,other::---"));
    assertEquals("default:user::rwx,default:user:nobody:r-x,default:group::r-x,default:mask::r-x,"
        + "default:other::--- rwxr-----", shown(dir));
    fs.removeDefaultAcl(dir);
    assertEquals(" rwxr-----", shown(dir));
    assertThrows(IOException.class, () -> fs.modifyAclEntries(file, spec("default:user::rwx")));
  }

  @Test
  public void anAbsentPathIsSaidSo() {
    assertThrows(FileNotFoundException.class, () -> fs.getAclStatus(new Path(BASE, "none")));
  }
}
