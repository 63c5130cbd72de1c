package io.sluice.hadoop;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;

/** The umask of this process, which Java has no call for. It does not change while a JVM runs. */
final class ProcessUmask {
  private static final int UMASK = read();

  private ProcessUmask() {}

  static int get() {
    return UMASK;
  }

  private static int read() {
    try {
      for (String line
          : Files.readAllLines(Paths.get("/proc/self/status"), StandardCharsets.ISO_8859_1)) {
        if (line.startsWith("Umask:")) {
          return Integer.parseInt(line.substring("Umask:".length()).trim(), 8);
        }
      }
    } catch (IOException | NumberFormatException e) {
      SluiceFileSystem.LOG.debug("the process's umask", e);
    }
    return 0777; // not known: every mode is set explicitly
  }
}
