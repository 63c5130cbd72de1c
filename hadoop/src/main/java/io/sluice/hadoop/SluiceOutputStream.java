package io.sluice.hadoop;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.util.Locale;
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
  private ByteBuffer buffer; // from the first write that is small
  private boolean closed;

  SluiceOutputStream(FileChannel channel, int bufferSize, Lease lease) {
    this.lease = lease;
    this.channel = channel;
    this.bufferSize = Math.min(Math.max(bufferSize, BUFFER_MIN), BUFFER_MAX);
  }

  private void checkOpen() throws IOException {
    if (closed) {
      throw new ClosedChannelException();
    }
  }

  private void put(ByteBuffer bytes) throws IOException {
    try {
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    } catch (ClosedByInterruptException e) {
      InterruptedIOException interrupted = new InterruptedIOException("interrupted in a write");
      interrupted.initCause(e);
      throw interrupted;
    }
  }

  private void putBuffer() throws IOException {
    if (buffer != null && buffer.position() > 0) {
      buffer.flip();
      try {
        put(buffer);
      } finally {
        buffer.compact();
      }
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

  @Override
  public synchronized void flush() throws IOException {
    checkOpen();
    putBuffer();
  }

  @Override
  public synchronized void hflush() throws IOException {
    hsync();
  }

  @Override
  public synchronized void hsync() throws IOException {
    checkOpen();
    putBuffer();
    channel.force(true);
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
    try {
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
