package io.sluice.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.UserDefinedFileAttributeView;
import java.util.UUID;

/**
 * Who writes a file (fs.sluice.leases): an extended attribute of the file names its writer from the
 * open to the close. A writer looks at it after each sync and acknowledges nothing when it is not his
 * any more. Who takes over first puts his own name there, so that what was acknowledged lies in the
 * file from then on; then a copy replaces the file, which the old writer cannot reach.
 */
final class Lease {
  static final String KEY = "io.sluice.writer";
  private static final int VALUE_MAX = 256;

  private final Path file;
  private final String token;

  private Lease(Path file, String token) {
    this.file = file;
    this.token = token;
  }

  private static String newToken() {
    return UUID.randomUUID().toString();
  }

  private static UserDefinedFileAttributeView view(Path file) {
    return Files.getFileAttributeView(file, UserDefinedFileAttributeView.class,
        LinkOption.NOFOLLOW_LINKS);
  }

  /** Who writes it; null: nobody who has a lease. */
  static String holder(Path file) throws IOException {
    UserDefinedFileAttributeView view = view(file);
    if (!view.list().contains(KEY)) {
      return null;
    }
    ByteBuffer value = ByteBuffer.allocate(VALUE_MAX);
    try {
      view.read(KEY, value);
    } catch (NoSuchFileException e) {
      throw e;
    } catch (java.nio.file.FileSystemException e) {
      return view.list().contains(KEY) ? "" : null; // it was removed meanwhile
    }
    value.flip();
    return StandardCharsets.UTF_8.decode(value).toString();
  }

  private static void write(Path file, String token) throws IOException {
    view(file).write(KEY, ByteBuffer.wrap(token.getBytes(StandardCharsets.UTF_8)));
  }

  /** Of a file that was just created, or cut to be written anew: who had it before has lost it. */
  static Lease take(Path file) throws IOException {
    Lease lease = new Lease(file, newToken());
    write(file, lease.token);
    return lease;
  }

  static void checkFree(Path file) throws IOException {
    if (holder(file) != null) {
      throw new IOException(file + " is being written; if its writer is gone, recoverLease it");
    }
  }

  /** Of a file that is to be appended to. */
  static Lease takeFree(Path file) throws IOException {
    checkFree(file);
    return take(file);
  }

  /** Before a file is written anew: who still writes it keeps the old one, which has no name then. */
  static void leaveBehind(Path file) throws IOException {
    try {
      if (holder(file) != null) {
        Files.deleteIfExists(file);
      }
    } catch (NoSuchFileException e) {
      SluiceFileSystem.LOG.debug("nobody writes {}", file, e);
    }
  }

  /** After a sync, before it is acknowledged. */
  void check() throws IOException {
    String holder;
    try {
      holder = holder(file);
    } catch (IOException e) {
      throw Errors.with(new IOException(file + " was moved or replaced while it was written"), e);
    }
    if (!token.equals(holder)) {
      throw new IOException(file + " was taken over by another writer");
    }
  }

  void release() throws IOException {
    check();
    view(file).delete(KEY);
  }

  /** False: somebody else is about it; ask again. */
  static boolean recover(Path file) throws IOException {
    String before;
    try {
      before = holder(file);
    } catch (NoSuchFileException e) {
      throw Errors.with(new FileNotFoundException(file + " does not exist"), e);
    }
    if (before == null) {
      return true;
    }
    try (FileChannel from = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE);
        FileLock lock = from.tryLock()) {
      if (lock == null || !before.equals(holder(file))) {
        return false;
      }
      write(file, newToken());
      replace(file, from);
      return true;
    } catch (OverlappingFileLockException e) {
      return false;
    }
  }

  private static void replace(Path file, FileChannel from) throws IOException {
    Path copy = file.resolveSibling("." + file.getFileName() + ".takeover-" + newToken());
    try (FileChannel to =
        FileChannel.open(copy, StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW)) {
      long size = from.size();
      for (long at = 0; at < size; ) {
        long moved = from.transferTo(at, size - at, to);
        if (moved <= 0) {
          throw new IOException(file + " became shorter while it was taken over");
        }
        at += moved;
      }
      Files.setAttribute(copy, "unix:mode", (Integer) Files.getAttribute(file, "unix:mode") & 07777);
      Files.setAttribute(copy, "unix:uid", Files.getAttribute(file, "unix:uid"));
      Files.setAttribute(copy, "unix:gid", Files.getAttribute(file, "unix:gid"));
      to.force(true);
      Files.move(copy, file, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      Files.deleteIfExists(copy);
      throw e;
    }
  }
}
