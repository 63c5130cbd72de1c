package io.sluice.hadoop;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.OpenOption;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributeView;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.nio.file.attribute.UserDefinedFileAttributeView;
import java.nio.file.attribute.UserPrincipalLookupService;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;
import org.apache.hadoop.HadoopIllegalArgumentException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.CommonPathCapabilities;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsServerDefaults;
import org.apache.hadoop.fs.FsStatus;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.ParentNotDirectoryException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathFilter;
import org.apache.hadoop.fs.PathIsNotEmptyDirectoryException;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A Hadoop file system over mounts of Sluice: docs/hadoop.md. Names and bytes go through the mount's
 * files; what POSIX has no call for goes through its control file. Return codes and exceptions are
 * those of HDFS.
 */
public class SluiceFileSystem extends FileSystem {
  static final Logger LOG = LoggerFactory.getLogger(SluiceFileSystem.class);

  private static final String BLOCK_SIZE = "fs.sluice.block.size";
  private static final long BLOCK_SIZE_DEFAULT = 128 << 20;
  private static final int PERMISSION_BITS = 0777;
  private static final String XATTR_PREFIX = "user.";

  private URI uri;
  private Mapping mapping;
  private Path workingDirectory;
  private long blockSize;

  @Override
  public void initialize(URI name, Configuration conf) throws IOException {
    super.initialize(name, conf);
    setConf(conf);
    String authority = name.getAuthority();
    uri = URI.create(name.getScheme() + "://" + (authority == null ? "" : authority) + "/");
    if (authority != null) {
      uri = URI.create(name.getScheme() + "://" + authority);
    }
    mapping = new Mapping(uri, conf);
    blockSize = conf.getLongBytes(BLOCK_SIZE, BLOCK_SIZE_DEFAULT);
    workingDirectory = getHomeDirectory();
  }

  @Override
  public String getScheme() {
    return uri == null ? "sluice" : uri.getScheme();
  }

  @Override
  public URI getUri() {
    return uri;
  }

  @Override
  public Path getWorkingDirectory() {
    return workingDirectory;
  }

  @Override
  public void setWorkingDirectory(Path path) {
    workingDirectory = absolute(path);
  }

  @Override
  public long getDefaultBlockSize() {
    return blockSize;
  }

  @Override
  public FsServerDefaults getServerDefaults(Path path) throws IOException {
    FsServerDefaults defaults = super.getServerDefaults(path);
    return new FsServerDefaults(blockSize, defaults.getBytesPerChecksum(),
        defaults.getWritePacketSize(), (short) 1, defaults.getFileBufferSize(),
        defaults.getEncryptDataTransfer(), defaults.getTrashInterval(), defaults.getChecksumType());
  }

  @Override
  public short getDefaultReplication() {
    return 1;
  }

  // --- Paths

  private Path absolute(Path path) {
    Path whole = path.isAbsolute() ? path : new Path(workingDirectory, path);
    checkPath(whole);
    return whole.makeQualified(uri, workingDirectory);
  }

  /** A path of this file system, where it is on this host, and the mount that holds it. */
  private final class Place {
    final Path path;
    final String name;
    final java.nio.file.Path local;
    final Mount mount;

    Place(Path given) throws IOException {
      path = absolute(given);
      name = mapping.local(path.toUri().getPath());
      local = FileSystems.getDefault().getPath(name);
      mount = Mount.of(name);
    }

    File file() {
      return new File(name);
    }

    boolean isDirectory() {
      return Files.isDirectory(local);
    }

    /** Whether a file stands where a directory should, on the way to it. */
    boolean isBelowFile() {
      for (java.nio.file.Path at = local.getParent(); at != null; at = at.getParent()) {
        if (Files.exists(at)) {
          return !Files.isDirectory(at);
        }
      }
      return false;
    }

    boolean isRoot() {
      return path.isRoot();
    }

    String quoted() {
      return Control.quoted(mount.pathOf(name));
    }
  }

  // --- Reading

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    Place place = new Place(path);
    try {
      FSDataInputStream in =
          new FSDataInputStream(new SluiceInputStream(place.file(), bufferSize, statistics));
      statistics.incrementReadOps(1);
      return in;
    } catch (FileNotFoundException e) {
      // java.io says this of all that cannot be opened.
      if (place.isDirectory()) {
        throw Errors.with(new FileNotFoundException(place.path + " is a directory"), e);
      }
      if (Files.exists(place.local) && !Files.isReadable(place.local)) {
        throw Errors.denied(place.path, e);
      }
      throw Errors.with(new FileNotFoundException(place.path + ": " + e.getMessage()), e);
    }
  }

  // --- Writing

  /** What the process would take away from a new file's mode by itself. */
  private FsPermission masked(FsPermission permission) {
    FsPermission wanted = permission == null ? FsPermission.getFileDefault() : permission;
    return wanted.applyUMask(FsPermission.getUMask(getConf()));
  }

  private static FileAttribute<Set<PosixFilePermission>> attribute(FsPermission permission) {
    Set<PosixFilePermission> set = EnumSet.noneOf(PosixFilePermission.class);
    PosixFilePermission[] all = PosixFilePermission.values(); // from owner's read to others' execute
    for (int i = 0; i < all.length; i++) {
      if ((permission.toShort() >> (all.length - 1 - i) & 1) != 0) {
        set.add(all[i]);
      }
    }
    return PosixFilePermissions.asFileAttribute(set);
  }

  /** The process's own umask may have taken more than the configured one. */
  private static void restore(java.nio.file.Path local, FsPermission permission) throws IOException {
    int bits = permission.toShort();
    if ((bits & PERMISSION_BITS & ProcessUmask.get()) != 0 || (bits & ~PERMISSION_BITS) != 0) {
      Files.setAttribute(local, "unix:mode", bits);
    }
  }

  private FSDataOutputStream create(Place place, FsPermission permission, boolean overwrite,
      boolean parents, int bufferSize) throws IOException {
    Set<OpenOption> options = new HashSet<>();
    options.add(StandardOpenOption.WRITE);
    if (overwrite) {
      options.add(StandardOpenOption.CREATE);
      options.add(StandardOpenOption.TRUNCATE_EXISTING);
    } else {
      options.add(StandardOpenOption.CREATE_NEW);
    }
    FileAttribute<?> mode = attribute(permission);
    FileChannel channel;
    try {
      channel = FileChannel.open(place.local, options, mode);
    } catch (java.nio.file.NoSuchFileException e) {
      if (!parents) {
        throw Errors.with(new FileNotFoundException(place.path.getParent() + " does not exist"), e);
      }
      makeDirectories(new Place(place.path.getParent()), masked(FsPermission.getDirDefault()));
      channel = FileChannel.open(place.local, options, mode);
    } catch (java.nio.file.FileAlreadyExistsException e) {
      throw Errors.with(new FileAlreadyExistsException(place.path + " already exists"), e);
    } catch (IOException e) {
      if (place.isDirectory()) {
        throw Errors.with(
            new FileAlreadyExistsException(place.path + " already exists as a directory"), e);
      }
      if (place.isBelowFile()) {
        throw Errors.with(
            new ParentNotDirectoryException("a part of " + place.path + " is a file"), e);
      }
      throw Errors.of(place.path, e);
    }
    try {
      restore(place.local, permission);
      statistics.incrementWriteOps(1);
      return new FSDataOutputStream(new SluiceOutputStream(channel, bufferSize), statistics);
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite,
      int bufferSize, short replication, long block, Progressable progress) throws IOException {
    return create(new Place(path), masked(permission), overwrite, true, bufferSize);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission,
      EnumSet<CreateFlag> flags, int bufferSize, short replication, long block,
      Progressable progress) throws IOException {
    return open(new Place(path), masked(permission), flags, false, bufferSize);
  }

  /** As FileContext asks: `permission` is masked already. */
  @Override
  protected FSDataOutputStream primitiveCreate(Path path, FsPermission permission,
      EnumSet<CreateFlag> flags, int bufferSize, short replication, long block,
      Progressable progress, Options.ChecksumOpt checksum) throws IOException {
    return open(new Place(path), permission, flags, true, bufferSize);
  }

  private FSDataOutputStream open(Place place, FsPermission permission, EnumSet<CreateFlag> flags,
      boolean parents, int bufferSize) throws IOException {
    if (flags == null || flags.isEmpty()) {
      throw new HadoopIllegalArgumentException("no flags are given to create " + place.path);
    }
    boolean append = flags.contains(CreateFlag.APPEND);
    boolean exists = Files.exists(place.local);
    CreateFlag.validate(place.path, exists, flags);
    if (append && exists) {
      return append(place.path, bufferSize, null);
    }
    return create(place, permission, flags.contains(CreateFlag.OVERWRITE), parents, bufferSize);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress)
      throws IOException {
    Place place = new Place(path);
    if (place.isDirectory()) {
      throw new FileAlreadyExistsException(place.path + " is a directory");
    }
    FileChannel channel;
    try {
      channel =
          FileChannel.open(place.local, StandardOpenOption.WRITE, StandardOpenOption.APPEND);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
    try {
      statistics.incrementWriteOps(1);
      return new FSDataOutputStream(new SluiceOutputStream(channel, bufferSize), statistics,
          channel.size());
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    Place place = new Place(path);
    if (length < 0) {
      throw new HadoopIllegalArgumentException("cannot truncate to a negative length: " + length);
    }
    if (place.isDirectory()) {
      throw new FileNotFoundException(place.path + " is a directory");
    }
    try (FileChannel channel = FileChannel.open(place.local, StandardOpenOption.WRITE)) {
      if (length > channel.size()) {
        throw new HadoopIllegalArgumentException("cannot truncate " + place.path + ", which has "
            + channel.size() + " bytes, to " + length);
      }
      channel.truncate(length);
      channel.force(true);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
    statistics.incrementWriteOps(1);
    return true;
  }

  // --- Names

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    FsPermission wanted = permission == null ? FsPermission.getDirDefault() : permission;
    makeDirectories(new Place(path), wanted.applyUMask(FsPermission.getUMask(getConf())));
    statistics.incrementWriteOps(1);
    return true;
  }

  /** As FileContext asks: `permission` is masked already. */
  @Override
  protected void primitiveMkdir(Path path, FsPermission permission, boolean parents)
      throws IOException {
    Place place = new Place(path);
    if (!parents) {
      Place parent = new Place(place.path.getParent());
      if (!Files.exists(parent.local)) {
        throw new FileNotFoundException(parent.path + " does not exist");
      }
      if (!parent.isDirectory()) {
        throw new ParentNotDirectoryException(parent.path + " is a file");
      }
    }
    makeDirectories(place, permission);
  }

  private void makeDirectories(Place place, FsPermission permission) throws IOException {
    FileAttribute<?> mode = attribute(permission);
    // The missing ones, the last first. A name that somebody makes meanwhile is as good as ours.
    List<java.nio.file.Path> missing = new ArrayList<>();
    java.nio.file.Path at = place.local;
    while (true) {
      try {
        Files.createDirectory(at, mode);
        restore(at, permission);
        if (missing.isEmpty()) {
          return;
        }
        at = missing.remove(missing.size() - 1);
      } catch (java.nio.file.FileAlreadyExistsException e) {
        if (!Files.isDirectory(at)) {
          throw Errors.with(at.equals(place.local)
              ? new FileAlreadyExistsException(place.path + " is a file")
              : new ParentNotDirectoryException("a part of " + place.path + " is a file"), e);
        }
        if (missing.isEmpty()) {
          return;
        }
        at = missing.remove(missing.size() - 1);
      } catch (java.nio.file.NoSuchFileException e) {
        missing.add(at);
        at = at.getParent();
        if (at == null) {
          throw Errors.of(place.path, e);
        }
      } catch (IOException e) {
        if (place.isBelowFile()) {
          throw Errors.with(
              new ParentNotDirectoryException("a part of " + place.path + " is a file"), e);
        }
        throw Errors.of(place.path, e);
      }
    }
  }

  private static void checkSameMount(Place from, Place to) throws IOException {
    if (from.mount != to.mount) {
      throw new IOException("cannot rename " + from.path + " to " + to.path
          + ": they are on different mounts");
    }
  }

  private static void renameNoReplace(Place from, Place to) throws IOException {
    from.mount.control().call("rename", "path", from.quoted(), "to", to.quoted());
  }

  /** HDFS: false for what cannot be done; into a directory that is there; never over anything. */
  @Override
  public boolean rename(Path source, Path target) throws IOException {
    Place from = new Place(source);
    Place to = new Place(target);
    checkSameMount(from, to);
    statistics.incrementWriteOps(1);
    if (from.isRoot()) {
      return false;
    }
    if (from.path.equals(to.path)) {
      return Files.isRegularFile(from.local);
    }
    for (boolean nested = false; ; nested = true) {
      try {
        renameNoReplace(from, to);
        return true;
      } catch (ControlException e) {
        switch (e.errno()) {
          case "ENOENT":
          case "EINVAL": // a directory below itself
            LOG.debug("rename {} to {}: {}", from.path, to.path, e.errno());
            return false;
          case "ENOTDIR":
            throw Errors.with(
                new ParentNotDirectoryException("a part of " + to.path + " is a file"), e);
          case "EEXIST":
          case "EBUSY": // the root
            if (nested || !to.isDirectory() || !Files.exists(from.local, LinkOption.NOFOLLOW_LINKS)) {
              return false;
            }
            to = new Place(new Path(to.path, from.path.getName()));
            if (to.path.equals(from.path)) {
              return Files.isRegularFile(from.local);
            }
            break;
          default:
            throw Errors.of(from.path, e);
        }
      }
    }
  }

  /** Without OVERWRITE one atomic step that replaces nothing; with it one that replaces. */
  @Override
  @Deprecated
  public void rename(Path source, Path target, Options.Rename... options) throws IOException {
    Place from = new Place(source);
    Place to = new Place(target);
    boolean overwrite = false;
    for (Options.Rename option : options) {
      overwrite |= option == Options.Rename.OVERWRITE;
    }
    checkSameMount(from, to);
    statistics.incrementWriteOps(1);
    if (from.isRoot() || to.isRoot()) {
      throw new IOException("the root cannot be renamed, nor be the target of it");
    }
    Attributes source0 = attributes(from, LinkOption.NOFOLLOW_LINKS);
    if (from.path.equals(to.path)) {
      throw new FileAlreadyExistsException(from.path + " and the target are the same");
    }
    if (!overwrite) {
      try {
        renameNoReplace(from, to);
        return;
      } catch (ControlException e) {
        throw Errors.ofRename(from.path, to.path, e);
      }
    }
    checkOverwrite(from, to, source0);
    try {
      Files.move(from.local, to.local, StandardCopyOption.ATOMIC_MOVE);
    } catch (java.nio.file.NoSuchFileException e) {
      throw Errors.with(new FileNotFoundException(
          Files.exists(from.local) ? to.path.getParent() + " does not exist"
              : from.path + " does not exist"), e);
    } catch (IOException e) {
      // rename(2) of a directory onto one that is not empty, or of one kind onto the other
      if (to.isBelowFile()) {
        throw Errors.with(new ParentNotDirectoryException("a part of " + to.path + " is a file"), e);
      }
      throw Errors.with(new IOException("cannot rename " + from.path + " to " + to.path + ": "
          + e.getMessage()), e);
    }
  }

  /** For the better message; the mount refuses by itself. */
  private void checkOverwrite(Place from, Place to, Attributes source) throws IOException {
    if (!Files.exists(to.local)) {
      return;
    }
    if (source.isDirectory() != to.isDirectory()) {
      throw new IOException("cannot rename " + from.path + " to " + to.path
          + ": one is a directory, the other is a file");
    }
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    Place place = new Place(path);
    statistics.incrementWriteOps(1);
    if (place.isRoot()) {
      return deleteRoot(place, recursive);
    }
    // remove(3): a file or an empty directory in one step
    if (place.file().delete()) {
      return true;
    }
    Attributes found;
    try {
      found = attributes(place, LinkOption.NOFOLLOW_LINKS);
    } catch (FileNotFoundException e) {
      return false;
    }
    try {
      if (found.isDirectory() && recursive) {
        place.mount.control().call("remove", "path", place.quoted());
        return true;
      }
      return Files.deleteIfExists(place.local);
    } catch (ControlException e) {
      if (e.errno().equals("ENOENT")) {
        return false;
      }
      throw Errors.of(place.path, e);
    } catch (DirectoryNotEmptyException e) {
      throw Errors.with(new PathIsNotEmptyDirectoryException(place.path.toString()), e);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  /** The root stays. HDFS says false of it, and takes nothing away. */
  private boolean deleteRoot(Place place, boolean recursive) throws IOException {
    if (!recursive && listStatus(place.path).length > 0) {
      throw new PathIsNotEmptyDirectoryException(place.path.toString());
    }
    return false;
  }

  // --- Attributes

  private static Attributes attributes(Place place, LinkOption... options) throws IOException {
    try {
      return Attributes.of(place.local, options);
    } catch (IOException e) {
      if (place.isBelowFile()) {
        throw Errors.with(new FileNotFoundException(place.path + " does not exist: a part of it is a"
            + " file"), e);
      }
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    Place place = new Place(path);
    statistics.incrementReadOps(1);
    return attributes(place).status(place.path, place.local, blockSize);
  }

  @Override
  public FileStatus getFileLinkStatus(Path path) throws IOException {
    return getFileStatus(path);
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    List<FileStatus> all = new ArrayList<>();
    RemoteIterator<FileStatus> each = listStatusIterator(path);
    while (each.hasNext()) {
      all.add(each.next());
    }
    return all.toArray(new FileStatus[0]);
  }

  @Override
  public RemoteIterator<FileStatus> listStatusIterator(Path path) throws IOException {
    statistics.incrementReadOps(1);
    return new Listing(new Place(path));
  }

  @Override
  protected RemoteIterator<LocatedFileStatus> listLocatedStatus(Path path, PathFilter filter)
      throws IOException {
    RemoteIterator<FileStatus> each = listStatusIterator(path);
    return new RemoteIterator<LocatedFileStatus>() {
      private FileStatus next;

      @Override
      public boolean hasNext() throws IOException {
        while (next == null && each.hasNext()) {
          FileStatus status = each.next();
          next = filter.accept(status.getPath()) ? status : null;
        }
        return next != null;
      }

      @Override
      public LocatedFileStatus next() throws IOException {
        if (!hasNext()) {
          throw new NoSuchElementException("no more entries in " + path);
        }
        FileStatus status = next;
        next = null;
        return new LocatedFileStatus(status,
            status.isFile() ? getFileBlockLocations(status, 0, status.getLen()) : null);
      }
    };
  }

  /** A directory's entries with their attributes, page by page; a file is its own only entry. */
  private final class Listing implements RemoteIterator<FileStatus> {
    private static final int PAGE = 5000;

    private final Place place;
    private List<FileStatus> page;
    private int at;
    private String after; // "after":"NAME" or "after64":...; null at the end
    private String afterKey;

    Listing(Place place) throws IOException {
      this.place = place;
      fetch(true);
    }

    @SuppressWarnings("unchecked")
    private void fetch(boolean first) throws IOException {
      page = new ArrayList<>();
      at = 0;
      Map<String, Object> reply;
      try {
        reply = first
            ? place.mount.control().call("list", "path", place.quoted(), "limit", "" + PAGE)
            : place.mount.control().call("list", "path", place.quoted(), "limit", "" + PAGE,
                afterKey, Control.quoted(after));
      } catch (ControlException e) {
        if (!e.errno().equals("ENOTDIR")) {
          throw Errors.of(place.path, e);
        }
        // A file, a link to a directory, or neither.
        page.add(attributes(place).status(place.path, place.local, blockSize));
        after = null;
        return;
      }
      after = null;
      Object entries = reply.get("entries");
      if (!(entries instanceof List)) {
        throw new IOException("the mount's reply has no entries");
      }
      for (Object entry : (List<Object>) entries) {
        take((Map<String, Object>) entry);
      }
      if (Boolean.TRUE.equals(reply.get("end"))) {
        after = null;
      }
    }

    private void take(Map<String, Object> entry) throws IOException {
      Object name = entry.get("name");
      if (!(name instanceof String)) {
        afterKey = "after64";
        after = String.valueOf(entry.get("name64"));
        LOG.warn("{} has a name that is not UTF-8 and cannot be a Hadoop path: base64 {}", place.path,
            after);
        return;
      }
      afterKey = "after";
      after = (String) name;
      Attributes found = Attributes.of(entry);
      java.nio.file.Path local = place.local.resolve(after);
      if (found.isSymlink()) {
        try {
          found = Attributes.of(local);
        } catch (IOException e) {
          LOG.debug("{} leads nowhere", local, e);
        }
      }
      // Not Path(parent, child), which would take "a:b" for a scheme.
      Path path = new Path(uri.getScheme(), uri.getAuthority(),
          (place.path.isRoot() ? "" : place.path.toUri().getPath()) + "/" + after);
      page.add(found.status(path, local, blockSize));
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
  }

  /** By counts that the mount keeps: as fast for a million files as for one. */
  @Override
  public ContentSummary getContentSummary(Path path) throws IOException {
    Place place = new Place(path);
    statistics.incrementReadOps(1);
    boolean directory = attributes(place).isDirectory();
    try {
      Map<String, Object> usage = place.mount.control().call("usage", "path", place.quoted());
      long bytes = Attributes.number(usage, "bytes");
      return new ContentSummary.Builder().length(bytes).spaceConsumed(bytes)
          .fileCount(Attributes.number(usage, "files"))
          .directoryCount(Attributes.number(usage, "directories") + (directory ? 1 : 0)).build();
    } catch (ControlException e) {
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public FsStatus getStatus(Path path) throws IOException {
    File file = new Place(path == null ? new Path("/") : path).file();
    long total = file.getTotalSpace();
    long free = file.getUsableSpace();
    return new FsStatus(total, total - file.getFreeSpace(), free);
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length)
      throws IOException {
    if (file == null) {
      return null;
    }
    if (start < 0 || length < 0) {
      throw new IllegalArgumentException("start and length must not be negative");
    }
    if (file.getLen() <= start) {
      return new BlockLocation[0];
    }
    // Every host that mounts the bucket reads it alike: engines take localhost for "anywhere".
    String[] host = {"localhost"};
    String[] name = {"localhost:9866"};
    return new BlockLocation[] {new BlockLocation(name, host, 0, file.getLen())};
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    Place place = new Place(path);
    statistics.incrementWriteOps(1);
    try {
      Files.setAttribute(place.local, "unix:mode", permission.toShort() & 01777);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    Place place = new Place(path);
    if (user == null && group == null) {
      throw new IOException("neither user nor group is given");
    }
    statistics.incrementWriteOps(1);
    PosixFileAttributeView view =
        Files.getFileAttributeView(place.local, PosixFileAttributeView.class);
    UserPrincipalLookupService names = FileSystems.getDefault().getUserPrincipalLookupService();
    try {
      if (user != null) {
        view.setOwner(names.lookupPrincipalByName(user));
      }
      if (group != null) {
        view.setGroup(names.lookupPrincipalByGroupName(group));
      }
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public void setTimes(Path path, long mtime, long atime) throws IOException {
    Place place = new Place(path);
    statistics.incrementWriteOps(1);
    try {
      Files.getFileAttributeView(place.local, BasicFileAttributeView.class).setTimes(
          mtime < 0 ? null : FileTime.fromMillis(mtime),
          atime < 0 ? null : FileTime.fromMillis(atime), null);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  // --- Extended attributes: those of users, which the mount keeps

  private static String xattrName(String name) throws IOException {
    if (name == null || !name.startsWith(XATTR_PREFIX) || name.length() == XATTR_PREFIX.length()) {
      throw new HadoopIllegalArgumentException(
          "an extended attribute's name must begin with user. here: " + name);
    }
    return name.substring(XATTR_PREFIX.length());
  }

  private static UserDefinedFileAttributeView xattrs(Place place) throws IOException {
    attributes(place);
    return Files.getFileAttributeView(place.local, UserDefinedFileAttributeView.class);
  }

  @Override
  public void setXAttr(Path path, String name, byte[] value, EnumSet<XAttrSetFlag> flags)
      throws IOException {
    Place place = new Place(path);
    String key = xattrName(name);
    UserDefinedFileAttributeView view = xattrs(place);
    try {
      XAttrSetFlag.validate(name, view.list().contains(key), flags);
      view.write(key, ByteBuffer.wrap(value == null ? new byte[0] : value));
    } catch (java.nio.file.FileSystemException e) {
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public byte[] getXAttr(Path path, String name) throws IOException {
    Place place = new Place(path);
    String key = xattrName(name);
    UserDefinedFileAttributeView view = xattrs(place);
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

  @Override
  public Map<String, byte[]> getXAttrs(Path path) throws IOException {
    UserDefinedFileAttributeView view = xattrs(new Place(path));
    Map<String, byte[]> out = new HashMap<>();
    for (String key : view.list()) {
      out.put(XATTR_PREFIX + key, value(view, key));
    }
    return out;
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path, List<String> names) throws IOException {
    Map<String, byte[]> out = new LinkedHashMap<>();
    for (String name : names) {
      out.put(name, getXAttr(path, name));
    }
    return out;
  }

  @Override
  public List<String> listXAttrs(Path path) throws IOException {
    return new ArrayList<>(getXAttrs(path).keySet());
  }

  @Override
  public void removeXAttr(Path path, String name) throws IOException {
    Place place = new Place(path);
    String key = xattrName(name);
    UserDefinedFileAttributeView view = xattrs(place);
    if (!view.list().contains(key)) {
      throw new IOException(place.path + " has no attribute " + name);
    }
    view.delete(key);
  }

  // --- The rest

  /** The CRC of the whole file, as HDFS gives it with dfs.checksum.combine.mode=COMPOSITE_CRC. */
  @Override
  public FileChecksum getFileChecksum(Path path, long length) throws IOException {
    FileStatus status = getFileStatus(path);
    if (status.isDirectory()) {
      throw new FileNotFoundException(status.getPath() + " is a directory");
    }
    try (FSDataInputStream in = open(path, 4096)) {
      return Checksums.ofStart(in, Math.min(length, status.getLen()), getConf());
    }
  }

  @Override
  public FileChecksum getFileChecksum(Path path) throws IOException {
    return getFileChecksum(path, Long.MAX_VALUE);
  }

  @Override
  public boolean hasPathCapability(Path path, String capability) throws IOException {
    switch (validatePathCapabilityArgs(path, capability)) {
      case CommonPathCapabilities.FS_APPEND:
      case CommonPathCapabilities.FS_CHECKSUMS:
      case CommonPathCapabilities.FS_PERMISSIONS:
      case CommonPathCapabilities.FS_TRUNCATE:
      case CommonPathCapabilities.FS_XATTRS:
        return true;
      default:
        return super.hasPathCapability(path, capability);
    }
  }

  private static String validatePathCapabilityArgs(Path path, String capability) {
    if (path == null || capability == null || capability.isEmpty()) {
      throw new IllegalArgumentException("a path and a capability must be given");
    }
    return capability.toLowerCase(Locale.ENGLISH);
  }

  /** Gives up the handles that keep mounts from being unmounted; the next use opens new ones. */
  @Override
  public void close() throws IOException {
    super.close();
    Mount.releaseAll();
  }
}
