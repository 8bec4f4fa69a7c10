#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exchange of several processes: gateways, an engine, a live book, and whoever of them is the node, or shelfd. All are
killed with SIGKILL at random and started again, and in the end every event is there exactly once, in the order that is
written down. With real data beside the repository that is worked through, otherwise the made-up flow.

Usage: gateways.py EXCHANGE SHELFD [--rounds N] [--seed N]"""

import argparse
import os
import pty
import random
import re
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'test', 'crash'))
from harness import Cases, ended, listener, run, scratch_directory, seeded, start, wait_until  # noqa: E402
from exchange_roles import DEADLINE_S, GATEWAYS, KILLED, Bed, Role, number_in, source_main  # noqa: E402

KILLS = 40      # of a war
RATE = 1500     # events a second and gateway while there is killing: it is to be over before they are through
REPLACED = 5

cases = Cases()
check = cases.check
EXCHANGE = SHELFD = work = dice = bed = None


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
        result = bed.exchange(command, where, *arguments)
        check(result.returncode == 2 and result.stderr, f'wrong usage: {command} {arguments}', result.returncode)
    check(not os.path.exists(os.path.join(work, 'usage')), 'wrong usage makes nothing')


def test_refusals():
    """Each kind of exchange refuses what belongs to the other, and a gateway another input; nothing changes by that."""
    many, single = ('dir:' + os.path.join(work, name) for name in ('many', 'single'))
    source = ['--generate', 300, '--seed', 3]
    report = bed.done(bed.exchange('gateway', many, '--name', 'a', *source, '--lane', '0/2', '--json'))
    check(report.get('complete') is True and report.get('lanes') == 2, 'a gateway needs no engine', report)
    for arguments in (['--lane', '1/2'], ['--lane', '0/3'], ['--lane', '0/2', '--seed', 4]):
        result = bed.exchange('gateway', many, '--name', 'a', *source, *arguments)
        check(result.returncode == 3 and 'cannot go on with' in result.stderr, f'another input: {arguments}', result.stderr)
    result = bed.exchange('run', many, *source)
    check(result.returncode == 3 and 'gateways' in result.stderr, 'run where there are gateways', result.stderr)
    bed.done(bed.exchange('run', single, *source, '--batch', 100, '--json'))
    for arguments in (['gateway', single, '--name', 'a', *source], ['engine', single]):
        result = bed.exchange(*arguments)
        check(result.returncode == 3 and 'no gateways' in result.stderr, f'{arguments[0]} where run was', result.stderr)
    submitted = report.get('position', 1)
    engine = bed.done(bed.exchange('engine', many, '--until', submitted, '--json'))
    check(engine.get('gateways') == [{'name': 'a', 'taken': submitted}], 'the engine takes them all', engine)
    bed.is_same(many, submitted)
    again = bed.done(bed.exchange('gateway', many, '--name', 'a', *source, '--lane', '0/2', '--json'))
    check(again.get('events') == 0 and again.get('resumed_at') == submitted, 'nothing is left to submit', again)


def test_too_many_gateways():
    where = 'dir:' + os.path.join(work, 'crowd')
    for number in range(16):
        bed.done(bed.exchange('gateway', where, '--name', f'n{number}', '--generate', 10, '--lane', f'{number}/16', '--json'))
    result = bed.exchange('gateway', where, '--name', 'n16', '--generate', 10)
    check(result.returncode == 4 and 'TOO_LARGE' in result.stderr, 'the 17th gateway', result.stderr)
    bed.done(bed.exchange('engine', where, '--until', 10, '--batch', 3, '--json'))
    bed.is_same(where, 10)


def test_second_is_the_only():
    """A second engine, or gateway of a name, takes over; the first ends and says so, and nothing is lost or doubled."""
    where = 'dir:' + os.path.join(work, 'fence')
    source = ['--generate', 4000, '--seed', 5]
    roles = [bed.gateway(where, number, source, 1) for number in range(GATEWAYS)]
    engines = [bed.engine(where, 4000, f'engine-{number}') for number in range(3)]
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
    twin = Role(bed, 'twin', roles[0].command)
    wait_until(lambda: number_in(roles[0].acks) >= 200, DEADLINE_S, 'events of the gateway')
    twin.begin()
    roles[0].end(REPLACED)
    for role in (twin, *roles[1:], engines[-1]):
        role.end(0)
    check(engines[-1].summary()['position'] == 4000, 'all events, once', engines[-1].text())
    bed.is_same(where, 4000)


# ---- For people ---------------------------------------------------------------------------------------------------


def test_live_book():
    """On a terminal a screen of its own, and colours only where they are wanted; else a line a change."""
    where = 'dir:' + os.path.join(work, 'live')
    events = 3000
    lines = Role(bed, 'lines', [EXCHANGE, 'book', '--where', where, '--live'], promises=False)
    bed.done(bed.exchange('gateway', where, '--name', 'a', '--generate', events, '--batch', 100, '--json'))
    lines.begin()
    screens = [terminal_begin(where, colour) for colour in (True, False)]
    bed.done(bed.exchange('engine', where, '--batch', 50, '--until', events, '--json'))
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
        self.gateways = [bed.gateway(where, number, source, batch) for number in range(GATEWAYS)]
        self.engine = bed.engine(where, self.events)
        self.book = bed.book(where)
        self.node = None
        if with_shelfd:
            command = [SHELFD, '--data', self.directory, '--socket', self.socket]
            self.node = Role(bed, 'shelfd', command, promises=False)
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
            self.books += bed.books_are_sound(role.text())

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
        self.books += bed.peace([*self.gateways, self.engine], self.book, self.events)
        wait_until(lambda: f'"position":{self.events},' in self.book.text(), DEADLINE_S, 'the last book')
        self.book.process.send_signal(signal.SIGINT)
        self.book.end(0)
        self.books += bed.books_are_sound(self.book.text())
        bed.is_same(self.where, self.events)
        if self.node:
            self.node.process.send_signal(signal.SIGTERM)
            self.node.end(0)
            os.unlink(os.path.join(self.directory, 'daemon'))  # it is not to come back
            bed.is_same('dir:' + self.directory, self.events)


def test_war(name, batch, with_shelfd):
    market = Market(name, batch, with_shelfd)
    began = time.monotonic()
    market.war()
    market.peace()
    told = ', '.join(f'{count} {name}' for name, count in sorted(market.kills.items()))
    print(f'{name}: {market.books} live books, kills: {told}; {time.monotonic() - began:.1f} s', flush=True)


def main():
    global EXCHANGE, SHELFD, work, dice, bed
    parser = argparse.ArgumentParser()
    parser.add_argument('exchange')
    parser.add_argument('shelfd')
    parser.add_argument('--rounds', type=int, default=1, help=f'of {2 * KILLS} kills')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    EXCHANGE, SHELFD = os.path.abspath(options.exchange), os.path.abspath(options.shelfd)
    dice = seeded(options.seed)
    work = scratch_directory(memory=False)
    bed = Bed(cases, EXCHANGE, work)
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
