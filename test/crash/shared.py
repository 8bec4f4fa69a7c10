# SPDX-License-Identifier: Apache-2.0
"""A shelf that several processes share, with the bank in it: what step.py and processes.py have in common."""

import os
import signal

from harness import ended, listener, run, start, summary, wait_until

DEADLINE_S = 60


class Plain:
    """A program that works beside the victim."""

    def __init__(self, command, errors):
        self.errors = errors
        with open(errors, "wb") as sink:
            self.process = start(command, stdout=sink, stderr=sink)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(timeout=DEADLINE_S)
        ended(self.process)
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return code, file.read()

    def lives(self):
        return self.process.poll() is None


def has_begun(reader):
    """Whether a reader has said so; a program that has not begun cannot be told to end."""
    return os.path.getsize(reader.errors) > 0


class Marks:
    """A marks file, and how many of its lines acknowledge a transfer."""

    def __init__(self, path):
        self.path, self.at, self.count = path, 0, 0

    def acks(self):
        if os.path.exists(self.path):
            with open(self.path, "rb") as file:
                file.seek(self.at)
                new = file.read()
            new = new[:new.rfind(b"\n") + 1]
            self.at += len(new)
            self.count += sum(line.startswith(b"ack") for line in new.splitlines())
        return self.count


class Bank:
    """A shelf with a bank in it, and the programs around it."""

    def __init__(self, options, cases, name, area):
        self.options, self.cases, self.name = options, cases, name
        self.area = os.path.join(area, name)
        os.makedirs(self.area)
        self.data = os.path.join(self.area, "shelf")
        self.socket = os.path.join(self.area, "s")
        self.where = "unix:" + self.socket
        self.marks = [Marks(self.path(f"marks-{i}")) for i in range(3)]

    def path(self, name):
        return os.path.join(self.area, name)

    def worker(self, role, *more):
        return [self.options.worker, role, "--where", self.where, *more]

    def teller(self, number, *more):
        return self.worker("run", "--marks", self.marks[number].path, "--first", number, *more)

    def shelfd(self):
        return [self.options.shelfd, "--data", self.data, "--socket", self.socket, "--log-level", "warning"]

    def served(self, process):
        wait_until(lambda: process.poll() is not None or listener(self.socket) is not None, DEADLINE_S, "the node")

    def make(self):
        """The bank itself, before others come."""
        done = run(self.teller(0, "--transfers", 1))
        self.cases.check(done.returncode == 0, f"{self.name}: making the bank", done.stderr[-2000:])

    def check(self, tellers):
        """When all have ended."""
        marks = [word for marks in self.marks[:tellers] for word in ("--marks", marks.path)]
        done = run([self.options.worker, "check", "--dir", self.data, *marks, "--tellers", tellers])
        self.cases.check(done.returncode == 0, f"{self.name}: the store at the end", f"{done.returncode}: {done.stderr[-2000:]}")
        done = run([self.options.shelf, "verify", self.data])
        self.cases.check(done.returncode == 0, f"{self.name}: shelf verify", f"{done.returncode}: {done.stdout}{done.stderr}")

    def survivors_end(self, survivors):
        """Those that nobody killed. Returns what they counted."""
        reports = []
        for name, survivor in survivors.items():
            code, said = survivor.end()
            self.cases.check(code == 0, f"{self.name}: {name}", f"{code}: {said[-2000:]}")
            reports.append(summary(said))
        return reports
