package io.sluice.hadoop;

import java.io.IOException;
import java.nio.file.AccessMode;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.fs.permission.FsAction;

/** What the kernel allows this process, as access(2) says it. */
final class Access {
  private Access() {}

  static void check(Place place, FsAction wanted) throws IOException {
    place.attributes(); // what is not there is said so as everywhere
    List<AccessMode> modes = new ArrayList<>();
    if (wanted.implies(FsAction.READ)) {
      modes.add(AccessMode.READ);
    }
    if (wanted.implies(FsAction.WRITE)) {
      modes.add(AccessMode.WRITE);
    }
    if (wanted.implies(FsAction.EXECUTE)) {
      modes.add(AccessMode.EXECUTE);
    }
    try {
      place.local.getFileSystem().provider().checkAccess(place.local, modes.toArray(new AccessMode[0]));
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }
}
