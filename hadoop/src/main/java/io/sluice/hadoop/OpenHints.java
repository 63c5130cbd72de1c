package io.sluice.hadoop;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.impl.AbstractFSBuilderImpl;
import org.apache.hadoop.fs.impl.OpenFileParameters;

/** What the caller of openFile knows: the length saves a stat, the policy chooses the buffer. */
final class OpenHints {
  private static final String PREFIX = "fs.option.openfile.";
  private static final Set<String> KNOWN = new HashSet<>(Arrays.asList(PREFIX + "length",
      PREFIX + "read.policy", PREFIX + "buffer.size", PREFIX + "split.start", PREFIX + "split.end",
      PREFIX + "footer.cache", PREFIX + "ec.policy"));
  private static final int SMALL = 4096;
  private static final int LARGE = 1 << 20;

  final int bufferSize;
  final long length;

  OpenHints(Path path, OpenFileParameters parameters) {
    AbstractFSBuilderImpl.rejectUnknownMandatoryKeys(parameters.getMandatoryKeys(), KNOWN,
        "for " + path);
    Configuration options = parameters.getOptions();
    FileStatus status = parameters.getStatus();
    length = status != null ? status.getLen() : number(options, "length", 0);
    long wanted = number(options, "buffer.size", parameters.getBufferSize());
    int size = (int) Math.min(wanted, LARGE);
    // The first policy that is known counts.
    for (String policy : options.getTrimmedStrings(PREFIX + "read.policy")) {
      if (policy.equals("random") || policy.equals("vector") || policy.equals("columnar")
          || policy.equals("parquet") || policy.equals("orc")) {
        size = SMALL;
        break;
      }
      if (policy.equals("whole-file") || policy.equals("sequential")) {
        size = LARGE;
        break;
      }
    }
    bufferSize = size;
  }

  /** Some callers give a number with a fraction. What is no number is no hint. */
  private static long number(Configuration options, String name, long otherwise) {
    String text = options.getTrimmed(PREFIX + name, "");
    try {
      return text.isEmpty() ? otherwise : Math.max(0, (long) Double.parseDouble(text));
    } catch (NumberFormatException e) {
      SluiceFileSystem.LOG.debug("{}{}={} is no number", PREFIX, name, text, e);
      return otherwise;
    }
  }
}
