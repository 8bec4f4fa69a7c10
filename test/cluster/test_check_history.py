#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The checker of histories is checked: it accepts histories of a cluster that is right (a model of one, many seeds), and refuses each
of many small lies told in them, for the reason that it should.

Usage: test_check_history.py"""

import copy
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'crash'))
from check_history import Checker  # noqa: E402
from harness import Cases  # noqa: E402

cases = Cases()
REGISTERS = [f'r-{i}' for i in range(4)]
SESSIONS = [f's-{i}' for i in range(4)]


class Model:
    """A cluster that is right, and clients whose answers are lost now and then. Each step is one line of the history."""

    def __init__(self, seed, steps=400):
        self.random = random.Random(seed)
        self.time, self.index, self.epoch, self.next = 0, 0, 1, 1
        self.lines = []
        self.states = [(0, dict.fromkeys(['place', *REGISTERS, *SESSIONS], 0))]  # (index, registers)
        self.effects = {}        # group -> (index, epoch, place)
        self.fenced = set()
        self.delayed = []        # what may have its effect later
        self.clients = [{'client': i, 'node': i % 3 + 1, 'session': f's-{i}', 'sequence': 1, 'seen': 0, 'doing': None,
                         'unknown': None} for i in range(4)]
        self.line(event='header', format=1, registers=['place', *REGISTERS, *SESSIONS], durability='MAJORITY')
        for _ in range(steps):
            self.step(self.random.choice(self.clients))
        for client in self.clients:
            while client['doing']:
                self.step(client)
        for node in (1, 2, 3):
            self.line(event='final', time=self.tick(), node=node, index=self.index, registers=dict(self.now()))
        self.line(event='end')

    def line(self, **event):
        self.lines.append(event)

    def tick(self):
        self.time += self.random.randint(0, 1000)
        return self.time

    def now(self):
        return self.states[-1][1]

    def apply(self, group, operations):
        """The effect of an update, or None: it does not hold any more, or had one."""
        if group in self.effects or group in self.fenced:
            return None
        if any(what == 'r' and self.now()[register] != number for what, register, number in operations):
            return None
        registers = dict(self.now())
        registers.update({register: number for what, register, number in operations if what == 'w'})
        registers['place'] += 1
        self.index += self.random.choice([0, 1, 1, 3]) if self.index > self.read_index() else 1
        self.epoch += self.random.random() < 0.05
        self.states.append((self.index, registers))
        self.effects[group] = (self.index, self.epoch, registers['place'])
        return self.effects[group]

    def read_index(self):
        """What anybody may have been told: no later update may share it."""
        return self.told

    told = 0

    def step(self, client):
        for late in [late for late in self.delayed if self.random.random() < 0.05]:
            self.delayed.remove(late)
            self.apply(*late)
        doing = client['doing']
        if doing is None:
            self.begin(client)
        elif doing['kind'] == 'update':
            self.update_step(client, doing)
        elif doing['kind'] == 'settle':
            group = (client['session'], doing['sequence'])
            self.fenced.add(group)
            client['unknown'] = None
            self.end(client, self.effects.get(group), 'ABORTED')
        else:
            newest = len(self.states) - 1
            at = newest
            if doing['kind'] == 'read':
                while at > 0 and self.random.random() < 0.5 and self.states[at - 1][0] >= client['seen']:
                    at -= 1
            while at < newest and self.states[at + 1][0] == self.states[at][0]:
                at += 1
            index, registers = self.states[at]
            chosen = self.random.sample(REGISTERS + SESSIONS, 3) + ['place'] * self.random.randint(0, 1)
            operations = [['r', register, registers[register]] for register in chosen]
            self.told = max(self.told, index)
            client['seen'], client['doing'] = max(index, client['seen']), None
            self.line(event='return', time=self.tick(), client=client['client'], id=doing['id'], result='OK', index=index,
                      operations=operations)

    def begin(self, client):
        kind = self.random.choice(['update', 'update', 'read', 'fresh'])
        event = {'event': 'invoke', 'time': self.tick(), 'client': client['client'], 'node': client['node'], 'id': self.next,
                 'kind': kind}
        if client['unknown'] and self.random.random() < 0.5:
            event.update(kind='settle', session=client['session'], sequence=client['unknown'])
        self.next += 1
        client['doing'] = event
        self.line(**event)

    def update_step(self, client, doing):
        if 'submitted' not in doing:
            registers = self.now()
            chosen = self.random.sample(REGISTERS, self.random.randint(0, 2))
            operations = [['r', register, registers[register]] for register in [client['session'], *chosen]]
            operations += [['w', register, doing['id']]
                           for register in [client['session'], *self.random.sample(REGISTERS, self.random.randint(0, 2))]]
            if client['unknown'] and self.random.random() < 0.5:
                client['sequence'] = client['unknown'] + 1  # again under the same one
            else:
                client['unknown'] = None
                client['sequence'] += 1
            doing.update(submitted=True, operations=operations, sequence=client['sequence'] - 1)
            self.line(event='submit', time=self.tick(), client=client['client'], id=doing['id'], session=client['session'],
                      sequence=doing['sequence'], operations=operations)
            return
        group = (client['session'], doing['sequence'])
        fate = self.random.random()
        if fate < 0.1:
            client['unknown'] = doing['sequence']
            if self.random.random() < 0.5:
                self.apply(group, doing['operations'])
            elif self.random.random() < 0.5:
                self.delayed.append((group, doing['operations']))
            self.end(client, None, 'UNKNOWN')
            return
        if group in self.effects:
            client['unknown'] = None
            self.end(client, self.effects[group], '', replayed=True)
            return
        self.end(client, self.apply(group, doing['operations']), 'CONFLICT')

    def end(self, client, effect, otherwise, replayed=False):
        doing, client['doing'] = client['doing'], None
        event = {'event': 'return', 'time': self.tick(), 'client': client['client'], 'id': doing['id'],
                 'result': 'OK' if effect else otherwise}
        if effect:
            if doing['kind'] == 'update':
                client['unknown'] = None
            replayed = replayed or doing['kind'] == 'settle'
            event.update(index=effect[0], epoch=self.epoch if replayed else effect[1], place=effect[2], durability='MAJORITY',
                         replayed=replayed)
            client['seen'] = max(client['seen'], effect[0])
            self.told = max(self.told, effect[0])
        self.line(**event)


def problems_of(lines):
    return Checker().run(json.dumps(line) for line in lines)


# ---- Lies: each changes a good history, or returns None where it has nothing to change

def returns(lines, kind, result='OK', **more):
    kinds = {line['id']: line['kind'] for line in lines if line['event'] == 'invoke'}
    return [i for i, line in enumerate(lines) if line['event'] == 'return' and kinds[line['id']] == kind and
            line['result'] == result and all(line.get(name) == value for name, value in more.items())]


def submit_of(lines, identity):
    return next(line for line in lines if line['event'] == 'submit' and line['id'] == identity)


def pick(found):
    return found[len(found) // 2] if found else None


def changed(kind, result='OK', **more):
    """A lie about one return in the middle."""
    def decorate(lie):
        def told(lines):
            at = pick(returns(lines, kind, result, **more))
            return None if at is None or lie(lines, lines[at]) is False else lines
        return told
    return decorate


def finals(lines):
    return [line for line in lines if line['event'] == 'final']


@changed('update', replayed=False)
def acknowledged_lost(lines, line):
    """As if that record had been cut off: what comes after it moves up."""
    gone = line['place']
    for other in lines:
        if other.get('place', 0) > gone:
            other['place'] -= 1
        for operation in other.get('operations', []):
            if operation[1] == 'place' and operation[2] >= gone:
                operation[2] -= 1
    for final in finals(lines):
        final['registers']['place'] -= 1
    line['place'] = gone


def last_lost(lines):
    """The end is as if the last acknowledged update had not been."""
    at = returns(lines, 'update', replayed=False)[-1]
    submit = submit_of(lines, lines[at]['id'])
    if lines[at]['place'] != finals(lines)[0]['registers']['place']:
        return None
    for final in finals(lines):
        final['registers']['place'] -= 1
        for _, register, number in submit['operations']:
            final['registers'][register] = 0 if final['registers'][register] == number else final['registers'][register]
    return lines


def happened_twice(lines):
    for final in finals(lines):
        final['registers']['place'] += 1
    unknown = returns(lines, 'update', 'UNKNOWN')
    for at in unknown:
        lines[at]['result'] = 'CONFLICT'
    return lines


@changed('update', 'CONFLICT')
def refused_happened(lines, line):
    for final in finals(lines):
        final['registers'][submit_of(lines, line['id'])['session']] = line['id']


@changed('read')
def read_of_nobodys(lines, line):
    line['operations'][0][2] = 999999999


@changed('read')
def read_of_another_state(lines, line):
    registers = {}
    for submit in lines:
        if submit['event'] == 'submit' and submit['time'] > line['time']:
            registers.update({register: number for what, register, number in submit['operations'] if what == 'w'})
    for operation in line['operations']:
        if operation[1] in registers:
            operation[2] = registers[operation[1]]
            return True
    return False


def read_goes_back(lines):
    """A client's second read is an exact copy of its first, though it was told of more between."""
    for first in returns(lines, 'read'):
        for second in returns(lines, 'read'):
            a, b = lines[first], lines[second]
            if second > first and a['client'] == b['client'] and a['index'] < b['index'] and any(
                    line.get('client') == a['client'] and line.get('index', 0) > a['index'] for line in lines[first:second]):
                b['index'], b['operations'] = a['index'], a['operations']
                return lines
    return None


def own_write_not_read(lines):
    """A read that is an older state than the client's own update."""
    for at in returns(lines, 'update', replayed=False):
        for read in returns(lines, 'read'):
            for old in returns(lines, 'read'):
                if at < read and lines[at]['client'] == lines[read]['client'] and lines[old]['index'] < lines[at]['index']:
                    lines[read]['index'], lines[read]['operations'] = lines[old]['index'], lines[old]['operations']
                    return lines
    return None


def fresh_is_old(lines):
    for at in returns(lines, 'fresh'):
        told = max([line.get('index', 0) for line in lines[:next(
            i for i, line in enumerate(lines) if line['event'] == 'invoke' and line['id'] == lines[at]['id'])]], default=0)
        for old in returns(lines, 'read') + returns(lines, 'fresh'):
            mine = max([line.get('index', 0) for line in lines[:at] if line.get('client') == lines[at]['client']], default=0)
            if mine <= lines[old]['index'] < told and old < at:
                lines[at]['index'], lines[at]['operations'] = lines[old]['index'], lines[old]['operations']
                return lines
    return None


def places_swapped(lines):
    """Two updates that did not overlap in time are ordered the wrong way round."""
    found = returns(lines, 'update', replayed=False)
    for a in found:
        for b in found:
            invoke = next(i for i, line in enumerate(lines) if line['event'] == 'invoke' and line['id'] == lines[b]['id'])
            if a < invoke:
                for name in ('place', 'index', 'epoch'):
                    lines[a][name], lines[b][name] = lines[b][name], lines[a][name]
                return lines
    return None


def place_twice(lines):
    found = returns(lines, 'update', replayed=False)
    lines[found[3]]['place'] = lines[found[2]]['place']
    return lines


def index_falls(lines):
    found = sorted(returns(lines, 'update', replayed=False), key=lambda at: lines[at]['place'])
    lines[found[len(found) // 2]]['index'] += 100000
    return lines


def epoch_falls(lines):
    found = sorted(returns(lines, 'update', replayed=False), key=lambda at: lines[at]['place'])
    lines[found[-1]]['epoch'] = 0
    return lines


@changed('update', replayed=False)
def index_told_before(lines, line):
    """Its record is said to be one that others had been told of when it began."""
    begun = next(i for i, other in enumerate(lines) if other['event'] == 'invoke' and other['id'] == line['id'])
    line['index'] = max(other.get('index', 0) for other in lines[:begun])
    return line['index'] > 0


@changed('settle', 'ABORTED')
def aborted_happened(lines, line):
    """A sequence was settled as never, then acknowledged."""
    invoke = next(other for other in lines if other['event'] == 'invoke' and other['id'] == line['id'])
    place = finals(lines)[0]['registers']['place'] + 1
    again = {**invoke, 'id': 10**9, 'time': line['time']}
    at = lines.index(line)
    lines[at + 1:at + 1] = [again, {**line, 'id': 10**9, 'result': 'OK', 'index': 10**6, 'epoch': 10**6, 'place': place,
                                    'durability': 'MAJORITY', 'replayed': True}]


@changed('update', replayed=True)
def replay_has_effect(lines, line):
    """The second try is told as new, at a place of its own."""
    line['replayed'], line['place'] = False, finals(lines)[0]['registers']['place'] + 1
    for final in finals(lines):
        final['registers']['place'] += 1


def replay_of_refused(lines):
    """What was refused is told as done by a later try that had no effect."""
    for at in returns(lines, 'settle', 'ABORTED'):
        invoke = next(other for other in lines if other['event'] == 'invoke' and other['id'] == lines[at]['id'])
        for line in lines:
            if line['event'] == 'submit' and (line['session'], line['sequence']) == (invoke['session'], invoke['sequence']):
                told = next((other for other in lines if other['event'] == 'return' and other['id'] == line['id']), None)
                if told:
                    told['result'] = 'CONFLICT'
        lines[at].update(result='OK', index=10**6, epoch=10**6, place=finals(lines)[0]['registers']['place'] + 1, durability='MAJORITY',
                         replayed=True)
        return lines
    return None


@changed('update', replayed=True)
def replay_of_another_place(lines, line):
    """It is told the place of another update."""
    other = next(other for other in lines if other['event'] == 'return' and other.get('place') and other['place'] != line['place'])
    line['place'], line['index'] = other['place'], other['index']


def replica_differs(lines):
    finals(lines)[-1]['registers']['r-0'] += 1
    return lines


def replicas_all_wrong(lines):
    for final in finals(lines):
        final['registers']['r-1'] = 1
    return lines


def replica_behind(lines):
    finals(lines)[1]['index'] = 0
    return lines


def replica_missing(lines):
    return [line for line in lines if line['event'] != 'final']


@changed('update')
def not_durable(lines, line):
    line['durability'] = 'LOCAL'


@changed('update', replayed=False)
def write_skew(lines, line):
    """It has read a number that was overwritten before its place."""
    for operation in submit_of(lines, line['id'])['operations']:
        if operation[0] == 'r' and operation[2] != 0:
            operation[2] = 0
            return True
    return False


def cut_short(lines):
    return lines[:-1]


def time_goes_back(lines):
    lines[len(lines) // 2]['time'] = -1
    return lines


def two_at_once(lines):
    at = next(i for i, line in enumerate(lines) if line['event'] == 'return')
    del lines[at]
    return lines


def session_of_another(lines):
    """A client takes over another's session, and that one goes on."""
    found = [line for line in lines if line['event'] == 'submit']
    found[len(found) // 2]['session'] = next(line['session'] for line in found if line['client'] != found[len(found) // 2]['client'])
    return lines


def identity_twice(lines):
    found = [line for line in lines if line['event'] == 'invoke']
    found[-1]['id'] = found[0]['id']
    return lines


def member_missing(lines):
    del lines[pick(returns(lines, 'update'))]['place']
    return lines


def format_other(lines):
    lines[0]['format'] = 2
    return lines


LIES = {acknowledged_lost: 'H', last_lost: 'H', happened_twice: 'H3', refused_happened: 'H8', read_of_nobodys: 'H5',
        read_of_another_state: 'H5', read_goes_back: 'H6', own_write_not_read: 'H6', fresh_is_old: 'H7', places_swapped: 'H4',
        place_twice: 'H2', index_falls: 'H2', epoch_falls: 'H2', index_told_before: 'H4', aborted_happened: 'H2',
        replay_has_effect: 'H', replay_of_refused: 'H3', replay_of_another_place: 'H2', replica_differs: 'H8', replicas_all_wrong: 'H8', replica_behind: 'H8',
        replica_missing: 'H1', not_durable: 'H8', write_skew: 'H3', cut_short: 'H1', time_goes_back: 'H1', two_at_once: 'H1',
        session_of_another: 'H1', identity_twice: 'H1', member_missing: 'H1', format_other: 'H1'}


def main():
    good = [Model(seed).lines for seed in range(25)]
    for seed, lines in enumerate(good):
        problems = problems_of(lines)
        cases.check(not problems, f'a good history, seed {seed}', '; '.join(problems[:3]))
    for lie, rule in LIES.items():
        name = lie.__name__ if lie.__name__ != 'told' else lie.__closure__[1].cell_contents.__name__
        told = [lies for lies in (lie(copy.deepcopy(lines)) for lines in good) if lies is not None]
        missed = [lies for lies in told if not any(problem.startswith(rule) for problem in problems_of(lies))]
        cases.check(told and not missed, name, f'{len(missed)} of {len(told)} are believed, or not refused by {rule}: '
                    f'{problems_of(missed[0])[:2] if missed else ""}')
    cases.finish()


if __name__ == '__main__':
    main()
