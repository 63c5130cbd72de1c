package io.sluice.hadoop;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;

/** An absolute path of a file system, where it is on this host, and the mount that holds it. */
final class Place {
  final Path path;
  final String name;
  final java.nio.file.Path local;
  final Mount mount;

  Place(Path path, String name) throws IOException {
    this.path = path;
    this.name = name;
    this.local = FileSystems.getDefault().getPath(name);
    this.mount = Mount.of(name);
  }

  File file() {
    return new File(name);
  }

  boolean isDirectory() {
    return Files.isDirectory(local);
  }

  /** Whether a file stands where a directory should, on the way to it. */
  boolean isBelowFile() {
    for (java.nio.file.Path at = local.getParent(); at != null; at = at.getParent()) {
      if (Files.isDirectory(at)) {
        return false;
      }
      if (Files.exists(at)) {
        return true;
      }
    }
    return false;
  }

  boolean isRoot() {
    return path.isRoot();
  }

  String quoted() {
    return Control.quoted(mount.pathOf(name));
  }

  FileStatus status(long blockSize) throws IOException {
    return attributes().status(path, () -> local, blockSize);
  }

  Attributes attributes(LinkOption... options) throws IOException {
    try {
      return Attributes.of(local, options);
    } catch (NoSuchFileException e) {
      throw Errors.of(path, e);
    } catch (IOException e) {
      if (e instanceof FileSystemException
          && "File name too long".equals(((FileSystemException) e).getReason())) {
        throw Errors.with(new FileNotFoundException(path + " does not exist: a name is too long"), e);
      }
      if (isBelowFile()) {
        throw Errors.with(new FileNotFoundException(path + " does not exist: a part of it is a file"),
            e);
      }
      throw Errors.of(path, e);
    }
  }
}
