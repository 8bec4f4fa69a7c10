#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exchange of several processes: gateways, an engine, a live book, and whoever of them is the node, or shelfd. All are
killed with SIGKILL at random and started again, and in the end every event is there exactly once, in the order that is
written down. With real data beside the repository that is worked through, otherwise the made-up flow.

Usage: gateways.py EXCHANGE SHELFD [--rounds N] [--seed N]"""

import argparse
import json
import os
import pty
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'test', 'crash'))
from harness import Cases, ended, listener, run, scratch_directory, seeded, start, wait_until  # noqa: E402

REAL = os.path.join(ROOT, '..', 'shared', 'data', 'market', 'bitstamp-2015-05-01-orders.csv.xz')
REAL_EVENTS = 50414
FLOW_EVENTS = 30000
GATEWAYS = 3
KILLS = 40      # of a war
RATE = 1500     # events a second and gateway while there is killing: it is to be over before they are through
KILLED = -signal.SIGKILL
REPLACED = 5
DEADLINE_S = 120

cases = Cases()
check = cases.check
EXCHANGE = SHELFD = work = dice = None


def exchange(command, where, *arguments):
    return run([EXCHANGE, command, '--where', where, *arguments], stdin=subprocess.DEVNULL)


def done(result):
    """The JSON object of a command that must succeed."""
    if not check(result.returncode == 0, f'{result.args[1:]}', f'{result.returncode}: {result.stderr}'):
        return {}
    return json.loads(result.stdout)


def is_same(where, events):
    report = done(exchange('check', where, '--json'))
    check(report.get('ok') is True and len(report.get('checks', [])) == 8 and report.get('position') == events,
          f'check of {events} events', json.dumps(report))


def number_in(path):
    """What a process has promised so far; -1 before its first promise."""
    try:
        with open(path, encoding='ascii') as file:
            return int(file.read() or -1)
    except FileNotFoundError:
        return -1


class Role:
    """A process that has successors: each life ends with a kill, and the next one begins where it was."""

    def __init__(self, name, command, promises=True):
        self.name, self.command = name, command
        self.acks = os.path.join(work, name + '.acks') if promises else None
        self.output = os.path.join(work, name + '.out')
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


def source_main():
    if os.path.exists(REAL):
        return ['--input', REAL], REAL_EVENTS
    return ['--generate', FLOW_EVENTS, '--seed', 7], FLOW_EVENTS


def gateway_role(where, number, source, batch):
    return Role(f'gateway{number}', [EXCHANGE, 'gateway', '--where', where, '--name', f'g{number}', '--lane',
                                     f'{number}/{GATEWAYS}', *source, '--batch', batch, '--json'])


def engine_role(where, events, name='engine'):
    return Role(name, [EXCHANGE, 'engine', '--where', where, '--until', events, '--json'])


def book_role(where):
    return Role('book', [EXCHANGE, 'book', '--where', where, '--live', '--json', '--depth', 3], promises=False)


def books_are_sound(text):
    """Every line that was written whole is a book that was never crossed, and no line is older than the one before."""
    books = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]
    positions = [book['position'] for book in books]
    check(positions == sorted(positions), 'the live book never goes back', positions)
    crossed = [book for book in books if book['bids'] and book['asks']
               and book['bids'][0]['cents'] >= book['asks'][0]['cents']]
    check(not crossed, 'the live book is never crossed', crossed[:1])
    return len(books)


# ---- Peace --------------------------------------------------------------------------------------------------------


def test_usage():
    where = 'dir:' + os.path.join(work, 'usage')
    for command in ('gateway', 'engine'):
        result = run([EXCHANGE, command, '--help'])
        check(result.returncode == 0 and 'Examples:' in result.stdout, f'{command} --help')
    source = ['--generate', 5]
    wrong = [['gateway', '--name', 'a'], ['gateway', *source], ['gateway', '--name', 'a b', *source],
             ['gateway', '--name', 'x' * 32, *source], ['gateway', '--name', '', *source],
             ['gateway', '--name', 'a', *source, '--rate', 0], ['engine', '--until', 0], ['engine', *source],
             ['book', '--updates', 3], ['book', '--live', '--updates', 0]]
    wrong += [['gateway', '--name', 'a', *source, '--lane', lane] for lane in ('3/3', '1', '/2', '1/', '-1/2', '0/0', '0/3x')]
    for command, *arguments in wrong:
        result = exchange(command, where, *arguments)
        check(result.returncode == 2 and result.stderr, f'wrong usage: {command} {arguments}', result.returncode)
    check(not os.path.exists(os.path.join(work, 'usage')), 'wrong usage makes nothing')


def test_refusals():
    """Each kind of exchange refuses what belongs to the other, and a gateway another input; nothing changes by that."""
    many, single = ('dir:' + os.path.join(work, name) for name in ('many', 'single'))
    source = ['--generate', 300, '--seed', 3]
    report = done(exchange('gateway', many, '--name', 'a', *source, '--lane', '0/2', '--json'))
    check(report.get('complete') is True and report.get('lanes') == 2, 'a gateway needs no engine', report)
    for arguments in (['--lane', '1/2'], ['--lane', '0/3'], ['--lane', '0/2', '--seed', 4]):
        result = exchange('gateway', many, '--name', 'a', *source, *arguments)
        check(result.returncode == 3 and 'cannot go on with' in result.stderr, f'another input: {arguments}', result.stderr)
    result = exchange('run', many, *source)
    check(result.returncode == 3 and 'gateways' in result.stderr, 'run where there are gateways', result.stderr)
    done(exchange('run', single, *source, '--batch', 100, '--json'))
    for arguments in (['gateway', single, '--name', 'a', *source], ['engine', single]):
        result = exchange(*arguments)
        check(result.returncode == 3 and 'no gateways' in result.stderr, f'{arguments[0]} where run was', result.stderr)
    submitted = report.get('position', 1)
    engine = done(exchange('engine', many, '--until', submitted, '--json'))
    check(engine.get('gateways') == [{'name': 'a', 'taken': submitted}], 'the engine takes them all', engine)
    is_same(many, submitted)
    again = done(exchange('gateway', many, '--name', 'a', *source, '--lane', '0/2', '--json'))
    check(again.get('events') == 0 and again.get('resumed_at') == submitted, 'nothing is left to submit', again)


def test_too_many_gateways():
    where = 'dir:' + os.path.join(work, 'crowd')
    for number in range(16):
        done(exchange('gateway', where, '--name', f'n{number}', '--generate', 10, '--lane', f'{number}/16', '--json'))
    result = exchange('gateway', where, '--name', 'n16', '--generate', 10)
    check(result.returncode == 4 and 'TOO_LARGE' in result.stderr, 'the 17th gateway', result.stderr)
    done(exchange('engine', where, '--until', 10, '--batch', 3, '--json'))
    is_same(where, 10)


def test_second_is_the_only():
    """A second engine, or gateway of a name, takes over; the first ends and says so, and nothing is lost or doubled."""
    where = 'dir:' + os.path.join(work, 'fence')
    source = ['--generate', 4000, '--seed', 5]
    roles = [gateway_role(where, number, source, 1) for number in range(GATEWAYS)]
    engines = [engine_role(where, 4000, f'engine-{number}') for number in range(3)]
    for first, second in zip(engines, engines[1:]):
        if first is engines[0]:
            first.begin()
            wait_until(lambda: number_in(engines[0].acks) >= 0, DEADLINE_S, 'the engine')
            for role in roles:
                role.begin('--rate', 800)
        wait_until(lambda: number_in(first.acks) >= 100, DEADLINE_S, 'events')
        second.begin()
        first.end(REPLACED)
        check('FENCED' in first.text('.err'), 'the first engine knows why', first.text('.err'))
    twin = Role('twin', roles[0].command)
    wait_until(lambda: number_in(roles[0].acks) >= 200, DEADLINE_S, 'events of the gateway')
    twin.begin()
    roles[0].end(REPLACED)
    for role in (twin, *roles[1:], engines[-1]):
        role.end(0)
    check(engines[-1].summary()['position'] == 4000, 'all events, once', engines[-1].text())
    is_same(where, 4000)


# ---- For people ---------------------------------------------------------------------------------------------------


def test_live_book():
    """On a terminal a screen of its own, and colours only where they are wanted; else a line a change."""
    where = 'dir:' + os.path.join(work, 'live')
    events = 3000
    lines = Role('lines', [EXCHANGE, 'book', '--where', where, '--live'], promises=False)
    done(exchange('gateway', where, '--name', 'a', '--generate', events, '--batch', 100, '--json'))
    lines.begin()
    screens = [terminal_begin(where, colour) for colour in (True, False)]
    done(exchange('engine', where, '--batch', 50, '--until', events, '--json'))
    wait_until(lambda: f'event {events:,} ' in lines.text(), DEADLINE_S, 'the last line')
    lines.process.send_signal(signal.SIGTERM)
    lines.end(0)
    positions = [int(word.replace(',', '')) for word in re.findall(r'^event ([\d,]+) ', lines.text(), re.M)]
    check(positions == sorted(set(positions)), 'a line a change', positions)
    check('\033' not in lines.text(), 'no escapes without a terminal')
    for colour, (process, terminal) in zip((True, False), screens):
        text = terminal_end(process, terminal, f'after event {events:,}')
        check(text.startswith('\033[?1049h') and text.count('\033[?1049l') == 1, 'a screen of its own, and back')
        check(('\033[32m' in text) is colour, f'colours: {colour}', repr(text[:300]))
        check(text.rfind(f'after event {events:,}') > text.rfind('\033[?1049l'), 'the last book stays on the screen')


def terminal_begin(where, colour):
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != 'NO_COLOR'}
    environment |= {} if colour else {'NO_COLOR': '1'}
    process = start([EXCHANGE, 'book', '--where', where, '--live'], stdin=theirs, stdout=theirs, stderr=theirs,
                    env=environment)
    os.close(theirs)
    return process, ours


def terminal_end(process, terminal, last):
    """Reads until `last` is shown, ends the program as Ctrl-C does, and reads the rest."""
    text, stopped = '', False
    while True:
        try:
            text += os.read(terminal, 65536).decode()
        except OSError:  # the other side is closed
            break
        if last in text and not stopped:
            process.send_signal(signal.SIGINT)
            stopped = True
    os.close(terminal)
    check(process.wait(timeout=DEADLINE_S) == 0, 'Ctrl-C ends the live book in order', process.returncode)
    ended(process)
    return text


# ---- War ----------------------------------------------------------------------------------------------------------


class Market:
    """All roles at work on one exchange. `node` is shelfd, or None: then whoever opened the directory first."""

    def __init__(self, name, batch, with_shelfd):
        source, self.events = source_main()
        self.directory = os.path.join(work, name)
        self.socket = self.directory + '.sock' if with_shelfd else os.path.join(self.directory, 'sock')
        where = f'unix:{self.socket}' if with_shelfd else f'dir:{self.directory}'
        self.where = where
        self.gateways = [gateway_role(where, number, source, batch) for number in range(GATEWAYS)]
        self.engine = engine_role(where, self.events)
        self.book = book_role(where)
        self.node = None
        if with_shelfd:
            command = [SHELFD, '--data', self.directory, '--socket', self.socket]
            self.node = Role('shelfd', command, promises=False)
        self.kills = {}
        self.books = 0

    def node_begin(self):
        if self.node and not self.node.lives():
            self.node.begin()
            wait_until(lambda: listener(self.socket), DEADLINE_S, 'shelfd')

    def role_begin(self, role):
        if role is not self.node:
            role.begin(*(['--rate', RATE] if role in self.gateways else []))

    def role_end(self, role):
        """After a kill. Some are through; who was about to attach to shelfd when that was killed waits for the next one."""
        role.process.wait(timeout=DEADLINE_S)
        role.end(KILLED, 0)
        if role is self.book:
            self.books += books_are_sound(role.text())

    def begin(self):
        self.node_begin()
        for role in (self.engine, *self.gateways):
            self.role_begin(role)
        wait_until(lambda: number_in(self.engine.acks) >= 0, DEADLINE_S, 'the engine')
        self.book.begin()

    def victim(self):
        """Any of them, and every third time whoever is the node."""
        roles = [*self.gateways, self.engine, self.book, *([self.node] if self.node else [])]
        if dice.random() < 0.34:
            process = listener(self.socket)
            roles = [role for role in roles if role.lives() and role.process.pid == process] or roles
            return 'node', dice.choice(roles)
        role = dice.choice(roles)
        return role.name, role

    def strike(self):
        """Kills one, or two at once, and starts the successors, mostly at once."""
        victims = dict(self.victim() for _ in range(dice.choice((1, 1, 1, 2))))
        for name, role in victims.items():
            if role.lives():
                role.process.kill()
                self.kills[name] = self.kills.get(name, 0) + 1
        for role in set(victims.values()):
            self.role_end(role)
        time.sleep(dice.choice((0, 0, 0.02)) * dice.random())
        self.node_begin()
        for role in set(victims.values()):
            self.role_begin(role)

    def war(self):
        self.begin()
        while sum(self.kills.values()) < KILLS:
            # Mostly in the middle of work, now and then while they are still opening, recovering or taking over.
            time.sleep(dice.choice((0.005, 0.05, 0.2)) * dice.random())
            self.strike()

    def peace(self):
        """Whoever is still held back by the rate starts once more without it; all come to their ends by themselves."""
        for role in (*self.gateways, self.engine, self.book):
            role.process.kill()
            self.role_end(role)
            role.begin()
        for role in (*self.gateways, self.engine):
            role.end(0)
        last = self.engine.summary()
        check(last['position'] == self.events and sum(one['taken'] for one in last['gateways']) == self.events,
              'the engine took every event once', last)
        check(all(role.summary()['complete'] for role in self.gateways), 'the gateways are through')
        wait_until(lambda: f'"position":{self.events},' in self.book.text(), DEADLINE_S, 'the last book')
        self.book.process.send_signal(signal.SIGINT)
        self.book.end(0)
        self.books += books_are_sound(self.book.text())
        is_same(self.where, self.events)
        if self.node:
            self.node.process.send_signal(signal.SIGTERM)
            self.node.end(0)
            os.unlink(os.path.join(self.directory, 'daemon'))  # it is not to come back
            is_same('dir:' + self.directory, self.events)


def test_war(name, batch, with_shelfd):
    market = Market(name, batch, with_shelfd)
    began = time.monotonic()
    market.war()
    market.peace()
    told = ', '.join(f'{count} {name}' for name, count in sorted(market.kills.items()))
    print(f'{name}: {market.books} live books, kills: {told}; {time.monotonic() - began:.1f} s', flush=True)


def main():
    global EXCHANGE, SHELFD, work, dice
    parser = argparse.ArgumentParser()
    parser.add_argument('exchange')
    parser.add_argument('shelfd')
    parser.add_argument('--rounds', type=int, default=1, help=f'of {2 * KILLS} kills')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    EXCHANGE, SHELFD = os.path.abspath(options.exchange), os.path.abspath(options.shelfd)
    dice = seeded(options.seed)
    work = scratch_directory(memory=False)
    if not os.path.exists(REAL):
        print('no real data here: the made-up flow instead')
    test_usage()
    test_refusals()
    test_too_many_gateways()
    test_second_is_the_only()
    test_live_book()
    for number in range(options.rounds):
        # The first round is a part of every test run, which has little time; with 1 a slow disk makes a minute of it.
        batches = (1, 4, 16) if number else (8, 16)
        test_war(f'embedded{number}', dice.choice(batches), with_shelfd=False)
        test_war(f'daemon{number}', dice.choice(batches), with_shelfd=True)
    cases.finish()


main()
