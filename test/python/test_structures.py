# SPDX-License-Identifier: Apache-2.0
"""Maps and streams."""

import shelf
from bed import Bed


class MapTest(Bed):

    def test_it_is_like_a_dictionary(self):
        with self.s.transaction() as tx:
            m = tx.map(self.main, 'people', create=True)
            self.assertFalse(m)
            m['ada'] = 'Ada Lovelace'
            m[b'big'] = b'x' * 3000
            m[bytearray(b'empty')] = memoryview(b'')
            self.assertTrue(m)
        with self.s.transaction() as tx:
            m = tx.map(self.main, 'people')
            self.assertEqual(m[b'ada'], b'Ada Lovelace')
            self.assertEqual(m['big'], b'x' * 3000)
            self.assertEqual(m['empty'], b'')
            self.assertEqual(m.get('bob'), None)
            self.assertEqual(m.get('bob', 5), 5)
            self.assertTrue('ada' in m and 'bob' not in m and 7 not in m)
            self.assertEqual(len(m), 3)
            self.assertEqual(sorted(m), [b'ada', b'big', b'empty'])
            self.assertEqual(sorted(map(len, m.values())), [0, 12, 3000])
            self.assertEqual(dict(m.items()), {b'ada': b'Ada Lovelace', b'big': b'x' * 3000, b'empty': b''})
            self.assertEqual(m, dict(m.items()))
            self.assertIn((b'empty', b''), m.items())
            self.assertEqual(m.pop('empty'), b'')
            m.update(one='1', two='2')
            self.assertEqual(m.setdefault('one', b'?'), b'1')
            del m['two']
            for call in (lambda: m['two'], lambda: m.__delitem__('two')):
                with self.assertRaises(KeyError) as caught:
                    call()
                self.assertIsInstance(caught.exception, shelf.NotFound)
            with self.assertRaises(shelf.Invalid):
                m[''] = 'x'
            m.verify()
        with self.s.transaction() as tx:
            m = m.at(tx)
            self.assertEqual(len(m), 3)
            m.clear()
            self.assertEqual(len(m), 0)

    def test_many_at_once(self):
        with self.s.transaction() as tx:
            m = tx.map(self.main, 'm', create=True)
            for n in range(150):
                if n % 10 != 3:
                    m[str(n)] = str(n) * n
            keys = [bytearray(str(n).encode()) if n % 2 else str(n) for n in range(150)]
            self.assertEqual(m.get_many(keys), [None if n % 10 == 3 else (str(n) * n).encode() for n in range(150)])
            self.assertEqual(m.get_many([]), [])
            self.assertEqual(m.get_many(iter(['none'])), [None])

    def test_walking_with_all_sizes(self):
        with self.s.transaction() as tx:
            m = tx.map(self.main, 'm', create=True)
            wanted = {b'k' * n: b'v' * (40 * n) for n in range(1, 40)}
            wanted[b'K' * 2000] = b''
            m.update(wanted)
            self.assertEqual(dict(m.items()), wanted)
            self.assertEqual(set(m), set(wanted))
            for key in m.keys():
                del m[key]
            self.assertEqual(list(m), [])

    def test_create_and_drop(self):
        with self.s.transaction() as tx:
            with self.assertRaises(shelf.NotFound):
                tx.map(self.main, 'm')
            m = tx.map(self.main, 'm', create=True)
            m['k'] = 'v'
            self.assertEqual(tx.map(self.main, 'm', create=True)['k'], b'v')
            tx.map_drop(self.main, 'm')
            with self.assertRaises(shelf.NotFound):
                tx.map_drop(self.main, 'm')


class StreamTest(Bed):

    def test_it_is_like_a_sequence(self):
        with self.s.transaction() as tx:
            log = tx.stream(self.main, 'log', create=True)
            self.assertEqual([log.append('one', 1000), log.append(b'x' * 5000, 1001), log.append('')], [0, 1, 2])
        with self.s.transaction(read_only=True) as tx:
            log = log.at(tx)
            self.assertEqual(log[0], shelf.Record(0, 1000, b'one'))
            self.assertEqual(log[1].data, b'x' * 5000)
            self.assertEqual(log[-1].position, 2)
            self.assertGreater(log[2].time_ms, 1600000000000)
            self.assertEqual(len(log), 3)
            self.assertEqual([record.position for record in log], [0, 1, 2])
            self.assertEqual([record.position for record in log.records(2)], [2])
            self.assertIsNone(log.read(3))
            for position in 3, -4:
                with self.assertRaises(shelf.NotFound):
                    log[position]
            log.verify()

    def test_retention_and_trim(self):
        with self.s.transaction() as tx:
            log = tx.stream(self.main, 'log', create=True, bytes_max=1 << 18)
            for n in range(100):
                log.append(b'x' * 1000, n)
            log.trim(90)
            first, following = log.bounds()
            self.assertTrue(0 < first <= 90 and following == 100)
            self.assertEqual(next(log.records()).position, first)
            with self.assertRaises(shelf.Expired):
                log[first - 1]
            tx.stream_drop(self.main, 'log')
            with self.assertRaises(shelf.NotFound):
                tx.stream(self.main, 'log')
