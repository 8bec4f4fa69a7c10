#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills a client, or the node, with SIGKILL at the steps of the code that shares memory: one life for each instruction
(step.c), or for some of them, evenly spread.

  step.py client STEP WORKER SHELFD SHELF [--points N]    a client that submits one transfer and takes the answer
  step.py node   STEP WORKER SHELFD SHELF [--points N]    shelfd that takes one and answers it; another one takes over
  step.py program ...                                     the same of a program that is the node of its directory

Without --points all are tried. Around the victim others work and read all accounts; the next life of a client, or the
clients of the next node, compare everything with their marks and settle what was in flight (worker.c).
"""

import argparse
import json
import os
import select
import signal
import sys
import threading
import time

from harness import Cases, ended, run, scratch_directory, seeded, spread, start, summary, wait_until
from shared import DEADLINE_S, Bank, Plain, has_begun, listener

# What a client does with its ring, from the request on (src/client/service_call.c, guest.c).
CLIENT = ["service_call", "call_through_ring", "pending_take", "pending_give", "service_pump", "guest_put", "submit_copy",
          "guest_bell", "service_await", "receive", "receiver_begin", "receiver_end", "receiver_pass", "spin_for_news",
          "sleep_for_news", "guest_has_news", "guest_sleep_begin", "guest_sleep_end", "packets_take", "replies_take",
          "guest_reply_take", "pending_of", "waiter_wake", "waiter_sleep", "guest_receive"]

# What it does to be told of changes (wait.c).
WAIT = ["bank_wait", "shelf_wait", "wait_once", "replica_wait", "service_sleep_begin", "service_sleep_end", "waiters_count",
        "guest_of", "world_event_wait"]

# What the node does with a client's ring, from the bell on (src/door), and with the words that sleepers look at.
DOOR = ["ring_activate", "rings_take", "client_take", "cursors_look", "frame_begin", "frame_copy", "frame_end", "submit_copy",
        "room_give", "parcel_make", "parcel_begin", "parcel_done", "parcel_answered", "parcel_account", "session_follow",
        "reply_give", "client_bell", "bell_ring", "rings_rest", "rings_settle", "client_ready", "client_sleep_begin",
        "client_sleep_end", "wakes_note", "wakes_do", "world_event_wake", "apply_publish", "call_done"]
# How it changes the image: lines and their versions, which are many steps of one kind.
APPLY = ["apply_payload", "apply_publish", "range_apply", "line_store", "page_store", "bytes_store", "pages_changed",
         "apply_region_changed"]
# What is stepped through: from where, up to where, which steps count, and how many of them are tried at most.
NODE = [("ring_activate", "events_take", DOOR, None), ("rings_rest", "rings_take", DOOR, None),
        ("ring_activate", "events_take", APPLY, 100)]
# What comes in between and touches nothing that is shared.
OVER = ["admit_request", "overlay_reset", "overlay_find", "overlay_add", "batch_index", "range_prefetch", "crc32c_by_hardware",
        "crc32c", "apply_payload_valid", "apply_has_room", "log_append", "session_reply"]


class Stepped:
    """A program under step."""

    def __init__(self, step, through, to, inside, over, program, errors, at=None, options=()):
        command = [step, "--through", through, "--to", to, "--in", ",".join(inside), *options]
        command += ["--over", ",".join(over)] if over else []
        command += [] if at is None else ["--at", at]
        self.errors = errors
        with open(errors, "wb") as sink:
            self.process = start([*command, "--", *program], stdin=-1, stdout=-1, stderr=sink)
        self.pid = self.line().get("pid")

    def line(self):
        """The next object that step prints; {} if it has ended."""
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        if not ready:
            raise TimeoutError(f"step says nothing for {DEADLINE_S} s")
        return json.loads(self.process.stdout.readline() or "{}")

    def arm(self, at):
        self.process.stdin.write(f"{at}\n".encode())
        self.process.stdin.flush()

    def end(self):
        """Waits; the exit code, and what was said on stderr."""
        code = self.process.wait(timeout=DEADLINE_S)
        self.process.stdin.close()
        self.process.stdout.close()
        ended(self.process)
        return code, self.said()

    def said(self):
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def signal(self, number):
        os.kill(self.pid, number)


def usual(attempt):
    """How many steps there usually are: some transfers are larger than others."""
    return sorted(attempt(0) for _ in range(3))[1]


# ---- A client that is killed ----------------------------------------------------------------------------------------


def rings_of(pid):
    """Rings and descriptors that a node holds."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as lines:
        rings = sum("memfd:shelf-ring" in line for line in lines)
    return rings, len(os.listdir(f"/proc/{pid}/fd"))


class ClientLane(threading.Thread):
    """Lives of one client of one shelfd; `late`: the node is stopped meanwhile, and goes on at some step or, in every other
    life, only when the client sleeps for it."""

    STEPS_MAX = 1000  # about as many as there are
    WAYS = [("teller_main,bank_transfer,service_call", CLIENT), ("teller_main,bank_wait", WAIT)]

    def __init__(self, bank, late, points, choose):
        super().__init__()
        self.bank, self.late, self.points, self.random = bank, late, points, choose
        self.kills = self.ends = 0
        self.seen = set()
        self.gone = 0
        self.problems = []

    def life(self, at):
        """One life, killed before its step `at`; 0: it is not. Returns how many steps it made."""
        bank = self.bank
        command = bank.teller(0, "--transfers", 1, "--gone", self.gone, "--wait-ms", 20,
                              *(["--resend"] if self.random.random() < 0.5 else []))
        through, inside = self.way
        options = []
        if self.late:
            options = ["--hold", str(self.node.process.pid)]
            options += ["--release", str(self.random.randrange(1, self.STEPS_MAX))] if self.random.random() < 0.5 else []
        victim = Stepped(bank.options.step, through, "return", inside, [], command, bank.path("victim.err"), at, options)
        report = victim.line()
        code, said = victim.end()
        self.gone = victim.pid
        self.seen.add(report.get("in", "").split(".")[0])
        if code != 0:
            self.problems.append(f"step {at}: {code}: {said}")
        elif report["killed"]:
            self.kills += 1
        else:
            self.ends += 1
        return report.get("counted", 0)

    def work(self, survivors):
        node = self.node.process.pid
        wait_until(lambda: rings_of(node)[0] == len(survivors), DEADLINE_S, "those beside to be attached")
        before = rings_of(node)
        plan, counts = [], []
        for self.way in self.WAYS:
            counts.append(usual(self.life))
            plan += [(self.way, at) for at in spread(self.random, counts[-1], self.points or counts[-1])]
        self.random.shuffle(plan)  # some of 64 in a row commit, so the session remembers the last one that did
        for self.way, at in plan:
            if not self.problems and all(survivor.lives() for survivor in survivors.values()):
                self.life(at)
        last = run(self.bank.teller(0, "--transfers", 1, "--gone", self.gone))
        self.bank.cases.check(last.returncode == 0, f"{self.bank.name}: the life after the last", last.stderr[-2000:])
        end = time.monotonic() + DEADLINE_S  # the node hears of an end a moment later
        while rings_of(node)[0] > before[0] and time.monotonic() < end:
            time.sleep(0.005)
        return counts, before, rings_of(node)

    def run(self):
        bank, cases = self.bank, self.bank.cases
        self.node = Plain(bank.shelfd(), bank.path("shelfd.err"))
        bank.served(self.node.process)
        bank.make()
        survivors = {"a writer beside": Plain(bank.teller(1, "--pause-ms", 2), bank.path("writer.err")),
                     "a reader beside": Plain(bank.worker("read", "--pause-ms", 2), bank.path("reader.err"))}
        wait_until(lambda: bank.marks[1].acks() > 0 or not survivors["a writer beside"].lives(), DEADLINE_S, "the writer")
        counts, before, after = self.work(survivors)
        reports = bank.survivors_end(survivors)
        cases.check(reports[0].get("acked", 0) > self.kills // 10, f"{bank.name}: others are served", str(reports))
        cases.check(reports[1].get("reads", 0) > self.kills, f"{bank.name}: others read", str(reports))
        cases.check(after[0] == before[0] and after[1] <= before[1] + 2, f"{bank.name}: nothing of the dead remains with the node",
                    f"rings and descriptors {before}, then {after}")
        code, said = self.node.end()
        cases.check(code == 0, f"{bank.name}: the end of shelfd", f"{code}: {said}")
        bank.check(2)
        cases.add(self.kills, len(self.problems), f"{bank.name}: killed at a step", "; ".join(self.problems))
        wanted = {"guest_put", "service_pump", "guest_bell", "guest_reply_take", "receive"}
        slept = {"guest_sleep_begin", "guest_sleep_end", "guest_receive", "packets_take", "sleep_for_news"}
        if not self.points:
            cases.check(wanted <= self.seen and (not self.late or slept & self.seen), f"{bank.name}: steps of all parts",
                        str(self.seen))
        cases.check(self.kills > self.ends, f"{bank.name}: most lives were killed", f"{self.kills}, {self.ends} were not")
        print(f"{bank.name}: {counts} steps, {self.kills} kills, {self.ends} ended before; in {sorted(self.seen)}", flush=True)


def clients(options, cases, choose, area):
    points = options.points and max(options.points // 2, 1)
    lanes = [ClientLane(Bank(options, cases, "client-late" if late else "client", area), late, points,
                        type(choose)(choose.random())) for late in (False, True)]
    return lanes


# ---- A node that is killed ------------------------------------------------------------------------------------------


class NodeLane(threading.Thread):
    """Nodes that are killed one after the other while the same clients go on. The next one is another shelfd, or, in a
    directory, one of the programs that were clients, and the victim comes back as a client."""

    def __init__(self, bank, directory, share, choose):
        super().__init__()
        self.bank, self.directory, self.share, self.random = bank, directory, share, choose
        self.points = bank.options.points
        self.kills = self.ends = 0
        self.way = NODE[0]
        self.seen = set()
        self.problems = []
        self.members = {}
        if directory:
            bank.where = "dir:" + bank.data
            bank.socket = os.path.join(bank.data, "sock")

    def stepped(self, name):
        bank = self.bank
        through, to, inside, _ = self.way
        self.members[name] = Stepped(bank.options.step, through, to, inside, OVER, self.command(name), bank.path(name + ".err"))

    def command(self, name):
        bank = self.bank
        if name == "shelfd":
            return bank.shelfd()
        if name == "reader":
            return bank.worker("read", "--pause-ms", 2)
        number = int(name[-1])
        return bank.teller(number, "--pause-ms", 100 if self.directory else 1, *(["--deadline-ms", 30] if number == 1 else []),
                           *(["--resend"] if self.random.random() < 0.5 else []))

    def acks(self):
        return [marks.acks() for marks in self.bank.marks[:self.tellers]]

    def progress(self, survivors):
        """All tellers have had a transfer acknowledged since now: a node serves, and nobody is stuck."""
        before = self.acks()
        members = [*survivors.values(), *self.members.values()]
        reader = {**survivors, **self.members}["reader"]
        wait_until(lambda: all(now > then for now, then in zip(self.acks(), before)) and has_begun(reader) or
                   any(member.process.poll() is not None for member in members), DEADLINE_S, "everybody to get on")
        for member in members:
            if member.process.poll() is not None:
                with open(member.errors, encoding="utf-8", errors="replace") as file:
                    self.problems.append(f"ended with {member.process.returncode}: {file.read()[-2000:]}")

    def node(self):
        """The member that serves."""
        if not self.directory:
            return "shelfd"
        pid = None
        while pid is None:
            pid = listener(self.bank.socket)
        return next((name for name, member in self.members.items() if member.pid == pid), None)

    def kill(self, at):
        """One node, killed before its step `at`; 0: it is not. Returns how many steps it made."""
        name = self.node()
        victim = self.members[name]
        victim.arm(at)
        report = victim.line()
        self.seen.add(report.get("in", "").split(".")[0])
        if not report or not at or not report["killed"]:
            self.ends += at > 0
            return report.get("counted", 0)
        code, said = victim.end()
        if code != 0:
            self.problems.append(f"step {at}: {code}: {said}")
        self.kills += 1
        self.stepped(name)
        return report["counted"]

    def work(self, survivors):
        counts = []
        for self.way in NODE:
            points = min(self.points or sys.maxsize, self.way[3] or sys.maxsize)
            for member in self.members.values():  # what is stepped changes
                member.signal(signal.SIGTERM)
            for name, member in list(self.members.items()):
                self.bank.cases.check(member.end()[0] == 0, f"{self.bank.name}: the end of {name}", member.said())
                self.stepped(name)
            self.progress(survivors)
            # The smallest transfers are the plan; of some, another thread does all that counts.
            count = min((steps for steps in [self.kill(0) for _ in range(6)] if steps > 0), default=0)
            counts.append(count)
            plan = spread(self.random, count, min(points, count))
            for at in plan[self.share[0]::self.share[1]]:
                kills = self.kills
                for _ in range(3):  # this one may have had fewer
                    if self.kills == kills and not self.problems:
                        self.kill(at)
                        self.progress(survivors)
        return counts

    def begin(self):
        """The node, and who goes on while it is killed."""
        bank = self.bank
        self.tellers = 3 if self.directory else 2
        names = ["teller-0", "teller-1", "teller-2", "reader"] if self.directory else ["shelfd"]
        if not self.directory:
            self.stepped("shelfd")
            bank.served(self.members["shelfd"].process)
        bank.make()
        if self.directory:
            for name in names:
                self.stepped(name)
            return {}
        return {name: Plain(self.command(name), bank.path(name + ".err")) for name in ("teller-0", "teller-1", "reader")}

    def run(self):
        bank, cases = self.bank, self.bank.cases
        survivors = self.begin()
        self.progress(survivors)
        counts = self.work(survivors)
        reports = bank.survivors_end(survivors)
        for name, member in self.members.items():
            member.signal(signal.SIGTERM)
        for name, member in self.members.items():
            code, said = member.end()
            cases.check(code == 0, f"{bank.name}: the end of {name}", f"{code}: {said}")
            reports.append(summary(said))
        bank.check(self.tellers)
        cases.add(self.kills, len(self.problems), f"{bank.name}: killed at a step", "; ".join(self.problems))
        cases.check(self.kills > self.ends, f"{bank.name}: most nodes were killed", f"{self.kills}, {self.ends} were not")
        print(f"{bank.name}: {counts} steps, {self.kills} kills; in {sorted(self.seen)}", flush=True)
        total = {key: sum(report.get(key, 0) for report in reports)
                 for key in ("unknown", "replayed", "away", "reads", "refused", "reconnects", "takeovers")}
        print(f"{bank.name}: {total}", flush=True)
        if not self.directory:
            cases.check(reports[0].get("reconnects", 0) == self.kills + len(NODE), f"{bank.name}: to each node, the same clients", str(reports))
            cases.check(reports[0].get("unknown") == 0, f"{bank.name}: with time to wait, every outcome is learned", str(reports))
            cases.check(total["unknown"] + total["away"] > 0 and total["replayed"] > 0,
                        f"{bank.name}: outcomes were settled", str(total))


def nodes(options, cases, choose, area):
    lanes = ["node-1", "node-2"] if options.victim == "node" else ["program"]
    return [NodeLane(Bank(options, cases, name, area), name == "program", (number, len(lanes)), type(choose)(choose.random()))
            for number, name in enumerate(lanes)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("victim", choices=["client", "node", "program"])
    for program in ("step", "worker", "shelfd", "shelf"):
        parser.add_argument(program)
    parser.add_argument("--points", type=int, default=0)
    parser.add_argument("--keep", help="a directory to make, for a store that failed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    cases = Cases()
    choose = seeded(options.seed)
    area = scratch_directory(memory=True, keep=options.keep)
    lanes = (clients if options.victim == "client" else nodes)(options, cases, choose, area)
    errors = []
    threading.excepthook = lambda args: (errors.append(args), sys.__excepthook__(args.exc_type, args.exc_value, args.exc_traceback))
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    for error in errors:
        cases.check(False, "the driver itself", repr(error.exc_value))
    cases.finish()


sys.exit(main())
