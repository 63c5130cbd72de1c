package io.sluice.hadoop;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.QuotaUsage;

/** What lies below a path, and the limits that the path has: by counts that the mount keeps. */
final class Usage {
  private static final long NONE = -1;
  private static final long UNCHANGED = Long.MAX_VALUE; // HdfsConstants.QUOTA_DONT_SET

  private final long bytes;
  private final long files;
  private final long directories;
  private long maxBytes = NONE;
  private long maxNames = NONE;

  private Usage(Map<String, Object> usage, boolean directory) throws IOException {
    bytes = Attributes.number(usage, "bytes");
    files = Attributes.number(usage, "files");
    directories = Attributes.number(usage, "directories") + (directory ? 1 : 0);
  }

  static Usage of(Place place, boolean directory) throws IOException {
    try {
      Usage usage = new Usage(place.mount.control().call("usage", "path", place.quoted()), directory);
      if (directory) {
        usage.readQuota(place);
      }
      return usage;
    } catch (ControlException e) {
      throw Errors.of(place.path, e);
    }
  }

  /** The nearest is the first; only one on the path itself counts, as in HDFS. */
  private void readQuota(Place place) throws IOException {
    Object all = place.mount.control().call("quota-get", "path", place.quoted()).get("quotas");
    if (!(all instanceof List) || ((List<?>) all).isEmpty()) {
      return;
    }
    Map<?, ?> first = (Map<?, ?>) ((List<?>) all).get(0);
    if (place.mount.pathOf(place.name).equals(first.get("path"))
        || ("/" + first.get("path")).equals(place.mount.pathOf(place.name))) {
      maxBytes = limit(first.get("max_bytes"));
      maxNames = limit(first.get("max_inodes"));
    }
  }

  private static long limit(Object value) {
    return value instanceof Long ? (Long) value : NONE;
  }

  ContentSummary summary() {
    return new ContentSummary.Builder().length(bytes).spaceConsumed(bytes).fileCount(files)
        .directoryCount(directories).quota(maxNames).spaceQuota(maxBytes).build();
  }

  QuotaUsage quotaUsage() {
    return new QuotaUsage.Builder().fileAndDirectoryCount(files + directories).quota(maxNames)
        .spaceConsumed(bytes).spaceQuota(maxBytes).build();
  }

  static void setQuota(Place place, long names, long bytes) throws IOException {
    if (names == UNCHANGED && bytes == UNCHANGED) {
      return;
    }
    try {
      if (names == UNCHANGED) {
        set(place, "max_bytes", bytes);
      } else if (bytes == UNCHANGED) {
        set(place, "max_inodes", names);
      } else {
        place.mount.control().call("quota-set", "path", place.quoted(), "max_bytes", json(bytes),
            "max_inodes", json(names));
      }
    } catch (ControlException e) {
      throw Errors.of(place.path, e);
    }
  }

  private static void set(Place place, String member, long value) throws IOException {
    place.mount.control().call("quota-set", "path", place.quoted(), member, json(value));
  }

  private static String json(long limit) {
    return limit == NONE ? "null" : Long.toString(limit);
  }
}
