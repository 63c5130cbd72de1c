package io.sluice.hadoop;

import java.io.IOException;

/** A request that the mount refused, with the errno that it gave as a name. */
final class ControlException extends IOException {
  private static final long serialVersionUID = 1;

  private final String errno;

  ControlException(String errno, String message) {
    super(message);
    this.errno = errno;
  }

  /** "ENOENT", "EEXIST", ... */
  String errno() {
    return errno;
  }
}
