package io.sluice.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.Files;
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
      String reason = ((java.nio.file.FileSystemException) e).getReason();
      if ("Operation not permitted".equals(reason)) {
        return denied(path, e); // EPERM, for which Java has no class
      }
      return with(new IOException(path + ": " + reason), e);
    }
    if (e instanceof java.nio.file.attribute.UserPrincipalNotFoundException) {
      return with(new IOException(path + ": this host knows no user or group "
          + ((java.nio.file.attribute.UserPrincipalNotFoundException) e).getName()), e);
    }
    return e;
  }

  /**
   * Of a file that java.io could not open: it says "not found" of all reasons, and callers take that
   * for a file that is not there, and go on without it.
   */
  static IOException ofOpen(Place place, FileNotFoundException e) {
    if (e.getMessage().endsWith("(No such file or directory)")) {
      return with(new FileNotFoundException(place.path + " does not exist"), e);
    }
    if (place.isDirectory()) {
      return with(new FileNotFoundException(place.path + " is a directory"), e);
    }
    try {
      place.attributes();
    } catch (IOException missing) {
      return missing;
    }
    return Files.isReadable(place.local) ? with(new IOException(place.path + ": " + e.getMessage()), e)
        : denied(place.path, e);
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
