#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fills the disk under the worker: a small ext4 file system in a file.

  full.py WORKER

Writers get NO_SPACE, readers and those who need no more space go on; when there is space again, writers go on too, and
nothing is lost.
"""

import os
import shutil
import subprocess
import sys
import time

from harness import Cases, at_end, ended, run, scratch_directory, skip, start, summary, wait_until

MIB = 1 << 20
DISK_SIZE = 320 * MIB
NO_SPACE = 4
HOARD = 1200  # records of 8 KiB, twice on the disk: about 19 MiB


class Disk:
    """A mounted file system of its own."""

    def __init__(self, area):
        self.path = os.path.join(area, "disk")
        file = os.path.join(area, "disk.ext4")
        os.makedirs(self.path)
        with open(file, "wb") as content:
            content.truncate(DISK_SIZE)
        made = run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", file])
        if made.returncode != 0:
            raise RuntimeError(f"mkfs.ext4: {made.stderr}")
        mounted = run(["mount", "-o", "loop", file, self.path])
        if mounted.returncode != 0:
            skip(f"a loop file system cannot be mounted here: {mounted.stderr.strip()}")
        at_end(lambda: subprocess.run(["umount", self.path], check=False))

    def free(self):
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def ballast(self, name, leave):
        """Takes all space but `leave` bytes."""
        path = os.path.join(self.path, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        size = max(self.free() - leave, 0)
        step = 16 * MIB
        offset = 0
        while step >= 4096:
            if offset + step > size:
                step //= 2
                continue
            try:
                os.posix_fallocate(fd, offset, step)
                offset += step
            except OSError:
                step //= 2
        os.close(fd)
        return path


class Store:
    def __init__(self, worker, disk, area, name):
        self.directory = os.path.join(disk.path, name)
        self.marks = os.path.join(area, name + ".marks")
        self.worker = worker

    def command(self, verb, *more):
        return [self.worker, verb, "--dir", self.directory, "--marks", self.marks, "--tellers", "2",
                "--checkpoint-bytes", MIB, *more]

    def lines(self, word):
        if not os.path.exists(self.marks):
            return 0
        with open(self.marks, encoding="ascii") as marks:
            return sum(line.startswith(word) for line in marks)


def grows_full(cases, store, disk):
    """The disk runs full while the worker writes; then there is space again."""
    made = run(store.command("run", "--transfers", "20"))
    cases.check(made.returncode == 0, "a store on a small disk", made.stderr)
    ballast = disk.ballast("ballast", leave=8 * MIB)
    process = start(store.command("run", "--transfers", "0", "--checkpoint-every", "50", "--hoard", HOARD,
                                  "--space-wait-ms", "60000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: process.poll() is not None or store.lines("full") > 0, 60, "the disk to be full")
    cases.check(process.poll() is None, "NO_SPACE does not end the worker")
    before, hoarded = store.lines("ack"), store.lines("hoarded")
    wait_until(lambda: process.poll() is not None or store.lines("ack") > before + 100, 60, "transfers on a full disk")
    cases.check(process.poll() is None, "what needs no more space goes on: transfers and checkpoints")
    cases.check(0 < hoarded < HOARD, "the disk was full in the midst of the work", f"{hoarded} records")
    os.unlink(ballast)
    out, err = process.communicate(timeout=90)
    ended(process)
    said = summary(out)
    cases.check(process.returncode == 0, "writing goes on when there is space again", err[-2000:])
    cases.check(said.get("waits", 0) > 0 and said.get("checkpoints", 0) > 0, "it waited for space, and wrote checkpoints",
                str(said))
    cases.check(store.lines(f"hoarded {HOARD}") == 1, "all was written in the end")
    after = run(store.command("check"))
    cases.check(after.returncode == 0, "nothing is lost", after.stderr[-2000:])


def stays_full(cases, store, disk):
    """Not a byte is free: transfers, checkpoints, a kill and recovery need none."""
    ballast = disk.ballast("ballast", leave=0)
    cases.check(disk.free() < MIB, "the disk is full", f"{disk.free()} bytes are free")
    full = run(store.command("run", "--transfers", "100", "--checkpoint-every", "10", "--space-wait-ms", "2000"))
    said = summary(full.stdout)
    cases.check(full.returncode == 0, "work on a full disk", full.stderr[-2000:])
    cases.check(said.get("checkpoints", 0) > 0, "checkpoints on a full disk", str(said))
    before = store.lines("ack")
    process = start(store.command("run", "--transfers", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: process.poll() is not None or store.lines("ack") > before + 50, 60, "transfers")
    process.kill()
    process.communicate()
    ended(process)
    after = run(store.command("check"))
    cases.check(after.returncode == 0, "recovery on a full disk", after.stderr[-2000:])
    regions = run(store.command("run", "--transfers", "12", "--regions-every", "1"))
    cases.check(regions.returncode == 0, "a region that finds no space changes nothing", regions.stderr[-2000:])
    os.unlink(ballast)


def no_room(cases, store, disk):
    """A store cannot be made on a full disk; once there is space, it can, in the same place."""
    ballast = disk.ballast("ballast", leave=10 * MIB)
    refused = run(store.command("run", "--transfers", "5"))
    cases.check(refused.returncode == NO_SPACE, "no store on a full disk", f"{refused.returncode}: {refused.stderr}")
    os.unlink(ballast)
    made = run(store.command("run", "--transfers", "5"))
    cases.check(made.returncode == 0, "a store in the same place", made.stderr[-2000:])
    after = run(store.command("check", "--transfers", "3"))
    cases.check(after.returncode == 0, "it is whole", after.stderr[-2000:])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if os.geteuid() != 0:
        skip("only root can mount a small disk")
    if shutil.which("mkfs.ext4") is None:
        skip("mkfs.ext4 is not installed (Debian package e2fsprogs)")
    area = scratch_directory(memory=True)
    cases = Cases()
    disk = Disk(area)
    began = time.monotonic()
    store = Store(sys.argv[1], disk, area, "store")
    grows_full(cases, store, disk)
    stays_full(cases, store, disk)
    shutil.rmtree(store.directory)
    no_room(cases, Store(sys.argv[1], disk, area, "other"), disk)
    print(f"{time.monotonic() - began:.1f} s", flush=True)
    cases.finish()


main()
