package io.sluice.hadoop;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;

/** A directory's entries with their attributes, page by page; a file is its own only entry. */
final class Listing implements RemoteIterator<FileStatus>, Json.Rows {
  private static final int PAGE = 5000;

  private final Place place;
  private final URI directory; // of place, with '/' at its end
  private final long blockSize;
  private final boolean wantCached;
  private List<FileStatus> page;
  private List<Boolean> warm; // whether half of the entry is in the cache
  private int at;
  private String after; // "after":"NAME" or "after64":...; null at the end
  private String afterKey;

  /** `wantCached`: each entry says what the mount's cache has of it. */
  Listing(Place place, long blockSize, boolean wantCached) throws IOException {
    this.place = place;
    this.blockSize = blockSize;
    this.wantCached = wantCached;
    URI uri = place.path.toUri();
    try {
      this.directory = place.path.isRoot() ? uri
          : new URI(uri.getScheme(), uri.getAuthority(), uri.getPath() + "/", null, null);
    } catch (URISyntaxException e) {
      throw new IOException(place.path + " is no path of Hadoop", e);
    }
    fetch(true);
  }

  private void fetch(boolean first) throws IOException {
    page = new ArrayList<>();
    warm = new ArrayList<>();
    at = 0;
    Map<String, Object> reply;
    try {
      List<String> members = new ArrayList<>(Arrays.asList("path", place.quoted(), "limit", "" + PAGE,
          "rows", "true", "cached", "" + wantCached));
      if (!first) {
        members.add(afterKey);
        members.add(Control.quoted(after));
      }
      after = null;
      reply = place.mount.control().callForRows(this, "list", members.toArray(new String[0]));
    } catch (ControlException e) {
      if (!e.errno().equals("ENOTDIR")) {
        throw Errors.of(place.path, e);
      }
      // A file, a link to a directory, or neither.
      page.add(place.status(blockSize));
      warm.add(Boolean.FALSE);
      return;
    }
    if (reply.get("entries") == null) {
      throw new IOException("the mount's reply has no entries");
    }
    if (Boolean.TRUE.equals(reply.get("end"))) {
      after = null;
    }
  }

  @Override
  public void take(Object name, long[] row, int count) throws IOException {
    if (name instanceof Map) {
      afterKey = "after64";
      after = String.valueOf(((Map<?, ?>) name).get("name64"));
      SluiceFileSystem.LOG.warn("{} has a name that is not UTF-8 and cannot be a Hadoop path: base64 {}", place.path,
          after);
      return;
    }
    afterKey = "after";
    after = String.valueOf(name);
    String last = after;
    Attributes found = Attributes.of(row, count);
    if (found.isSymlink()) {
      try {
        found = Attributes.of(place.local.resolve(last));
      } catch (IOException e) {
        SluiceFileSystem.LOG.debug("{} in {} leads nowhere", last, place.local, e);
      }
    }
    page.add(found.status(path(last), () -> place.local.resolve(last), blockSize));
    warm.add(Boolean.valueOf(wantCached && found.size > 0
        && Attributes.cachedBytes(row, count) * 2 >= found.size));
  }

  /** Not Path(parent, child), which would take "a:b" for a scheme, and reads the whole again. */
  private Path path(String last) throws IOException {
    try {
      return last.indexOf(':') < 0 ? new Path(directory.resolve(new URI(null, null, last, null)))
          : new Path(directory.getScheme(), directory.getAuthority(), directory.getPath() + last);
    } catch (URISyntaxException e) {
      throw new IOException(last + " in " + place.path + " is no path of Hadoop", e);
    }
  }

  @Override
  public boolean hasNext() throws IOException {
    while (at == page.size() && after != null) {
      fetch(false);
    }
    return at < page.size();
  }

  @Override
  public FileStatus next() throws IOException {
    if (!hasNext()) {
      throw new NoSuchElementException("no more entries in " + place.path);
    }
    return page.get(at++);
  }

  /** Whether the last entry that next() gave is in this host's cache. */
  boolean isWarm() {
    return warm.get(at - 1);
  }
}
