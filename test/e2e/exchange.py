#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exchange as a user meets it: it runs, it is killed with SIGKILL in mid-flow again and again, and it goes on
exactly where it was. With real data beside the repository all of it is worked through, otherwise the made-up flow.

Usage: exchange.py PROGRAM"""

import hashlib
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = os.path.abspath(sys.argv[1])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REAL = os.path.join(ROOT, '..', 'shared', 'data', 'market', 'bitstamp-2015-05-01-orders.csv.xz')
# What both engines make of the real events; a change of the rules changes it.
REAL_EVENTS = 50414
REAL_SHA256 = '5ccbba18cb439cead6a76c26ebf4579e4f79d16a90a861b0508b706853460f77'
HEADER = 'id,timestamp,exchange.timestamp,price,volume,action,direction\n'

work = tempfile.mkdtemp(prefix='shelf-exchange.')
dice = random.Random(20150501)
passed = failed = 0


def check(good, text):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print('FAILED:', text, flush=True)


def exchange(command, *arguments):
    return subprocess.run([PROGRAM, command, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=150)


def where(name):
    return 'dir:' + os.path.join(work, name)


def done(result):
    """The JSON object of a command that must succeed."""
    if result.returncode:
        check(False, f'{result.args[1:]} ended with {result.returncode}: {result.stderr}')
        return {}
    try:
        return json.loads(result.stdout)
    except ValueError:
        check(False, f'{result.args[1:]} did not print JSON: {result.stdout[:200]}')
        return {}


def position(name):
    return done(exchange('book', '--where', where(name), '--json')).get('position', -1)


def is_same(name, *arguments):
    result = exchange('check', '--where', where(name), '--json', *arguments)
    report = done(result)
    check(report.get('ok') is True and len(report.get('checks', [])) == 6, f'check {name}: {result.stdout}')
    return report


def run_killed(name, source, batch, kill_after):
    """Runs until it is killed, or to the end. Compares what it acknowledged with what is found afterwards."""
    acks = os.path.join(work, name + '.acks')
    result = exchange('run', '--where', where(name), *source, '--batch', batch, '--kill-after', kill_after, '--acks',
                      acks, '--json')
    if result.returncode == 0:
        return False
    check(result.returncode == -signal.SIGKILL, f'run --kill-after ended with {result.returncode}: {result.stderr}')
    with open(acks, encoding='ascii') as file:
        acknowledged = int(file.read())
    found = position(name)
    check(acknowledged <= found <= acknowledged + batch,
          f'{name}: acknowledged {acknowledged}, found {found}, batch {batch}')
    return True


# ---- Usage ----


def test_usage():
    for command in ('run', 'check', 'book', 'trades'):
        result = exchange(command, '--help')
        check(result.returncode == 0 and 'Examples:' in result.stdout and 'Exit codes:' in result.stdout,
              f'{command} --help')
    wrong = [[''], ['dance'], ['run'], ['run', '--where', where('u')], ['check'], ['book', '--depth', '0'],
             ['run', '--where', where('u'), '--generate', 'many'], ['run', '--where', where('u'), '--generate', '-1'],
             ['run', '--where', where('u'), '--generate', '5', '--batch', '0'],
             ['run', '--where', where('u'), '--generate', '5', '--input', 'x'],
             ['book', '--where', where('u'), '--batch', '5'], ['trades', '--where', where('u'), 'more'],
             ['run', '--where', where('u'), '--generate', '5', '--nonsense']]
    for arguments in wrong:
        result = exchange(*arguments)
        check(result.returncode == 2 and result.stderr, f'wrong usage {arguments}: {result.returncode}')
    check(not os.path.exists(os.path.join(work, 'u')), 'wrong usage makes nothing')
    for command in ('check', 'book', 'trades'):
        result = exchange(command, '--where', where('absent'))
        check(result.returncode == 4 and 'NOT_FOUND' in result.stderr, f'{command} of nothing: {result.stderr}')


# ---- Inputs that are refused ----


def refused(name, data, *words):
    path = os.path.join(work, name)
    with open(path, 'wb') as file:
        file.write(data)
    result = exchange('run', '--where', where('refused'), '--input', path)
    check(result.returncode == 3 and all(word in result.stderr for word in words), f'{name}: {result.stderr}')
    check(not os.path.exists(os.path.join(work, 'refused')), f'{name}: a refused input makes nothing')


def test_inputs_refused():
    good = '1,2,3,236.47,5,created,bid\n'
    refused('empty.csv', b'', 'line 1', 'empty')
    refused('header.csv', good.encode(), 'line 1', 'header')
    refused('price.csv', (HEADER + good * 2 + '1,2,3,236.479,5,created,bid\n').encode(), 'line 4', "'236.479'")
    refused('short.csv', (HEADER + good + '1,2\n').encode(), 'line 3', '2 fields')
    refused('binary.csv', bytes(range(256)), 'line 1')
    packed = lzma.compress((HEADER + good * 5000).encode())
    refused('torn.csv.xz', packed[:len(packed) // 2], 'ends too early')
    middle = len(packed) // 2
    refused('rot.csv.xz', packed[:middle] + bytes([packed[middle] ^ 0xff]) + packed[middle + 1:], 'damaged')
    refused('line.csv.xz', lzma.compress((HEADER + good + 'x\n').encode()), 'line 3')
    result = exchange('run', '--where', where('refused'), '--input', os.path.join(work, 'nowhere.csv'))
    check(result.returncode == 3 and 'No such file' in result.stderr, f'no file: {result.stderr}')


# ---- Running, being killed, going on ----


def source_main():
    """The main input, its number of events, and the SHA-256 of its trades if that is known."""
    if os.path.exists(REAL):
        return ['--input', REAL], REAL_EVENTS, REAL_SHA256
    print('no real data here: the made-up flow instead')
    return ['--generate', 50000, '--seed', 7], 50000, None


def test_whole_run():
    source, events, sha256 = source_main()
    report = done(exchange('run', '--where', where('whole'), *source, '--batch', 256, '--json'))
    check(report.get('position') == events and report.get('complete') is True, f'a whole run: {report}')
    tally = report.get('tally', {})
    check(sum(tally.values()) - tally.get('resting', 0) == events, f'every event has one outcome: {tally}')
    check(sha256 in (None, report.get('trades_sha256')), f'trades of the whole run: {report.get("trades_sha256")}')
    is_same('whole')

    again = done(exchange('run', '--where', where('whole'), *source, '--json'))
    check(again.get('events') == 0 and again.get('trades_sha256') == report.get('trades_sha256'),
          'a finished run has nothing left to do')
    trades = exchange('trades', '--where', where('whole')).stdout
    check(hashlib.sha256(trades.encode()).hexdigest() == report.get('trades_sha256'), 'the list of trades has its hash')
    check(trades.count('\n') == report.get('trades'), 'the list of trades is whole')
    return report.get('trades_sha256')


def test_killed_runs(sha256):
    """Every event's transaction alone, batches, and back; at the end not one trade more or less."""
    source, events, _ = source_main()
    kills = 0
    # Mostly short lives, so that many crashes hit the same data; then long strides to the end.
    plan = [(1, dice.randrange(1, 60)) for _ in range(12)]
    plan += [(1, dice.randrange(300, 900)) for _ in range(6)]
    plan += [(dice.choice((17, 64, 500)), dice.randrange(1000, 4500)) for _ in range(12)]
    for number, (batch, kill_after) in enumerate(plan):
        if not run_killed('killed', source, batch, kill_after):
            break
        kills += 1
        if number % 10 == 9:
            is_same('killed')
    check(kills >= 20, f'{kills} kills')
    report = done(exchange('run', '--where', where('killed'), *source, '--batch', 64, '--json'))
    check(report.get('complete') is True and report.get('position') == events, f'after {kills} kills: {report}')
    check(report.get('trades_sha256') == sha256, f'trades after {kills} kills are those of a run without')
    is_same('killed')


def test_killed_generated():
    source = ['--generate', 2000, '--seed', 3]
    while run_killed('flow', source, 1, dice.randrange(100, 800)):
        pass
    report = is_same('flow')
    check(report.get('position') == 2000, f'the flow got to its end: {report.get("position")}')
    # More of the same flow is the same input.
    longer = done(exchange('run', '--where', where('flow'), '--generate', 9000, '--seed', 3, '--batch', 100, '--json'))
    check(longer.get('resumed_at') == 2000 and longer.get('position') == 9000, f'a longer flow goes on: {longer}')
    is_same('flow', '--generate', 0, '--seed', 3)


def test_killed_at_any_time():
    """Killed from outside: while the shelf is being made, opened, recovered, or at work."""
    source = ['--generate', 1500, '--seed', 11]
    for _ in range(20):
        process = subprocess.Popen([PROGRAM, 'run', '--where', where('any'), *map(str, source)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(dice.choice((0.01, 0.03, 0.1)) * dice.random())
        process.kill()
        errors = process.communicate()[1]
        check(process.returncode in (0, -signal.SIGKILL), f'before its kill: {process.returncode} {errors}')
    report = done(exchange('run', '--where', where('any'), *source, '--json'))
    check(report.get('position') == 1500, f'after kills at any time: {report}')
    is_same('any')


def test_region_grows():
    """More than the region is made for at first; it grows while the flow goes on."""
    result = exchange('run', '--where', where('large'), '--generate', 400000, '--seed', 5, '--batch', 2000)
    check(result.returncode == 0 and re.search(r'region +full and made larger', result.stdout), f'grows: {result.stdout}{result.stderr}')
    is_same('large')


def test_another_input_is_refused():
    path = os.path.join(work, 'small.csv')
    with open(path, 'w', encoding='ascii') as file:
        file.write(HEADER + '1,2,3,236.47,5,created,bid\n')
    for arguments in (['--input', path], ['--generate', 9000, '--seed', 4]):
        result = exchange('run', '--where', where('flow'), *arguments)
        check(result.returncode == 3 and 'seed 3' in result.stderr and 'another input' in result.stderr,
              f'another input: {result.returncode} {result.stderr}')
        result = exchange('check', '--where', where('flow'), *arguments)
        check(result.returncode == 3, f'check against another input: {result.returncode} {result.stderr}')
    check(position('flow') == 9000, 'a refused input changes nothing')


def test_packed_and_plain_are_one_input():
    text = (HEADER + ''.join(f'{i},{i},{i},{100 + i % 7}.00,{i},created,{"bid" if i % 2 else "ask"}\n'
                             for i in range(1, 301))).encode()
    plain, packed = os.path.join(work, 'one.csv'), os.path.join(work, 'one.csv.xz')
    with open(plain, 'wb') as file:
        file.write(text)
    with open(packed, 'wb') as file:
        file.write(lzma.compress(text))
    while run_killed('one', ['--input', packed], 1, 90):
        pass
    report = done(exchange('run', '--where', where('one'), '--input', plain, '--json'))
    check(report.get('position') == 300, f'goes on with the unpacked file: {report}')
    os.remove(packed)
    check(exchange('check', '--where', where('one')).returncode == 3, 'the remembered file is gone')
    is_same('one', '--input', plain)


# ---- Two at once, and a polite end ----


def wait_for_position(process, acks, wanted):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if os.path.exists(acks):
            with open(acks, encoding='ascii') as file:
                text = file.read()
            if text and int(text) > wanted:
                break
        time.sleep(0.002)


def test_beside_and_stop():
    acks = os.path.join(work, 'busy.acks')
    first = subprocess.Popen([PROGRAM, 'run', '--where', where('busy'), '--generate', '5000000', '--acks', acks, '--json'],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_position(first, acks, 100)
    book = done(exchange('book', '--where', where('busy'), '--json'))
    check(book.get('position', 0) > 100, f'the book beside a run: {book}')
    first.send_signal(signal.SIGTERM)
    out, errors = first.communicate(timeout=60)
    check(first.returncode == 0, f'SIGTERM ends it in order: {first.returncode} {errors}')
    report = json.loads(out) if out else {}
    check(report.get('complete') is False and report.get('position') == position('busy'), f'stopped: {report}')


def test_second_run_takes_over():
    """Two runs by mistake: the second goes on where the first was, and the first ends and says why."""
    acks = os.path.join(work, 'twice.acks')
    source = ['--generate', '20000', '--seed', '9']
    first = subprocess.Popen([PROGRAM, 'run', '--where', where('twice'), *source, '--acks', acks],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_position(first, acks, 100)
    second = done(exchange('run', '--where', where('twice'), *source, '--batch', 64, '--json'))
    errors = first.communicate(timeout=60)[1]
    check(first.returncode == 5 and 'FENCED' in errors, f'the first of two runs: {first.returncode} {errors}')
    check(second.get('position') == 20000 and second.get('resumed_at', 0) >= 100, f'the second of two runs: {second}')
    is_same('twice')


# ---- For people ----


def test_book_is_sound_and_plain():
    book = done(exchange('book', '--where', where('whole'), '--depth', 500, '--json'))
    bids = [level['cents'] for level in book.get('bids', [])]
    asks = [level['cents'] for level in book.get('asks', [])]
    check(bids == sorted(set(bids), reverse=True) and asks == sorted(set(asks)), 'levels are in order')
    check(bids and asks and bids[0] < asks[0], 'the book is not crossed')
    check(sum(level['orders'] for level in book.get('bids', []) + book.get('asks', [])) == book.get('resting'),
          'all orders are shown')
    result = exchange('book', '--where', where('whole'), '--depth', 3)
    check(result.returncode == 0 and len(result.stdout.splitlines()) == 5, f'book --depth 3: {result.stdout}')
    check('\033' not in result.stdout, 'no colours without a terminal')
    check(re.search(r'\d+\.\d\d +\d+\.\d\d', result.stdout), 'both sides are shown')


def main():
    try:
        test_usage()
        test_inputs_refused()
        sha256 = test_whole_run()
        test_killed_runs(sha256)
        test_killed_generated()
        test_killed_at_any_time()
        test_region_grows()
        test_another_input_is_refused()
        test_packed_and_plain_are_one_input()
        test_beside_and_stop()
        test_second_run_takes_over()
        test_book_is_sound_and_plain()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f'{passed} passed, {failed} failed')
    sys.exit(1 if failed or not passed else 0)


main()
