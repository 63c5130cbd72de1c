package io.sluice.hadoop;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.EnumSet;
import java.util.Set;
import org.apache.hadoop.fs.permission.FsPermission;

/** Permission bits of what is made. */
final class Modes {
  private static final int PERMISSION_BITS = 0777;

  private Modes() {}

  static FileAttribute<Set<PosixFilePermission>> attribute(FsPermission permission) {
    Set<PosixFilePermission> set = EnumSet.noneOf(PosixFilePermission.class);
    PosixFilePermission[] all = PosixFilePermission.values(); // from owner's read to others' execute
    for (int i = 0; i < all.length; i++) {
      if ((permission.toShort() >> (all.length - 1 - i) & 1) != 0) {
        set.add(all[i]);
      }
    }
    return PosixFilePermissions.asFileAttribute(set);
  }

  /** The process's own umask may have taken more than the configured one. */
  static void restore(java.nio.file.Path local, FsPermission permission) throws IOException {
    int bits = permission.toShort();
    if ((bits & PERMISSION_BITS & ProcessUmask.get()) != 0 || (bits & ~PERMISSION_BITS) != 0) {
      Files.setAttribute(local, "unix:mode", bits);
    }
  }
}
