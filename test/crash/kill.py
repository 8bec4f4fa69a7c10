#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills the worker with SIGKILL, at random and at chosen system calls, and lets those calls fail; each time the store
must open again and hold what was promised.

  kill.py random WORKER [--seconds N] [--seed N]    hundreds of kills at random moments, both ways of writing the log
  kill.py inject WORKER [--points N] [--seed N]     strace kills before the N-th call, or makes it fail

Every start of the worker compares the whole store with the marks of all earlier lives before it goes on (worker.c).
"""

import argparse
import concurrent.futures
import functools
import os
import re
import shutil
import signal
import sys
import threading
import time

from harness import Cases, ended, run, scratch_directory, seeded, skip, spread, start, wait_until

# Work that passes through everything within a few transfers: checkpoints, regions that come and go, three tellers.
BUSY = ["--checkpoint-bytes", 1 << 20, "--checkpoint-every", 7, "--regions-every", 3]


def worker_arguments(worker, verb, directory, marks, backend, *more):
    return [worker, verb, "--dir", directory, "--marks", marks, "--backend", backend, *more]


# ---- At random ------------------------------------------------------------------------------------------------------


class Lane(threading.Thread):
    """Kills one worker after the other with one way of writing the log, until the time is over."""

    LIVES = 40  # of a directory; a new one is killed while it is being made, too

    def __init__(self, worker, backend, area, deadline, choose):
        super().__init__()
        self.worker, self.backend, self.area, self.deadline, self.random = worker, backend, area, deadline, choose
        self.kills = self.acked = self.starts = 0
        self.problems = []

    @staticmethod
    def works(marks, before):
        """Whether a few lines have come: some are written while the store is compared."""
        return os.path.exists(marks) and os.path.getsize(marks) > before + 300

    def life(self, directory, marks):
        """One start and one kill. False if something was wrong."""
        tellers = self.random.randint(1, 3)
        arguments = worker_arguments(self.worker, "run", directory, marks, self.backend, "--tellers", tellers, *BUSY)
        errors = marks + ".err"
        with open(errors, "wb") as sink:
            before = os.path.getsize(marks) if os.path.exists(marks) else 0
            process = start(arguments, stdout=sink, stderr=sink)
            if self.random.random() < 0.7:  # while it works; the others while it opens, recovers or compares
                wait_until(lambda: process.poll() is not None or self.works(marks, before), 60, "the worker to work")
            time.sleep(self.random.uniform(0.0, 0.06))  # the moment of the kill is the point
            process.kill()
            process.wait()
            ended(process)
        self.starts += 1
        if process.returncode != -signal.SIGKILL:
            with open(errors, encoding="utf-8", errors="replace") as said:
                self.problems.append(f"{self.backend}: ended with {process.returncode}: {said.read()[-2000:]}")
            return False
        self.kills += 1
        return True

    def check(self, directory, marks):
        done = run(worker_arguments(self.worker, "check", directory, marks, self.backend, "--tellers", 3))
        if done.returncode != 0:
            self.problems.append(f"{self.backend}: check: {done.returncode}: {done.stderr[-2000:]}")
        if os.path.exists(marks):
            with open(marks, encoding="ascii") as lines:
                self.acked += sum(line.startswith("ack") for line in lines)

    def run(self):
        number = 0
        while time.monotonic() < self.deadline and not self.problems:
            directory = os.path.join(self.area, f"{self.backend}-{number}")
            marks = directory + ".marks"
            number += 1
            for _ in range(self.LIVES):
                if time.monotonic() > self.deadline or not self.life(directory, marks):
                    break
            self.check(directory, marks)
            if not self.problems:
                shutil.rmtree(directory, ignore_errors=True)


def kill_at_random(options, cases):
    choose = seeded(options.seed)
    area = scratch_directory(memory=False, keep=options.keep)
    deadline = time.monotonic() + options.seconds
    lanes = [Lane(options.worker, backend, area, deadline, type(choose)(choose.random()))
             for backend in ("plain", "uring")]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
        cases.add(lane.kills, len(lane.problems), f"kill at random, {lane.backend}", "; ".join(lane.problems))
        cases.check(lane.acked > lane.kills, f"{lane.backend}: work was done between the kills",
                    f"{lane.acked} transfers in {lane.kills} lives")
        print(f"{lane.backend}: {lane.kills} kills, {lane.acked} transfers acknowledged", flush=True)


# ---- At chosen calls ------------------------------------------------------------------------------------------------

# The calls that change the disk. The worker's marks are written with write(), which is not among them.
WRITES = ["pwrite64", "pwritev", "pwritev2"]
SYNCS = ["fdatasync", "fsync", "sync_file_range"]
NAMES = ["fallocate", "ftruncate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"]
RING = ["io_uring_enter"]
IO, NO_SPACE = 17, 4


def strace(what, output, command):
    calls = ",".join(what)
    return ["strace", "-f", "-qq", "-o", output, "-e", f"trace={calls}", "-e", "signal=none", *command]


def inject(call, number, effect, output, command):
    return ["strace", "-f", "-qq", "-o", output, "-e", f"trace={call}", "-e", "signal=none",
            "-e", f"inject={call}:{effect}:when={number}", *command]


class Injection:
    """Runs a short workload with one call killed or failing, then checks."""

    def __init__(self, options, cases, backend):
        self.worker, self.cases, self.backend = options.worker, cases, backend
        self.area = scratch_directory(memory=True, keep=options.keep and os.path.join(options.keep, backend))
        self.stops = self.happened = 0

    def command(self, directory, verb="run", more=("--transfers", 24, *BUSY)):
        return worker_arguments(self.worker, verb, directory, directory + ".marks", self.backend, *more)

    def counts(self, calls):
        """How often each call is made by the thread that makes it most often: what `when` counts."""
        directory = os.path.join(self.area, "counts")
        output = directory + ".strace"
        done = run(strace(calls, output, self.command(directory)))
        self.cases.check(done.returncode == 0, f"{self.backend}: the workload under strace", done.stderr[-2000:])
        seen = {}
        with open(output, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                match = re.match(r"(\d+) +(\w+)\(", line)
                if match:
                    threads = seen.setdefault(match.group(2), {})
                    threads[match.group(1)] = threads.get(match.group(1), 0) + 1
        shutil.rmtree(directory, ignore_errors=True)
        return {call: max(threads.values()) for call, threads in seen.items()}

    def case(self, call, number, effect, allowed):
        """One case: the workload ends in an allowed way, and the store is right afterwards."""
        name = f"{self.backend}: {call} number {number}: {effect}"
        directory = os.path.join(self.area, f"{call}-{number}-{effect}")
        output = directory + ".strace"
        done = run(inject(call, number, effect, output, self.command(directory)))
        with open(output, encoding="utf-8", errors="replace") as lines:
            happened = re.search(r"killed by SIGKILL|INJECTED", lines.read()) is not None
        if done.returncode == 0 and not happened:  # no two lives are alike: this one made fewer calls
            shutil.rmtree(directory, ignore_errors=True)
            return
        self.happened += 1
        good = done.returncode in allowed
        detail = f"ended with {done.returncode}, not one of {sorted(allowed)}: {done.stderr[-2000:]}"
        if good and done.returncode == IO:
            self.stops += 1
            good = re.search(r"the node has stopped|errno|IO", done.stderr) is not None
            detail = f"stopped without saying why: {done.stderr[-2000:]}"
        if good:
            after = run(self.command(directory, "check", ("--tellers", 1, "--transfers", 3)))
            good = after.returncode == 0
            detail = f"the check ended with {after.returncode}: {after.stderr[-2000:]}"
        if self.cases.check(good, name, detail):
            shutil.rmtree(directory, ignore_errors=True)
            os.unlink(output)

    def plan(self, calls, points, choose):
        """The cases, as functions without arguments."""
        counts = self.counts(calls)
        print(f"{self.backend}: {counts}", flush=True)
        self.cases.check(any(call in counts for call in WRITES + RING),
                         f"{self.backend}: the log is written by known calls", str(counts))
        for call, count in sorted(counts.items()):
            some = points if call in WRITES + RING else max(points // 3, 1)
            for number in spread(choose, count, some):
                yield functools.partial(self.case, call, number, "signal=SIGKILL", {-signal.SIGKILL})
            if call in WRITES + SYNCS:
                for number in spread(choose, count, max(points // 3, 1)):
                    yield functools.partial(self.case, call, number, "error=EIO", {IO})
            if call in WRITES + ["fallocate"]:
                for number in spread(choose, count, max(points // 3, 1)):
                    yield functools.partial(self.case, call, number, "error=ENOSPC", {0, NO_SPACE})


def kill_at_calls(options, cases):
    choose = seeded(options.seed)
    if shutil.which("strace") is None or run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode != 0:
        skip("strace cannot trace here, so no call can be chosen")
    plain, uring = Injection(options, cases, "plain"), Injection(options, cases, "uring")
    plan = list(plain.plan(WRITES + SYNCS + NAMES, options.points, choose))
    plan += uring.plan(WRITES + SYNCS + NAMES + RING, options.points // 2, choose)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(case) for case in plan]:
            done.result()
    cases.check(plain.happened + uring.happened > len(plan) * 9 // 10, "what was injected has happened",
                f"{plain.happened} and {uring.happened} of {len(plan)}")
    cases.check(plain.stops > 0 and uring.stops > 0, "failed writes and syncs stopped the node",
                f"{plain.stops} and {uring.stops} times")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["random", "inject"])
    parser.add_argument("worker")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--keep", help="a directory to make, for stores that failed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    cases = Cases()
    (kill_at_random if options.mode == "random" else kill_at_calls)(options, cases)
    cases.finish()


sys.exit(main())
