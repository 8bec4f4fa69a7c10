# SPDX-License-Identifier: Apache-2.0
"""What the drivers of the crash tests share: counting cases, processes that are always ended, mounts that are always
undone.

Nothing here is found by name: a process is ended by its id, a mount by its path.
"""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
MOUNT_DEADLINE_S = 10


class Cases:
    """Counts real cases, from any thread; the last line is what the test runner counts."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def check(self, good, name, detail=""):
        self.add(int(bool(good)), int(not good), name, detail)
        return good

    def add(self, passed, failed, name, detail=""):
        with self.lock:
            self.passed += passed
            self.failed += failed
            if failed:
                share = f": {failed} of {passed + failed}" if passed + failed > 1 else ""
                print(f"FAILED: {name}{share}{': ' if detail else ''}{detail}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def skip(reason):
    print(f"skipped: {reason}", flush=True)
    sys.exit(SKIPPED)


# ---- Things to undo -------------------------------------------------------------------------------------------------

_processes = []
_undo = []


def _clean():
    for process in _processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    while _undo:
        _undo.pop()()


def at_end(action):
    """Runs `action` when the driver ends, however it ends; the last one first."""
    _undo.append(action)


atexit.register(_clean)
for _number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(_number, lambda number, _: sys.exit(128 + number))


def start(arguments, **options):
    process = subprocess.Popen([str(argument) for argument in arguments], **options)
    _processes.append(process)
    return process


def ended(process):
    """To be called once the process was waited for: its id may belong to somebody else from now on."""
    if process in _processes:
        _processes.remove(process)


def run(arguments, timeout_s=120, **options):
    """Runs to the end; returns the completed process with its output as text."""
    process = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"\nnot ended after {timeout_s} s"
    ended(process)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def summary(out):
    """The object that a worker prints last."""
    lines = out.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}


def scratch_directory(memory, keep=None):
    """A directory of this run's own, removed at the end. In memory for speed, or where files usually are. One that is
    to be kept for looking at is `keep`."""
    if keep:
        os.makedirs(keep, exist_ok=True)
        return keep
    where = "/dev/shm" if memory and os.access("/dev/shm", os.W_OK) else None
    path = tempfile.mkdtemp(prefix="shelf-crash-", dir=where)
    at_end(lambda: shutil.rmtree(path, ignore_errors=True))
    return path


def wait_until(condition, deadline_s, what):
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s} s for {what}")
        time.sleep(0.005)


def listener(path):
    """The id of the process that listens on a socket: the node's. None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        try:
            client.connect(path)
        except OSError:
            return None
        return struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def threads_of(pid):
    """Its own; the kernel's io workers come and go."""
    tasks = f"/proc/{pid}/task"
    count = 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/comm", encoding="ascii") as name:
            count += not name.read().startswith("iou-")
    return count


def holdings(pid):
    """What a process has: descriptors, mappings, threads, KiB of memory of its own."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        mappings = sum(1 for _ in file)
    return {"fds": len(os.listdir(f"/proc/{pid}/fd")), "mappings": mappings, "threads": threads_of(pid),
            "kib": int(status["RssAnon"].split()[0])}


# ---- powerfs --------------------------------------------------------------------------------------------------------


def fuse_missing():
    """Why there can be no FUSE file system here; None if there can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened, so no file system can record writes"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian package fuse3)"
    return None


class PowerFs:
    """A mounted powerfs; `path` is where to work, `trace` what was recorded once it is unmounted."""

    def __init__(self, powerfs, directory, back=None, delay_us=100, fail=None):
        self.path = os.path.join(directory, "mount")
        self.back = back or os.path.join(directory, "back")
        self.trace = os.path.join(directory, "trace")
        os.makedirs(self.path)
        os.makedirs(self.back, exist_ok=True)
        device = os.stat(self.path).st_dev
        arguments = [powerfs, "--back", self.back, "--trace", self.trace, "--mount", self.path]
        self.process = start(arguments + ["--delay-us", delay_us] + (fail or []))
        at_end(self.unmount)
        wait_until(lambda: self.process.poll() is not None or os.stat(self.path).st_dev != device,
                   MOUNT_DEADLINE_S, "powerfs to mount")
        if self.process.poll() is not None:
            raise RuntimeError("powerfs did not start")

    @property
    def mark(self):
        return os.path.join(self.path, ".mark")

    def unmount(self):
        """Ends powerfs; True if it ended as it should."""
        if self.process is None:
            return True
        process, self.process = self.process, None
        subprocess.run(["fusermount3", "-u", self.path], check=False, stderr=subprocess.DEVNULL)
        try:
            code = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=False)
            process.kill()
            code = process.wait()
        ended(process)
        return code == 0


def rebuild(program, trace, out, command, seed=1, images=0, jobs=2, marks=None, timeout_s=900):
    """Builds and checks images; returns (counts, what the checks said). Without a command it only counts."""
    os.makedirs(out, exist_ok=True)
    arguments = [program, "--trace", trace, "--out", out, "--seed", seed, "--images", images, "--jobs", jobs]
    arguments += ["--marks", marks] if marks else []
    done = run([*arguments, *(["--", *command] if command else ["--count"])], timeout_s=timeout_s)
    words = done.stdout.strip().splitlines()[-1].split() if done.stdout.strip() else []
    counts = {words[i]: int(words[i + 1]) for i in range(0, len(words) - 1, 2) if words[i + 1].isdigit()}
    if done.returncode not in (0, 1) or "images" not in counts:
        raise RuntimeError(f"rebuild failed: {done.stderr}")
    return counts, done.stderr


def seeded(seed):
    print(f"seed {seed}", flush=True)
    return random.Random(seed)


def spread(choose, count, points):
    """Numbers from 1 to count: all, or so many, one from each part."""
    if count <= points:
        return list(range(1, count + 1))
    return sorted({choose.randint(i * count // points + 1, (i + 1) * count // points) for i in range(points)})
