package io.sluice.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.StandardCopyOption;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.ParentNotDirectoryException;

/** Renames by the rules of HDFS. */
final class Renames {
  private Renames() {}

  private static void checkSameMount(Place from, Place to) throws IOException {
    if (from.mount != to.mount) {
      throw new IOException("cannot rename " + from.path + " to " + to.path
          + ": they are on different mounts");
    }
  }

  private static void withoutReplacing(Place from, Place to) throws IOException {
    from.mount.control().rename(from.quoted(), to.quoted());
  }

  /** Null: the target is a directory, so it is to go into that. */
  static Boolean tryRename(Place from, Place to) throws IOException {
    checkSameMount(from, to);
    if (from.isRoot()) {
      return false;
    }
    return attempt(from, to, true);
  }

  /** Into a directory that is there: `to` is the name in it. */
  static Boolean tryRenameInto(Place from, Place to) throws IOException {
    return attempt(from, to, false);
  }

  private static Boolean attempt(Place from, Place to, boolean mayNest) throws IOException {
    if (from.path.equals(to.path)) {
      return Files.isRegularFile(from.local);
    }
    try {
      withoutReplacing(from, to);
      return true;
    } catch (ControlException e) {
      switch (e.errno()) {
        case "ENOENT":
        case "EINVAL": // a directory below itself
          SluiceFileSystem.LOG.debug("rename {} to {}: {}", from.path, to.path, e.errno());
          return false;
        case "ENOTDIR":
          throw Errors.with(
              new ParentNotDirectoryException("a part of " + to.path + " is a file"), e);
        case "EEXIST":
        case "EBUSY": // the root
          boolean nests = mayNest && to.isDirectory()
              && Files.exists(from.local, LinkOption.NOFOLLOW_LINKS);
          return nests ? null : Boolean.FALSE;
        default:
          throw Errors.of(from.path, e);
      }
    }
  }

  /** One atomic step, which replaces only with `overwrite`. */
  static void rename(Place from, Place to, boolean overwrite) throws IOException {
    checkSameMount(from, to);
    if (from.isRoot() || to.isRoot()) {
      throw new IOException("the root cannot be renamed, nor be the target of it");
    }
    Attributes source = from.attributes(LinkOption.NOFOLLOW_LINKS);
    if (from.path.equals(to.path)) {
      throw new FileAlreadyExistsException(from.path + " and the target are the same");
    }
    if (!overwrite) {
      try {
        withoutReplacing(from, to);
        return;
      } catch (ControlException e) {
        throw Errors.ofRename(from.path, to.path, e);
      }
    }
    checkKinds(from, to, source);
    try {
      Files.move(from.local, to.local, StandardCopyOption.ATOMIC_MOVE);
    } catch (java.nio.file.NoSuchFileException e) {
      throw Errors.with(new FileNotFoundException(
          Files.exists(from.local) ? to.path.getParent() + " does not exist"
              : from.path + " does not exist"), e);
    } catch (IOException e) {
      // rename(2) of a directory onto one that is not empty, or of one kind onto the other
      if (to.isBelowFile()) {
        throw Errors.with(new ParentNotDirectoryException("a part of " + to.path + " is a file"), e);
      }
      throw Errors.with(new IOException("cannot rename " + from.path + " to " + to.path + ": "
          + e.getMessage()), e);
    }
  }

  /** For the better message; the mount refuses by itself. */
  private static void checkKinds(Place from, Place to, Attributes source) throws IOException {
    if (Files.exists(to.local) && source.isDirectory() != to.isDirectory()) {
      throw new IOException("cannot rename " + from.path + " to " + to.path
          + ": one is a directory, the other is a file");
    }
  }
}
