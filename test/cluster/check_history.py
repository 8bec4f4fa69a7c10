#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges a history (docs/history.md, whose rules H1 to H8 it names). It believes nothing but that file.

Usage: check_history.py FILE

The order of all updates is known from their places, so there is little to search: only which of the updates without an outcome
took the places that no receipt names. They are replayed in order, and where a place is open, each update that fits is tried."""

import bisect
import collections
import json
import sys

FORMAT = 1
DURABILITIES = ('NOT', 'LOCAL', 'MAJORITY')
PROBLEMS_MAX = 20
RETURNS_MAX = 10000


class Problem(Exception):
    pass


class Update:
    """One try of an update. `told`: what had been told to anybody before it was invoked."""

    def __init__(self, event, told):
        self.id, self.client, self.invoked, self.returned = event['id'], event['client'], event['time'], None
        self.told_place, self.told_index = told
        self.group = None      # (session, sequence); None: not submitted
        self.operations = []
        self.result = None     # None: never returned
    def may_have_effect(self):
        return self.group is not None and self.result in (None, 'UNKNOWN')


class Group:
    """The tries under one sequence."""

    def __init__(self):
        self.tries = []
        self.place = None
        self.aborted = False


class Checker:
    def __init__(self):
        self.problems = []
        self.counts = collections.Counter()
        self.header = None
        self.ended = False
        self.time = None
        self.updates, self.groups = {}, collections.defaultdict(Group)
        self.open = {}                # client -> its invoke
        self.ids = set()
        self.sessions = {}            # session -> the client that used it last
        self.gone = set()             # clients that were killed: others have their sessions
        self.told = (0, 0)            # the highest place and index that anybody was told
        self.told_client = {}         # client -> index
        self.places = {}              # place -> (index, epoch or None, updates that it may be of)
        self.reads = []
        self.finals = []

    def problem(self, rule, text):
        self.problems.append(f'{rule}: {text}')

    def require(self, good, rule, text):
        if not good:
            self.problem(rule, text)
        return good

    # ---- Reading the file: H1, and what can be said at each line

    def event(self, event):
        kind = event.get('event')
        if self.header is None:
            if kind != 'header' or event.get('format') != FORMAT:
                raise Problem(f'H1: this is no history of format {FORMAT}')
            self.header = event
            return
        if self.ended:
            raise Problem('H1: there is more after the end')
        if kind == 'end':
            self.ended = True
            return
        time = event.get('time')
        if self.time is not None and isinstance(time, int):
            self.require(time >= self.time, 'H1', f'time goes back at {event}')
        self.time = time if isinstance(time, int) else self.time
        action = {'invoke': self.invoke, 'submit': self.submit, 'return': self.on_return, 'final': self.finals.append}.get(kind)
        if action:
            action(event)

    def invoke(self, event):
        client, identity = event['client'], event['id']
        self.require(client not in self.gone, 'H1', f'client {client} goes on, though another one has its session')
        self.require(client not in self.open, 'H1', f'client {client} begins {identity} before its last one has ended')
        self.require(identity not in self.ids, 'H1', f'{identity} occurs twice')
        self.ids.add(identity)
        self.open[client] = (event, self.told)
        self.counts[event['kind']] += 1
        if event['kind'] == 'update':
            self.updates[identity] = Update(event, self.told)

    def submit(self, event):
        update = self.updates.get(event['id'])
        begun = self.open.get(event['client'])
        if not self.require(update and begun and begun[0]['id'] == event['id'] and update.group is None, 'H1',
                            f'{event["id"]} is submitted though it is not open'):
            return
        update.group = (event['session'], event['sequence'])
        update.operations = event['operations']
        written = set()
        for what, register, number in update.operations:
            self.require(what == 'r' and register not in written or what == 'w' and number == update.id, 'H1',
                         f'{update.id} does {what} {register} {number}')
            if what == 'w':
                written.add(register)
        self.groups[update.group].tries.append(update)
        last = self.sessions.get(event['session'])
        if last is not None and last != update.client:
            self.open.pop(last, None)
            self.gone.add(last)
        self.sessions[event['session']] = update.client

    def on_return(self, event):
        client, identity = event['client'], event['id']
        invoke, told = self.open.pop(client, ({'id': None}, None))
        if not self.require(invoke['id'] == identity, 'H1', f'client {client} is told of {identity}, which it had not begun'):
            return
        self.counts[event['result']] += 1
        if invoke['kind'] == 'update':
            update = self.updates[identity]
            update.result, update.returned = event['result'], event['time']
            if event['result'] == 'OK' and self.require(update.group, 'H1', f'{identity} was never submitted'):
                self.acknowledged(event, self.groups[update.group], update)
        elif invoke['kind'] == 'settle':
            group = self.groups[(invoke['session'], invoke['sequence'])]
            if event['result'] == 'ABORTED':
                group.aborted = True
            elif event['result'] == 'OK':
                self.acknowledged(event, group, None)
        elif event['result'] == 'OK':
            self.on_read(event, invoke, told)

    def acknowledged(self, event, group, update):
        """An effect is told: that of `update`, or that of any try under its sequence (it is None, or `replayed` is said)."""
        place, index, epoch, identity = event['place'], event['index'], event['epoch'], event['id']
        if update and not event['replayed']:
            tries = [update]
        else:
            epoch = None
            tries = [other for other in group.tries if other.result in (None, 'UNKNOWN', 'OK')]
        if not self.require(tries, 'H3', f'{identity} is told of an effect of {event}, but nothing can have had one'):
            return
        durable = DURABILITIES.index(event['durability']) >= DURABILITIES.index(self.header['durability'])
        self.require(durable, 'H8', f'{identity} is durable {event["durability"]} only')
        self.require(group.place in (None, place), 'H2', f'{identity} has place {place}, but its sequence had {group.place}')
        self.require(not group.aborted, 'H2', f'{identity} has place {place}, but its sequence was settled as ABORTED')
        group.place = place
        first = tries[0]
        known = self.places.get(place, (index, epoch, tries))
        both = [one for one in known[2] if one in tries]
        self.require(known[0] == index and both, 'H2', f'place {place} is of {identity}, and of {[one.id for one in known[2]]}')
        self.places[place] = (known[0], epoch if known[1] is None else known[1], both or known[2])
        self.require(place > first.told_place, 'H4', f'{identity} has place {place}, but {first.told_place} was told before it began')
        self.require(index > first.told_index, 'H4', f'{identity} has index {index}, but {first.told_index} was told before it began')
        self.told_client[event['client']] = max(index, self.told_client.get(event['client'], 0))
        self.told = (max(place, self.told[0]), max(index, self.told[1]))

    def on_read(self, event, invoke, told):
        index, identity = event['index'], event['id']
        if invoke['kind'] == 'fresh':
            self.require(index >= told[1], 'H7', f'the fresh read {identity} is of index {index}, but {told[1]} was told before')
        before = self.told_client.get(event['client'], 0)
        self.require(index >= before, 'H6', f'client {event["client"]} reads at index {index} by {identity}, but was told {before} before')
        self.told_client[event['client']] = max(index, before)
        self.told = (self.told[0], max(index, self.told[1]))
        self.reads.append((identity, index, event['operations']))

    # ---- The order of all updates: H2, H3

    def order_check(self):
        index, epoch = 0, 0
        for place in sorted(self.places):
            now = self.places[place][0], epoch if self.places[place][1] is None else self.places[place][1]
            self.require(place >= 1, 'H2', f'there is a place {place}')
            self.require(now[0] >= index and now[1] >= epoch, 'H2',
                         f'index and epoch {now} at place {place}, after {index, epoch} before it')
            index, epoch = max(index, now[0]), max(epoch, now[1])

    def open_updates(self):
        """Those that may have taken a place that no receipt names."""
        found = []
        for group in self.groups.values():
            if group.place is None and not group.aborted:
                found += [one for one in group.tries if one.may_have_effect()]
        return found

    def replay(self, last):
        """The registers' numbers, each as a list of (place, number); None: a problem was told."""
        candidates = self.open_updates()
        state = collections.defaultdict(lambda: [(0, 0)])
        used = {}     # group -> its place
        choices = []  # where something else could have been chosen: (place, what is left to try)
        place, returns, problem = 1, 0, (0, '')
        fitting = None
        while place <= last:
            if fitting is None:
                fitting = self.fitting(place, state, used, candidates)
            if fitting:
                if len(fitting) > 1:
                    choices.append((place, fitting[1:]))
                used[fitting[0].group] = place
                for what, register, number in fitting[0].operations:
                    if what == 'w':
                        state[register].append((place, number))
                place, fitting = place + 1, None
                continue
            if place > problem[0]:
                problem = (place, self.why_nothing_fits(place, state, used))
            if not choices:
                self.problem('H3', problem[1])
                return None
            returns += 1
            if returns > RETURNS_MAX:
                raise Problem('H3: too many ways to explain the updates without an outcome; this history cannot be judged. The '
                              f'nearest: {problem[1]}')
            place, fitting = choices.pop()
            for numbers in state.values():
                while numbers[-1][0] >= place:
                    numbers.pop()
            used = {group: at for group, at in used.items() if at < place}
        return state

    @staticmethod
    def holds(update, state):
        return all(what == 'w' or state[register][-1][1] == number for what, register, number in update.operations)

    def fitting(self, place, state, used, candidates):
        if place in self.places:
            candidates = self.places[place][2]
        return [one for one in candidates if one.told_place < place and one.group not in used and self.holds(one, state)]

    def why_nothing_fits(self, place, state, used):
        if place not in self.places:
            return f'place {place} is taken, but by no update that anybody asked for and that could have happened there'
        update = self.places[place][2][0]
        if update.group in used:
            return f'the sequence {update.group} had an effect at place {used[update.group]} and has one again at place {place}'
        for what, register, number in update.operations:
            if what == 'r' and state[register][-1][1] != number:
                return (f'{update.id} at place {place} has read {number} in {register}, '
                        f'where {state[register][-1][1]} was since place {state[register][-1][0]}')
        return f'{update.id} cannot be at place {place}'

    # ---- Reads and the end: H5, H8

    @staticmethod
    def number_at(numbers, place):
        return numbers[bisect.bisect_right(numbers, (place, float('inf'))) - 1][1]

    def reads_check(self, state, last):
        known = sorted(self.places)
        indexes = [self.places[place][0] for place in known]
        for identity, index, operations in self.reads:
            after = bisect.bisect_right(indexes, index)
            low = known[after - 1] if after > 0 else 0
            high = known[after] - 1 if after < len(known) else last
            seen = [number for _, register, number in operations if register == 'place']
            places = range(low, high + 1) if not seen else [seen[0]]
            if not self.require(low <= places[0] and places[-1] <= high, 'H5',
                                f'{identity} at index {index} has read place {seen}, not {low} to {high}'):
                continue
            good = any(all(register == 'place' or self.number_at(state[register], place) == number
                           for _, register, number in operations) for place in places)
            self.require(good, 'H5', f'{identity} at index {index} has read {operations}, which is no state of place {low} to {high}')

    def finals_check(self, state, last):
        for final in self.finals:
            registers = final['registers']
            self.require(final['index'] >= self.told[1], 'H8', f'node {final["node"]} ends at index {final["index"]} before {self.told[1]}')
            for register in self.header['registers']:
                expected = last if register == 'place' else state[register][-1][1]
                self.require(registers.get(register) == expected, 'H8' if register != 'place' else 'H2',
                             f'{register} is {registers.get(register)} on node {final["node"]} in the end, not {expected}')

    def finish(self):
        if not self.ended:
            raise Problem('H1: the history has no end')
        if not self.finals or len({final['node'] for final in self.finals}) != len(self.finals):
            raise Problem('H1: the end must be told once for each node')
        first = self.finals[0]['registers']
        for final in self.finals:
            if not self.require(final['registers'] == first, 'H8', f'the registers of node {final["node"]} are not those of '
                                f'node {self.finals[0]["node"]}'):
                return
        last = first.get('place', 0)
        if self.places and not self.require(max(self.places) <= last, 'H3', f'place {max(self.places)} was acknowledged, but in the '
                                            f'end there are {last}'):
            return
        self.order_check()
        open_places, open_groups = last - len(self.places), len({one.group for one in self.open_updates()})
        self.counts['open places'] = open_places
        if not self.require(open_places <= open_groups, 'H3', f'{open_places} places are of no acknowledged update, but only '
                            f'{open_groups} have no outcome'):
            return
        state = self.replay(last)
        if state is not None:
            self.reads_check(state, last)
            self.finals_check(state, last)

    def run(self, lines):
        """The problems."""
        try:
            for number, line in enumerate(lines, 1):
                try:
                    self.event(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise Problem(f'H1: line {number} is not as docs/history.md says: {error!r}') from error
            self.finish()
        except Problem as problem:
            self.problems.append(str(problem))
        return self.problems


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    checker = Checker()
    with open(sys.argv[1], encoding='utf-8') as file:
        problems = checker.run(file)
    print(', '.join(f'{name}: {count}' for name, count in sorted(checker.counts.items())))
    for problem in problems[:PROBLEMS_MAX]:
        print(problem)
    print(f'check_history: {len(problems)} problems' if problems else 'check_history: all well')
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
