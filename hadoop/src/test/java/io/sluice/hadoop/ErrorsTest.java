package io.sluice.hadoop;

import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.FileSystemException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.security.AccessControlException;
import org.junit.Test;

/** What callers tell apart by an exception's class. Needs no mount. */
public class ErrorsTest {
  private static final Path PATH = new Path("/f");

  @Test
  public void whatIsNotPermittedIsAnAccessControlException() {
    assertTrue(Errors.of(PATH, new FileSystemException("/f", null, "Operation not permitted"))
        instanceof AccessControlException);
    assertFalse(Errors.of(PATH, new FileSystemException("/f", null, "Input/output error"))
        instanceof AccessControlException);
  }

  @Test
  public void aMountThatCannotBeAskedIsNoMissingPath() {
    IOException e = assertThrows(IOException.class,
        () -> new Control(new File("/no-such-mount/.sluice/ctl")).call("list", "path", "\"/\""));
    assertFalse(e.toString(), e instanceof FileNotFoundException);
  }
}
