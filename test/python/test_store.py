# SPDX-License-Identifier: Apache-2.0
"""Open and close, regions, state; and what happens to those who go on after the end."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
import warnings

import shelf
from bed import Bed
from shelf import store


class OpenTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='shelf-python.')
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name) / 'shelf'

    def test_what_is_not_there_is_not_found(self):
        with self.assertRaises(shelf.NotFound) as caught:
            shelf.open(self.path)
        self.assertIsInstance(caught.exception, KeyError)
        self.assertTrue(caught.exception.detail)
        self.assertEqual(str(caught.exception), caught.exception.detail)

    def test_options_reach_the_library(self):
        with shelf.open(self.path, create=True, log_bytes_max=128 << 20, backend=shelf.Backend.PLAIN) as s:
            self.assertEqual(s.info().backend, shelf.Backend.PLAIN)
            with self.assertRaises(shelf.Busy):
                shelf.open(self.path, alone=True)
        with self.assertRaises(shelf.Exists):
            shelf.open(self.path, create=True, exclusive=True)
        with self.assertRaises(shelf.Invalid):
            shelf.open(self.path, log_bytes_max=1)
        with self.assertRaises(shelf.Invalid):
            shelf.open('nowhere')
        with self.assertRaises(shelf.Invalid):
            shelf.open('dir:/tmp/a\0b')

    def test_no_checkpoint_on_close_if_not_wanted(self):
        with shelf.open(f'dir:{self.path}', create=True, checkpoint_on_close=False) as s:
            s.create_region('r', 4096)
        with shelf.open(self.path) as s:
            self.assertGreater(s.info().recovered_records, 0)
        with shelf.open(self.path) as s:
            self.assertEqual(s.info().recovered_records, 0)

    def test_a_dropped_store_warns_and_closes(self):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            shelf.open(self.path, create=True)
            gc.collect()
        self.assertEqual([warning.category for warning in seen], [ResourceWarning])
        shelf.open(self.path).close()


class StoreTest(Bed):

    def test_state(self):
        self.assertEqual(self.s.checkpoint(), self.s.applied)
        info = self.s.info()
        self.assertEqual((info.checkpoint, info.state), (self.s.applied, shelf.Result.OK))
        self.assertFalse(self.s.closed)

    def test_regions(self):
        r = self.s.create_region('other', 5000, 1 << 20)
        self.assertEqual(r.info(), shelf.RegionInfo('other', r.number, 8192, 1 << 20, r.info().floor, os.geteuid(), os.getegid(), 0o660))
        r.grow(10000)
        self.assertEqual(r.info().size, 12288)
        self.assertEqual([info.name for info in self.s.regions()], ['main', 'words', 'other'])
        self.assertEqual(self.s.region('other'), r)
        self.assertEqual(len({r, self.s.region('other'), self.main}), 2)
        self.assertEqual(r.at(77) >> 48, int(r))
        with self.assertRaises(shelf.Exists):
            self.s.create_region('other', 4096)
        self.s.drop_region('other')
        for call in lambda: self.s.region('other'), lambda: self.s.drop_region('other'), r.info:
            with self.assertRaises(shelf.NotFound):
                call()

    def test_names_are_checked(self):
        for name in 'ma\0in', 'x' * 56, '', 'x' * 5000:
            with self.assertRaises(shelf.Invalid):
                self.s.region(name)
            with self.assertRaises(shelf.Invalid):
                self.s.run(lambda tx: tx.root_set(self.main, name, 1, 1, 1))

    def test_after_close_everything_is_refused(self):
        self.s.close()
        self.s.close()
        self.assertTrue(self.s.closed)
        for call in (self.s.info, self.s.transaction, self.s.fileno, self.s.completions, self.main.info,
                     lambda: self.s.session('x'), lambda: self.s.run(print)):
            with self.assertRaises(shelf.Invalid):
                call()

    def test_close_is_refused_while_a_transaction_is_open(self):
        tx = self.s.transaction()
        with self.assertRaises(shelf.Invalid):
            self.s.close()
        tx.write_word(self.words.at(0), 1)  # and harms nobody
        tx.abort()
        self.s.close()

    def test_a_dropped_transaction_is_aborted(self):
        tx = self.s.transaction()
        tx.write_word(self.words.at(0), 1)
        del tx
        gc.collect()
        self.assertEqual(self.word(0), 0)
        self.s.close()

    def test_a_child_has_no_part_in_it(self):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.s.info()
            except shelf.Invalid:
                status = 0
            os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.set(0, 5)
        self.assertEqual(self.word(0), 5)


WRITER = textwrap.dedent('''
    import shelf, sys
    s = shelf.open(sys.argv[1], create=True)
    r = s.create_region('main', 4 << 20)
    s.run(lambda tx: tx.format(r))
    count = 0
    while True:
        with s.transaction() as tx:
            tx.map(r, 'm', create=True)['count'] = str(count)
            tx.stream(r, 'log', create=True).append(str(count))
        print(count, flush=True)
        count += 1
''')


class KillTest(unittest.TestCase):

    def test_what_was_committed_survives_a_kill(self):
        with tempfile.TemporaryDirectory(prefix='shelf-python.') as directory:
            where = f'dir:{directory}/shelf'
            writer = subprocess.Popen([sys.executable, '-B', '-c', WRITER, where], stdout=subprocess.PIPE, text=True)
            seen = [int(writer.stdout.readline()) for _ in range(50)]
            writer.send_signal(signal.SIGKILL)
            seen += [int(line) for line in writer.stdout if line.endswith('\n')]
            writer.stdout.close()
            self.assertEqual(writer.wait(), -signal.SIGKILL)
            with shelf.open(where) as s, s.transaction(read_only=True) as tx:
                r = s.region('main')
                count = int(tx.map(r, 'm')['count'])
                self.assertIn(count, (seen[-1], seen[-1] + 1))
                log = tx.stream(r, 'log')
                self.assertEqual([int(record.data) for record in log], list(range(count + 1)))
                log.verify()
                tx.map(r, 'm').verify()


class ThreadsTest(Bed):

    def in_threads(self, count, body):
        failures = []

        def guarded(number):
            try:
                body(number)
            except BaseException as error:  # pylint: disable=broad-except
                failures.append(error)
        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_run_counts_every_call_once(self):
        def count(tx):
            tx.write_word(self.words.at(0), tx.read_word(self.words.at(0)) + 1)
            tx.add(self.words.at(64), 2)
        self.in_threads(4, lambda _: [self.s.run(count) for _ in range(50)])
        self.assertEqual((self.word(0), self.word(64)), (200, 400))

    def test_readers_see_one_moment(self):
        done = threading.Event()

        def write(tx):
            value = tx.read_word(self.words.at(0)) + 1
            tx.write_word(self.words.at(0), value)
            tx.write_word(self.words.at(2048), value)

        def body(number):
            if number == 0:
                for _ in range(100):
                    self.s.run(write)
                done.set()
            while not done.is_set():
                one, two = self.s.run(lambda tx: (tx.read_word(self.words.at(0)), tx.read_word(self.words.at(2048))),
                                      read_only=True)
                assert one == two, (one, two)
        self.in_threads(3, body)

    def test_close_waits_for_nobody_and_crashes_nobody(self):
        def body(number):
            if number == 0:
                while not self.s.closed:
                    try:
                        self.s.close()
                    except shelf.Invalid:
                        pass
                return
            try:
                while True:
                    self.s.info()
                    with self.s.transaction(read_only=True) as tx:
                        tx.read_word(self.words.at(0))
            except shelf.Invalid as error:
                assert 'closed' in str(error), error
        self.in_threads(3, body)


CHILD = '''
import sys, shelf
with shelf.open(sys.argv[1]) as s:
    region = s.region('shared')
    print('attached', not s.stats().is_node, flush=True)
    assert s.wait(region.at(0), 64, int(sys.argv[2]), 60000)
    with s.transaction() as tx:
        tx.write_word(region.at(64), tx.read_word(region.at(0)) + 1)
'''


class ProcessesTest(Bed):
    def test_another_process_attaches_waits_and_commits(self):
        region = self.s.create_region('shared', 4096)
        since = self.s.applied
        self.assertFalse(self.s.wait(region.at(0), 64, since, 1))
        child = subprocess.Popen([sys.executable, '-B', '-c', CHILD, self.where, str(since)], stdout=subprocess.PIPE, text=True)
        with child:
            self.assertEqual(child.stdout.readline(), 'attached True\n')
            clients = self.s.clients()
            self.assertEqual([client.process for client in clients], [child.pid])
            with self.s.transaction() as tx:
                tx.write_word(region.at(0), 41)
            self.assertTrue(self.s.wait(region.at(64), 64, since, 60000))
        self.assertEqual(child.returncode, 0)
        with self.s.transaction(read_only=True) as tx:
            self.assertEqual(tx.read_word(region.at(64)), 42)
        self.assertTrue(self.s.stats().is_node)
        self.assertTrue(self.s.staleness().connected)

    def test_cluster(self):
        """This one is alone; what a cluster says becomes values of Python."""
        with self.assertRaises(shelf.NotFound):
            self.s.cluster()
        info = store.ffi.new('struct shelf_cluster_info *')
        info.name, info.node, info.part, info.serves, info.epoch, info.node_count = b'shop', 2, 1, True, 7, 2
        info.coordinator = b'http://127.0.0.1:2379'
        for place, part in enumerate((2, 1)):
            info.nodes[place].node, info.nodes[place].part, info.nodes[place].address = place + 1, part, b'10.0.0.1:7000'
        cluster = store._cluster_of(info)
        self.assertEqual((cluster.name, cluster.node, cluster.part, cluster.serves, cluster.epoch, cluster.coordinator),
                         ('shop', 2, shelf.Part.BACKUP, True, 7, 'http://127.0.0.1:2379'))
        self.assertEqual([(node.node, node.part, node.address) for node in cluster.nodes],
                         [(1, shelf.Part.PRIMARY, '10.0.0.1:7000'), (2, shelf.Part.BACKUP, '10.0.0.1:7000')])

    def test_access(self):
        region = self.s.create_region('mine', 4096)
        region.set_access(mode=0o640)
        info = region.info()
        self.assertEqual((info.owner, info.group, info.mode), (os.geteuid(), os.getegid(), 0o640))
