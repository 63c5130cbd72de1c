package io.sluice.hadoop;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The JSON of the control file: replies are read, strings of requests are written. Java 8 has no
 * parser, and the one that Hadoop brings stands under other names in its shaded client.
 *
 * <p>Values are Map, List, String, Long, Double, Boolean and null. Nesting is bounded; a reply's size
 * is bounded by who reads it.
 */
final class Json {
  private static final int DEPTH_MAX = 32;
  private static final int DIGITS_MAX = 19; // what of these is too large for a long wraps below 0

  private static final int NUMBERS_MAX = 16; // of a row

  /** Takes the rows of a listing while they are read: there are thousands, and no other needs them. */
  interface Rows {
    /** A row's first value, and the `count` numbers behind it, which are here until this returns. */
    void take(Object first, long[] numbers, int count) throws IOException;
  }

  private final byte[] text;
  private final int end;
  private final Rows rows;
  private int at;
  private long whole; // what takeWhole() read

  private Json(byte[] text, int length, Rows rows) {
    this.text = text;
    this.end = length;
    this.rows = rows;
  }

  /** The one value of a text; anything else is an IOException that says where. */
  static Object parse(byte[] text, int length) throws IOException {
    return parse(text, length, null);
  }

  /** With `rows` the member "entries" of an object is an array of rows, which go there. Its value is their number. */
  static Object parse(byte[] text, int length, Rows rows) throws IOException {
    Json json = new Json(text, length, rows);
    Object value = json.value(0);
    json.space();
    if (json.at != json.end) {
      throw json.bad("the end");
    }
    return value;
  }

  /** A string as a JSON token. A lone surrogate, which is no text, becomes '?'. */
  static void quote(StringBuilder out, String string) {
    out.append('"');
    for (int i = 0; i < string.length(); i++) {
      char c = string.charAt(i);
      if (c == '"' || c == '\\') {
        out.append('\\').append(c);
      } else if (c < 0x20) {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    out.append('"');
  }

  private IOException bad(String wanted) {
    return new IOException("unreadable reply of the mount: " + wanted + " expected at byte " + at);
  }

  private void space() {
    while (at < end && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) {
      at++;
    }
  }

  private boolean take(char c) {
    space();
    if (at < end && text[at] == c) {
      at++;
      return true;
    }
    return false;
  }

  private Object value(int depth) throws IOException {
    space();
    if (depth > DEPTH_MAX) {
      throw bad("less nesting");
    }
    if (at >= end) {
      throw bad("a value");
    }
    switch (text[at]) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"':
        return string();
      case 't':
        return word("true", Boolean.TRUE);
      case 'f':
        return word("false", Boolean.FALSE);
      case 'n':
        return word("null", null);
      default:
        return number();
    }
  }

  private Object word(String word, Object value) throws IOException {
    for (int i = 0; i < word.length(); i++, at++) {
      if (at >= end || text[at] != word.charAt(i)) {
        throw bad(word);
      }
    }
    return value;
  }

  private Map<String, Object> object(int depth) throws IOException {
    Map<String, Object> out = new LinkedHashMap<>(16);
    at++;
    if (take('}')) {
      return out;
    }
    do {
      space();
      if (at >= end || text[at] != '"') {
        throw bad("a name");
      }
      String name = string();
      if (!take(':')) {
        throw bad(":");
      }
      out.put(name, rows != null && depth == 0 && name.equals("entries") ? takeRows() : value(depth + 1));
    } while (take(','));
    if (!take('}')) {
      throw bad("}");
    }
    return out;
  }

  private void must(char c) throws IOException {
    if (!take(c)) {
      throw bad(String.valueOf(c));
    }
  }

  private Object takeRows() throws IOException {
    long[] numbers = new long[NUMBERS_MAX];
    long all = 0;
    must('[');
    if (take(']')) {
      return all;
    }
    do {
      int count = 0;
      must('[');
      Object first = value(2);
      while (take(',')) {
        space();
        if (count == NUMBERS_MAX || !takeWhole()) {
          throw bad("a row of numbers");
        }
        numbers[count++] = whole;
      }
      must(']');
      rows.take(first, numbers, count);
      all++;
    } while (take(','));
    must(']');
    return all;
  }

  private List<Object> array(int depth) throws IOException {
    List<Object> out = new ArrayList<>();
    at++;
    if (take(']')) {
      return out;
    }
    do {
      out.add(value(depth + 1));
    } while (take(','));
    if (!take(']')) {
      throw bad("]");
    }
    return out;
  }

  private String string() throws IOException {
    int begin = ++at;
    while (at < end && text[at] != '"' && text[at] != '\\') {
      at++;
    }
    String plain = new String(text, begin, at - begin, StandardCharsets.UTF_8);
    if (at < end && text[at] == '"') {
      at++;
      return plain;
    }
    StringBuilder out = new StringBuilder(plain);
    while (at < end && text[at] != '"') {
      if (text[at] == '\\') {
        at++;
        out.append(escape());
      } else {
        begin = at;
        while (at < end && text[at] != '"' && text[at] != '\\') {
          at++;
        }
        out.append(new String(text, begin, at - begin, StandardCharsets.UTF_8));
      }
    }
    if (at >= end) {
      throw bad("\"");
    }
    at++;
    return out.toString();
  }

  private char escape() throws IOException {
    if (at >= end) {
      throw bad("an escape");
    }
    byte c = text[at++];
    switch (c) {
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '"':
      case '\\':
      case '/':
        return (char) c;
      case 'u':
        int code = 0;
        for (int i = 0; i < 4; i++, at++) {
          int digit = at < end ? Character.digit(text[at], 16) : -1;
          if (digit < 0) {
            throw bad("four digits");
          }
          code = code * 16 + digit;
        }
        return (char) code;
      default:
        throw bad("an escape");
    }
  }

  private boolean takeWhole() {
    int begin = at;
    boolean minus = at < end && text[at] == '-';
    long value = 0;
    at += minus ? 1 : 0;
    int first = at;
    while (at < end && text[at] >= '0' && text[at] <= '9' && at - first < DIGITS_MAX) {
      value = value * 10 + (text[at++] - '0');
    }
    whole = minus ? -value : value;
    if (at > first && value >= 0 && (at == end || "+-0123456789.eE".indexOf(text[at]) < 0)) {
      return true;
    }
    at = begin;
    return false;
  }

  private Number number() throws IOException {
    return takeWhole() ? (Number) whole : otherNumber();
  }

  private Number otherNumber() throws IOException {
    int begin = at;
    boolean whole = true;
    while (at < end && "+-0123456789.eE".indexOf(text[at]) >= 0) {
      whole &= text[at] == '-' || Character.isDigit(text[at]);
      at++;
    }
    String digits = new String(text, begin, at - begin, StandardCharsets.US_ASCII);
    try {
      if (whole) {
        return Long.valueOf(digits);
      }
      return Double.valueOf(digits);
    } catch (NumberFormatException e) {
      at = begin;
      throw bad("a value");
    }
  }
}
