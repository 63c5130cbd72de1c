package io.sluice.hadoop;

import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.apache.hadoop.conf.Configuration;

/**
 * Where the paths of a file system are on this host: fs.sluice.mounts, a list of PREFIX=DIRECTORY
 * such as s3://bucket/=/mnt/bucket. s3, s3a and s3n name the same bucket. A URI without authority
 * (sluice:///mnt/bucket/a) names the local path itself.
 */
final class Mapping {
  static final String MOUNTS = "fs.sluice.mounts";

  /** A part of the file system's paths, and the directory that it is. */
  private static final class Part {
    final String prefix;    // "" for all, or "/a/b"
    final String directory; // "" for "/", or "/mnt/x"

    Part(String prefix, String directory) {
      this.prefix = prefix;
      this.directory = directory;
    }
  }

  private final URI uri;
  private final List<Part> parts = new ArrayList<>(); // the longest prefix first

  Mapping(URI uri, Configuration conf) throws IOException {
    this.uri = uri;
    for (String entry : conf.getTrimmedStrings(MOUNTS)) {
      int equals = entry.lastIndexOf("=/");
      if (equals <= 0) {
        throw new IOException(MOUNTS + ": \"" + entry + "\" is not PREFIX=/DIRECTORY, as in"
            + " s3://bucket/=/mnt/bucket");
      }
      URI prefix;
      try {
        prefix = URI.create(entry.substring(0, equals));
      } catch (IllegalArgumentException e) {
        throw new IOException(MOUNTS + ": \"" + entry.substring(0, equals) + "\" is no URI", e);
      }
      if (prefix.getScheme() == null || prefix.getAuthority() == null) {
        throw new IOException(MOUNTS + ": \"" + entry.substring(0, equals)
            + "\" has no scheme and bucket, as s3://bucket/ has");
      }
      if (family(prefix.getScheme()).equals(family(uri.getScheme()))
          && prefix.getAuthority().equals(uri.getAuthority())) {
        parts.add(new Part(trim(prefix.getPath()), trim(entry.substring(equals + 1))));
      }
    }
    parts.sort(Comparator.comparingInt((Part part) -> part.prefix.length()).reversed());
    if (parts.isEmpty()) {
      if (uri.getAuthority() != null) {
        throw new IOException("no mount for " + uri + "/: name it in " + MOUNTS + ", as in "
            + uri + "/=/mnt/" + uri.getAuthority());
      }
      parts.add(new Part("", ""));
    }
  }

  private static String family(String scheme) {
    return scheme.equals("s3a") || scheme.equals("s3n") ? "s3" : scheme;
  }

  /** Without '/' at the end: "/a/" is "/a", "/" is "". */
  private static String trim(String path) {
    int length = path == null ? 0 : path.length();
    while (length > 0 && path.charAt(length - 1) == '/') {
      length--;
    }
    return length == 0 ? "" : path.substring(0, length);
  }

  /** The local path of `path`, an absolute path of the file system. */
  String local(String path) throws IOException {
    String trimmed = trim(path);
    for (Part part : parts) {
      if (trimmed.startsWith(part.prefix)
          && (trimmed.length() == part.prefix.length()
              || trimmed.charAt(part.prefix.length()) == '/')) {
        String local = part.directory + trimmed.substring(part.prefix.length());
        return local.isEmpty() ? "/" : local;
      }
    }
    throw new IOException("no mount for " + uri + path + ": no prefix in " + MOUNTS + " holds it");
  }
}
