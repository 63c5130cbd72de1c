package io.sluice.hadoop;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import org.junit.Test;

/** Replies are understood or refused, whatever they hold. */
public class JsonTest {
  private static Object parse(String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return Json.parse(bytes, bytes.length);
  }

  @Test
  public void readsWhatAMountSays() throws IOException {
    Map<?, ?> reply = (Map<?, ?>) parse("{\"ok\":true, \"n\":-12,\"d\":1.5e3,\"none\":null,"
        + "\"list\":[1,\"two\",{}],\"s\":\"gr\u00fcn \\u00e9\\ud834\\udd1e \\\"\\\\\\/\\n\"}\n");
    assertEquals(Boolean.TRUE, reply.get("ok"));
    assertEquals(-12L, reply.get("n"));
    assertEquals(1500.0, reply.get("d"));
    assertEquals(Arrays.asList(1L, "two", new java.util.HashMap<>()), reply.get("list"));
    assertEquals(Arrays.asList(Long.MAX_VALUE, -Long.MAX_VALUE, 0L),
        parse("[9223372036854775807,-9223372036854775807,0]"));
    assertEquals("gr\u00fcn \u00e9\ud834\udd1e \"\\/\n", reply.get("s"));
  }

  private static String rows(String text) throws IOException {
    StringBuilder out = new StringBuilder();
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    out.append(Json.parse(bytes, bytes.length, (first, numbers, count) ->
        out.append(first).append(Arrays.toString(Arrays.copyOf(numbers, count)))));
    return out.toString();
  }

  @Test
  public void readsRows() throws IOException {
    assertEquals("a[1, -2]b[]{ok=true, entries=2}", rows("{\"ok\":true,\"entries\":[[\"a\", 1,-2],[\"b\"]]}"));
    assertEquals("{name64=AA==}[3]{entries=1}", rows("{\"entries\":[[{\"name64\":\"AA==\"},3]]}"));
    assertEquals("{entries=0}", rows("{\"entries\":[]}"));
    assertEquals("{ok=false, error={entries=[1]}}", rows("{\"ok\":false,\"error\":{\"entries\":[1]}}"));
    for (String text : Arrays.asList("{\"entries\":[[]]}", "{\"entries\":{}}", "{\"entries\":[1]}",
        "{\"entries\":[[\"a\",1.5]]}", "{\"entries\":[[\"a\",\"b\"]]}", "{\"entries\":[[\"a\",1",
        "{\"entries\":[[\"a\",1,]]}", "{\"entries\":[[\"a\"" + new String(new char[17]).replace("\0", ",1") + "]]}",
        "{\"entries\":[[\"a\",99999999999999999999]]}")) {
      assertThrows(text, IOException.class, () -> rows(text));
    }
  }

  @Test
  public void writesWhatItReads() throws IOException {
    String all = "a\"b\\c\u0001\n\u00fc\ud834\udd1e";
    assertEquals(all, parse(Control.quoted(all)));
  }

  @Test
  public void refusesTheRest() {
    StringBuilder deep = new StringBuilder();
    for (int i = 0; i < 100_000; i++) {
      deep.append('[');
    }
    for (String text : Arrays.asList("", "{", "{\"a\"}", "{\"a\":}", "[1,]", "\"a", "\"\\x\"",
        "\"\\u12g4\"", "tru", "1 2", "-", "1.2.3", "{a:1}", "]", "99999999999999999999",
        "9223372036854775808", "9999999999999999999",
        deep.toString())) {
      assertThrows(text, IOException.class, () -> parse(text));
    }
  }

  @Test
  public void endsWithAnyBytes() {
    Random random = new Random(1);
    byte[] seed = "{\"ok\":true,\"e\":[{\"name\":\"a\\u00e9\",\"n\":12}]}"
        .getBytes(StandardCharsets.UTF_8);
    for (int i = 0; i < 20_000; i++) {
      byte[] bytes = seed.clone();
      for (int k = random.nextInt(4); k >= 0; k--) {
        bytes[random.nextInt(bytes.length)] = (byte) random.nextInt(256);
      }
      int length = random.nextInt(bytes.length + 1);
      try {
        Json.parse(bytes, length, i % 2 == 0 ? null : (first, numbers, count) -> { });
      } catch (IOException e) {
        assertEquals(true, e.getMessage().contains("expected"));
      }
    }
  }
}
