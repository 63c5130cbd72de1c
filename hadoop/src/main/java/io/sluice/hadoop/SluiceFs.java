package io.sluice.hadoop;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsAction;

/** {@link SluiceFileSystem} for FileContext, under any scheme that it is configured for. */
public class SluiceFs extends DelegateToFileSystem {
  /** As Hadoop calls it. */
  public SluiceFs(URI uri, Configuration conf) throws IOException, URISyntaxException {
    super(uri, new SluiceFileSystem(), conf, uri.getScheme(), false);
  }

  @Override
  public int getUriDefaultPort() {
    return -1;
  }

  @Override
  public void access(Path path, FsAction wanted) throws IOException {
    checkPath(path);
    fsImpl.access(path, wanted);
  }

  /** No tokens, as with {@link SluiceFileSystem}. */
  @Override
  public String getCanonicalServiceName() {
    return null;
  }

  /** One atomic step; the inherited one looks first and renames then. */
  @Override
  @SuppressWarnings("deprecation")
  public void renameInternal(Path from, Path to, boolean overwrite) throws IOException {
    checkPath(from);
    checkPath(to);
    ((SluiceFileSystem) fsImpl).rename(from, to,
        overwrite ? Options.Rename.OVERWRITE : Options.Rename.NONE);
  }

  @Override
  public void renameInternal(Path from, Path to) throws IOException {
    renameInternal(from, to, false);
  }
}
