package io.sluice.hadoop;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CompositeCrcFileChecksum;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.util.DataChecksum;

/** Checksums of files by reading them: comparable with those of HDFS, whatever its block size. */
final class Checksums {
  private static final int STEP = 1 << 20;

  private Checksums() {}

  static FileChecksum ofStart(InputStream in, long length, Configuration conf) throws IOException {
    DataChecksum.Type type =
        DataChecksum.Type.valueOf(conf.getTrimmed("dfs.checksum.type", "CRC32C"));
    int bytesPerCrc = conf.getInt("dfs.bytes-per-checksum", 512);
    DataChecksum crc = DataChecksum.newDataChecksum(type, bytesPerCrc);
    byte[] bytes = new byte[(int) Math.min(STEP, Math.max(1, length))];
    for (long left = length; left > 0; ) {
      int got = in.read(bytes, 0, (int) Math.min(bytes.length, left));
      if (got < 0) {
        throw new EOFException("the file became shorter while its checksum was computed");
      }
      crc.update(bytes, 0, got);
      left -= got;
    }
    return new CompositeCrcFileChecksum((int) crc.getValue(), type, bytesPerCrc);
  }
}
