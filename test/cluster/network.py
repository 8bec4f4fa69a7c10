# SPDX-License-Identifier: Apache-2.0
"""Hosts of a cluster on one machine. In a namespace of their own (Namespaces) messages between two of them can be made to vanish, in
one direction or both; without the right to make namespaces (Loopback) they share the loopback interface, and cannot be parted.

Between the nodes of namespaces there can be proxies (mischief.py).

A namespace lives as long as the process that holds it; nothing has a name outside."""

import json
import os
import socket
import subprocess
import sys
import time

NETWORK, BACK_NETWORK = '10.77.0.', '10.78.0.'  # BACK: between proxies
PORT = 7000
MISCHIEF = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'mischief.py')
HOLDER = 'import os, sys; os.write(1, b"x"); sys.stdin.read()'
OWN_MARK = 'SHELF_CHAOS_NAMESPACE'


def namespaces_possible():
    return subprocess.run(['unshare', '-n', 'true'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def enter_own():
    """Starts this program again in a network namespace of its own, unless it is there. The bridge between the hosts is in it."""
    if OWN_MARK not in os.environ:
        os.environ[OWN_MARK] = '1'
        os.execvp('unshare', ['unshare', '-n', sys.executable, '-B', *sys.argv])


def command(*words):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f'{" ".join(map(str, words))}: {done.stdout}')


class Loopback:
    can_part, proxies = False, []

    def __init__(self, count):
        self.addresses = ['127.0.0.1'] * count

    def inside(self, host):
        return []

    def port(self, host):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            return free.getsockname()[1]

    def part(self, source, target):
        raise NotImplementedError

    def heal(self):
        pass

    def close(self):
        pass


class Namespaces:
    """Host h has the address NETWORK + (h + 1). What one does not hear of another is dropped by its own routing, silently."""

    can_part = True

    def __init__(self, count):
        self.addresses = [f'{NETWORK}{host + 1}' for host in range(count)]
        self.backs = [f'{BACK_NETWORK}{host + 1}' for host in range(count)]
        self.holders, self.proxies, self.parted = [], [], set()
        command('ip', 'link', 'set', 'lo', 'up')
        command('ip', 'link', 'add', 'bridge', 'type', 'bridge')
        command('ip', 'address', 'add', f'{NETWORK}254/24', 'dev', 'bridge')
        command('ip', 'link', 'set', 'bridge', 'up')
        for host in range(count):
            self.host_make(host)

    def host_make(self, host):
        holder = subprocess.Popen(['unshare', '-n', sys.executable, '-c', HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holders.append(holder)
        holder.stdout.read(1)
        command('ip', 'link', 'add', f'port{host}', 'type', 'veth', 'peer', 'name', f'host{host}')
        command('ip', 'link', 'set', f'host{host}', 'netns', holder.pid)
        command('ip', 'link', 'set', f'port{host}', 'master', 'bridge', 'up')
        # Rules before the one for local addresses, so that they see what comes in; and no short cut past them.
        for words in (['link', 'set', 'lo', 'up'], ['address', 'add', f'{self.addresses[host]}/24', 'dev', f'host{host}'],
                      ['link', 'set', f'host{host}', 'up'], ['rule', 'add', 'priority', '10', 'lookup', 'local'],
                      ['rule', 'delete', 'priority', '0']):
            command(*self.inside(host), 'ip', *words)
        command(*self.inside(host), 'sh', '-c', 'echo 0 > /proc/sys/net/ipv4/ip_early_demux')

    def inside(self, host):
        return ['nsenter', '-t', str(self.holders[host].pid), '-n']

    def port(self, _):
        return PORT

    def proxies_make(self, count, seed):
        """One on each of the first hosts. The others' addresses are there, too, and are nobody else's business (arp_ignore)."""
        for host in range(count):
            others = [other for other in range(count) if other != host]
            command(*self.inside(host), 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore')
            command(*self.inside(host), 'ip', 'address', 'add', f'{self.backs[host]}/24', 'dev', f'host{host}')
            for other in others:
                command(*self.inside(host), 'ip', 'address', 'add', f'{self.addresses[other]}/32', 'dev', 'lo')
            proxy = subprocess.Popen([*self.inside(host), sys.executable, '-B', MISCHIEF, str(seed * 100 + host), str(PORT),
                                      self.addresses[host], self.backs[host],
                                      *(f'{self.addresses[other]}={self.backs[other]}' for other in others)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.proxies.append(proxy)
            proxy.stdout.readline()

    def mischief(self, host, **what):
        self.proxies[host].stdin.write(json.dumps(what).encode() + b'\n')
        self.proxies[host].stdin.flush()

    def rules(self, action, source, target):
        for address in (self.addresses[source], self.backs[source]):
            command(*self.inside(target), 'ip', 'rule', action, 'from', address, 'iif', f'host{target}', 'priority', '1', 'blackhole')

    def part(self, source, target):
        """From now on `target` gets nothing from `source`."""
        if (source, target) not in self.parted:
            self.parted.add((source, target))
            self.rules('add', source, target)

    def heal(self):
        for source, target in list(self.parted):
            self.rules('delete', source, target)
            self.parted.discard((source, target))
        for host in range(len(self.proxies)):
            self.mischief(host)

    def close(self):
        for process in self.proxies + self.holders:
            process.stdin.close()
            process.wait()


def answers(address, port, deadline_s=10):
    """Whether somebody listens there before the time is over."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, port), 1):
                return True
        except OSError:
            time.sleep(0.02)
    return False
