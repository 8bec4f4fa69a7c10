#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exchange on three nodes: a gateway at each of them, the engine at one, a live book at another, while the primary is killed
every few seconds and comes back as a backup. In the end every event was taken once, and each replica is what a plain engine
makes of the same input.

Usage: exchange.py SHELFD SHELF EXCHANGE [--kills N] [--batch N]"""

import argparse
import json
import os
import signal
import sys
import time

import bed
from bed import Cluster
from harness import Cases, scratch_directory, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e'))
from exchange_roles import DEADLINE_S, GATEWAYS, Bed, number_in, source_main  # noqa: E402

EVENTS_BETWEEN = 1500  # taken by the engine from one kill to the next: each time work goes on first
RATE = 800             # events a second and gateway: they are to be at it until the last kill


def where(node):
    return 'unix:' + os.path.join(node.data, 'sock')


class Market:
    def __init__(self, cases, cluster, exchanges, batch):
        self.cases, self.cluster, self.exchanges = cases, cluster, exchanges
        source, self.events = source_main()
        nodes = cluster.nodes
        self.gateways = [exchanges.gateway(where(nodes[number]), number, source, batch) for number in range(GATEWAYS)]
        self.engine = exchanges.engine(where(nodes[1]), self.events)
        self.book = exchanges.book(where(nodes[2]))

    def taken(self):
        return number_in(self.engine.acks)

    def begin(self):
        self.engine.begin()
        wait_until(lambda: self.taken() >= 0 or not self.engine.lives(), DEADLINE_S, 'the engine')
        for role in self.gateways:
            role.begin('--rate', RATE)
        self.book.begin()

    def strike(self):
        """Kills the primary, once work has gone on since the last time; it is back when another one leads."""
        goal = min(self.taken() + EVENTS_BETWEEN, self.events)
        self.cluster.until(lambda: self.taken() >= goal or not self.engine.lives(), f'{goal} events to be matched')
        old = self.cluster.led()
        old.end()
        began = time.monotonic()
        self.cluster.led([node for node in self.cluster.nodes if node is not old])
        took = time.monotonic() - began
        old.start()
        self.cluster.settle()
        return took

    def position(self, node):
        done = self.exchanges.exchange('book', where(node), '--json')
        return json.loads(done.stdout)['position'] if done.returncode == 0 else -1

    def end(self):
        books = self.exchanges.peace([*self.gateways, self.engine], self.book, self.events)
        wait_until(lambda: f'"position":{self.events},' in self.book.text(), DEADLINE_S, 'the last book')
        self.book.process.send_signal(signal.SIGINT)
        self.book.end(0)
        return books + self.exchanges.books_are_sound(self.book.text())


def main():
    parser = argparse.ArgumentParser()
    for program in ('shelfd', 'shelf', 'exchange'):
        parser.add_argument(program)
    parser.add_argument('--kills', type=int, default=4)
    parser.add_argument('--batch', type=int, default=16)
    options = parser.parse_args()
    cases, work = Cases(), scratch_directory(memory=True)
    cluster = Cluster(os.path.join(work, 'three'), (os.path.abspath(options.shelfd), os.path.abspath(options.shelf)), 3)
    try:
        cluster.settle()
        market = Market(cases, cluster, Bed(cases, options.exchange, work), options.batch)
        market.begin()
        took = [market.strike() for _ in range(options.kills)]
        matched = market.taken()
        cases.check(0 < matched <= market.events, 'there was work until the last kill', matched)
        books = market.end()
        for node in cluster.nodes:
            cluster.until(lambda node=node: market.position(node) == market.events, f'{node} to have applied everything')
            market.exchanges.is_same(where(node), market.events)
        print(f'{options.kills} primaries killed, {matched} of {market.events} events matched by then, {books} live books; '
              f'the next one led after {", ".join(f"{seconds * 1000:.0f}" for seconds in took)} ms', flush=True)
    finally:
        cluster.close()
    cases.finish()


main()
