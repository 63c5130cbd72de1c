package io.sluice.hadoop;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.attribute.UserDefinedFileAttributeView;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import org.apache.hadoop.HadoopIllegalArgumentException;
import org.apache.hadoop.fs.XAttrSetFlag;

/** Extended attributes: those of users, which the mount keeps. */
final class Xattrs {
  private static final String PREFIX = "user.";

  private Xattrs() {}

  private static String key(String name) {
    if (name == null || !name.startsWith(PREFIX) || name.length() == PREFIX.length()) {
      throw new HadoopIllegalArgumentException(
          "an extended attribute's name must begin with user. here: " + name);
    }
    return name.substring(PREFIX.length());
  }

  private static UserDefinedFileAttributeView view(Place place) throws IOException {
    place.attributes();
    return Files.getFileAttributeView(place.local, UserDefinedFileAttributeView.class);
  }

  static void set(Place place, String name, byte[] value, EnumSet<XAttrSetFlag> flags)
      throws IOException {
    String key = key(name);
    UserDefinedFileAttributeView view = view(place);
    try {
      XAttrSetFlag.validate(name, view.list().contains(key), flags);
      view.write(key, ByteBuffer.wrap(value == null ? new byte[0] : value));
    } catch (java.nio.file.FileSystemException e) {
      throw Errors.of(place.path, e);
    }
  }

  static byte[] get(Place place, String name) throws IOException {
    String key = key(name);
    UserDefinedFileAttributeView view = view(place);
    if (!view.list().contains(key)) {
      throw new IOException(place.path + " has no attribute " + name);
    }
    return value(view, key);
  }

  private static byte[] value(UserDefinedFileAttributeView view, String key) throws IOException {
    ByteBuffer out = ByteBuffer.allocate(view.size(key));
    view.read(key, out);
    byte[] bytes = new byte[out.position()];
    out.flip();
    out.get(bytes);
    return bytes;
  }

  static Map<String, byte[]> all(Place place) throws IOException {
    UserDefinedFileAttributeView view = view(place);
    Map<String, byte[]> out = new HashMap<>();
    for (String key : view.list()) {
      if (key.equals(Lease.KEY)) {
        continue; // not the user's
      }
      out.put(PREFIX + key, value(view, key));
    }
    return out;
  }

  static void remove(Place place, String name) throws IOException {
    String key = key(name);
    UserDefinedFileAttributeView view = view(place);
    if (!view.list().contains(key)) {
      throw new IOException(place.path + " has no attribute " + name);
    }
    view.delete(key);
  }
}
