package io.sluice.hadoop;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.StandardOpenOption;
import java.util.List;

/** Files appended to one of them. */
final class Concat {
  private Concat() {}

  /** After an error the target has its old length, and all sources are there. */
  static void run(Place target, List<Place> sources) throws IOException {
    try (FileChannel to = FileChannel.open(target.local, StandardOpenOption.WRITE)) {
      long before = to.size();
      to.position(before);
      try {
        for (Place source : sources) {
          append(source, to);
        }
        to.force(true);
      } catch (IOException e) {
        to.truncate(before);
        throw e;
      }
    }
    for (Place source : sources) {
      Files.delete(source.local);
    }
  }

  private static void append(Place source, FileChannel to) throws IOException {
    try (FileChannel from = FileChannel.open(source.local, StandardOpenOption.READ)) {
      long size = from.size();
      for (long at = 0; at < size; ) {
        long moved = from.transferTo(at, size - at, to);
        if (moved <= 0) {
          throw new IOException(source.path + " became shorter while it was read");
        }
        at += moved;
      }
    }
  }
}
