#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clusters of real processes with a real etcd: what their operator and their users meet.

Usage: basic.py SHELFD SHELF [CASE...]"""

import json
import os
import shutil
import signal
import sys
import time

import bed
from bed import BUSY, Cluster, EXISTS, INVALID, NOT_FOUND, OK, Writer, environment, missing
from harness import Cases, run, scratch_directory, skip

PROGRAMS = tuple(map(os.path.abspath, sys.argv[1:3]))
cases = Cases()
check = cases.check
work = scratch_directory(memory=True)


def path(name):
    return os.path.join(work, name)


def three():
    cluster = Cluster(path('three'), PROGRAMS, 3)
    cluster.settle()
    done = cluster.led().shelf('create', 'shop', '1M')
    check(done.returncode == OK, 'a region is made', done.stderr)
    return cluster


# ---- Three nodes, one after the other --------------------------------------------------------------------------------


def test_commit_and_read(cluster):
    primary = cluster.led()
    cluster.put('apple', '120')
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.get('apple') == '120', f'{node} to have what was committed')
        status = node.status()
        check(status['in_sync'] == 3 and status['part'] == ('primary' if node is primary else 'backup') and
              status['primary'] == primary.number and status['well'] and status['may_fail'] == 1,
              f'{node} knows the cluster', json.dumps(status))
    backup = next(node for node in cluster.nodes if node is not primary)
    check(backup.put('pear', '80') and backup.get('pear') == '80', 'a commit at a backup, which then reads it')
    text = primary.shelf('status').stdout
    check(f'this is node {primary.number}, primary' in text and 'any one node' in text and 'all is well' in text and
          '3 of 3' in text, 'status in words', text)


def test_fresh(cluster):
    """What was acknowledged at one node is there for a transaction with SHELF_FRESH that begins at another one later."""
    script = '''
import sys
import shelf
here, there = (shelf.open("unix:" + path + "/sock") for path in sys.argv[1:])
with here, there:
    for number in range(200):
        with here.transaction() as tx:
            tx.map(here.region("shop"), "map")["fresh"] = b"%d" % number
        with there.transaction(read_only=True, fresh=True) as tx:
            value = tx.map(there.region("shop"), "map")["fresh"]
            assert value == b"%d" % number, (number, value)
print("fresh")
'''
    tree = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'python')
    python = {**environment, 'PYTHONPATH': tree, 'PYTHONDONTWRITEBYTECODE': '1',
              'SHELF_LIBRARY': os.path.join(os.path.dirname(PROGRAMS[1]), 'libshelf.so.0')}
    primary = cluster.led()
    first, second = [node for node in cluster.nodes if node is not primary]
    for here, there in (primary, first), (first, second), (second, primary):
        done = run([sys.executable, '-c', script, here.data, there.data], env=python)
        check(done.stdout == 'fresh\n', f'fresh at {there} after {here}', done.stderr)


def test_kill_primary(cluster):
    writer = Writer(cluster)
    cluster.until(lambda: len(writer.acknowledged) >= 5, 'five commits')
    old = cluster.led()
    old.end()
    others = [node for node in cluster.nodes if node is not old]
    new = cluster.led(others)
    count = len(writer.acknowledged)
    cluster.until(lambda: len(writer.acknowledged) >= count + 5, 'five commits after the takeover')
    old.start()
    cluster.settle()
    keys = writer.end()
    check(new is not old, 'another one leads')
    for node in cluster.nodes:
        cluster.until(lambda node=node: not missing(node, keys), f'{node} to have all {len(keys)} keys')
    check(True, 'nothing that was acknowledged is lost')


def test_without_etcd(cluster):
    """Commits go on; nothing changes; when it is back, changes are possible."""
    cluster.etcd.kill()
    primary = cluster.led()
    cluster.until(lambda: not primary.status()['coordinator']['reachable'], 'etcd to be missed')
    cluster.put('without', 'etcd')
    text = primary.shelf('status').stdout
    check('does not answer' in text and 'nobody can take over' in text, 'status without etcd', text)
    backup = next(node for node in cluster.nodes if node is not primary)
    backup.end()
    cluster.put('without', 'etcd and backup')  # q = 2 of 3
    check(primary.status()['in_sync'] == 3, 'the set cannot change')
    cluster.etcd.start()
    cluster.settle([node.number for node in cluster.nodes if node is not backup])
    check(primary.status()['may_fail'] == 0 and 'none' in primary.status()['outlook'], 'two nodes of at least two')
    backup.start()
    cluster.settle()
    cluster.until(lambda: backup.get('without') == 'etcd and backup', 'the backup to catch up')
    check(primary.has('coordinator-lost') and primary.has('coordinator-back') and primary.has('set-changed'),
          'events of the coordinator')


def test_emptied(cluster):
    """A directory that was emptied is a new incarnation: a learner, then in sync."""
    primary = cluster.led()
    node = next(node for node in cluster.nodes if node is not primary)
    node.end()
    cluster.put('before', 'emptied')
    shutil.rmtree(node.data)
    node.start()
    cluster.settle()
    cluster.until(lambda: node.get('before') == 'emptied', 'the emptied one to have everything')
    found = [event['index'] for event in node.events() if event['event'] == 'recovered']
    check(found[-1] == 0, 'it began with nothing', str(found))


def test_lost_shelf(cluster):
    """The same, where the identity is left."""
    primary = cluster.led()
    node = next(node for node in cluster.nodes if node is not primary)
    node.end(signal.SIGTERM)
    for name in os.listdir(node.data):
        if not name.startswith('member'):
            victim = os.path.join(node.data, name)
            shutil.rmtree(victim) if os.path.isdir(victim) else os.unlink(victim)
    node.start()
    cluster.settle()
    cluster.until(lambda: node.get('before') == 'emptied', 'it to have everything')
    check(node.has('node-emptied'), 'it noticed')


def test_stopped_primary(cluster):
    old = cluster.led()
    old.send(signal.SIGSTOP)
    others = [node for node in cluster.nodes if node is not old]
    new = cluster.led(others)
    cluster.put('while', 'stopped', others)
    old.send(signal.SIGCONT)
    cluster.until(lambda: old.get('while') == 'stopped', 'the old primary to follow')
    cluster.until(lambda: old.status().get('part') == 'backup' and not old.status()['serves'], 'it to be a backup')
    cluster.settle()
    check(new is not old and new.status()['serves'] and old.has('role-backup'), 'it gave up the lead')


def test_all_restart_without_etcd(cluster):
    """They know each other's addresses and what they have; only nobody can lead."""
    for node in cluster.nodes:
        begin = time.monotonic()
        code = node.end(signal.SIGTERM)
        check(code == OK and bed.elapsed(begin) < 10, f'{node} ends when it is asked to', f'{code}')
    cluster.etcd.kill()
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.get('apple') == '120', f'{node} to be read')
        cluster.until(lambda node=node: sum(each['connected'] for each in node.status()['nodes']) == 3,
                      f'{node} to know where the others are')
    check(cluster.primary() is None and not cluster.nodes[0].status()['well'], 'nobody leads',
          json.dumps(cluster.nodes[0].status()))
    cluster.etcd.start()
    cluster.settle()
    cluster.put('again', 'all')


def test_catch_up_by_checkpoint(cluster):
    """A node that was away until the primary's log did not reach back to it any more."""
    primary = cluster.led()
    node = next(node for node in cluster.nodes if node is not primary)
    node.end()
    done = primary.shelf('create', 'big', '48M')
    check(done.returncode == OK, 'a large region', done.stderr)
    value = path('value')
    for number in range(24):
        with open(value, 'wb') as file:
            file.write(b'%08d' % number * (1 << 20))
        with open(value, 'rb') as file:
            done = run([PROGRAMS[1], 'put', primary.data, 'big/map', 'value', '-'], stdin=file, env=environment)
        check(done.returncode == OK, 'a large value', done.stderr)
    before = len(node.events())
    node.start()
    cluster.settle()
    cluster.until(lambda: (node.get('value', 'big/map') or '')[-8:] == '00000023', 'it to have the last one')
    check(any(event['event'] == 'reopening' for event in node.events()[before:]), 'it got a checkpoint')


def test_refused(cluster):
    node = cluster.nodes[0]

    def refuse(code, says, *arguments):
        done = run([PROGRAMS[0], *arguments, '--log-format', 'text'], env=environment)
        check(done.returncode == code and says in done.stderr, f'refused: {says}', f'{done.returncode}: {done.stderr}')

    refuse(BUSY, 'another process', *node.arguments())
    others = ['--etcd', cluster.coordinator, '--node-address', '127.0.0.1:0']
    refuse(EXISTS, 'node 1 is there already', '--data', path('other'), *others, '--node-id', '1')
    node.end(signal.SIGTERM)
    refuse(INVALID, 'of a node of a cluster', '--data', node.data)
    refuse(INVALID, 'not of node 9', '--data', node.data, *others, '--node-id', '9')
    refuse(INVALID, "not of 'else'", '--data', node.data, *others, '--cluster', 'else')
    refuse(INVALID, 'which of this machine', '--data', path('x'), '--etcd', cluster.coordinator, '--node-address',
           '0.0.0.0:7000')
    refuse(INVALID, '--node-address', '--data', path('x'), '--etcd', cluster.coordinator)
    refuse(INVALID, '--etcd', '--data', path('x'), '--node-address', '127.0.0.1:0')
    alone = path('alone')
    done = cluster.shelf('create', alone)
    check(done.returncode == OK, 'a shelf of one', done.stderr)
    refuse(INVALID, 'single node', '--data', alone, *others)
    done = cluster.shelf('status', alone, '--json')
    check('cluster' not in json.loads(done.stdout), 'a lone shelf is of no cluster', done.stdout)
    node.start()
    cluster.settle()


# ---- Others ---------------------------------------------------------------------------------------------------------


def test_two_nodes():
    """Of two, with --min-copies 1, the one that is left goes on alone; by files instead of an etcd."""
    cluster = Cluster(path('two'), PROGRAMS, 2, ['--copies', '2', '--min-copies', '1'],
                      coordinator='file:' + path('register'))
    cluster.settle()
    done = cluster.led().shelf('create', 'shop', '1M')
    check(done.returncode == OK, 'a region is made', done.stderr)
    check(cluster.led().status()['may_fail'] == 1, 'one of two may fail', json.dumps(cluster.led().status()))
    old = cluster.led()
    other = next(node for node in cluster.nodes if node is not old)
    old.end()
    cluster.put('alone', 'yes', [other])
    cluster.settle([other.number])
    check('only one copy counts' in other.status()['outlook'], 'what one is told', other.status()['outlook'])
    old.start()
    cluster.settle()
    cluster.until(lambda: old.get('alone') == 'yes', 'the other one to have it')
    cluster.close()


def lives(process):
    try:
        with open(f'/proc/{process}/stat', encoding='utf-8') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


def test_up():
    """shelf up, kill, start, down."""
    directory = path('up')

    def shelf(*arguments, code=OK, says=''):
        done = run([PROGRAMS[1], *arguments], env={**environment, 'SHELF_SUSPECT': '600ms', 'SHELF_HEARTBEAT': '50ms'})
        check(done.returncode == code and says in done.stdout + done.stderr, f'shelf {" ".join(arguments)}',
              f'{done.returncode}, not {code} with "{says}": {done.stdout}{done.stderr}')
        return done.stdout

    here = ('--dir', directory)
    shelf('kill', '1', *here, code=NOT_FOUND, says='shelf up 3')
    shelf('up', 'many', *here, code=INVALID, says='no number')
    bed.at_end(lambda: run([PROGRAMS[1], 'down', *here], env=environment))
    text = shelf('up', '2', *here, says='all in sync')
    check('shelf status' in text and f'shelf down --dir {directory}' in text, 'what to try next', text)
    shelf('up', '1', *here, code=EXISTS, says='not fewer')
    shelf('up', *here, says='were up already')
    state = json.loads(shelf('up', '3', *here, '--json'))
    check([node['node'] for node in state['nodes']] == [1, 2, 3] and all(node['runs'] for node in state['nodes']) and
          sorted(node['part'] for node in state['nodes']) == ['backup', 'backup', 'primary'], 'three nodes', str(state))
    primary = next(node for node in state['nodes'] if node['part'] == 'primary')
    other = next(node for node in state['nodes'] if node['part'] == 'backup')
    shelf('create', primary['path'], 'shop', '1M')
    shelf('put', primary['path'], 'shop/map', 'a', 'b')
    number = str(primary['node'])
    shelf('kill', number, *here, says='is killed')
    shelf('kill', number, *here, says='does not run')
    shelf('start', number, *here, says='in sync')
    shelf('start', number, *here, says='runs already')
    shelf('get', other['path'], 'shop/map', 'a', says='b')
    shelf('kill', 'etcd', *here, says='etcd is killed')
    shelf('start', 'etcd', *here, says='etcd is started')
    shelf('kill', '7', *here, code=NOT_FOUND, says='no node 7')
    shelf('down', *here, says='all is down')
    shelf('down', *here, says='nothing ran')
    for node in state['nodes']:
        check(not lives(node['process']), f"node {node['node']} has ended")
    state = json.loads(shelf('up', *here, '--json'))
    shelf('get', state['nodes'][0]['path'], 'shop/map', 'a', says='b')
    # A number that has become another process's is nobody's to end.
    file = os.path.join(directory, 'cluster.json')
    shelf('down', *here)
    with open(file, encoding='utf-8') as text:
        changed = json.load(text)
    bystander = bed.start(['cat'], stdin=bed.subprocess.PIPE)
    changed['nodes'][0]['runs']['process'] = bystander.pid
    with open(file, 'w', encoding='utf-8') as text:
        json.dump(changed, text)
    shelf('kill', '1', *here, says='does not run')
    check(bystander.poll() is None, 'a bystander lives')
    with open(file, 'w', encoding='utf-8') as text:
        text.write('{')
    shelf('down', *here, code=9, says='begin anew')


def main():
    wanted = sys.argv[3:]
    if shutil.which('etcd') is None:
        skip('etcd is not installed (Debian package etcd-server)')
    tests = [value for name, value in globals().items() if name.startswith('test_')]
    chosen = [test for test in tests if not wanted or test.__name__[5:] in wanted]
    cluster = None
    for test in chosen:
        begin = time.monotonic()
        try:
            if test.__code__.co_argcount:
                cluster = cluster or three()
                test(cluster)
            else:
                test()
        except AssertionError as error:  # what comes after it would stand on nothing
            check(False, test.__name__, str(error))
            break
        print(f'{test.__name__}: {bed.elapsed(begin):.1f} s', flush=True)
    if cluster:
        cluster.close()
    cases.finish()


if __name__ == '__main__':
    main()
