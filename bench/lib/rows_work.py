"""Rows of people's work: a source tree extracted, committed to git, removed."""

import os
import random
import shutil
import tarfile
import time

from places import Sluice, run
from results import Row
from rows_meta import fill, in_order

DIRECTORIES = 105


def make_tree(at, files, total):
    """A tree like a source tree: many small files, few large ones, words as content. The same on each machine."""
    rng = random.Random(3)
    sizes = [rng.lognormvariate(9, 1.5) for _ in range(files)]
    factor = total / sum(sizes)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(4000)]
    names = [os.path.join(at, "part%02d" % (i % 15), "module%03d" % i) if i >= 15 else os.path.join(at, "part%02d" % i) for i in range(DIRECTORIES - 1)]
    for name in names:
        os.makedirs(name)
    for i, size in enumerate(sizes):
        size = int(size * factor)
        text = b" ".join(rng.choices(words, k=size // 5 + 2))[:size]
        with open(os.path.join(names[i % len(names)], "file%04d.c" % i), "wb") as f:
            f.write(text)


def timed(place, row, command, cwd=None, operations=0, env=None):
    used = place.used()
    began = time.perf_counter()
    command() if callable(command) else run(*command, cwd=cwd, env=env)
    took = time.perf_counter() - began
    row.add(place.name, took, **used.end(operations=operations))


def source(machine, out):
    """tar x, git add and commit, and rm -rf of the same tree."""
    files, total = (100, 2 << 20) if machine.options.quick else (1100, 51_000_000)
    entries = files + DIRECTORIES
    local = os.path.join(machine.work, "source")
    make_tree(os.path.join(local, "tree"), files, total)
    archive = os.path.join("/dev/shm" if os.access("/dev/shm", os.W_OK) else machine.work, "sluice-bench-%d.tar" % os.getpid())
    extract = Row("extract", "extract a source tree of %d entries, %d MB" % (entries, total // 1_000_000), "s", better="lower")
    commit = Row("git-commit", "git add and commit of that tree", "s", better="lower")
    remove = Row("rm-tree", "rm -rf of that tree with its repository", "s", better="lower")
    env = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", HOME=machine.work, GIT_AUTHOR_NAME="bench", GIT_AUTHOR_EMAIL="bench@localhost",
               GIT_COMMITTER_NAME="bench", GIT_COMMITTER_EMAIL="bench@localhost")
    gateway = machine.gateway()
    try:
        with tarfile.open(archive, "w") as tar:
            tar.add(os.path.join(local, "tree"), "tree")
        with machine.places(lambda: Sluice("sluice", gateway), "local", "refs") as made:
            for place in in_order(made, machine.round):
                machine.say(place.name)
                at = place.path("work")
                os.mkdir(at)
                timed(place, extract, ("tar", "xf", archive, "-C", at), operations=entries)
                tree = os.path.join(at, "tree")
                run("git", "-c", "init.defaultBranch=main", "init", "-q", cwd=tree, env=env)

                def add_and_commit(tree=tree):
                    run("git", "-c", "gc.auto=0", "add", "-A", cwd=tree, env=env)
                    run("git", "-c", "gc.auto=0", "commit", "-q", "-m", "all", cwd=tree, env=env)

                timed(place, commit, add_and_commit, operations=entries)
                timed(place, remove, ("rm", "-rf", at), operations=2 * entries)
    finally:
        if os.path.exists(archive):
            os.unlink(archive)
        shutil.rmtree(local)
    extract.absolute("sluice", ("<=", 0.6) if not machine.options.quick else None, "s")
    extract.ratio("sluice", "local")
    commit.ratio("sluice", "local", ("<=", 2))
    remove.ratio("sluice", "local")
    out.rows += [extract, commit, remove]


def rm_rf(machine, out):
    count = 500 if machine.options.quick else 10_000
    row = Row("rm-rf", "rm -rf of %d files of 100 bytes" % count, "s", better="lower")
    gateway = machine.gateway()
    with machine.places(lambda: Sluice("sluice", gateway), "local", "refs") as made:
        for place in in_order(made, machine.round):
            machine.say(place.name)
            fill(place.path("tree"), count, per_directory=1000, data=b"x" * 100)
            timed(place, row, ("rm", "-rf", place.path("tree")), operations=count)
    row.absolute("sluice", ("<=", 1) if not machine.options.quick else None, "s")
    row.ratio("sluice", "local")
    out.rows.append(row)
