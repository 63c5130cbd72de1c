package io.sluice.hadoop;

import java.io.EOFException;
import java.io.IOException;
import java.util.zip.CRC32;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * A write-ahead log as a region server keeps one, for tests/e2e: {@code write PATH} appends records
 * for ever, and says each number after its hflush; {@code recover PATH} takes the log from its writer
 * and says how many whole records it has; {@code more PATH COUNT} appends so many to a recovered one.
 */
public final class Wal {
  private static final int BODY_MAX = 3000;

  private Wal() {}

  /** See the class. */
  public static void main(String[] args) throws Exception {
    Configuration conf = new Configuration();
    conf.set("fs.sluice.impl", SluiceLeaseFileSystem.class.getName());
    conf.setBoolean("fs.sluice.leases", true);
    Path path = new Path(args[1]);
    try (SluiceLeaseFileSystem fs =
        (SluiceLeaseFileSystem) FileSystem.newInstance(path.toUri(), conf)) {
      switch (args[0]) {
        case "write":
          try (FSDataOutputStream out = fs.create(path, false)) {
            append(out, 0, Integer.MAX_VALUE);
          }
          break;
        case "recover":
          while (!fs.recoverLease(path)) {
            Thread.sleep(100);
          }
          System.out.println("records " + count(fs, path));
          break;
        case "more":
          int count = count(fs, path);
          try (FSDataOutputStream out = fs.append(path)) {
            append(out, count, Integer.parseInt(args[2]));
          }
          break;
        default:
          throw new IllegalArgumentException(args[0]);
      }
    }
  }

  /** A record: its number, the length of its body, the body, and a checksum of that. */
  private static void append(FSDataOutputStream out, int first, int count) throws IOException {
    for (int i = first; i - first < count; i++) {
      byte[] body = new byte[1 + i * 37 % BODY_MAX];
      java.util.Arrays.fill(body, (byte) i);
      CRC32 crc = new CRC32();
      crc.update(body);
      out.writeInt(i);
      out.writeInt(body.length);
      out.write(body);
      out.writeLong(crc.getValue());
      out.hflush();
      System.out.println("ack " + i);
      System.out.flush();
    }
  }

  /** Whole records in their order. What comes after the last one was never acknowledged: cut off. */
  private static int count(FileSystem fs, Path path) throws IOException {
    int count = 0;
    long end = 0;
    try (FSDataInputStream in = fs.open(path)) {
      while (in.readInt() == count) {
        byte[] body = new byte[Math.min(in.readInt(), BODY_MAX)];
        in.readFully(body);
        CRC32 crc = new CRC32();
        crc.update(body);
        if (in.readLong() != crc.getValue()) {
          break;
        }
        count++;
        end = in.getPos();
      }
    } catch (EOFException e) {
      // the end, or a record that was not written whole
    }
    if (fs.getFileStatus(path).getLen() > end) {
      fs.truncate(path, end);
    }
    return count;
  }
}
