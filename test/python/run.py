# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of the Python binding. Usage: run.py [PATTERN...], with SHELF_LIBRARY naming the library."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    sys.path.insert(0, HERE)
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f'*{pattern}*' for pattern in sys.argv[1:]] or None
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(loader.discover(HERE))
    failed = len(result.failures) + len(result.errors)
    print(f'{result.testsRun - failed - len(result.skipped)} passed, {failed} failed')
    return 1 if failed or not result.testsRun else 0


if __name__ == '__main__':
    sys.exit(main())
