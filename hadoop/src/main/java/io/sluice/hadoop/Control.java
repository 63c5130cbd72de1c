package io.sluice.hadoop;

import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The control file of a mount (docs/control.md): one write is a request, and reading up to the line's
 * end its reply. Safe for many threads; each request has a handle of its own, and a few idle ones are
 * kept.
 */
final class Control {
  private static final int IDLE_MAX = 8;
  // What the first read of a reply asks for: each read is a round trip to the mount.
  private static final int SHORT_REPLY = 4096;
  private static final int LONG_REPLY = 64 << 10;
  private static final int REPLY_MAX = 64 << 20;

  private final File file;
  private final ConcurrentLinkedQueue<RandomAccessFile> idle = new ConcurrentLinkedQueue<>();
  private final AtomicInteger idleCount = new AtomicInteger();

  Control(File file) {
    this.file = file;
  }

  /** Closes the idle handles: an open one keeps a mount from being unmounted. */
  void release() {
    RandomAccessFile handle;
    while ((handle = idle.poll()) != null) {
      idleCount.decrementAndGet();
      closeQuietly(handle);
    }
  }

  /** The reply's members; a ControlException if the mount refused. */
  Map<String, Object> call(String op, String... members) throws IOException {
    return call(SHORT_REPLY, op, members);
  }

  /** The same where the reply may be long. */
  Map<String, Object> callForMuch(String op, String... members) throws IOException {
    return call(LONG_REPLY, op, members);
  }

  private Map<String, Object> call(int expected, String op, String... members) throws IOException {
    StringBuilder text = new StringBuilder(128);
    text.append("{\"op\":\"").append(op).append('"');
    for (int i = 0; i < members.length; i += 2) {
      text.append(",\"").append(members[i]).append("\":").append(members[i + 1]);
    }
    text.append('}');
    Map<String, Object> reply = send(text.toString().getBytes(StandardCharsets.UTF_8), expected);
    if (!Boolean.TRUE.equals(reply.get("ok"))) {
      throw new ControlException(String.valueOf(reply.get("error")), String.valueOf(reply.get("message")));
    }
    return reply;
  }

  static String quoted(String string) {
    StringBuilder out = new StringBuilder(string.length() + 2);
    Json.quote(out, string);
    return out.toString();
  }

  private Map<String, Object> send(byte[] request, int expected) throws IOException {
    RandomAccessFile handle = idle.poll();
    if (handle != null) {
      idleCount.decrementAndGet();
      try {
        handle.write(request);
      } catch (IOException e) {
        // Not taken: the daemon may have been started again since this handle was opened.
        closeQuietly(handle);
        handle = null;
      }
    }
    if (handle == null) {
      handle = new RandomAccessFile(file, "rw");
      try {
        handle.write(request);
      } catch (IOException e) {
        closeQuietly(handle);
        throw e;
      }
    }
    boolean kept = false;
    try {
      Map<String, Object> reply = read(handle, expected);
      if (idleCount.incrementAndGet() <= IDLE_MAX) {
        idle.add(handle);
        kept = true;
      } else {
        idleCount.decrementAndGet();
      }
      return reply;
    } finally {
      if (!kept) {
        closeQuietly(handle);
      }
    }
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> read(RandomAccessFile handle, int expected)
      throws IOException {
    byte[] reply = new byte[expected];
    int length = 0;
    while (length == 0 || reply[length - 1] != '\n') {
      if (length == reply.length) {
        if (length >= REPLY_MAX) {
          throw new IOException("the mount's reply is too long");
        }
        reply = Arrays.copyOf(reply, Math.max(1 << 20, length * 2));
      }
      int got = handle.read(reply, length, reply.length - length);
      if (got <= 0) {
        throw new IOException("the mount's reply ends early");
      }
      length += got;
    }
    Object value = Json.parse(reply, length);
    if (!(value instanceof Map)) {
      throw new IOException("the mount's reply is no object");
    }
    return (Map<String, Object>) value;
  }

  private static void closeQuietly(RandomAccessFile handle) {
    try {
      handle.close();
    } catch (IOException e) {
      SluiceFileSystem.LOG.debug("closing a control handle", e);
    }
  }
}
