#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A shelfd under programs that come, go and are killed without end: each minute it says what the daemon has, and compares that
with the first minutes. What grows, leaks.

Usage: soak.py SHELFD WORKER [MINUTES]      (0, or none: until stopped)"""

import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'crash'))
from harness import Cases, ended, holdings, run, scratch_directory, start, wait_until  # noqa: E402

SHELFD, WORKER = map(os.path.abspath, sys.argv[1:3])
MINUTES = float(sys.argv[3]) if len(sys.argv) > 3 else 0
PERIOD_S = 60 if MINUTES == 0 or MINUTES >= 10 else MINUTES * 6
WARM = 3          # periods until everything that is kept for later has been made
PERIODS_MIN = 6   # however short the time is: fewer would compare nothing
KIB_AN_HOUR = 512  # what an allocator may wander

cases = Cases()
work = scratch_directory(memory=True)
environment = {key: value for key, value in os.environ.items() if not key.startswith('SHELF_') and key != 'NOTIFY_SOCKET'}
data = os.path.join(work, 'soak')
where = f'unix:{data}/sock'


def round_of(role, count):
    done = run([WORKER, role, where, count, 20], env=environment, timeout_s=600)
    if done.returncode != 0:
        cases.check(False, f'worker {role}', done.stderr)
        cases.finish()
    own = json.loads(done.stdout.splitlines()[-1])
    same = all(own['before'][key] == own['after'][key] for key in ('fds', 'mappings', 'threads'))
    cases.check(same and own['after']['kib'] - own['before']['kib'] <= 192, f'a program that {role}', str(own))


def settled(pid):
    """Descriptors and memory of clients that have just gone are given back in a moment: the least of a few looks."""
    looks = []
    for _ in range(20):
        looks.append(holdings(pid))
        time.sleep(0.05)
    return {key: min(look[key] for look in looks) for key in looks[0]}


def main():
    with open(data + '.log', 'wb') as log:
        daemon = start([SHELFD, '--data', data], stderr=log, stdin=subprocess.DEVNULL, env=environment)
    wait_until(lambda: os.path.exists(data + '/sock') or daemon.poll() is not None, 60, 'shelfd')
    # Some stay all the time, and see that nothing of this is noticed by those who have nothing to do with it.
    lasting = start([WORKER, 'live', where, 1, 1, 1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True, env=environment)
    cases.check(lasting.stdout.readline() == 'ready\n', 'those who stay are there')
    begin, period, first, clients = time.monotonic(), 0, None, 0
    while MINUTES == 0 or period < PERIODS_MIN or time.monotonic() - begin < MINUTES * 60:
        end = begin + (period + 1) * PERIOD_S
        while True:
            round_of('opens', 100)
            round_of('kills', 50)
            clients += 190
            if time.monotonic() >= end:
                break
        period += 1
        now = settled(daemon.pid)
        hours = (time.monotonic() - begin) / 3600
        print(f'{period * PERIOD_S / 60:6.1f} min, {clients} clients: ' + ', '.join(f'{now[key]} {key}' for key in now), flush=True)
        if period == WARM:
            first = now
        if first and period > WARM:
            same = all(now[key] <= first[key] for key in ('fds', 'mappings', 'threads'))
            cases.check(same, 'the daemon has no more descriptors, mappings, threads', f'{first} {now}')
            cases.check(now['kib'] <= first['kib'] + 256 + KIB_AN_HOUR * hours, 'its memory is flat', f'{first} {now}')
        if cases.failed:
            break
    _, err = lasting.communicate(timeout=60)
    ended(lasting)
    cases.check(lasting.returncode == 0, 'those who stay have noticed nothing', err)
    daemon.send_signal(signal.SIGTERM)
    cases.check(daemon.wait(60) == 0, 'end')
    ended(daemon)
    cases.finish()


main()
