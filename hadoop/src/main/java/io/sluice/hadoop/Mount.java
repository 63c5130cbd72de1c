package io.sluice.hadoop;

import java.io.File;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** A mount of Sluice on this host, by the directory that it is mounted on. One object for each. */
final class Mount {
  private static final Map<String, Mount> KNOWN = new ConcurrentHashMap<>();

  private final String root;
  private final Control control;

  private Mount(String root) {
    this.root = root;
    this.control = new Control(controlFile(root));
  }

  private static File controlFile(String root) {
    return new File(root, ".sluice/ctl");
  }

  /** Asks its directory: each write to the control file itself makes the kernel ask for its attributes again. */
  private static boolean isThere(String root) {
    return new File(root, ".sluice").exists();
  }

  /** The mount that `directory`, an absolute path, lies in. */
  static Mount of(String directory) throws IOException {
    // Asked for each time: below a mount that went away lies an empty directory of this host's disk.
    for (String at = directory; ; at = parentOf(at)) {
      Mount known = KNOWN.get(at);
      if (known != null && isThere(at)) {
        return known;
      }
      if (at.equals("/")) {
        break;
      }
    }
    for (String at = directory; ; at = parentOf(at)) {
      if (controlFile(at).exists()) {
        return KNOWN.computeIfAbsent(at, Mount::new);
      }
      if (at.equals("/")) {
        throw new IOException(directory + " is not on a mount of Sluice: nothing on the way to it has"
            + " .sluice/ctl (is it mounted on this host?)");
      }
    }
  }

  private static String parentOf(String path) {
    int slash = path.lastIndexOf('/');
    return slash <= 0 ? "/" : path.substring(0, slash);
  }

  /** Closes what is kept open of every mount, until it is used again. */
  static void releaseAll() {
    for (Mount mount : KNOWN.values()) {
      mount.control.release();
    }
  }

  Control control() {
    return control;
  }

  /** Whether it was mounted with access control lists. */
  boolean hasAcls() throws IOException {
    try {
      control.call("acl-get", "path", "\"/\"");
      return true;
    } catch (ControlException e) {
      return false;
    }
  }

  /** The path that the control file knows it by. */
  String pathOf(String local) {
    if (root.equals("/")) {
      return local;
    }
    return local.length() == root.length() ? "/" : local.substring(root.length());
  }
}
