package io.sluice.hadoop;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The control file of a mount (docs/control.md): one write is a request, and reading up to the line's
 * end its reply. A rename's write says itself how it ended. Safe for many threads; each request has a
 * handle of its own, and a few idle ones are kept.
 */
final class Control {
  private static final int IDLE_MAX = 16;
  // What the first read of a reply asks for: each read is a round trip to the mount.
  private static final int SHORT_REPLY = 4096;
  private static final int LONG_REPLY = 64 << 10;
  private static final int REPLY_MAX = 64 << 20;

  /** An open control file. */
  private static final class Handle {
    final RandomAccessFile file;
    boolean asked; // whether writes of renames may wait
    boolean waits; // they do

    Handle(File file) throws IOException {
      try {
        this.file = new RandomAccessFile(file, "rw");
      } catch (FileNotFoundException e) {
        // Whatever the reason; callers would take it for a path that is not there.
        throw Errors.with(new IOException("the mount cannot be asked: " + e.getMessage()), e);
      }
    }

    void write(byte[] request) throws IOException {
      // Offsets mean nothing to the mount, but only below the file's end the kernel lets writes run
      // beside each other.
      file.seek(0);
      file.write(request);
    }

    void close() {
      try {
        file.close();
      } catch (IOException e) {
        SluiceFileSystem.LOG.debug("closing a control handle", e);
      }
    }
  }

  private final File file;
  private final ConcurrentLinkedQueue<Handle> idle = new ConcurrentLinkedQueue<>();
  private final AtomicInteger idleCount = new AtomicInteger();

  Control(File file) {
    this.file = file;
  }

  /** Closes the idle handles: an open one keeps a mount from being unmounted. */
  void release() {
    Handle handle;
    while ((handle = takeIdle()) != null) {
      handle.close();
    }
  }

  private Handle takeIdle() {
    Handle handle = idle.poll();
    if (handle != null) {
      idleCount.decrementAndGet();
    }
    return handle;
  }

  private void keep(Handle handle) {
    if (idleCount.incrementAndGet() <= IDLE_MAX) {
      idle.add(handle);
    } else {
      idleCount.decrementAndGet();
      handle.close();
    }
  }

  /** The reply's members; a ControlException if the mount refused. */
  Map<String, Object> call(String op, String... members) throws IOException {
    return call(SHORT_REPLY, null, op, members);
  }

  /** The same for a long reply, whose rows are taken while it is read. */
  Map<String, Object> callForRows(Json.Rows rows, String op, String... members) throws IOException {
    return call(LONG_REPLY, rows, op, members);
  }

  /** A rename that replaces nothing, of JSON tokens; a ControlException if the mount refused. */
  void rename(String from, String to) throws IOException {
    byte[] request = text("rename", "path", from, "to", to);
    Handle handle = takeIdle();
    IOException lost = null;
    if (handle != null) {
      try {
        rename(handle, request);
        return;
      } catch (ControlException e) {
        throw e;
      } catch (IOException e) {
        // The daemon may have been started again since this handle was opened.
        lost = e;
      }
    }
    try {
      rename(new Handle(file), request);
    } catch (ControlException e) {
      // Refused now: because the first try was done, after all?
      throw lost == null ? e : new IOException("the mount went away during a rename: " + e.getMessage(), lost);
    }
  }

  /** The handle is kept or closed. Any other error than a ControlException: not answered. */
  private void rename(Handle handle, byte[] request) throws IOException {
    boolean kept = false;
    try {
      if (!handle.asked) {
        handle.write(text("wait"));
        handle.waits = isOk(read(handle, SHORT_REPLY, null)); // an older mount or kernel: no
        handle.asked = true;
      }
      ControlException refused = null;
      try {
        handle.write(request);
        refused = handle.waits ? null : refusal(read(handle, SHORT_REPLY, null));
      } catch (IOException e) {
        refused = handle.waits ? refusal(read(handle, SHORT_REPLY, null)) : null;
        if (refused == null) {
          throw e;
        }
      }
      kept = true;
      keep(handle);
      if (refused != null) {
        throw refused;
      }
    } finally {
      if (!kept) {
        handle.close();
      }
    }
  }

  private static byte[] text(String op, String... members) {
    StringBuilder text = new StringBuilder(128);
    text.append("{\"op\":\"").append(op).append('"');
    for (int i = 0; i < members.length; i += 2) {
      text.append(",\"").append(members[i]).append("\":").append(members[i + 1]);
    }
    return text.append('}').toString().getBytes(StandardCharsets.UTF_8);
  }

  private static boolean isOk(Map<String, Object> reply) {
    return Boolean.TRUE.equals(reply.get("ok"));
  }

  /** Null if it was not refused. */
  private static ControlException refusal(Map<String, Object> reply) {
    return isOk(reply) ? null
        : new ControlException(String.valueOf(reply.get("error")), String.valueOf(reply.get("message")));
  }

  private Map<String, Object> call(int expected, Json.Rows rows, String op, String... members)
      throws IOException {
    Map<String, Object> reply = send(text(op, members), expected, rows);
    ControlException refused = refusal(reply);
    if (refused != null) {
      throw refused;
    }
    return reply;
  }

  static String quoted(String string) {
    StringBuilder out = new StringBuilder(string.length() + 2);
    Json.quote(out, string);
    return out.toString();
  }

  private Map<String, Object> send(byte[] request, int expected, Json.Rows rows)
      throws IOException {
    Handle handle = takeIdle();
    if (handle != null) {
      try {
        handle.write(request);
      } catch (IOException e) {
        // Not taken: the daemon may have been started again since this handle was opened.
        handle.close();
        handle = null;
      }
    }
    boolean kept = false;
    try {
      if (handle == null) {
        handle = new Handle(file);
        handle.write(request);
      }
      Map<String, Object> reply = read(handle, expected, rows);
      kept = true;
      keep(handle);
      return reply;
    } finally {
      if (!kept && handle != null) {
        handle.close();
      }
    }
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> read(Handle handle, int expected, Json.Rows rows)
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
      int got = handle.file.read(reply, length, reply.length - length);
      if (got <= 0) {
        throw new IOException("the mount's reply ends early");
      }
      length += got;
    }
    Object value = Json.parse(reply, length, rows);
    if (!(value instanceof Map)) {
      throw new IOException("the mount's reply is no object");
    }
    return (Map<String, Object>) value;
  }
}
