package io.sluice.hadoop;

import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.util.Locale;
import org.apache.hadoop.fs.CanUnbuffer;
import org.apache.hadoop.fs.FSExceptionMessages;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.StreamCapabilities;

/**
 * Reads a file of a mount. Positioned reads may come from many threads. A RandomAccessFile and not a
 * FileChannel, which an interrupt of a thread would close for all of them.
 */
final class SluiceInputStream extends FSInputStream implements CanUnbuffer, StreamCapabilities {
  private static final int BUFFER_MIN = 4096;
  private static final byte[] EMPTY = new byte[0];

  private final RandomAccessFile file;
  private final FileSystem.Statistics statistics;
  private final int bufferSize;
  private long knownLength;
  private long position;
  // buffer[0..buffered) are the file's bytes from bufferStart on
  private byte[] buffer = EMPTY;
  private long bufferStart;
  private int buffered;
  private volatile boolean closed;

  /** `knownLength`: the file has at least so many bytes, so far as the caller knows. */
  SluiceInputStream(File path, int bufferSize, long knownLength, FileSystem.Statistics statistics)
      throws IOException {
    this.knownLength = knownLength;
    this.file = new RandomAccessFile(path, "r");
    this.bufferSize = Math.max(bufferSize, BUFFER_MIN);
    this.statistics = statistics;
  }

  private void checkOpen() throws IOException {
    if (closed) {
      throw new IOException(FSExceptionMessages.STREAM_IS_CLOSED);
    }
  }

  /** Looks again when the file may have grown. */
  private long lengthFor(long wanted) throws IOException {
    if (wanted > knownLength) {
      knownLength = file.length();
    }
    return knownLength;
  }

  private int readAt(long at, byte[] out, int offset, int length) throws IOException {
    file.seek(at);
    int got = file.read(out, offset, length);
    if (got > 0 && statistics != null) {
      statistics.incrementBytesRead(got);
    }
    return got;
  }

  /** From the buffer if it has the byte at `at`, which large reads go around. -1: the end. */
  private int readBuffered(long at, byte[] out, int offset, int length) throws IOException {
    if (at < bufferStart || at >= bufferStart + buffered) {
      if (length >= bufferSize) {
        return readAt(at, out, offset, length);
      }
      if (buffer.length == 0) {
        buffer = new byte[bufferSize];
      }
      buffered = 0;
      int got = readAt(at, buffer, 0, buffer.length);
      if (got <= 0) {
        return -1;
      }
      bufferStart = at;
      buffered = got;
    }
    int from = (int) (at - bufferStart);
    int count = Math.min(length, buffered - from);
    System.arraycopy(buffer, from, out, offset, count);
    return count;
  }

  @Override
  public synchronized int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public synchronized int read(byte[] out, int offset, int length) throws IOException {
    checkOpen();
    validatePositionedReadArgs(position, out, offset, length);
    if (length == 0) {
      return 0;
    }
    int got = readBuffered(position, out, offset, length);
    if (got <= 0) {
      return -1;
    }
    position += got;
    return got;
  }

  @Override
  public synchronized int read(long at, byte[] out, int offset, int length) throws IOException {
    checkOpen();
    validatePositionedReadArgs(at, out, offset, length);
    if (length == 0) {
      return 0;
    }
    int got = at >= bufferStart && at < bufferStart + buffered
        ? readBuffered(at, out, offset, length)
        : readAt(at, out, offset, length);
    return got <= 0 ? -1 : got;
  }

  @Override
  public synchronized void seek(long to) throws IOException {
    checkOpen();
    if (to < 0) {
      throw new EOFException(FSExceptionMessages.NEGATIVE_SEEK);
    }
    if (to > lengthFor(to)) {
      throw new EOFException(FSExceptionMessages.CANNOT_SEEK_PAST_EOF);
    }
    position = to;
  }

  @Override
  public synchronized long getPos() {
    return position;
  }

  @Override
  public synchronized long skip(long count) throws IOException {
    checkOpen();
    if (count <= 0) {
      return 0;
    }
    long to = Math.min(position + count, lengthFor(position + count));
    long skipped = Math.max(0, to - position);
    position += skipped;
    return skipped;
  }

  @Override
  public synchronized int available() throws IOException {
    checkOpen();
    return (int) Math.min(Integer.MAX_VALUE, Math.max(0, lengthFor(Long.MAX_VALUE) - position));
  }

  @Override
  public boolean seekToNewSource(long target) {
    return false;
  }

  @Override
  public synchronized void unbuffer() {
    buffer = EMPTY;
    buffered = 0;
  }

  @Override
  public boolean hasCapability(String capability) {
    return capability.toLowerCase(Locale.ENGLISH).equals(StreamCapabilities.UNBUFFER);
  }

  @Override
  public synchronized void close() throws IOException {
    if (!closed) {
      closed = true;
      buffer = EMPTY;
      buffered = 0;
      file.close();
    }
  }
}
