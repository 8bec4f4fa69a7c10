#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests the instruments: what powerfs records and which disks rebuild makes of it.

Each case is a small program that does something with files and marks what it holds for durable, and whether the model
of rebuild.c must find a disk on which that is not so. A right way of writing must pass on all disks; each wrong one,
from a forgotten sync to a forgotten directory, must be caught.

  model.py POWERFS REBUILD          runs the cases
  model.py --check IMAGE MARKS      whether an image keeps what its marks promise
"""

import os
import sys

SECTOR = 512


def check(image, marks):
    """A mark "PATH OFFSET SIZE BYTE" promises bytes, "PATH -" that there is none; "PATH A|B SIZE" one of two contents."""
    with open(marks, encoding="ascii") as lines:
        for line in lines:
            path, *promise = line.split()
            path = os.path.join(image, path)
            if promise[0] == "-":
                good = not os.path.exists(path)
            else:
                content = b""
                if os.path.exists(path):
                    with open(path, "rb") as file:
                        content = file.read()
                if len(promise) == 3:
                    offset, size, byte = int(promise[0]), int(promise[1]), promise[2].encode()
                    good = content[offset:offset + size] == byte * size
                else:
                    good = content in [byte.encode() * int(promise[1]) for byte in promise[0].split("|")]
            if not good:
                sys.exit(1)
    sys.exit(0)


if len(sys.argv) == 4 and sys.argv[1] == "--check":
    check(sys.argv[2], sys.argv[3])

import mmap  # pylint: disable=wrong-import-position

from harness import Cases, PowerFs, fuse_missing, rebuild, scratch_directory, skip  # pylint: disable=wrong-import-position


class Disk:
    """The file system as a case sees it."""

    def __init__(self, mounted):
        self.root = mounted.path
        self.mark_fd = os.open(mounted.mark, os.O_WRONLY)

    def path(self, name):
        return os.path.join(self.root, name)

    def open(self, name, flags=0):
        return os.open(self.path(name), os.O_RDWR | flags, 0o600)

    def make(self, name, size=0):
        """A file that is there for sure, with its size."""
        fd = self.open(name, os.O_CREAT)
        if size:
            os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
        os.close(fd)
        self.sync_directory()

    def sync_directory(self):
        fd = os.open(self.root, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def promise(self, text):
        os.write(self.mark_fd, (text + "\n").encode())

    def close(self):
        os.close(self.mark_fd)


def sectors(fd, first, count, byte, dsync=False):
    """Writes whole sectors from memory that suits O_DIRECT."""
    memory = mmap.mmap(-1, count * SECTOR)
    memory[:] = byte.encode() * (count * SECTOR)
    os.pwritev(fd, [memory], first * SECTOR, os.RWF_DSYNC if dsync else 0)


# ---- Right ways -----------------------------------------------------------------------------------------------------


def right_dsync(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT | os.O_DSYNC)
    for i in range(4):
        sectors(fd, 2 * i, 2, "x")
        disk.promise(f"log {2 * i * SECTOR} {2 * SECTOR} x")
    os.close(fd)


def right_rwf_dsync(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT)
    for i in range(4):
        sectors(fd, 2 * i, 2, "x", dsync=True)
        disk.promise(f"log {2 * i * SECTOR} {2 * SECTOR} x")
    os.close(fd)


def right_dsync_extends(disk):
    disk.make("log")
    fd = disk.open("log", os.O_DSYNC)
    for i in range(4):
        os.pwrite(fd, b"x" * 700, i * 700)
        disk.promise(f"log 0 {700 * (i + 1)} x")
    os.close(fd)


def right_fdatasync(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log")
    for i in range(4):
        sectors(fd, 3 * i, 3, "x")
        os.fdatasync(fd)
        disk.promise(f"log {3 * i * SECTOR} {3 * SECTOR} x")
    os.close(fd)


def right_create(disk):
    fd = disk.open("new", os.O_CREAT)
    os.pwrite(fd, b"x" * 100, 0)
    os.fsync(fd)
    os.close(fd)
    disk.sync_directory()
    disk.promise("new 0 100 x")


def right_rename(disk):
    disk.make("name")
    fd = disk.open("name")
    os.pwrite(fd, b"a" * 1000, 0)
    os.fsync(fd)
    os.close(fd)
    disk.promise("name a|b 1000")
    fd = disk.open("other", os.O_CREAT)
    os.pwrite(fd, b"b" * 1000, 0)
    os.fsync(fd)
    os.close(fd)
    os.rename(disk.path("other"), disk.path("name"))
    disk.sync_directory()
    disk.promise("name 0 1000 b")


def right_remove(disk):
    disk.make("old", SECTOR)
    os.unlink(disk.path("old"))
    disk.sync_directory()
    disk.promise("old -")


# ---- Wrong ways -----------------------------------------------------------------------------------------------------


def wrong_no_sync(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT)
    sectors(fd, 0, 1, "x")
    disk.promise(f"log 0 {SECTOR} x")
    os.close(fd)


def wrong_early_promise(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT)
    sectors(fd, 0, 1, "x")
    disk.promise(f"log 0 {SECTOR} x")
    os.fdatasync(fd)
    os.close(fd)


def wrong_dsync_covers_others(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT)
    sectors(fd, 0, 1, "x")
    sectors(fd, 1, 1, "x", dsync=True)
    disk.promise(f"log 0 {2 * SECTOR} x")
    os.close(fd)


def wrong_other_file(disk):
    disk.make("log", 64 * SECTOR)
    disk.make("other", 64 * SECTOR)
    fd = disk.open("log")
    other = disk.open("other")
    sectors(fd, 0, 1, "x")
    os.fsync(other)
    disk.promise(f"log 0 {SECTOR} x")
    os.close(fd)
    os.close(other)


def wrong_torn(disk):
    disk.make("log")
    fd = disk.open("log")
    os.pwrite(fd, b"a" * 2 * SECTOR, 0)
    os.fsync(fd)
    disk.promise(f"log a|b {2 * SECTOR}")
    os.pwrite(fd, b"b" * 2 * SECTOR, 0)
    os.fsync(fd)
    os.close(fd)


def wrong_torn_large(disk):
    disk.make("log")
    fd = disk.open("log")
    os.pwrite(fd, b"a" * 40 * SECTOR, 0)
    os.fsync(fd)
    disk.promise(f"log a|b {40 * SECTOR}")
    os.pwrite(fd, b"b" * 40 * SECTOR, 0)
    os.fsync(fd)
    os.close(fd)


def wrong_truncate(disk):
    disk.make("log")
    fd = disk.open("log")
    os.pwrite(fd, b"x" * SECTOR, 0)
    os.fsync(fd)
    disk.promise(f"log 0 {SECTOR} x")
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"x" * SECTOR, 0)
    os.fsync(fd)
    os.close(fd)


def wrong_create(disk):
    fd = disk.open("new", os.O_CREAT)
    os.pwrite(fd, b"x" * 100, 0)
    os.fsync(fd)
    os.close(fd)
    disk.promise("new 0 100 x")


def wrong_create_no_content(disk):
    fd = disk.open("new", os.O_CREAT)
    os.pwrite(fd, b"x" * 100, 0)
    os.close(fd)
    disk.sync_directory()
    disk.promise("new 0 100 x")


def wrong_rename_unsynced(disk):
    disk.make("name")
    fd = disk.open("name")
    os.pwrite(fd, b"a" * 1000, 0)
    os.fsync(fd)
    os.close(fd)
    disk.promise("name a|b 1000")
    fd = disk.open("other", os.O_CREAT)
    os.pwrite(fd, b"b" * 1000, 0)
    os.close(fd)
    os.rename(disk.path("other"), disk.path("name"))
    disk.sync_directory()


def wrong_rename_directory(disk):
    disk.make("old", SECTOR)
    os.rename(disk.path("old"), disk.path("new"))
    disk.promise("old -")


def wrong_remove(disk):
    disk.make("old", SECTOR)
    os.unlink(disk.path("old"))
    disk.promise("old -")


def wrong_append(disk):
    disk.make("log")
    fd = disk.open("log")
    os.pwrite(fd, b"x" * 100, 0)
    os.fsync(fd)
    disk.promise("log 0 100 x")
    os.pwrite(fd, b"x" * 100, 100)
    disk.promise("log 0 200 x")
    os.close(fd)


def wrong_size(disk):
    disk.make("log")
    fd = disk.open("log")
    os.pwrite(fd, b"xx", 0)
    os.fsync(fd)
    disk.promise("log x|y 2")
    os.ftruncate(fd, 3)
    os.fsync(fd)
    os.close(fd)


# ---- Counts ---------------------------------------------------------------------------------------------------------


def all_subsets(disk):
    disk.make("log", 64 * SECTOR)
    fd = disk.open("log", os.O_DIRECT)
    sectors(fd, 0, 10, "x")
    os.close(fd)


def run_case(programs, area, name, writer, command, images=0):
    directory = os.path.join(area, name)
    mounted = PowerFs(programs[0], directory)
    disk = Disk(mounted)
    writer(disk)
    disk.close()
    if not mounted.unmount():
        raise RuntimeError("powerfs ended with an error")
    counts, said = rebuild(programs[1], mounted.trace, os.path.join(directory, "out"), command, images=images)
    return counts, said


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    missing = fuse_missing()
    if missing:
        skip(missing)
    programs = sys.argv[1:]
    area = scratch_directory(memory=True)
    cases = Cases()
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__), "--check", "{image}", "{marks}"]
    for name, writer in sorted(globals().items()):
        if name.startswith(("right_", "wrong_")):
            counts, said = run_case(programs, area, name, writer, command)
            good = (counts["failed"] > 0) == name.startswith("wrong_") and counts["images"] > 1
            cases.check(good, name, f"{counts} {said}")
    # Few points before the writing (the file is made, gets its size and is synced), then all subsets of ten sectors
    # both while they are written and after that.
    counts, said = run_case(programs, area, "all_subsets", all_subsets, None)
    cases.check(1024 <= counts["images"] - 1024 <= 1060, "all subsets of ten sectors, twice", f"{counts} {said}")
    counts, said = run_case(programs, area, "budget", all_subsets, None, images=100)
    cases.check(counts["images"] <= 110 and counts["exhaustive"] < counts["points"], "the budget", f"{counts} {said}")
    cases.finish()


main()
