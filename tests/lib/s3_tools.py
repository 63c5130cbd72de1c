"""The store's own command line tools, for tests."""

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SLUICE_BUILD") or os.path.join(ROOT, "build")
LIMIT_S = 300


def tool(name, *arguments, env=None, body=b"", folder=os.path.join("tests", "tools")):
    """Runs one to its end: a CompletedProcess with bytes. What it said is shown in the log."""
    done = subprocess.run([os.path.join(BUILD, folder, name), *arguments], input=body, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S,
                          check=False)
    if done.stderr:
        print(done.stderr.decode(errors="replace"), end="", flush=True)
    return done


def store(env, *arguments, body=b""):
    """store_tool: (exit status, standard output, the last line of standard error)."""
    done = tool("store_tool", *arguments, env=env, body=body)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return done.returncode, done.stdout, lines[-1] if lines else ""
