# SPDX-License-Identifier: Apache-2.0
"""Transactions: their ends, reads and writes, views, operations, space and roots; run(); asynchronous commits; sessions."""

import array
import contextlib
import select

import shelf
from bed import Bed


class TransactionTest(Bed):

    def test_the_block_commits(self):
        with self.s.transaction() as tx:
            tx.write(self.words.at(0), b'hello')
            self.assertEqual(tx.read(self.words.at(0), 5), b'hello')
            self.assertIsNone(tx.receipt)
        self.assertEqual(tx.receipt.durability, shelf.Durability.LOCAL)
        self.assertLessEqual(tx.receipt.index, self.s.applied)
        self.assertFalse(tx.open)
        self.reopen()
        with self.s.transaction(read_only=True) as tx:
            self.assertEqual(tx.read(self.words.at(0), 5), b'hello')

    def test_an_exception_aborts(self):
        with self.assertRaises(ZeroDivisionError):
            with self.s.transaction() as tx:
                tx.write_word(self.words.at(0), 1)
                1 / 0
        self.assertEqual(self.word(0), 0)
        self.assertIsNone(tx.receipt)

    def test_after_the_end_everything_is_refused(self):
        tx = self.s.transaction()
        m = tx.map(self.main, 'm', create=True)
        log = tx.stream(self.main, 'log', create=True)
        entries = iter(m.items())
        tx.commit()
        tx.abort()
        for call in (tx.commit, tx.commit_async, lambda: tx.read(self.words.at(0), 1), lambda: tx.add(self.words.at(0), 1),
                     lambda: m.get('k'), lambda: m.put('k', 'v'), lambda: len(m), lambda: next(entries), log.bounds,
                     lambda: log.append('x'), lambda: tx.index, lambda: list(tx.roots(self.main)), tx.check):
            with self.assertRaises(shelf.Invalid):
                call()
        with self.assertRaises(shelf.Invalid), tx:
            pass

    def test_an_early_end_is_no_error(self):
        with self.s.transaction() as tx:
            tx.write_word(self.words.at(0), 1)
            tx.commit()
        with self.s.transaction() as tx:
            tx.write_word(self.words.at(0), 2)
            tx.abort()
        self.assertEqual(self.word(0), 1)

    def test_conflict_is_raised_by_the_block(self):
        with self.assertRaises(shelf.Conflict):
            with self.s.transaction() as tx:
                tx.read_word(self.words.at(0))
                self.set(0, 9)
                tx.write_word(self.words.at(64), 1)
        self.assertEqual(self.word(64), 0)

    def test_all_kinds_of_data(self):
        with self.s.transaction() as tx:
            for data, stored in ((b'ab', b'ab'), ('\u00e4', b'\xc3\xa4'), (bytearray(b'cd'), b'cd'),
                                 (memoryview(b'abcd')[1:3], b'bc'), (array.array('H', [1, 2]), b'\1\0\2\0'), (b'', b'')):
                tx.write(self.words.at(0), data)
                self.assertEqual(tx.read(self.words.at(0), len(stored)), stored)
            tx.pack('<qQ', self.words.at(8), -5, 7)
            self.assertEqual(tx.unpack('<qQ', self.words.at(8)), (-5, 7))
            into = bytearray(8)
            tx.read_into(self.words.at(16), into)
            self.assertEqual(into, b'\7' + bytes(7))
            with self.assertRaises(TypeError):
                tx.write(self.words.at(0), 5)
            with self.assertRaises(BufferError):
                tx.write(self.words.at(0), memoryview(b'abcd')[::2])

    def test_bad_addresses_are_refused(self):
        with self.s.transaction() as tx:
            for address in 0, 5, self.words.at(4090):
                with self.assertRaises(shelf.Invalid):
                    tx.read(address, 8)
            with self.assertRaises(shelf.NotFound):
                tx.read(999 << 48, 8)
            with self.assertRaises(OverflowError):
                tx.read(-1, 8)
        with self.assertRaises(shelf.Invalid), self.s.transaction(read_only=True) as tx:
            tx.write_word(self.words.at(0), 1)

    def test_operations(self):
        self.set(0, 12)
        with self.s.transaction() as tx:
            tx.add(self.words.at(0), 30)
            tx.add(self.words.at(0), -2)
            tx.min(self.words.at(64), 5)
            tx.max(self.words.at(128), 5)
            tx.bit_or(self.words.at(192), 6)
            tx.bit_and(self.words.at(192), ~4)
        self.assertEqual(tx.receipt.results, (42, 40, 0, 5, 6, 2))
        self.assertEqual((self.word(0), self.word(192)), (40, 2))

    def test_views(self):
        self.set(0, 0x0102)
        with self.s.transaction(read_only=True, fresh=True) as tx:
            tx.prefetch(self.words.at(0), 8)
            view = tx.view(self.words.at(0), 8)
            self.assertEqual(bytes(view[:2]), b'\2\1')
            self.assertEqual(view.cast('Q')[0], 0x0102)
            tx.check()
            with self.assertRaises(TypeError):
                view[0] = 1
            self.assertEqual(tx.index, self.s.applied)
        with self.assertRaises(ValueError):
            view[0]  # ended with the transaction
        with self.assertRaises(shelf.Conflict):
            with self.s.transaction(read_only=True) as tx:
                tx.view(self.words.at(0), 8)
                self.set(0, 1)
        self.assertFalse(tx.open)

    def test_a_view_of_own_writes(self):
        with self.s.transaction() as tx:
            tx.write_word(self.words.at(0), 77)
            kept = memoryview(tx.view(self.words.at(0), 8)).cast('Q')
            self.assertEqual(kept[0], 77)
            kept.release()

    def test_space(self):
        with self.s.transaction() as tx:
            one, two = tx.alloc(self.main, 16), tx.alloc(self.main, 1000)
            self.assertGreaterEqual(tx.alloc_size(two), 1000)
            tx.free(two)
            with self.assertRaises(shelf.NoSpace):
                tx.alloc(self.main, 15 << 20)
            with self.assertRaises(shelf.Invalid):
                tx.alloc_size(one + 4)
        with self.s.transaction(read_only=True) as tx:
            audit = tx.alloc_audit(self.main)
            self.assertEqual(audit.live + audit.free + audit.overhead, audit.total)

    def test_roots(self):
        layout = shelf.layout_hash('account', 16, [('owner', 0, 8)])
        with self.s.transaction() as tx:
            address = tx.alloc(self.main, 16)
            tx.root_set(self.main, 'bank', address, 7, layout)
        with self.s.transaction() as tx:
            self.assertEqual(tx.root_get(self.main, 'bank'), address)
            self.assertEqual(tx.root_get(self.main, 'bank', 7, layout), address)
            with self.assertRaises(shelf.Layout):
                tx.root_get(self.main, 'bank', 7, layout + 1)
            self.assertEqual(list(tx.roots(self.main)), [shelf.Root('bank', 7, layout, address)])
            tx.root_remove(self.main, 'bank')
            for call in tx.root_get, tx.root_remove:
                with self.assertRaises(shelf.NotFound):
                    call(self.main, 'bank')


class RunTest(Bed):

    def test_it_returns_and_passes_on(self):
        self.assertEqual(self.s.run(lambda tx: 'value'), 'value')
        with self.assertRaises(ZeroDivisionError):
            self.s.run(lambda tx: (tx.write_word(self.words.at(0), 1), 1 / 0))
        self.assertEqual(self.word(0), 0)

    def test_conflicts_are_tried_again(self):
        attempts = []

        def body(tx):
            value = tx.read_word(self.words.at(0))
            attempts.append(value)
            if len(attempts) <= 3:
                self.set(0, value + 10)
            tx.write_word(self.words.at(0), value + 1)
            return tx
        tx = self.s.run(body)
        self.assertEqual(attempts, [0, 10, 20, 30])
        self.assertEqual(self.word(0), 31)
        self.assertGreater(tx.receipt.index, 0)

    def test_the_deadline_ends_it(self):
        def body(tx):
            value = tx.read_word(self.words.at(0))
            self.set(0, value + 1)
            tx.write_word(self.words.at(0), 0)
        with self.assertRaises(shelf.Timeout) as caught:
            self.s.run(body, deadline_ms=20)
        self.assertIsInstance(caught.exception.__cause__, shelf.Conflict)

    def test_what_came_of_changed_bytes_is_not_passed_on(self):
        attempts = []

        def body(tx):
            view = tx.view(self.words.at(0), 8)
            attempts.append(bytes(view))
            if len(attempts) == 1:
                self.set(0, 1)
                raise RuntimeError('from bytes that were never there together')
            if len(attempts) == 2:
                self.set(0, 2)
            return view[0]
        self.assertEqual(self.s.run(body, read_only=True), 2)
        self.assertEqual(len(attempts), 3)


class AsyncTest(Bed):

    def test_one_completion_each(self):
        for tag in range(1, 41):
            tx = self.s.transaction()
            tx.add(self.words.at(0), tag)
            tx.commit_async(tag)
            self.assertFalse(tx.open)
        done = []
        while len(done) < 40:
            self.assertEqual(select.select([self.s], [], [], 10)[0], [self.s])
            done += self.s.completions(7)
        self.assertEqual(sorted(completion.tag for completion in done), list(range(1, 41)))
        self.assertEqual(max(completion.get().results[0] for completion in done), 820)
        self.assertEqual(self.s.completions(), [])
        self.assertEqual(self.word(0), 820)

    def test_a_refused_one_raises_when_asked(self):
        tx = self.s.transaction()
        tx.read_word(self.words.at(0))
        tx.write_word(self.words.at(64), 1)
        self.set(0, 1)
        tx.commit_async(5)
        select.select([self.s], [], [], 10)
        [completion] = self.s.completions()
        self.assertEqual((completion.tag, completion.result), (5, shelf.Result.CONFLICT))
        with self.assertRaises(shelf.Conflict):
            completion.get()


class SessionTest(Bed):

    def add_once(self, session, sequence):
        with session.transaction(sequence) as tx:
            tx.add(self.words.at(0), 10)
        return tx.receipt

    def test_exactly_once(self):
        with self.s.session('payments') as session:
            self.assertEqual(session.last, 0)
            self.assertFalse(self.add_once(session, 1).replayed)
            self.assertTrue(self.add_once(session, 1).replayed)
            self.assertEqual(session.outcome(1).results, (10,))
            self.assertIsNone(session.outcome(2))
            with self.assertRaises(shelf.Aborted):
                self.add_once(session, 2)
        self.reopen()
        with self.s.session('payments') as session:
            self.assertEqual(session.last, 1)
            self.assertTrue(self.add_once(session, 1).replayed)
            session.run(lambda tx: tx.add(self.words.at(0), 1))
            session.run(lambda tx: tx.add(self.words.at(0), 1), sequence=session.last)
        self.assertEqual(self.word(0), 11)

    def test_the_older_holder_is_fenced(self):
        older = self.s.session('payments')
        newer = self.s.session('payments')
        with self.assertRaises(shelf.Fenced):
            self.add_once(older, 1)
        self.assertEqual(self.add_once(newer, 1).sequence, 1)
        newer.expire()
        with self.assertRaises(shelf.Invalid):
            newer.last

    def test_an_unknown_outcome_is_settled(self):
        with self.s.session('payments') as session:
            begin, runs = session.transaction, []

            @contextlib.contextmanager
            def lost(sequence=None):
                """Its first commits come to an end that nobody hears of."""
                with begin(sequence) as tx:
                    yield tx
                    if len(runs) == 1:
                        tx.abort() if effect == 'none' else tx.commit()
                if len(runs) == 1:
                    raise shelf.Unknown('lost', sequence or session.last + (effect == 'none'))

            def body(tx):
                runs.append(tx)
                tx.add(self.words.at(0), 1)
                return len(runs)

            session.transaction = lost
            for effect, sequence, value in (('some', None, 1), ('none', None, 2), ('some', 70, 2)):
                before = self.word(0)
                runs.clear()
                self.assertEqual(session.run(body, sequence), value)
                self.assertEqual(self.word(0), before + 1, (effect, sequence))

    def test_the_store_closes_sessions(self):
        session = self.s.session('payments')
        tx = session.transaction()
        with self.assertRaises(shelf.Invalid):
            session.close()
        with self.assertRaises(shelf.Invalid):
            self.s.close()
        tx.abort()
        self.s.close()
        session.close()
        with self.assertRaises(shelf.Invalid):
            session.transaction()
