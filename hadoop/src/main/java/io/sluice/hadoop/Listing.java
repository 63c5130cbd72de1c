package io.sluice.hadoop;

import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;

/** A directory's entries with their attributes, page by page; a file is its own only entry. */
final class Listing implements RemoteIterator<FileStatus> {
  private static final int PAGE = 5000;

  private final Place place;
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
    fetch(true);
  }

  @SuppressWarnings("unchecked")
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
      reply = place.mount.control().callForMuch("list", members.toArray(new String[0]));
    } catch (ControlException e) {
      if (!e.errno().equals("ENOTDIR")) {
        throw Errors.of(place.path, e);
      }
      // A file, a link to a directory, or neither.
      page.add(place.status(blockSize));
      warm.add(Boolean.FALSE);
      after = null;
      return;
    }
    after = null;
    Object entries = reply.get("entries");
    if (!(entries instanceof List)) {
      throw new IOException("the mount's reply has no entries");
    }
    for (Object row : (List<Object>) entries) {
      if (!(row instanceof List) || ((List<?>) row).isEmpty()) {
        throw new IOException("the mount's reply has no rows (is it older than this jar?)");
      }
      take((List<Object>) row);
    }
    if (Boolean.TRUE.equals(reply.get("end"))) {
      after = null;
    }
  }

  private void take(List<Object> row) throws IOException {
    Object name = row.get(0);
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
    Attributes found = Attributes.of(row);
    if (found.isSymlink()) {
      try {
        found = Attributes.of(place.local.resolve(last));
      } catch (IOException e) {
        SluiceFileSystem.LOG.debug("{} in {} leads nowhere", last, place.local, e);
      }
    }
    // Not Path(parent, child), which would take "a:b" for a scheme.
    URI uri = place.path.toUri();
    Path path = new Path(uri.getScheme(), uri.getAuthority(),
        (place.path.isRoot() ? "" : uri.getPath()) + "/" + last);
    page.add(found.status(path, () -> place.local.resolve(last), blockSize));
    warm.add(Boolean.valueOf(wantCached && found.size > 0
        && Attributes.cachedBytes(row) * 2 >= found.size));
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
