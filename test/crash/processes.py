#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The bank over several processes: three writers move money, four readers read all accounts in one transaction after the
other. Writers and the node are killed with SIGKILL at random and replaced at once. No reader ever sees a sum that is torn, an
account that is not what follows from the ledgers, or an older state than before; in the end each transfer is there exactly
once.

  processes.py daemon  WORKER SHELFD SHELF [--kills N] [--seconds N] [--reads N]    the node is shelfd, the others attach to it
  processes.py program WORKER SHELFD SHELF [--kills N] [--seconds N]    whoever is first is the node, and has successors

Until so much time is over, and so many were killed.
"""

import argparse
import os
import signal
import sys
import time

from harness import Cases, scratch_directory, seeded, summary, wait_until
from shared import DEADLINE_S, Bank, Plain, has_begun, listener

WRITERS, READERS = 3, 4
# How long their commits wait: one gives up before a new node is there, and has to ask what became of them.
DEADLINES_MS = [0, 20, 0]


class War:
    def __init__(self, options, cases, choose):
        self.bank = Bank(options, cases, options.node, scratch_directory(memory=True, keep=options.keep))
        self.cases, self.random = cases, choose
        self.daemon = options.node == "daemon"
        self.reads = options.reads
        if not self.daemon:
            self.bank.where = "dir:" + self.bank.data
            self.bank.socket = os.path.join(self.bank.data, "sock")
        self.members = {}
        self.kills = {"node": 0, "writer": 0}
        self.problems = []
        self.lives = 0

    def command(self, name):
        role, number = name.split("-")
        if role == "node":
            return self.bank.shelfd()
        if role == "reader":
            return self.bank.worker("read", "--pause-ms", 1, "--reads", self.reads // READERS if self.daemon else 0)
        number = int(number)
        deadline = DEADLINES_MS[number]
        return self.bank.teller(number, "--pause-ms", 1, *(["--deadline-ms", deadline] if deadline else []),
                                *(["--resend"] if self.random.random() < 0.5 else []))

    def begin(self, name):
        self.lives += 1
        self.members[name] = Plain(self.command(name), self.bank.path(f"{name}.{self.lives}.err"))

    def replace(self, name):
        """Kills one, and starts its successor."""
        member = self.members[name]
        code, said = member.end(signal.SIGKILL)
        if code != -signal.SIGKILL:
            self.problems.append(f"{name} had ended with {code}: {said[-2000:]}")
        self.begin(name)

    def serving(self):
        """Which member is the node; None while there is none."""
        if self.daemon:
            return "node-0"
        pid = listener(self.bank.socket)
        return next((name for name, member in self.members.items() if member.process.pid == pid), None)

    def victim(self):
        if self.random.random() < 0.4:
            node = self.serving()
            if node is not None:
                return node, "node"
        return f"writer-{self.random.randrange(WRITERS)}", "writer"

    def acks(self):
        return sum(marks.acks() for marks in self.bank.marks)

    def fight(self, kills, seconds):
        until = time.monotonic() + seconds
        while (time.monotonic() < until or sum(self.kills.values()) < kills) and not self.problems:
            before = self.acks()
            if self.random.random() < 0.8:  # while work is done; the others while their successors begin
                wait_until(lambda: self.acks() > before + 3 or self.failed(), DEADLINE_S, "the writers to get on")
            time.sleep(self.random.uniform(0.0, 0.04))  # the moment of the kill is the point
            if self.failed():
                break
            name, kind = self.victim()
            self.kills[kind] += 1
            self.replace(name)

    def failed(self):
        """Somebody who has ended without being killed."""
        for name, member in self.members.items():
            if not member.lives():
                with open(member.errors, encoding="utf-8", errors="replace") as file:
                    self.problems.append(f"{name} has ended with {member.process.returncode}: {file.read()[-2000:]}")
        return self.problems

    def all_get_on(self):
        """When nobody is killed any more: each writer, and the readers."""
        before = [marks.acks() for marks in self.bank.marks]
        wait_until(lambda: self.failed() or all(marks.acks() > then for marks, then in zip(self.bank.marks, before)) and
                   all(has_begun(member) for name, member in self.members.items() if name.startswith("reader")),
                   DEADLINE_S, "everybody to get on")

    def end(self):
        """The clients first, then the node. Returns what they counted."""
        node = self.serving()
        reports = {}
        for name in sorted(self.members, key=lambda name: name == node):
            code, said = self.members[name].end()
            self.cases.check(code == 0, f"{self.bank.name}: the end of {name}", f"{code}: {said[-2000:]}")
            reports[name] = summary(said)
        return reports

    def wage(self, kills_min, seconds):
        bank, cases = self.bank, self.cases
        if self.daemon:
            self.begin("node-0")
            bank.served(self.members["node-0"].process)
        bank.make()
        for name in [f"writer-{i}" for i in range(WRITERS)] + [f"reader-{i}" for i in range(READERS)]:
            self.begin(name)
        self.fight(kills_min, seconds)
        if not self.problems:
            self.all_get_on()
        reports = self.end()
        bank.check(WRITERS)
        kills = sum(self.kills.values())
        cases.add(kills, len(self.problems), f"{bank.name}: killed at random", "; ".join(self.problems))
        total = {key: sum(report.get(key, 0) for report in reports.values()) for key in ("reads", "refused", "reconnects")}
        cases.check(self.acks() > kills and all(self.kills.values()), f"{bank.name}: work was done between the kills",
                    f"{self.acks()} transfers, {self.kills}")
        print(f"{bank.name}: {self.kills}, {self.acks()} transfers acknowledged, {total}", flush=True)
        if self.daemon:
            cases.check(total["reads"] >= self.reads, f"{bank.name}: accounts read", str(total))
            cases.check(all(report.get("reconnects", 0) > self.kills["node"] // 2 for name, report in reports.items()
                            if name.startswith("reader")), f"{bank.name}: the same readers at most nodes", str(reports))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node", choices=["daemon", "program"])
    for program in ("worker", "shelfd", "shelf"):
        parser.add_argument(program)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--reads", type=int, default=1000000)
    parser.add_argument("--keep", help="a directory to make, for a store that failed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    cases = Cases()
    War(options, cases, seeded(options.seed)).wage(options.kills, options.seconds)
    cases.finish()


sys.exit(main())
