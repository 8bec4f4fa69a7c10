# SPDX-License-Identifier: Apache-2.0
"""Processes of the exchange, each with successors: what the tests of its gateways share, on one machine and on several."""

import json
import os
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'test', 'crash'))
from harness import ended, run, start  # noqa: E402

REAL = os.path.join(ROOT, '..', 'shared', 'data', 'market', 'bitstamp-2015-05-01-orders.csv.xz')
REAL_EVENTS = 50414
FLOW_EVENTS = 30000
GATEWAYS = 3
KILLED = -signal.SIGKILL
DEADLINE_S = 120


def source_main():
    """The events to work through, and how many they are: real ones if they are beside the repository."""
    if os.path.exists(REAL):
        return ['--input', REAL], REAL_EVENTS
    print('no real data here: the made-up flow instead')
    return ['--generate', FLOW_EVENTS, '--seed', 7], FLOW_EVENTS


def number_in(path):
    """What a process has promised so far; -1 before its first promise."""
    try:
        with open(path, encoding='ascii') as file:
            return int(file.read() or -1)
    except FileNotFoundError:
        return -1


class Role:
    """A process that has successors: each life ends with a kill, and the next one begins where it was."""

    def __init__(self, bed, name, command, promises=True):
        self.bed, self.name, self.command = bed, name, command
        self.acks = os.path.join(bed.work, name + '.acks') if promises else None
        self.output = os.path.join(bed.work, name + '.out')
        self.process = None
        self.promised = -1

    def begin(self, *more):
        arguments = [*self.command, *more, *(['--acks', self.acks] if self.acks else [])]
        if self.acks and os.path.exists(self.acks):
            os.remove(self.acks)
        with open(self.output, 'wb') as out, open(self.output + '.err', 'wb') as err:
            self.process = start(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def text(self, ending=''):
        with open(self.output + ending, encoding='utf-8') as file:
            return file.read()

    def end(self, *codes):
        """Waits for the end, which must be one of these."""
        check = self.bed.cases.check
        try:
            code = self.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = f'still there after {DEADLINE_S} s, killed: {self.process.wait()}'
        ended(self.process)
        good = check(code in codes, f'the end of {self.name}', f'{code}: {self.text(".err")}')
        if self.acks:
            now = number_in(self.acks)
            check(now == -1 or now >= self.promised, f'{self.name} never goes back', f'{self.promised}, then {now}')
            self.promised = max(now, self.promised)
        return good

    def summary(self):
        return json.loads(self.text())


class Bed:
    """Where they run: the program, a directory for what they say, and the count of what was checked."""

    def __init__(self, cases, program, work):
        self.cases, self.program, self.work = cases, os.path.abspath(program), work

    def exchange(self, command, where, *arguments):
        return run([self.program, command, '--where', where, *arguments], stdin=subprocess.DEVNULL)

    def done(self, result):
        """The JSON object of a command that must succeed."""
        if not self.cases.check(result.returncode == 0, f'{result.args[1:]}', f'{result.returncode}: {result.stderr}'):
            return {}
        return json.loads(result.stdout)

    def is_same(self, where, events):
        report = self.done(self.exchange('check', where, '--json'))
        self.cases.check(report.get('ok') is True and len(report.get('checks', [])) == 8 and report.get('position') == events,
                         f'check of {events} events', json.dumps(report))
        return report

    def gateway(self, where, number, source, batch):
        return Role(self, f'gateway{number}', [self.program, 'gateway', '--where', where, '--name', f'g{number}', '--lane',
                                               f'{number}/{GATEWAYS}', *source, '--batch', batch, '--json'])

    def engine(self, where, events, name='engine'):
        return Role(self, name, [self.program, 'engine', '--where', where, '--until', events, '--json'])

    def book(self, where, name='book'):
        return Role(self, name, [self.program, 'book', '--where', where, '--live', '--json', '--depth', 3], promises=False)

    def books_are_sound(self, text):
        """Every line that was written whole is a book that was never crossed, and no line is older than the one before."""
        check = self.cases.check
        books = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]
        positions = [book['position'] for book in books]
        check(positions == sorted(positions), 'the live book never goes back', positions)
        crossed = [book for book in books if book['bids'] and book['asks']
                   and book['bids'][0]['cents'] >= book['asks'][0]['cents']]
        check(not crossed, 'the live book is never crossed', crossed[:1])
        return len(books)

    def peace(self, roles, book, events):
        """Whoever is still held back by the rate starts once more without it; all come to their ends by themselves. The engine
        is the last of `roles`."""
        check = self.cases.check
        for role in (*roles, book):
            role.process.kill()
            role.process.wait(timeout=DEADLINE_S)
            role.end(KILLED, 0)
        sound = self.books_are_sound(book.text())
        for role in (*roles, book):
            role.begin()
        for role in roles:
            role.end(0)
        last = roles[-1].summary()
        check(last['position'] == events and sum(one['taken'] for one in last['gateways']) == events,
              'the engine took every event once', last)
        check(all(role.summary()['complete'] for role in roles[:-1]), 'the gateways are through')
        return sound
