# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python binding start from: a shelf in a directory that ends with the test."""

import os
import tempfile
import unittest

import shelf

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Bed(unittest.TestCase):
    """`self.s` is open, `self.main` a formatted region, `self.words` one of plain zeros."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='shelf-python.')
        self.addCleanup(directory.cleanup)
        self.where = f'dir:{directory.name}/shelf'
        self.s = shelf.open(self.where, create=True)
        self.addCleanup(lambda: self.s.close())
        self.main = self.s.create_region('main', 4 << 20, 8 << 20)
        self.words = self.s.create_region('words', 4096, 1 << 20)
        self.s.run(lambda tx: tx.format(self.main))

    def reopen(self):
        self.s.close()
        self.s = shelf.open(self.where)
        self.main, self.words = self.s.region('main'), self.s.region('words')

    def word(self, offset):
        return self.s.run(lambda tx: tx.read_word(self.words.at(offset)), read_only=True)

    def set(self, offset, value):
        self.s.run(lambda tx: tx.write_word(self.words.at(offset), value))
