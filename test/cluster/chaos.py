#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Injures a real cluster, and writes down what its clients were told (docs/history.md). Then check_history.py judges that.

Usage: shelf-chaos --seed S --seconds N --out FILE [--nodes N] [--clients N] [--registers N] [--pause-us N] [--kinds KIND,...]
                   [--network namespaces|loopback] [--proxies yes|no] [--keep DIR]

Nodes are killed, stopped and started, ended and started one after the other; they lose their disks; etcd is killed and stopped as well; clients are killed, and others go on with their sessions; messages vanish between two
hosts or in one direction only (in network namespaces, where this may make them); and, with proxies between the nodes (if nothing else is
said: for odd seeds), they come late, twice, in another order, damaged, or only in part. What happens follows from the seed; when exactly, and so
what comes of it, does not. --keep: the nodes' directories and logs are kept there. --kinds: only these injuries, of those below (KINDS).

Exit code 0: the history is whole and judged right; the last line is for the test runner. 77: there is no etcd here."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, '..', 'crash'))
import network  # noqa: E402
from check_history import Checker, PROBLEMS_MAX  # noqa: E402
from harness import at_end, ended, run, scratch_directory, skip, start  # noqa: E402

START_S, HEAL_S, END_S = 30, 60, 30
KINDS = ['kill', 'kill-primary', 'kill-two', 'kill-all', 'roll', 'empty', 'stop', 'stop-primary', 'etcd-kill', 'etcd-stop', 'client-kill', 'isolate',
         'isolate-primary', 'part-pair', 'part-one-way', 'part-etcd', 'delay', 'hold', 'double', 'swap', 'damage', 'cut', 'all-mischief']
MISCHIEF = {'delay': {'delay_ms': 80}, 'hold': {'hold': True}, 'double': {'double': 0.3}, 'swap': {'swap': 0.1},
            'damage': {'damage': 0.01}, 'cut': {'cut': 0.01},
            'all-mischief': {'delay_ms': 20, 'double': 0.1, 'swap': 0.05, 'damage': 0.002, 'cut': 0.002}}


class Failure(Exception):
    """The run itself went wrong: a process that ended by itself, a cluster that does not heal."""


class Server:
    """A process that may be killed and started again."""

    def __init__(self, name, arguments, directory):
        self.name, self.arguments, self.process = name, arguments, None
        self.log = os.path.join(directory, f'{name}.log')

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = start(self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            ended(self.process)
            self.process = None

    def end(self):
        """As its operator ends it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            raise Failure(f'{self.name} does not end when it is told to') from error
        if code != 0:
            self.check()
        ended(self.process)
        self.process = None

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.process:
            self.process.send_signal(signal.SIGCONT)

    def check(self):
        if self.process and self.process.poll() is not None:
            with open(self.log, encoding='utf-8', errors='replace') as log:
                tail = log.read()[-2000:]
            raise Failure(f'{self.name} has ended by itself with {self.process.returncode}: {tail}')


class Cluster:
    """`count` nodes, numbered from 1, and an etcd. Host n - 1 is node n's, the last one etcd's."""

    def __init__(self, shelfd, count, net, directory):
        self.count, self.net, self.directory = count, net, directory
        self.etcd_host, client_port, peer_port = count, net.port(count), net.port(count)
        if client_port == peer_port:
            peer_port += 1
        address = net.addresses[count]
        client, peer = f'http://{address}:{client_port}', f'http://{address}:{peer_port}'
        self.etcd_at = (address, client_port)
        self.etcd = Server('etcd', [*net.inside(count), 'etcd', '--data-dir', os.path.join(directory, 'etcd'), '--listen-client-urls', client,
                                    '--advertise-client-urls', client, '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer,
                                    '--initial-cluster', f'default={peer}', '--logger', 'zap', '--log-level', 'error'], directory)
        self.nodes = {}
        for node in range(1, count + 1):
            self.nodes[node] = Server(f'node-{node}', [
                *net.inside(node - 1), shelfd, '--data', self.data(node), '--socket', self.socket(node),
                '--node-address', f'{net.addresses[node - 1]}:{net.port(node - 1)}', '--etcd', client, '--cluster', 'chaos',
                '--node-id', str(node), '--copies', str(count), '--checkpoint-interval', '2s',
                '--log-format', 'json'], directory)

    def data(self, node):
        return os.path.join(self.directory, f'data-{node}')

    def socket(self, node):
        return os.path.join(self.directory, f'sock-{node}')

    def where(self, node):
        return f'unix:{self.socket(node)}'

    def servers(self):
        return [self.etcd, *self.nodes.values()]

    def check(self):
        for server in self.servers():
            server.check()

    def start(self):
        self.etcd.start()
        if not network.answers(*self.etcd_at):
            self.check()
            raise Failure('etcd does not answer')
        for node in self.nodes.values():
            node.start()

    def heal(self):
        """Everything runs and hears everything."""
        self.net.heal()
        for server in self.servers():
            if not server.process:
                server.start()
            server.go_on()


class Clients:
    """A worker for each node. One that is killed is followed by another, whose clients have other numbers and the same sessions."""

    def __init__(self, worker, cluster, options):
        self.worker, self.cluster, self.options = worker, cluster, options
        self.each = -(-options.clients // cluster.count)
        self.next, self.files, self.running = 0, [], {}

    def sessions(self):
        return self.each * self.cluster.count

    def sizes(self):
        return ['--registers', self.options.registers, '--sessions', self.sessions()]

    def begin(self, node):
        file = os.path.join(self.cluster.directory, f'clients-{len(self.files)}')
        self.files.append(file)
        worker = Server(f'worker-{node}', [
            self.worker, 'run', '--where', self.cluster.where(node), '--out', file, '--node', node, '--client', self.next, '--session',
            (node - 1) * self.each, '--clients', self.each, *self.sizes(), '--seed', self.options.seed, '--pause-us',
            self.options.pause_us], self.cluster.directory)
        self.next += self.each
        worker.start()
        self.running[node] = worker

    def check(self):
        for worker in self.running.values():
            worker.check()

    def end(self):
        for worker in self.running.values():
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.running.values():
            try:
                code = worker.process.wait(END_S)
            except subprocess.TimeoutExpired as error:
                raise Failure(f'{worker.name} does not end') from error
            if code != 0:
                worker.check()
            ended(worker.process)
        self.running = {}

    def run(self, command, node, *more):
        return run([self.worker, command, '--where', self.cluster.where(node), *more], timeout_s=END_S + START_S)

    def look(self, node):
        """What a node says of its cluster, or None."""
        done = self.run('look', node)
        return json.loads(done.stdout) if done.returncode == 0 else None


class Chaos:
    def __init__(self, options, cluster, clients):
        self.options, self.cluster, self.clients = options, cluster, clients
        self.random = random.Random(options.seed)
        self.events = []
        possible = [kind for kind in KINDS if (cluster.net.can_part or not kind.startswith(('isolate', 'part'))) and
                    (cluster.net.proxies or kind not in MISCHIEF)]
        self.kinds = [kind for kind in options.kinds.split(',') if kind in possible] if options.kinds else possible

    def pause(self, low_s, high_s):
        end = min(time.monotonic() + self.random.uniform(low_s, high_s), self.until)
        while time.monotonic() < end:
            time.sleep(min(0.05, max(0, end - time.monotonic())))
            self.cluster.check()
            self.clients.check()

    def injury(self, what, **more):
        self.events.append({'event': 'injury', 'time': time.monotonic_ns(), 'what': what, **more})

    def primary(self):
        """The node that some node takes for the primary; any if nobody says."""
        for node, server in self.cluster.nodes.items():
            if server.process:
                told = self.clients.look(node)
                if told and told['primary'] in self.cluster.nodes:
                    return told['primary']
        return self.random.choice(list(self.cluster.nodes))

    def one(self):
        kind = self.random.choice(self.kinds)
        nodes = self.random.sample(list(self.cluster.nodes), len(self.cluster.nodes))
        if kind.endswith('primary'):
            primary = self.primary()
            nodes = [primary] + [node for node in nodes if node != primary]
        if kind == 'roll':
            self.rolled()
        elif kind == 'empty':
            self.emptied(nodes[0])
        elif kind.startswith('kill'):
            self.killed(kind, nodes[:{'kill-two': 2, 'kill-all': len(nodes)}.get(kind, 1)])
        elif kind.startswith('stop'):
            self.stopped(kind, self.cluster.nodes[nodes[0]])
        elif kind == 'etcd-kill':
            self.killed(kind, [])
        elif kind == 'etcd-stop':
            self.stopped(kind, self.cluster.etcd)
        elif kind == 'client-kill':
            self.injury(kind, node=nodes[0])
            self.clients.running[nodes[0]].kill()
            self.clients.begin(nodes[0])
        elif kind in MISCHIEF:
            self.mischievous(kind, nodes[:self.random.randint(1, len(nodes))])
        else:
            self.parted(kind, nodes)

    def killed(self, kind, nodes):
        servers = [self.cluster.nodes[node] for node in nodes] or [self.cluster.etcd]
        self.injury(kind, servers=[server.name for server in servers])
        for server in servers:
            server.kill()
        self.pause(0.05, 3)
        for server in servers:
            server.start()
            self.pause(0, 0.3)
        self.injury('started', servers=[server.name for server in servers])

    def rolled(self):
        """All nodes are started anew, one after the other, each when all are in sync."""
        for node, server in self.cluster.nodes.items():
            healed_until(lambda: in_sync(self.clients, self.cluster), 'all nodes to be in sync', HEAL_S, self.cluster)
            self.injury('roll', node=node)
            server.end()
            server.start()

    def emptied(self, node):
        """One node loses its disk, while all are in sync; it comes back with nothing, and must get everything from the others."""
        server = self.cluster.nodes[node]
        healed_until(lambda: in_sync(self.clients, self.cluster), 'all nodes to be in sync', HEAL_S, self.cluster)
        self.injury('empty', node=node)
        server.kill()
        shutil.rmtree(self.cluster.data(node))
        self.pause(0, 2)
        server.start()
        healed_until(lambda: in_sync(self.clients, self.cluster), 'all nodes to be in sync', HEAL_S, self.cluster)

    def stopped(self, kind, server):
        self.injury(kind, server=server.name)
        server.stop()
        self.pause(0.1, self.random.choice([0.3, 1, 5]))
        server.go_on()
        self.injury('goes on', server=server.name)

    def parted(self, kind, nodes):
        hosts = [node - 1 for node in nodes]
        etcd = self.cluster.etcd_host
        pairs = {'part-pair': [(hosts[0], hosts[1])], 'part-one-way': [(hosts[0], hosts[1])], 'part-etcd': [(hosts[0], etcd)]}.get(
            kind, [(hosts[0], other) for other in hosts[1:] + [etcd]])
        self.injury(kind, node=nodes[0], hosts=pairs)
        for a, b in pairs:
            self.cluster.net.part(a, b)
            if kind != 'part-one-way':
                self.cluster.net.part(b, a)
        self.pause(0.1, self.random.choice([0.5, 2, 6]))
        self.cluster.net.heal()
        self.injury('healed')

    def mischievous(self, kind, nodes):
        self.injury(kind, nodes=nodes)
        for node in nodes:
            self.cluster.net.mischief(node - 1, **MISCHIEF[kind])
        self.pause(0.5, 4)
        self.cluster.net.heal()
        self.injury('healed')

    def run(self):
        self.until = time.monotonic() + self.options.seconds
        while time.monotonic() < self.until:
            self.pause(0.3, 2)
            if time.monotonic() < self.until:
                self.one()


def in_sync(clients, cluster):
    """Whether a primary serves and has everybody in sync."""
    told = [clients.look(node) for node in cluster.nodes]
    return any(one and one['serves'] and one['part'] == 2 and one['in_sync'] == cluster.count for one in told)


def healed_until(condition, what, deadline_s, cluster):
    end = time.monotonic() + deadline_s
    while not condition():
        cluster.check()
        if time.monotonic() > end:
            raise Failure(f'waited {deadline_s} s for {what}')
        time.sleep(0.1)  # each look is a process, and the nodes need the processors


def history_write(options, clients, events, finals):
    lines = list(events)
    for file in clients.files:
        if os.path.exists(file):
            with open(file, encoding='ascii') as part:
                lines += [json.loads(line) for line in part]
    lines.sort(key=lambda line: line['time'])  # stable: lines of one client stay in their order
    names = ['place', *(f'r-{i}' for i in range(options.registers)), *(f's-{i}' for i in range(clients.sessions()))]
    header = {'event': 'header', 'format': 1, 'registers': names, 'durability': 'MAJORITY', 'seed': options.seed,
              'seconds': options.seconds, 'nodes': options.nodes, 'clients': clients.sessions()}
    with open(options.out, 'w', encoding='ascii') as out:
        for line in [header, *lines, *finals, {'event': 'end'}]:
            out.write(json.dumps(line) + '\n')


def drive(options, cluster, clients):
    chaos = Chaos(options, cluster, clients)
    finals = []
    cluster.start()
    healed_until(lambda: in_sync(clients, cluster), 'all nodes to be in sync', START_S, cluster)
    done = clients.run('setup', chaos.primary(), *clients.sizes())
    if done.returncode != 0:
        raise Failure(f'setup: {done.stderr}')
    for node in cluster.nodes:
        clients.begin(node)
    chaos.run()
    cluster.heal()
    began = time.monotonic()
    healed_until(lambda: in_sync(clients, cluster), 'all nodes to be in sync again', HEAL_S, cluster)
    print(f'healed after {time.monotonic() - began:.1f} s; injuries: {sum(1 for event in chaos.events if len(event) > 3)}', flush=True)
    clients.check()
    clients.end()
    for node in cluster.nodes:
        done = clients.run('final', node, '--node', node, *clients.sizes(), '--wait-ms', END_S * 1000)
        if done.returncode != 0:
            raise Failure(f'the last read on node {node}: {done.stderr}')
        finals.append(json.loads(done.stdout))
    history_write(options, clients, chaos.events, finals)


def judge(out):
    checker = Checker()
    with open(out, encoding='ascii') as file:
        problems = checker.run(file)
    print(', '.join(f'{name}: {count}' for name, count in sorted(checker.counts.items())))
    for problem in problems[:PROBLEMS_MAX]:
        print(problem)
    if checker.counts['OK'] < 100:
        problems.append('almost nothing has happened')
        print(problems[-1])
    return problems


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--out', default='chaos.history')
    parser.add_argument('--nodes', type=int, default=3)
    parser.add_argument('--clients', type=int, default=12)
    parser.add_argument('--registers', type=int, default=16)
    parser.add_argument('--pause-us', type=int, default=4000)
    parser.add_argument('--kinds', default='')
    parser.add_argument('--network', choices=['namespaces', 'loopback'])
    parser.add_argument('--proxies', choices=['yes', 'no'])
    parser.add_argument('--keep')
    parser.add_argument('--build', default=os.environ.get('SHELF_CHAOS_BUILD', 'build'))
    options = parser.parse_args()
    unknown = [kind for kind in options.kinds.split(',') if kind and kind not in KINDS]
    if unknown:
        parser.error(f'there is no kind {unknown[0]}; there are {", ".join(KINDS)}')
    if shutil.which('etcd') is None:
        skip('etcd is not installed (Debian package etcd-server)')
    wanted = options.network or ('namespaces' if network.namespaces_possible() else 'loopback')
    if wanted == 'namespaces':
        network.enter_own()
    net = (network.Namespaces if wanted == 'namespaces' else network.Loopback)(options.nodes + 1)
    at_end(net.close)
    if wanted == 'namespaces' and (options.proxies or ('yes' if options.seed % 2 else 'no')) == 'yes':
        net.proxies_make(options.nodes, options.seed)
    directory = scratch_directory(memory=False, keep=options.keep)
    build = os.path.abspath(options.build)
    cluster = Cluster(os.path.join(build, 'shelfd'), options.nodes, net, directory)
    clients = Clients(os.path.join(build, 'test', 'cluster', 'chaos-worker'), cluster, options)
    try:
        drive(options, cluster, clients)
        problems = judge(options.out)
    except Failure as failure:
        problems = [failure]
        print(f'FAILED: seed {options.seed}: {failure}')
    how = wanted + (', proxies' if net.proxies else '')
    print(f'seed {options.seed}, {how}; {0 if problems else 1} passed, {1 if problems else 0} failed')
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
