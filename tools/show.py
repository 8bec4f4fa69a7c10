# SPDX-License-Identifier: Apache-2.0
"""What the demonstrations print: colours where they are wanted, bars, lines of a book, and how a check came out."""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, 'build')
EXCHANGE = os.path.join(BUILD, 'examples', 'exchange')
REAL = os.path.join(ROOT, '..', 'shared', 'data', 'market', 'bitstamp-2015-05-01-orders.csv.xz')
REAL_EVENTS = 50414
FLOW_EVENTS = 50000

colourful = sys.stdout.isatty() and not os.environ.get('NO_COLOR')


def paint(code, text):
    return f'\033[{code}m{text}\033[0m' if colourful else str(text)


def bold(text):
    return paint('1', text)


def dim(text):
    return paint('2', text)


def good(text):
    return paint('1;32', text)


def bad(text):
    return paint('1;31', text)


def say(text=''):
    print(text, flush=True)


def fail(text, *left):
    """Says what went wrong, and where to look."""
    say(bad('This should not have happened: ') + text)
    say(f'What is left of it is in {" and ".join(left)}')
    sys.exit(1)


def source_main():
    """Arguments for the events, how many they are, and what they are called."""
    if os.path.exists(REAL):
        return ['--input', REAL], REAL_EVENTS, 'real order events of 1 May 2015'
    return ['--generate', FLOW_EVENTS, '--seed', 7], FLOW_EVENTS, 'made-up order events'


def exchange(command, where, *arguments, shown=False):
    """Runs one exchange process to its end, however it comes."""
    command_line = [EXCHANGE, command, '--where', where, *map(str, arguments)]
    return subprocess.run(command_line, stdin=subprocess.DEVNULL, capture_output=not shown, text=True, check=False)


def check(where):
    """Shows how the exchange compares with a plain engine. None, or what is wrong."""
    result = exchange('check', where, '--json')
    if result.returncode not in (0, 1):
        return result.stderr.strip()
    report = json.loads(result.stdout)
    for finding in report['checks']:
        mark = good('same') if finding['ok'] else bad('DIFFERENT')
        say(f'  {mark}  {finding["name"]:13} {finding["detail"]}')
    return None if report['ok'] else 'the two engines differ'


def bar(done, total, width=24):
    filled = round(width * done / total)
    return '#' * filled + dim('.' * (width - filled))


def best(levels):
    return f'{levels[0]["cents"] / 100:8,.2f}' if levels else '       -'


def book_head():
    say(bold('  progress                   matched       bid       ask'))


def book_line(book, total, note):
    position = book['position']
    say(f'  {bar(position, total)}  {position:>8,}  {best(book["bids"])}  {best(book["asks"])}   {note}')
