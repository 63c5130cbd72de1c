package io.sluice.hadoop;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.OpenOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributeView;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.UserPrincipalLookupService;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
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
import org.apache.hadoop.fs.InvalidPathException;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.ParentNotDirectoryException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathFilter;
import org.apache.hadoop.fs.PathIsNotEmptyDirectoryException;
import org.apache.hadoop.fs.QuotaUsage;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.impl.OpenFileParameters;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.util.LambdaUtils;
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
  private static final String LEASES = "fs.sluice.leases";
  private static final String LOCATIONS = "fs.sluice.block.locations";

  private URI uri;
  private Mapping mapping;
  private Path workingDirectory;
  private long blockSize;
  private boolean leases;
  private boolean namesWarmHosts;
  private final Set<SluiceOutputStream> writing = ConcurrentHashMap.newKeySet(); // not closed yet

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
    leases = conf.getBoolean(LEASES, false);
    String locations = conf.getTrimmed(LOCATIONS, "cache");
    namesWarmHosts = locations.equals("cache");
    if (!namesWarmHosts && !locations.equals("anywhere")) {
      throw new IOException(LOCATIONS + " is cache or anywhere, not " + locations);
    }
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

  /** There are no tokens to get, and a bucket's name is no host's, as the inherited one thinks. */
  @Override
  public String getCanonicalServiceName() {
    return null;
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

  private Place place(Path given) throws IOException {
    Path path = absolute(given);
    String name = path.toUri().getPath();
    if (name.startsWith("/../") || name.equals("/..")) { // elsewhere Path has taken them away
      throw new InvalidPathException(path.toString(), "it leads out of the file system");
    }
    return new Place(path, mapping.local(name));
  }

  // --- Reading

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    return open(path, bufferSize, 0);
  }

  /** With what the caller knows already: docs/hadoop.md. */
  @Override
  protected CompletableFuture<FSDataInputStream> openFileWithOptions(Path path,
      OpenFileParameters parameters) throws IOException {
    OpenHints hints = new OpenHints(path, parameters);
    return LambdaUtils.eval(new CompletableFuture<>(),
        () -> open(path, hints.bufferSize, hints.length));
  }

  private FSDataInputStream open(Path path, int bufferSize, long knownLength) throws IOException {
    Place place = place(path);
    try {
      FSDataInputStream in = new FSDataInputStream(
          new SluiceInputStream(place.file(), bufferSize, knownLength, statistics));
      statistics.incrementReadOps(1);
      return in;
    } catch (FileNotFoundException e) {
      throw Errors.ofOpen(place, e);
    }
  }

  // --- Writing

  /** What the process would take away from a new file's mode by itself. */
  private FsPermission masked(FsPermission permission) {
    FsPermission wanted = permission == null ? FsPermission.getFileDefault() : permission;
    return wanted.applyUMask(FsPermission.getUMask(getConf()));
  }

  private FileChannel openNew(Place place, Set<OpenOption> options, FsPermission permission,
      boolean parents) throws IOException {
    FileAttribute<?> mode = Modes.attribute(permission);
    try {
      return FileChannel.open(place.local, options, mode);
    } catch (java.nio.file.NoSuchFileException e) {
      if (!parents) {
        throw e;
      }
      makeDirectories(place(place.path.getParent()), masked(FsPermission.getDirDefault()));
      return FileChannel.open(place.local, options, mode);
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
    FileChannel channel;
    try {
      if (leases && overwrite) {
        Lease.leaveBehind(place.local);
      }
      channel = openNew(place, options, permission, parents);
    } catch (java.nio.file.NoSuchFileException e) {
      throw Errors.with(new FileNotFoundException(place.path.getParent() + " does not exist"), e);
    } catch (java.nio.file.FileAlreadyExistsException e) {
      throw Errors.with(new FileAlreadyExistsException(place.path + " already exists"), e);
    } catch (java.nio.file.FileSystemException e) {
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
      Modes.restore(place.local, permission);
      statistics.incrementWriteOps(1);
      Lease lease = leases ? Lease.take(place.local) : null;
      return new FSDataOutputStream(
          new SluiceOutputStream(channel, bufferSize, lease, writing), statistics);
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite,
      int bufferSize, short replication, long block, Progressable progress) throws IOException {
    return create(place(path), masked(permission), overwrite, true, bufferSize);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission,
      EnumSet<CreateFlag> flags, int bufferSize, short replication, long block,
      Progressable progress) throws IOException {
    return open(place(path), masked(permission), flags, false, bufferSize);
  }

  /** As FileContext asks: `permission` is masked already. */
  @Override
  protected FSDataOutputStream primitiveCreate(Path path, FsPermission permission,
      EnumSet<CreateFlag> flags, int bufferSize, short replication, long block,
      Progressable progress, Options.ChecksumOpt checksum) throws IOException {
    return open(place(path), permission, flags, true, bufferSize);
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
    Place place = place(path);
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
      Lease lease = leases ? Lease.takeFree(place.local) : null;
      return new FSDataOutputStream(
          new SluiceOutputStream(channel, bufferSize, lease, writing), statistics, channel.size());
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    Place place = place(path);
    if (length < 0) {
      throw new HadoopIllegalArgumentException("cannot truncate to a negative length: " + length);
    }
    if (place.isDirectory()) {
      throw new FileNotFoundException(place.path + " is a directory");
    }
    try (FileChannel channel = FileChannel.open(place.local, StandardOpenOption.WRITE)) {
      if (leases) {
        Lease.checkFree(place.local);
      }
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

  /** The sources' bytes at the target's end, then the sources are gone. Not one step: see docs. */
  @Override
  public void concat(Path target, Path[] sources) throws IOException {
    Place to = place(target);
    if (sources == null || sources.length == 0) {
      throw new HadoopIllegalArgumentException("no sources are given to concat to " + to.path);
    }
    List<Place> from = new ArrayList<>();
    Set<Path> seen = new HashSet<>();
    seen.add(to.path);
    for (Path source : sources) {
      Place place = place(source);
      if (!seen.add(place.path)) {
        throw new HadoopIllegalArgumentException(place.path + " is named twice");
      }
      if (place.attributes().isDirectory()) {
        throw new FileNotFoundException(place.path + " is a directory");
      }
      from.add(place);
    }
    if (to.attributes().isDirectory()) {
      throw new FileNotFoundException(to.path + " is a directory");
    }
    statistics.incrementWriteOps(1);
    try {
      if (leases) {
        Lease.checkFree(to.local);
      }
      Concat.run(to, from);
    } catch (IOException e) {
      throw Errors.of(to.path, e);
    }
  }

  // --- Who writes a file (fs.sluice.leases)

  /**
   * Takes a file from its writer, whether he lives or not: what he syncs from now on fails, and what
   * was synced stays. False: another one is about it; ask again.
   */
  public boolean recoverLease(Path path) throws IOException {
    Place place = place(path);
    if (place.attributes().isDirectory()) {
      throw new FileNotFoundException(place.path + " is a directory");
    }
    statistics.incrementWriteOps(1);
    return Lease.recover(place.local);
  }

  /** Whether no writer with a lease has it open. */
  public boolean isFileClosed(Path path) throws IOException {
    Place place = place(path);
    place.attributes();
    return Lease.holder(place.local) == null;
  }

  // --- Names

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    FsPermission wanted = permission == null ? FsPermission.getDirDefault() : permission;
    makeDirectories(place(path), wanted.applyUMask(FsPermission.getUMask(getConf())));
    statistics.incrementWriteOps(1);
    return true;
  }

  /** As FileContext asks: `permission` is masked already. */
  @Override
  protected void primitiveMkdir(Path path, FsPermission permission, boolean parents)
      throws IOException {
    Place place = place(path);
    if (!parents) {
      Place parent = place(place.path.getParent());
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
    FileAttribute<?> mode = Modes.attribute(permission);
    // The missing ones, the last first. A name that somebody makes meanwhile is as good as ours.
    List<java.nio.file.Path> missing = new ArrayList<>();
    java.nio.file.Path at = place.local;
    while (true) {
      try {
        Files.createDirectory(at, mode);
        Modes.restore(at, permission);
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

  /** HDFS: false for what cannot be done; into a directory that is there; never over anything. */
  @Override
  public boolean rename(Path source, Path target) throws IOException {
    statistics.incrementWriteOps(1);
    Place from = place(source);
    Place to = place(target);
    Boolean done = Renames.tryRename(from, to);
    return done != null ? done
        : Boolean.TRUE.equals(
            Renames.tryRenameInto(from, place(new Path(to.path, from.path.getName()))));
  }

  /** Without OVERWRITE one atomic step that replaces nothing; with it one that replaces. */
  @Override
  @Deprecated
  public void rename(Path source, Path target, Options.Rename... options) throws IOException {
    statistics.incrementWriteOps(1);
    Renames.rename(place(source), place(target),
        Arrays.asList(options).contains(Options.Rename.OVERWRITE));
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    Place place = place(path);
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
      found = place.attributes(LinkOption.NOFOLLOW_LINKS);
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

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementReadOps(1);
    return place.status(blockSize);
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
    return new Listing(place(path), blockSize, false);
  }

  @Override
  protected RemoteIterator<LocatedFileStatus> listLocatedStatus(Path path, PathFilter filter)
      throws IOException {
    statistics.incrementReadOps(1);
    Listing each = new Listing(place(path), blockSize, namesWarmHosts);
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
        return new LocatedFileStatus(status, status.isFile()
            ? Locations.of(status.getLen(), 0, status.getLen(), each.isWarm(), getConf()) : null);
      }
    };
  }

  /** By counts that the mount keeps: as fast for a million files as for one. */
  @Override
  public ContentSummary getContentSummary(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementReadOps(1);
    return Usage.of(place, place.attributes().isDirectory()).summary();
  }

  @Override
  public QuotaUsage getQuotaUsage(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementReadOps(1);
    return Usage.of(place, place.attributes().isDirectory()).quotaUsage();
  }

  /** Limits of names and of bytes, as HDFS counts them: -1 takes one away. */
  @Override
  public void setQuota(Path path, long names, long bytes) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Usage.setQuota(place, names, bytes);
  }

  @Override
  public FsStatus getStatus(Path path) throws IOException {
    File file = place(path == null ? new Path("/") : path).file();
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
    return Locations.of(file.getLen(), start, length,
        namesWarmHosts && file.getLen() > start && Locations.isWarm(place(file.getPath())),
        getConf());
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    try {
      Files.setAttribute(place.local, "unix:mode", permission.toShort() & 01777);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    Place place = place(path);
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
    Place place = place(path);
    statistics.incrementWriteOps(1);
    try {
      Files.getFileAttributeView(place.local, BasicFileAttributeView.class).setTimes(
          mtime < 0 ? null : FileTime.fromMillis(mtime),
          atime < 0 ? null : FileTime.fromMillis(atime), null);
    } catch (IOException e) {
      throw Errors.of(place.path, e);
    }
  }

  /** What the kernel says to this process, by lists and as root; of another user (doAs) what the mode says. */
  @Override
  public void access(Path path, FsAction wanted) throws IOException {
    if (!UserGroupInformation.getCurrentUser().getShortUserName().equals(System.getProperty("user.name"))) {
      super.access(path, wanted);
      return;
    }
    Access.check(place(path), wanted);
  }

  // --- Extended attributes: those of users, which the mount keeps

  @Override
  public void setXAttr(Path path, String name, byte[] value, EnumSet<XAttrSetFlag> flags)
      throws IOException {
    Xattrs.set(place(path), name, value, flags);
  }

  @Override
  public byte[] getXAttr(Path path, String name) throws IOException {
    return Xattrs.get(place(path), name);
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path) throws IOException {
    return Xattrs.all(place(path));
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
    Xattrs.remove(place(path), name);
  }

  // --- Access control lists: of a mount with --posix-acl

  @Override
  public void setAcl(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Acls.set(place, place.status(blockSize), entries);
  }

  @Override
  public void modifyAclEntries(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Acls.modify(place, place.status(blockSize), entries);
  }

  @Override
  public void removeAclEntries(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Acls.remove(place, place.status(blockSize), entries);
  }

  @Override
  public void removeDefaultAcl(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Acls.removeDefault(place, place.status(blockSize));
  }

  @Override
  public void removeAcl(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementWriteOps(1);
    Acls.removeAll(place, place.status(blockSize));
  }

  @Override
  public AclStatus getAclStatus(Path path) throws IOException {
    Place place = place(path);
    statistics.incrementReadOps(1);
    return Acls.status(place, place.status(blockSize));
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
      case CommonPathCapabilities.FS_CONCAT:
      case CommonPathCapabilities.FS_PERMISSIONS:
      case CommonPathCapabilities.FS_TRUNCATE:
      case CommonPathCapabilities.FS_XATTRS:
        return true;
      case CommonPathCapabilities.FS_ACLS:
        return place(path).mount.hasAcls();
      case "fs.capability.lease.recoverable": // LEASE_RECOVERABLE, from Hadoop 3.3.6 on
        return leases;
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

  /**
   * Writes what open streams hold: Hadoop calls this at the JVM's end, too. Gives up the handles that
   * keep mounts from being unmounted; the next use opens new ones.
   */
  @Override
  public void close() throws IOException {
    for (SluiceOutputStream out : writing) {
      try {
        out.flush();
      } catch (IOException e) {
        LOG.error("a file that is open for writing lacks its last bytes", e);
      }
    }
    super.close();
    Mount.releaseAll();
  }
}
