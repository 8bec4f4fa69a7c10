# SPDX-License-Identifier: Apache-2.0
"""A cluster of real processes: an etcd and some shelfd on loopback, which are always ended.

Nothing sleeps: whatever takes time is waited for, until() says what it was that did not come."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'crash'))
from harness import at_end, ended, run, start, wait_until  # noqa: E402, F401

OK, UNKNOWN, UNAVAILABLE, INVALID, NOT_FOUND, EXISTS, BUSY = 0, 2, 3, 7, 10, 11, 15
PATIENCE_S = 60  # on a machine that does much else at the same time
PUT_S = 5
# So that what is slow for a moment is not taken for dead: it is other tests that keep it busy.
TIMES = ('--heartbeat', '50ms', '--suspect', '600ms')

environment = {key: value for key, value in os.environ.items()
               if not key.startswith('SHELF_') and key not in ('NOTIFY_SOCKET', 'JOURNAL_STREAM')}
environment['NO_COLOR'] = '1'


def free_ports(count):
    """Numbers that are free on loopback; all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Etcd:
    def __init__(self, directory):
        self.directory = directory
        self.process = None
        client, peer = free_ports(2)
        self.url, self.peer = f'http://127.0.0.1:{client}', f'http://127.0.0.1:{peer}'
        self.start()

    def start(self):
        with open(self.directory + '.log', 'ab') as log:
            self.process = start(['etcd', '--name', 't', '--data-dir', self.directory, '--listen-client-urls', self.url,
                                  '--advertise-client-urls', self.url, '--listen-peer-urls', self.peer,
                                  '--initial-advertise-peer-urls', self.peer, '--initial-cluster', f't={self.peer}',
                                  '--logger', 'zap', '--log-level', 'error'],
                                 stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()
        ended(self.process)


class Node:
    """A shelfd. Its log is read as JSON."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.data = os.path.join(cluster.work, f'node-{number}')
        self.log = self.data + '.log'
        self.port = free_ports(1)[0]
        self.process = None

    def __repr__(self):
        return f'node {self.number}'

    def arguments(self):
        return ['--data', self.data, '--etcd', self.cluster.coordinator, '--node-address', f'127.0.0.1:{self.port}',
                '--node-id', str(self.number), '--log-format', 'json', '--log-bytes-max', '128M', *TIMES,
                *self.cluster.options]

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = start([self.cluster.shelfd, *self.arguments()], stderr=log, stdin=subprocess.DEVNULL,
                                 env=environment)

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self, number=signal.SIGKILL):
        """Returns its exit code."""
        self.send(number)
        code = self.process.wait(PATIENCE_S)
        ended(self.process)
        return code

    def events(self):
        with open(self.log, encoding='utf-8') as file:
            return [json.loads(line) for line in file.read().splitlines() if line.startswith('{')]

    def has(self, event):
        return any(line['event'] == event for line in self.events())

    def shelf(self, *arguments, **options):
        return self.cluster.shelf(arguments[0], self.data, *arguments[1:], **options)

    def put(self, key, value, place='shop/map'):
        """Was it acknowledged? (A program whose node dies waits for it to come back: not here.)"""
        return self.shelf('put', place, key, value, timeout_s=PUT_S).returncode == OK

    def get(self, key, place='shop/map'):
        done = self.shelf('get', place, key)
        return done.stdout if done.returncode == OK else None

    def status(self):
        """What it says of the cluster; {} if it says nothing."""
        done = self.shelf('status', '--json')
        return json.loads(done.stdout).get('cluster', {}) if done.returncode == OK else {}


class Cluster:
    def __init__(self, work, programs, count, options=(), coordinator=None):
        self.work = work
        os.makedirs(work)
        self.shelfd, self.shelf_program = programs
        self.options = list(options)
        self.etcd = None if coordinator else Etcd(os.path.join(work, 'etcd'))
        self.coordinator = coordinator or self.etcd.url
        self.nodes = [Node(self, number) for number in range(1, count + 1)]
        for node in self.nodes:
            node.start()

    def shelf(self, *arguments, **options):
        return run([self.shelf_program, *arguments], env=environment, stdin=subprocess.DEVNULL, **options)

    def until(self, condition, what):
        """Fails with what everybody has said last."""
        try:
            wait_until(condition, PATIENCE_S, what)
        except TimeoutError as error:
            for node in self.nodes:
                print(f'--- {node}: {"runs" if node.runs else "does not run"}; {node.status() if node.runs else ""}')
                with open(node.log, encoding='utf-8') as file:
                    print(''.join(file.readlines()[-15:]), end='')
            raise AssertionError(str(error)) from None

    def primary(self, among=None):
        """The node that takes commits, as it says itself; None if there is none."""
        found = None
        for node in among or self.nodes:
            status = node.status() if node.runs else {}
            if status.get('serves') and (not found or status['epoch'] > found[0]):
                found = (status['epoch'], node)
        return found[1] if found else None

    def led(self, among=None):
        """Waits for the primary."""
        found = []

        def look():
            node = self.primary(among)
            found.append(node)
            return node is not None
        self.until(look, f'a primary among {among or self.nodes}')
        return found[-1]

    def in_sync(self, numbers):
        """Are these in sync, and no others, in the eyes of the primary?"""
        node = self.primary([node for node in self.nodes if node.number in numbers])
        status = node.status() if node else {}
        return bool(status) and status['serves'] and not status['changing'] and \
            sorted(each['node'] for each in status['nodes'] if each['in_sync']) == sorted(numbers) and \
            all(each['connected'] for each in status['nodes'] if each['in_sync'])

    def settle(self, numbers=None):
        numbers = numbers or [node.number for node in self.nodes]
        self.until(lambda: self.in_sync(numbers), f'nodes {numbers} in sync')

    def put(self, key, value, among=None, place='shop/map'):
        """At whichever node takes it; repeated until it was acknowledged (a put has the same effect twice)."""
        def attempt():
            node = self.primary(among)
            return node is not None and node.put(key, value, place)
        self.until(attempt, f'a commit of {key}')

    def close(self):
        for node in self.nodes:
            if node.runs:
                node.send(signal.SIGCONT)
                node.end()
        if self.etcd and self.etcd.process.poll() is None:
            self.etcd.kill()


class Writer:
    """Puts one key after the other, at whoever takes it, and remembers what was acknowledged."""

    def __init__(self, cluster):
        self.cluster, self.acknowledged, self.over = cluster, [], False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        nodes = list(self.cluster.nodes)
        for number in range(100000):
            key = f'w{number}'
            while not self.over:
                if nodes[0].put(key, str(number)):
                    self.acknowledged.append(key)
                    break
                nodes.append(nodes.pop(0))
            if self.over:
                return

    def end(self):
        self.over = True
        self.thread.join()
        return self.acknowledged


def missing(node, keys):
    """Of the keys, those that the node's map lacks."""
    done = node.shelf('scan', 'shop/map')
    there = {line.split('\t')[0] for line in done.stdout.splitlines()}
    return [key for key in keys if key not in there]


def elapsed(begin):
    return time.monotonic() - begin
