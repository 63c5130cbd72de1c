package io.sluice.hadoop;

import java.io.IOException;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclEntryScope;
import org.apache.hadoop.fs.permission.AclEntryType;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.AclUtil;
import org.apache.hadoop.fs.permission.FsAction;

/**
 * Access control lists, by the rules of HDFS, on a mount that has them (--posix-acl). A change reads
 * the whole list, works on it and writes it: two at once do not mix, one of them counts.
 */
final class Acls {
  /** The whole list, with all base entries, by scope, type and name. */
  private final Map<String, AclEntry> entries = new LinkedHashMap<>();
  private final FileStatus status;
  private final Place place;
  /** Scopes whose mask the caller gave or took away, and those with any change. */
  private final EnumSet<AclEntryScope> masks = EnumSet.noneOf(AclEntryScope.class);
  private final EnumSet<AclEntryScope> changed = EnumSet.noneOf(AclEntryScope.class);

  private Acls(Place place, FileStatus status) throws IOException {
    this.place = place;
    this.status = status;
    Object found;
    try {
      found = place.mount.control().call("acl-get", "path", place.quoted()).get("entries");
    } catch (ControlException e) {
      if (e.errno().equals("EOPNOTSUPP")) {
        UnsupportedOperationException refused = new UnsupportedOperationException(
            place.path + ": the mount has no access control lists (sluice mount --posix-acl)");
        refused.initCause(e);
        throw refused;
      }
      throw Errors.of(place.path, e);
    }
    if (!(found instanceof List)) {
      throw new IOException("the mount's reply has no entries");
    }
    for (Object text : (List<?>) found) {
      put(AclEntry.parseAclEntry(String.valueOf(text), true));
    }
    for (AclEntry entry : AclUtil.getMinimalAcl(status.getPermission())) {
      entries.putIfAbsent(key(entry), entry);
    }
  }

  private static String key(AclEntryScope scope, AclEntryType type, String name) {
    return scope + ":" + type + ":" + (name == null ? "" : name);
  }

  private static String key(AclEntry entry) {
    return key(entry.getScope(), entry.getType(), entry.getName());
  }

  private void put(AclEntry entry) {
    entries.put(key(entry), entry);
  }

  private AclEntry base(AclEntryScope scope, AclEntryType type) {
    return entries.get(key(scope, type, null));
  }

  private static AclEntry entry(AclEntryScope scope, AclEntryType type, FsAction permission) {
    return new AclEntry.Builder().setScope(scope).setType(type).setPermission(permission).build();
  }

  private void touched(AclEntry entry) {
    changed.add(entry.getScope());
    if (entry.getType() == AclEntryType.MASK) {
      masks.add(entry.getScope());
    }
  }

  private boolean hasScope(AclEntryScope scope) {
    return entries.values().stream().anyMatch(e -> e.getScope() == scope);
  }

  private void dropScope(AclEntryScope scope) {
    entries.values().removeIf(e -> e.getScope() == scope);
  }

  /** What each scope lacks to be a list: base entries, and a mask where there are names. */
  private void complete(AclEntryScope scope) throws IOException {
    FsAction union = FsAction.NONE;
    boolean named = false;
    for (AclEntryType type : new AclEntryType[] {AclEntryType.USER, AclEntryType.GROUP,
        AclEntryType.OTHER}) {
      if (base(scope, type) == null) {
        if (scope == AclEntryScope.ACCESS) {
          throw new IOException(place.path + ": the list must have user::, group:: and other::");
        }
        put(entry(scope, type, base(AclEntryScope.ACCESS, type).getPermission()));
      }
    }
    for (AclEntry entry : entries.values()) {
      if (entry.getScope() == scope && entry.getType() != AclEntryType.MASK) {
        named |= entry.getName() != null;
        if (entry.getName() != null || entry.getType() == AclEntryType.GROUP) {
          union = union.or(entry.getPermission());
        }
      }
    }
    AclEntry mask = base(scope, AclEntryType.MASK);
    if (mask == null && named && masks.contains(scope)) {
      throw new IOException(place.path + ": the mask is needed and cannot be removed");
    }
    if (changed.contains(scope) && !masks.contains(scope) && (named || mask != null)) {
      put(entry(scope, AclEntryType.MASK, union));
    }
  }

  private void write() throws IOException {
    complete(AclEntryScope.ACCESS);
    if (hasScope(AclEntryScope.DEFAULT)) {
      if (!status.isDirectory()) {
        throw new IOException(place.path + ": only a directory has default entries");
      }
      complete(AclEntryScope.DEFAULT);
    }
    StringBuilder list = new StringBuilder("[");
    for (AclEntry entry : entries.values()) {
      list.append(list.length() > 1 ? "," : "").append(Control.quoted(text(entry)));
    }
    try {
      place.mount.control().call("acl-set", "path", place.quoted(), "entries",
          list.append(']').toString());
    } catch (ControlException e) {
      throw Errors.of(place.path, e);
    }
  }

  private static String text(AclEntry entry) {
    return (entry.getScope() == AclEntryScope.DEFAULT ? "default:" : "")
        + entry.getType().toString().toLowerCase(java.util.Locale.ENGLISH) + ":"
        + (entry.getName() == null ? "" : entry.getName()) + ":" + entry.getPermission().SYMBOL;
  }

  /** Scopes that are named are replaced whole; the other one stays. */
  static void set(Place place, FileStatus status, List<AclEntry> spec) throws IOException {
    Acls acls = new Acls(place, status);
    for (AclEntryScope scope : AclEntryScope.values()) {
      if (spec.stream().anyMatch(e -> e.getScope() == scope)) {
        acls.dropScope(scope);
      }
    }
    acls.merge(spec);
    acls.write();
  }

  static void modify(Place place, FileStatus status, List<AclEntry> spec) throws IOException {
    Acls acls = new Acls(place, status);
    acls.merge(spec);
    acls.write();
  }

  private void merge(List<AclEntry> spec) throws IOException {
    for (AclEntry entry : spec) {
      if (entry.getPermission() == null) {
        throw new IOException(entry + " has no permission");
      }
      put(entry);
      touched(entry);
    }
  }

  static void remove(Place place, FileStatus status, List<AclEntry> spec) throws IOException {
    Acls acls = new Acls(place, status);
    for (AclEntry entry : spec) {
      acls.entries.remove(key(entry));
      acls.touched(entry);
    }
    acls.write();
  }

  static void removeDefault(Place place, FileStatus status) throws IOException {
    Acls acls = new Acls(place, status);
    acls.dropScope(AclEntryScope.DEFAULT);
    acls.write();
  }

  /** The owner's, the group's own and the others' permissions stay. */
  static void removeAll(Place place, FileStatus status) throws IOException {
    Acls acls = new Acls(place, status);
    acls.entries.values().removeIf(e -> e.getScope() == AclEntryScope.DEFAULT
        || e.getName() != null || e.getType() == AclEntryType.MASK);
    acls.write();
  }

  /** As HDFS shows it: what the permission bits say is left out of the entries. */
  static AclStatus status(Place place, FileStatus status) throws IOException {
    Acls acls = new Acls(place, status);
    boolean extended = acls.entries.size() > 3;
    boolean masked = acls.base(AclEntryScope.ACCESS, AclEntryType.MASK) != null;
    List<AclEntry> shown = new ArrayList<>();
    for (AclEntry entry : acls.entries.values()) {
      boolean ownGroup = entry.getName() == null && entry.getType() == AclEntryType.GROUP && masked;
      if (extended
          && (entry.getScope() == AclEntryScope.DEFAULT || entry.getName() != null || ownGroup)) {
        shown.add(entry);
      }
    }
    return new AclStatus.Builder().owner(status.getOwner()).group(status.getGroup())
        .setPermission(status.getPermission())
        .stickyBit(status.getPermission().getStickyBit()).addEntries(shown).build();
  }
}
