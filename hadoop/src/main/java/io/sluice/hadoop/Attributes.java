package io.sluice.hadoop;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.security.Principal;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.permission.FsPermission;

/** What stat(2) says, by one call, and the names of owners, which are asked for once. */
final class Attributes {
  private static final Map<Integer, String> USERS = new ConcurrentHashMap<>();
  private static final Map<Integer, String> GROUPS = new ConcurrentHashMap<>();
  private static final String WANTED = "unix:mode,uid,gid,size,lastModifiedTime,lastAccessTime";
  private static final int CACHED_BYTES = 6; // of a row behind its name
  private static final int TYPE_MASK = 0170000;
  private static final int DIRECTORY = 0040000;
  private static final int SYMLINK = 0120000;

  final int mode;
  final int uid;
  final int gid;
  final long size;
  final long mtimeMs;
  final long atimeMs;

  Attributes(int mode, int uid, int gid, long size, long mtimeMs, long atimeMs) {
    this.mode = mode;
    this.uid = uid;
    this.gid = gid;
    this.size = size;
    this.mtimeMs = mtimeMs;
    this.atimeMs = atimeMs;
  }

  static Attributes of(Path path, LinkOption... options) throws IOException {
    Map<String, Object> found = Files.readAttributes(path, WANTED, options);
    return new Attributes((Integer) found.get("mode"), (Integer) found.get("uid"),
        (Integer) found.get("gid"), (Long) found.get("size"),
        ((FileTime) found.get("lastModifiedTime")).toMillis(),
        ((FileTime) found.get("lastAccessTime")).toMillis());
  }

  /** A row of a control file's listing behind its name: mode, uid, gid, size, mtime_ns, atime_ns, and so on. */
  static Attributes of(long[] row, int count) throws IOException {
    if (count < CACHED_BYTES) {
      throw new IOException("a row of the mount's reply has " + count + " numbers");
    }
    return new Attributes((int) row[0], (int) row[1], (int) row[2], row[3], ms(row[4]), ms(row[5]));
  }

  static long number(Map<String, Object> object, String name) throws IOException {
    Object value = object.get(name);
    if (!(value instanceof Long)) {
      throw new IOException("the mount's reply has no number " + name);
    }
    return (Long) value;
  }

  /** What the mount's cache has of an entry of a listing that asked for it. */
  static long cachedBytes(long[] row, int count) {
    return count > CACHED_BYTES ? row[CACHED_BYTES] : 0;
  }

  private static long ms(long ns) {
    return TimeUnit.NANOSECONDS.toMillis(ns);
  }

  boolean isDirectory() {
    return (mode & TYPE_MASK) == DIRECTORY;
  }

  boolean isSymlink() {
    return (mode & TYPE_MASK) == SYMLINK;
  }

  /** The name of an id that what is there had a moment ago; the id itself if it has another one by now. */
  private static String name(Map<Integer, String> known, int id, Supplier<Path> where, String idKey,
      String nameKey) {
    String name = known.get(id);
    if (name != null) {
      return name;
    }
    Path path = where.get();
    try {
      Map<String, Object> found = Files.readAttributes(path, "unix:" + idKey + "," + nameKey,
          LinkOption.NOFOLLOW_LINKS);
      if (found.get(idKey).equals(id)) {
        name = ((Principal) found.get(nameKey)).getName();
        known.put(id, name);
        return name;
      }
    } catch (IOException e) {
      SluiceFileSystem.LOG.debug("the owner of {}", path, e);
    }
    return String.valueOf(id);
  }

  /** `local`: where it is, to learn an owner's name. Directories have no length and no blocks. */
  FileStatus status(org.apache.hadoop.fs.Path path, Supplier<Path> local, long blockSize) {
    boolean directory = isDirectory();
    return new FileStatus(directory ? 0 : size, directory, directory ? 0 : 1,
        directory ? 0 : blockSize, mtimeMs, atimeMs, new FsPermission((short) (mode & 01777)),
        name(USERS, uid, local, "uid", "owner"), name(GROUPS, gid, local, "gid", "group"), path);
  }
}
