#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lets the power fail under the worker at every point of its life, and checks what the disk could have left.

  power.py WORKER POWERFS REBUILD --backend plain|uring [--images N] [--seed N] [--long]

Lives on powerfs, each recorded and rebuilt (rebuild.c has the model):
  first     the store is begun, and killed; it is made; transfers of two tellers, checkpoints, regions; killed again;
            recovered, more transfers, ended in order; opened again
  recovery  the disk of a power failure in the midst of the first life is recovered, and the power fails during that
Every image is opened by the checker, which compares all of it with the marks made by then, and on some makes a few more
transfers, closes, opens and compares again. On top, the N-th write or sync of powerfs fails with EIO or ENOSPC, which
tests the errors of io_uring too.
"""

import argparse
import os
import shutil
import signal
import struct
import sys
import time

from harness import (Cases, PowerFs, ended, fuse_missing, rebuild, run, scratch_directory, seeded, skip, spread, start, summary,
                     wait_until)

IO, NO_SPACE = 17, 4
TELLERS = 2


class Power:
    def __init__(self, options, cases):
        self.options, self.cases = options, cases
        self.area = scratch_directory(memory=True, keep=options.keep)
        self.backend = options.backend
        self.random = seeded(options.seed)

    def worker(self, mounted, marks, transfers, *more):
        return [self.options.worker, "run", "--dir", os.path.join(mounted.path, "store"), "--marks", marks,
                "--mirror", mounted.mark, "--backend", self.backend, "--tellers", TELLERS,
                "--transfers", transfers, "--checkpoint-bytes", 1 << 20, *more]

    def checker(self):
        return [self.options.worker, "check", "--dir", "{image}/store", "--marks", "{marks}", "--backend", self.backend,
                "--tellers", str(TELLERS), "--transfers", "{some}"]

    def work(self, name, arguments):
        done = run(arguments)
        self.cases.check(done.returncode == 0, f"{self.backend}: {name}: the work", done.stderr[-3000:])
        return summary(done.stdout)

    def work_killed(self, arguments, enough):
        """Kills the worker once there was enough."""
        process = start(arguments)
        wait_until(lambda: process.poll() is not None or enough(), 60, "the worker to work")
        process.send_signal(signal.SIGKILL)
        process.wait()
        ended(process)
        self.cases.check(process.returncode == -signal.SIGKILL, f"{self.backend}: the worker was killed",
                         f"it ended with {process.returncode}")

    def rebuild(self, name, trace, images, marks=None):
        began = time.monotonic()
        out = os.path.join(self.area, f"images-{name}")
        counts, said = rebuild(self.options.rebuild, trace, out, self.checker(), seed=self.options.seed,
                               images=images, marks=marks)
        self.cases.add(counts["images"] - counts["failed"], counts["failed"],
                       f"{self.backend}: power loss, {name}", f"images are in {out}\n{said[-6000:]}")
        print(f"{self.backend}: {name}: {counts}, {time.monotonic() - began:.1f} s", flush=True)

    def first(self, images):
        directory = os.path.join(self.area, "first")
        marks = os.path.join(self.area, "first.marks")
        mounted = PowerFs(self.options.powerfs, directory)
        scale = 4 if self.options.long else 1
        duties = ["--checkpoint-every", 9, "--regions-every", 4]
        store = os.path.join(mounted.path, "store")
        self.work_killed(self.worker(mounted, marks, 0, *duties), lambda: os.path.exists(store))
        self.work_killed(self.worker(mounted, marks, 0, *duties), lambda: lines_of(marks) > 60 * scale)
        again = self.work("first, after a kill", self.worker(mounted, marks, 9 * scale, *duties))
        self.cases.check(again.get("recovered_records", 0) > 0, f"{self.backend}: the log was replayed", str(again))
        self.cases.check(again.get("checkpoints", 0) > 0, f"{self.backend}: a checkpoint was written", str(again))
        self.cases.check(again.get("backend") == self.backend, f"{self.backend} was in use", str(again))
        self.work("first, after a close", self.worker(mounted, marks, 3, "--leave"))
        self.cases.check(mounted.unmount(), "powerfs ended as it should")
        self.rebuild("first", mounted.trace, images)
        return mounted.trace

    def image_take(self, name, trace, point):
        """The disk of one failure, and the marks made by then."""
        out = os.path.join(self.area, name)
        os.makedirs(out, exist_ok=True)
        run([self.options.rebuild, "--trace", trace, "--out", out, "--seed", self.options.seed,
             "--only", f"{point}:1", "--", "true"])
        image, marks = os.path.join(out, "image-0"), os.path.join(out, "marks-0")
        return (image, marks) if os.path.exists(image) else (None, None)

    def recovery(self, trace, number, images):
        """Recovers from a failure, with failures during that."""
        name = f"recovery-{number}"
        image, marks = None, None
        entries = len(trace_entries(trace))
        while image is None:  # not every entry of the trace is a point
            point = self.random.randrange(entries // 3, entries)
            image, marks = self.image_take(f"{name}-{point}", trace, point)
        directory = os.path.join(self.area, name)
        mounted = PowerFs(self.options.powerfs, directory, back=image)
        before = marks + ".before"
        shutil.copyfile(marks, before)
        self.work(name, self.worker(mounted, marks, 2, "--leave"))
        self.cases.check(mounted.unmount(), "powerfs ended as it should")
        self.rebuild(name, mounted.trace, images, before)

    def failing_work(self, name, fail):
        """A short life on a powerfs of its own. Returns it, the marks and how the work ended."""
        directory = os.path.join(self.area, name)
        marks = directory + ".marks"
        mounted = PowerFs(self.options.powerfs, directory, delay_us=0, fail=fail)
        done = run(self.worker(mounted, marks, 12, "--checkpoint-every", 5, "--regions-every", 3))
        return mounted, marks, done

    def errors(self, points):
        """The N-th write or sync fails, once. Nothing may be acknowledged after an EIO, and the store opens again."""
        mounted, _, done = self.failing_work("error-none", None)
        self.cases.check(done.returncode == 0 and mounted.unmount(), f"{self.backend}: work without errors", done.stderr)
        counts = trace_counts(mounted.trace)
        before = self.cases.passed + self.cases.failed
        for kind, error, allowed in (("write", "EIO", {IO}), ("sync", "EIO", {IO}), ("write", "ENOSPC", {0, NO_SPACE})):
            for number in spread(self.random, counts[kind], points):
                self.error(kind, error, number, allowed)
        self.cases.check(self.cases.passed + self.cases.failed >= before + 3 * points,
                         f"{self.backend}: the failures that were asked for have happened")

    def error(self, kind, error, number, allowed):
        code = {"EIO": 5, "ENOSPC": 28}[error]
        name = f"{self.backend}: {kind} {number} fails with {error}"
        mounted, marks, done = self.failing_work(f"error-{kind}-{error}-{number}",
                                                 [f"--fail-{kind}", number, "--fail-errno", code])
        if not os.path.exists(mounted.trace + ".failed"):  # no two lives are alike: this one ended before
            mounted.unmount()
            return
        if self.cases.check(done.returncode in allowed, name, f"ended with {done.returncode}: {done.stderr[-2000:]}"):
            check = [self.options.worker, "check", "--dir", os.path.join(mounted.path, "store"), "--marks", marks,
                     "--backend", self.backend, "--tellers", TELLERS]
            after = run(check)
            self.cases.check(after.returncode == 0, f"{name}: afterwards", after.stderr[-2000:])
        mounted.unmount()


def lines_of(path):
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as content:
        return content.read().count(b"\n")


def trace_entries(path):
    """The kind and flags of each entry of a trace (trace.h)."""
    entries, offset = [], 0
    with open(path, "rb") as trace:
        content = trace.read()
    while offset + 48 <= len(content):
        kind, flags = struct.unpack_from("<HH", content, offset + 4)
        entries.append((kind, flags))
        offset += 48 + struct.unpack_from("<I", content, offset + 40)[0]
    return entries


def trace_counts(path):
    kinds = [kind for kind, _ in trace_entries(path)]
    return {"write": kinds.count(5), "sync": kinds.count(7)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worker")
    parser.add_argument("powerfs")
    parser.add_argument("rebuild")
    parser.add_argument("--backend", choices=["plain", "uring"], required=True)
    parser.add_argument("--images", type=int, default=360, help="of the first life")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--keep", help="a directory to make, for traces and images that failed")
    options = parser.parse_args()
    missing = fuse_missing()
    if missing:
        skip(missing)
    cases = Cases()
    power = Power(options, cases)
    images = options.images * (4 if options.long else 1)
    trace = power.first(images)
    for number in range(4 if options.long else 2):
        power.recovery(trace, number, images // 6)
    power.errors(24 if options.long else 6)
    cases.finish()


sys.exit(main())
