package io.sluice.hadoop;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.util.Locale;
import java.util.Set;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.Syncable;

/**
 * Writes a file of a mount. hflush and hsync return when all that was written is durable, as close
 * does. Safe for many threads.
 */
final class SluiceOutputStream extends OutputStream implements Syncable, StreamCapabilities {
  private static final int BUFFER_MIN = 4096;
  private static final int BUFFER_MAX = 128 << 10;

  private final FileChannel channel;
  private final byte[] one = new byte[1];
  private final int bufferSize;
  private final Lease lease; // null: without
  private final Set<SluiceOutputStream> writing; // the file system's, this one among them until it is closed
  private ByteBuffer buffer; // from the first write that is small
  private IOException failed; // from here on nothing is written, and nothing acknowledged
  private boolean closed;

  SluiceOutputStream(FileChannel channel, int bufferSize, Lease lease,
      Set<SluiceOutputStream> writing) {
    this.lease = lease;
    this.writing = writing;
    writing.add(this);
    this.channel = channel;
    this.bufferSize = Math.min(Math.max(bufferSize, BUFFER_MIN), BUFFER_MAX);
  }

  private void checkOpen() throws IOException {
    if (closed) {
      throw new ClosedChannelException();
    }
    checkWhole();
  }

  /** What follows bytes that were lost must not be acknowledged as if they were there. */
  private void checkWhole() throws IOException {
    if (failed != null) {
      throw new IOException("an earlier write of this file failed: " + failed.getMessage(), failed);
    }
  }

  private interface Step {
    void run() throws IOException;
  }

  /**
   * An interrupt closes a FileChannel, even one of long before, which a thread has not looked at yet.
   * That one waits here: as with HDFS, the stream lives on.
   */
  private void run(Step step) throws IOException {
    boolean interrupted = Thread.interrupted();
    try {
      step.run();
    } catch (ClosedByInterruptException e) {
      failed = Errors.with(new InterruptedIOException("interrupted in a write"), e);
      throw failed;
    } catch (IOException e) {
      failed = e;
      throw e;
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  private void put(ByteBuffer bytes) throws IOException {
    run(() -> {
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    });
  }

  private void putBuffer() throws IOException {
    if (buffer != null && buffer.position() > 0) {
      buffer.flip();
      put(buffer);
      buffer.clear();
    }
  }

  @Override
  public synchronized void write(int b) throws IOException {
    one[0] = (byte) b;
    write(one, 0, 1);
  }

  @Override
  public synchronized void write(byte[] bytes, int offset, int length) throws IOException {
    checkOpen();
    if (offset < 0 || length < 0 || length > bytes.length - offset) {
      throw new IndexOutOfBoundsException();
    }
    if (buffer != null && length > buffer.remaining() || length >= bufferSize) {
      putBuffer();
    }
    if (length >= bufferSize) {
      put(ByteBuffer.wrap(bytes, offset, length));
      return;
    }
    if (buffer == null) {
      buffer = ByteBuffer.allocate(bufferSize);
    }
    buffer.put(bytes, offset, length);
  }

  /** Of a closed stream harmless, as with HDFS: streams around this one do it when they are closed. */
  @Override
  public synchronized void flush() throws IOException {
    if (!closed) {
      checkWhole();
      putBuffer();
    }
  }

  @Override
  public synchronized void hflush() throws IOException {
    hsync();
  }

  @Override
  public synchronized void hsync() throws IOException {
    checkOpen();
    putBuffer();
    run(() -> channel.force(true));
    if (lease != null) {
      lease.check();
    }
  }

  @Override
  public boolean hasCapability(String capability) {
    switch (capability.toLowerCase(Locale.ENGLISH)) {
      case StreamCapabilities.HFLUSH:
      case StreamCapabilities.HSYNC:
        return true;
      default:
        return false;
    }
  }

  @Override
  public synchronized void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    writing.remove(this);
    try {
      checkWhole();
      putBuffer();
    } finally {
      buffer = null;
      channel.close();
    }
    if (lease != null) {
      lease.release();
    }
  }
}
