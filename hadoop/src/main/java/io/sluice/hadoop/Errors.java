package io.sluice.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.ParentNotDirectoryException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.security.AccessControlException;

/** Errors of the mount as the exceptions that HDFS throws. */
final class Errors {
  private Errors() {}

  static <E extends IOException> E with(E error, Throwable cause) {
    error.initCause(cause);
    return error;
  }

  static IOException denied(Path path, Throwable cause) {
    return with(new AccessControlException("permission denied: " + path), cause);
  }

  static IOException of(Path path, IOException e) {
    if (e instanceof ControlException) {
      return ofControl(path.toString(), (ControlException) e);
    }
    if (e instanceof java.nio.file.NoSuchFileException) {
      return with(new FileNotFoundException(path + " does not exist"), e);
    }
    if (e instanceof java.nio.file.AccessDeniedException) {
      return denied(path, e);
    }
    if (e instanceof java.nio.file.FileSystemException) {
      return with(new IOException(path + ": " + ((java.nio.file.FileSystemException) e).getReason()),
          e);
    }
    return e;
  }

  private static IOException ofControl(String path, ControlException e) {
    switch (e.errno()) {
      case "ENOENT":
        return with(new FileNotFoundException(path + " does not exist"), e);
      case "EACCES":
      case "EPERM":
        return with(new AccessControlException("permission denied: " + path), e);
      case "ENOTDIR":
        return with(new ParentNotDirectoryException("a part of " + path + " is a file"), e);
      default:
        return with(new IOException(path + ": " + e.getMessage()), e);
    }
  }

  static IOException ofRename(Path from, Path to, ControlException e) {
    switch (e.errno()) {
      case "EEXIST":
      case "ENOTEMPTY":
        return with(new FileAlreadyExistsException(to + " already exists"), e);
      case "ENOENT":
        return with(new FileNotFoundException(to.getParent() + " does not exist, or " + from), e);
      case "EINVAL":
        return with(new IOException("cannot rename " + from + " to " + to
            + ", which is below it"), e);
      case "ENOTDIR":
        return with(new ParentNotDirectoryException("a part of " + to + " is a file"), e);
      default:
        return ofControl(from + " to " + to, e);
    }
  }
}
