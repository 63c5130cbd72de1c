import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

/**
 * A NameNode and a DataNode in this process, until it is ended: Hdfs DIRECTORY URL_FILE SYNC. The
 * file gets the file system's URL. SYNC false: as MiniDFSCluster is by default, the log of the
 * NameNode is never synced; true: as a NameNode does it.
 */
public final class Hdfs {
  public static void main(String[] args) throws Exception {
    MiniDFSCluster cluster = new MiniDFSCluster.Builder(new Configuration(), new File(args[0]))
        .numDataNodes(1).skipFsyncForTesting(!Boolean.parseBoolean(args[2])).build();
    cluster.waitActive();
    Path url = Path.of(args[1]);
    Path made = url.resolveSibling(url.getFileName() + ".new");
    Files.writeString(made, cluster.getFileSystem().getUri().toString());
    Files.move(made, url, StandardCopyOption.ATOMIC_MOVE);
    Thread.sleep(Long.MAX_VALUE);
  }
}
