# SPDX-License-Identifier: Apache-2.0
"""What the checks share: which files there are, and how a check ends."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE_DIRECTORIES = ['include', 'src', 'sim', 'test', 'bench', 'examples']


def files(suffixes, directories=SOURCE_DIRECTORIES):
    """The paths, relative to the root and in order, of all files that end so."""
    found = []
    for directory in directories:
        for path, names, leaves in os.walk(os.path.join(ROOT, directory)):
            names[:] = [n for n in names if not n.startswith('.')]
            found += [os.path.relpath(os.path.join(path, leaf), ROOT) for leaf in leaves if leaf.endswith(suffixes)]
    return sorted(found)


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8', errors='replace') as file:
        return file.read()


def finish(name, problems, count, what):
    """Prints what was found and ends the program."""
    for problem in problems:
        print(problem)
    if not count:
        problems = ['nothing to look at']
    print(f'{name}: {count} {what}, ' + (f'{len(problems)} problems' if problems else 'all well'))
    sys.exit(1 if problems else 0)
