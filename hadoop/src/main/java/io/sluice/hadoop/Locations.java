package io.sluice.hadoop;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;

/**
 * Where the blocks of files are: on this host if the mount's cache has half of the file, else on
 * "localhost", which engines take for anywhere, as every host that mounts the bucket reads alike.
 */
final class Locations {
  private static final String HOST = "fs.sluice.hostname";
  private static final String ANYWHERE = "localhost";
  private static final String PORT = ":9866";

  private Locations() {}

  private static String host(Configuration conf) {
    String host = conf.getTrimmed(HOST, "");
    if (!host.isEmpty()) {
      return host;
    }
    try {
      return InetAddress.getLocalHost().getHostName();
    } catch (UnknownHostException e) {
      SluiceFileSystem.LOG.debug("this host has no name", e);
      return ANYWHERE;
    }
  }

  static boolean isWarm(Place place) throws IOException {
    try {
      Map<String, Object> found = place.mount.control().call("cached", "path", place.quoted());
      long size = Attributes.number(found, "size");
      return size > 0 && Attributes.number(found, "cached_bytes") * 2 >= size;
    } catch (ControlException e) {
      SluiceFileSystem.LOG.debug("what is cached of {}", place.path, e);
      return false; // a mount without a cache, or a path that is gone
    }
  }

  static BlockLocation[] of(long size, long start, long length, boolean warm, Configuration conf) {
    if (size <= start) {
      return new BlockLocation[0];
    }
    String host = warm ? host(conf) : ANYWHERE;
    String[] hosts = {host};
    String[] names = {host + PORT};
    return new BlockLocation[] {new BlockLocation(names, hosts, 0, size)};
  }
}
