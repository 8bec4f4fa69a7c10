#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command `shelf` as a person and a script meet it: every command, its failures and exit codes, JSON, dumps beside a
running program, and `shelf verify` against damage of every kind of file.

Usage: cli.py SHELF CLI_WRITER"""

import json
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

SHELF, WRITER = map(os.path.abspath, sys.argv[1:3])
KIB, MIB = 1 << 10, 1 << 20
SEGMENT = 32 * MIB
OK, CONFLICT, INVALID, CORRUPT, NOT_FOUND, EXISTS, LAYOUT, BUSY, FORMAT = 0, 1, 7, 9, 10, 11, 13, 15, 16
ENVIRONMENT = {**os.environ, 'NO_COLOR': '1'}

work = tempfile.mkdtemp(prefix='shelf-cli.')
dice = random.Random(20260101)
passed = failed = 0


def check(good, text):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print('FAILED:', text, flush=True)


def path(name):
    return os.path.join(work, name)


def shelf(*arguments, data=None):
    """Runs the command; its output is bytes."""
    return subprocess.run([SHELF, *map(str, arguments)], input=data, stdin=None if data is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=120, env=ENVIRONMENT)


def expect(code, *arguments, says='', data=None):
    """Runs it once as it is and checks exit code and message."""
    result = shelf(*arguments, data=data)
    text = (result.stdout + result.stderr).decode(errors='replace')
    check(result.returncode == code and says in text, f'{arguments}: {result.returncode}, not {code} with "{says}": {text}')
    return result


def expect_json(code, *arguments, data=None, stream='stdout'):
    """Runs it with --json: exit code, one valid object, result and code that agree."""
    result = shelf(*arguments, '--json', data=data)
    try:
        answer = json.loads(getattr(result, stream))
    except ValueError:
        answer = {}
    check(result.returncode == code and ('result' in answer) and (answer['result'] == 'OK') == (code == 0) and
          answer.get('code', code) == code, f'{arguments} --json: {result.returncode}: {result.stdout} {result.stderr}')
    return answer


def writer(*arguments):
    result = subprocess.run([WRITER, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    check(result.returncode == 0, f'cli_writer {arguments}: {result.stderr}')


def copy(name, to):
    """A copy of a shelf; holes stay holes."""
    shutil.rmtree(path(to), ignore_errors=True)
    subprocess.run(['cp', '-r', '--sparse=always', '--reflink=auto', path(name), path(to)], check=True)
    return path(to)


def flip(directory, file, offset, mask=0x10):
    with open(os.path.join(directory, file), 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def read(directory, file, offset=0, size=-1):
    with open(os.path.join(directory, file), 'rb') as f:
        f.seek(offset)
        return f.read(size)


# ---- Entries --------------------------------------------------------------------------------------------------------


def test_help():
    text = expect(OK, '--help', says='exit codes').stdout.decode()
    names = [line.split()[0] for part in text.split('\ncommands: ')[1:] for line in part.split('\n\n')[0].splitlines()[1:]]
    check(names == ['create', 'list', 'grow', 'drop', 'access', 'put', 'get', 'del', 'scan', 'append', 'tail', 'status',
                    'clients', 'verify', 'dump', 'load', 'up', 'start', 'kill', 'down', 'bench', 'completion'], f'commands {names}')
    for name in names:
        for arguments in ((name, '--help'), ('help', name)):
            text = expect(OK, *arguments, says='examples').stdout.decode()
            check(f'usage: shelf {name} ' in text and '--json' in text, f'help of {name}: {text}')
    for code, name in ((0, 'OK'), (9, 'CORRUPT'), (15, 'BUSY'), (130, '')):
        check(any(line.split()[:1] == [str(code)] and name in line for line in
                  expect(OK, '--help').stdout.decode().splitlines()), f'exit code {code} is not in the help')
    expect(OK, '--version', says='shelf ')
    expect(INVALID, says='usage')


def test_misspelt():
    expect(INVALID, 'gte', 'x', says='did you mean `shelf get`')
    expect(INVALID, 'verfy', 'x', says='did you mean `shelf verify`')
    expect(INVALID, 'bananas', says='shelf --help')
    expect(INVALID, 'list', 'x', '--jsno', says='did you mean --json?')
    expect(INVALID, 'verify', 'x', '--chekpoint', says='did you mean --checkpoint?')
    expect(INVALID, 'list', 'x', '--bananas', says='shelf list --help')
    expect(INVALID, 'create', 'x', 'y', '1M', '--max', says='needs a value')
    expect(INVALID, 'list', says='too few arguments')
    expect(INVALID, 'list', 'a', 'b', says='too many arguments')
    expect_json(INVALID, 'list')
    expect_json(INVALID, 'bananas')
    expect_json(INVALID, 'list', 'x', '--jsno')


def test_create():
    expect(OK, 'create', path('a'), says='new shelf')
    expect(EXISTS, 'create', path('a'), says='has a shelf already')
    answer = expect_json(OK, 'create', path('a'), 'one', '1M', '--max', '2M')
    check((answer['name'], answer['size'], answer['size_max']) == ('one', MIB, 2 * MIB), f'create: {answer}')
    expect(EXISTS, 'create', path('a'), 'one', '1M', says='exists already')
    expect(INVALID, 'create', path('a'), 'two', says='needs a size')
    for size in ('0', '-1', '1X', '1MM', '', '99999999999999999999', '99999999999G'):
        expect(INVALID, 'create', path('a'), 'two', '--', size, says='is no size')
    expect(INVALID, 'create', path('a'), '--raw', says='about a region')
    result = expect(4, 'create', path('a'), 'small', '4096', says='too small to be formatted')
    check(b"region 'small'" in result.stderr, 'the message names the region')
    expect(OK, 'create', 'dir:' + path('a'), 'plain', '1M', '--raw')
    answer = expect_json(OK, 'list', path('a'))
    check([r['name'] for r in answer['regions']] == ['one', 'plain'] and answer['as_of'] == 'now', f'list: {answer}')
    expect(OK, 'list', path('a'), says='plain')
    expect(NOT_FOUND, 'list', path('nothing'), says='`shelf create')
    expect_json(NOT_FOUND, 'list', path('nothing'))
    check(not os.path.exists(path('nothing')), 'a failed list made a directory')


def test_entries():
    a = path('a')
    expect(OK, 'put', a, 'one/m', 'apple', '120')
    check(expect(OK, 'get', a, 'one/m', 'apple').stdout == b'120', 'get apple')
    expect(OK, 'put', a, 'one/m', 'apple', '130')
    check(expect_json(OK, 'get', a, 'one/m', 'apple')['value'] == '130', 'get apple --json')
    binary = bytes(range(256)) * 300
    expect(OK, 'put', a, 'one/m', 'binary', '-', data=binary)
    check(expect(OK, 'get', a, 'one/m', 'binary').stdout == binary, 'bytes come back as they were')
    answer = expect_json(OK, 'get', a, 'one/m', 'binary')
    check(answer['value_encoding'] == 'hex' and bytes.fromhex(answer['value']) == binary, 'hex in JSON')
    expect(OK, 'put', '--hex', a, 'one/m', '00fF', 'a0B1')
    check(expect(OK, 'get', '--hex', a, 'one/m', '00ff').stdout == b'a0b1\n', 'get --hex')
    expect(INVALID, 'put', '--hex', a, 'one/m', '0', '00', says='hexadecimal')
    expect(INVALID, 'put', '--hex', a, 'one/m', 'zz', '00', says='hexadecimal')
    expect(OK, 'put', a, 'one/m', 'empty', '')
    check(expect(OK, 'get', a, 'one/m', 'empty').stdout == b'', 'an empty value')
    expect(OK, 'put', a, 'one/m', '--', '-5', '-6')
    check(expect(OK, 'get', a, 'one/m', '--', '-5').stdout == b'-6', 'dashes after --')
    expect(5, 'put', a, 'one/m', 'large', '-', data=bytes(16 * MIB + 1))
    expect(NOT_FOUND, 'get', a, 'one/m', 'pear', says='no such key')
    expect(NOT_FOUND, 'get', a, 'one/q', 'pear', says="no map 'q'")
    expect(NOT_FOUND, 'get', a, 'foo/m', 'pear', says=f"no region named 'foo'; `shelf list {a}` shows")
    expect_json(NOT_FOUND, 'get', a, 'one/m', 'pear')
    expect(INVALID, 'get', a, 'one', 'pear', says='REGION/MAP')
    expect(INVALID, 'get', a, '/m', 'pear', says='REGION/MAP')
    expect(INVALID, 'put', a, 'plain/m', 'k', 'v', says='not formatted')
    lines = [json.loads(line) for line in shelf('scan', a, 'one/m', '--json').stdout.splitlines()]
    check(sorted(line['key'] for line in lines) == sorted(['apple', 'binary', '00ff', 'empty', '-5']), f'scan: {lines}')
    expect(OK, 'del', a, 'one/m', 'binary')
    expect(NOT_FOUND, 'del', a, 'one/m', 'binary', says='no such key')
    check(sorted(shelf('scan', a, 'one/m').stdout.splitlines()) ==
          sorted([b'apple\t130', b'\x00\xff\t\xa0\xb1', b'empty\t', b'-5\t-6']), 'scan after del')
    check(b'6170706c65\t313330\n' in shelf('scan', '--hex', a, 'one/m').stdout, 'scan --hex')
    expect(NOT_FOUND, 'scan', a, 'one/q', says="no map 'q'")


def test_terminal():
    """On a terminal there are colours, unless NO_COLOR; in a pipe there are none."""
    for environment, wanted in ((dict(TERM='xterm'), True), (dict(TERM='xterm', NO_COLOR='1'), False), (dict(TERM='dumb'), False)):
        master, slave = pty.openpty()
        base = {k: v for k, v in os.environ.items() if k != 'NO_COLOR'}
        process = subprocess.Popen([SHELF, '--help'], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                                   env={**base, **environment})
        os.close(slave)
        text = b''
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            text += part
        process.wait(30)
        os.close(master)
        check((b'\033[' in text) == wanted and b'commands' in text, f'colours with {environment}: {text[:80]}')


# ---- Dump and load --------------------------------------------------------------------------------------------------


def region_bytes(dump):
    """A reader of dumps of its own: what the region consists of."""
    size, region = struct.unpack_from('<Q', dump, 56)[0], None
    check(dump[:8] == b'SHELFDMP', 'magic of a dump')
    at, out = 256, bytearray(size)
    while dump[at:at + 8] == b'SHELFCHK':
        length, offset = struct.unpack_from('<IQ', dump, at + 12)
        out[offset:offset + length] = dump[at + 32:at + 32 + length]
        at += 32 + length
    check(dump[at:at + 8] == b'SHELFEND' and len(dump) == at + 32, 'end of a dump')
    return bytes(out), region


def test_dump():
    b, d, e = path('b'), path('data.dump'), path('again.dump')
    writer('fill', b, 400)
    answer = expect_json(OK, 'dump', b, 'data', d)
    check(answer['region'] == 'data' and answer['number'] == 2 and answer['as_of'] == 'present state' and
          answer['bytes'] == os.path.getsize(d), f'dump: {answer}')
    expect(EXISTS, 'dump', b, 'data', d, says='--force')
    expect(OK, 'dump', b, 'data', d, '--force', says=f'index {answer["index"]}')
    expect(NOT_FOUND, 'dump', b, 'nothing', e, says="no region named 'nothing'")
    check(not [f for f in os.listdir(work) if f.startswith('again.dump')], 'a failed dump leaves no file')
    os.mkfifo(path('fifo'))
    os.symlink(d, path('link'))
    for special in ('fifo', 'link', 'b'):
        expect(INVALID, 'dump', b, 'data', path(special), '--force', says='is no regular file')
    check(os.path.islink(path('link')) and os.path.exists(path('fifo')), 'what is no file is left alone')
    result = shelf('dump', b, 'data')
    check(result.returncode == 0 and region_bytes(result.stdout)[0] == region_bytes(open(d, 'rb').read())[0],
          'the dump through a pipe is the same')
    check(json.loads(shelf('dump', b, 'data', '-', '--json').stderr)['region'] == 'data', 'JSON of a dump through a pipe')
    expect(OK, 'create', path('c'))
    answer = expect_json(OK, 'load', path('c'), 'data', d)
    check(answer['number'] == 2 and not answer['renumbered'], f'load: {answer}')
    same_entries(b, path('c'), 'data')
    expect(OK, 'dump', path('c'), 'data', e)
    check(region_bytes(open(d, 'rb').read())[0] == region_bytes(open(e, 'rb').read())[0], 'the loaded region is byte by byte the same')
    expect(EXISTS, 'load', path('c'), 'data', d, says='exists already')
    expect(NOT_FOUND, 'load', path('c'), 'other', d, says='--as')
    expect(OK, 'load', path('c'), 'data', d, '--as', 'data2', says='it was number 2')
    same_entries(b, path('c'), 'data2')
    expect(OK, 'load', path('c'), 'data', '-', '--as', 'data3', data=open(d, 'rb').read())
    same_entries(b, path('c'), 'data3')
    expect(OK, 'verify', path('c'), says='no damage')
    expect(NOT_FOUND, 'load', path('c'), 'data', path('nothing.dump'), '--as', 'n')


def same_entries(b, c, region):
    theirs = sorted(shelf('scan', b, 'data/m').stdout.splitlines())
    ours = sorted(shelf('scan', c, region + '/m').stdout.splitlines())
    check(len(theirs) == 400 and theirs == ours, f'entries of {region}: {len(theirs)} and {len(ours)}')


def test_dump_numbers():
    """A region with addresses in it keeps its number, or its user says that it need not."""
    b, d = copy('b', 'numbers'), path('root.dump')
    writer('root', b)
    expect(OK, 'dump', b, 'data', d)
    c = path('c')
    expect(LAYOUT, 'load', c, 'data', d, '--as', 'own', says='--same-number')
    expect(EXISTS, 'load', c, 'data', d, '--as', 'own', '--same-number', says='has used number 2')
    expect(OK, 'load', c, 'data', d, '--as', 'own', '--renumber', says='it was number 2')
    expect(OK, 'create', path('later'))
    for i in range(3):
        expect(OK, 'create', path('later'), f'r{i}', '1M')
    expect(OK, 'dump', path('later'), 'r2', path('r2.dump'))
    expect(OK, 'create', path('fresh'))
    answer = expect_json(OK, 'load', path('fresh'), 'r2', path('r2.dump'), '--same-number')
    check(answer['number'] == 4 and not answer['renumbered'], f'--same-number: {answer}')
    check([r['name'] for r in expect_json(OK, 'list', path('fresh'))['regions']] == ['r2'], 'nothing else is left')


def test_dump_damaged():
    """Any dump that is not whole is refused, from a file and from a pipe, and leaves nothing."""
    c, whole = path('c'), open(path('data.dump'), 'rb').read()
    before = expect_json(OK, 'list', c)['regions']
    cuts = [0, 1, 100, 255, 256, 270, 287, 300, len(whole) // 2, len(whole) - 33, len(whole) - 32, len(whole) - 1]
    cases = [(whole[:cut], f'cut at {cut}', 'truncated') for cut in cuts]
    cases.append((whole + b'x', 'one byte more', 'follows its end'))
    for offset in (0, 9, 12, 20, 60, 130, 256, 265, 270, 275, 5000, len(whole) // 2, len(whole) - 30, len(whole) - 20, len(whole) - 3):
        cases.append((whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1:], f'byte {offset} changed', 'at byte'))
    first = 256 + 32 + struct.unpack_from('<I', whole, 256 + 12)[0]
    second = first + 32 + struct.unpack_from('<I', whole, first + 12)[0]
    cases.append((whole[:first] + whole[second:], 'a piece left out', 'pieces are missing'))
    cases.append((whole[:first] + whole[256:], 'a piece comes twice', 'impossible place'))
    for data, what, says in cases:
        open(path('bad.dump'), 'wb').write(data)
        for arguments in ((path('bad.dump'),), ('-',)):
            result = shelf('load', c, 'data', *arguments, '--as', 'bad', data=data)
            check(result.returncode == CORRUPT and says in result.stderr.decode() and b'at byte ' in result.stderr,
                  f'{what}, {arguments}: {result.returncode} {result.stderr}')
    check(expect_json(OK, 'list', c)['regions'] == before, 'damaged dumps left something behind')
    expect_json(CORRUPT, 'load', c, 'data', path('bad.dump'), '--as', 'bad')


def test_load_killed():
    """A load through a pipe that stalls is killed: nothing that looks like a region with structures is left."""
    c, whole = path('c'), open(path('data.dump'), 'rb').read()
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        process = subprocess.Popen([SHELF, 'load', c, 'data', '-', '--as', 'killed'], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        process.stdin.write(whole[:len(whole) - 40])
        process.stdin.flush()
        # Its number is in the file `lock` as soon as it has opened the directory; then it reads on.
        while read(c, 'lock').strip() != str(process.pid).encode() and process.poll() is None:
            pass
        process.send_signal(number)
        process.stdin.close()
        check(process.wait(60) in (code, CORRUPT if code == 130 else code), f'load ended with {process.returncode}')
        expect(OK, 'verify', c, says='no damage')
        names = [r['name'] for r in expect_json(OK, 'list', c)['regions']]
        if 'killed' in names:
            check(number == signal.SIGKILL, 'SIGTERM left an unfinished region')
            expect(INVALID, 'get', c, 'killed/m', 'key 1', says='not formatted')
        else:
            check(True, '')


def running(name, checkpoints, *more, mode='run'):
    process = subprocess.Popen([WRITER, mode, path(name), str(checkpoints), *more], stdout=subprocess.PIPE, text=True)
    check(process.stdout.readline() == 'running\n', 'cli_writer runs')
    return process


def test_dump_running():
    """Beside a program that writes: every dump is exact at one index, or there is none."""
    for name, checkpoints in (('quiet', 0), ('busy', 1), ('single', 0)):
        process = running(name, checkpoints, *(['alone'] if name == 'single' else []))
        as_of = 'last checkpoint' if name == 'single' else 'present state'
        try:
            good = 0
            for i in range(8):
                target = path(f'{name}{i}.dump')
                result = shelf('dump', path(name), 'same', target, '--json')
                if checkpoints and result.returncode == CONFLICT:
                    check(not [f for f in os.listdir(work) if f.startswith(f'{name}{i}.dump')],
                          'an overtaken dump leaves no file')
                    continue
                check(result.returncode == OK, f'dump beside {name}: {result.stdout} {result.stderr}')
                answer = json.loads(result.stdout)
                words = set(struct.unpack(f'<{MIB // 8}Q', region_bytes(open(target, 'rb').read())[0]))
                check(len(words) == 1 and answer['as_of'] == as_of and answer['index'] > 0,
                      f'dump beside {name} mixes {len(words)} states')
                good += 1
            check(good == 8 or (checkpoints and good > 0), f'{good} dumps beside {name} succeeded')
            (alone_answers if name == 'single' else served_answers)(name, process)
        finally:
            process.kill()
            process.wait()
        expect(OK, 'verify', path(name), says='no damage')


def test_beside_changes():
    """A map that is changed all the time: scan and verify come to an end, and say what they have seen."""
    count = 200000
    process = running('churn', count, mode='churn')
    try:
        began = time.monotonic()
        result = shelf('scan', path('churn'), 'data/m', '--hex')
        keys = [line.split(b'\t')[0] for line in result.stdout.splitlines()]
        check(result.returncode == OK and len(keys) == count == len(set(keys)),
              f'scan beside changes: {result.returncode}, {len(keys)} keys, {len(set(keys))} different, {result.stderr}')
        check(b'each part of it of one' in result.stderr, f'scan says that it took several moments: {result.stderr}')
        answer = expect_json(OK, 'verify', path('churn'))
        region = answer['regions'][0]
        left_out = [f for f in answer['findings'] if 'faster than it could be read' in f['what']]
        check(answer['log']['whole'] and answer['log']['index'] >= answer['checkpoint']['index'], f'the log beside changes: {answer}')
        check(left_out or (region['maps'] == 1 and region['map_entries'] == count and region['streams'] == 1),
              f'the structures beside changes: {answer}')
        check(time.monotonic() - began < 100, 'both come to an end')
    finally:
        process.kill()
        process.wait()


def log_spoil(directory, above):
    """Damages the newest record of the log's file above that index; its index, or 0."""
    found = {index: at for index, at in records(directory).items() if index > above}
    if not found:
        return 0
    index = max(found)
    with open(os.path.join(directory, 'log'), 'r+b') as file:
        file.seek(found[index] + 4 * KIB)
        file.write(b'spoilt')
    return index


def test_beside_damage():
    """Records of the log that rot while the node runs are found by the first verify after that."""
    process = running('rotting', 0)
    try:
        spoilt, result = 0, None
        until = time.monotonic() + 60
        with ThreadPoolExecutor() as pool:
            while (not result or result.returncode == OK) and time.monotonic() < until:
                looking = pool.submit(shelf, 'verify', path('rotting'), '--files')
                while not looking.done():
                    spoilt = max(spoilt, log_spoil(path('rotting'), spoilt))
                result = looking.result()
        check(result.returncode == CORRUPT and b'the node, which says that it has applied' in result.stdout,
              f'damage behind the checkpoint, {spoilt} spoilt last: {result}')
    finally:
        process.kill()
        process.wait()


def alone_answers(name, process):
    """A program that lets nobody attach."""
    directory, pid = path(name), str(process.pid)
    expect(BUSY, 'verify', directory, says=pid)
    expect(BUSY, 'put', directory, 'same/m', 'k', 'v', says=pid)
    expect_json(BUSY, 'get', directory, 'same/m', 'k')
    expect(OK, 'status', directory, says=f'process {pid} works in it')
    answer = expect_json(OK, 'list', directory)
    check(answer['process'] == process.pid and answer['as_of'] == 'checkpoint' and answer['regions'][0]['name'] == 'same',
          f'list of a directory that is not shared: {answer}')
    expect(OK, 'verify', directory, '--checkpoint', says='no damage')
    expect(NOT_FOUND, 'dump', directory, 'nothing', path('x.dump'), says=pid)


def served_answers(name, process):
    """A program that others attach to."""
    directory = path(name)
    answer = expect_json(OK, 'list', directory)
    check(answer['as_of'] == 'now' and answer['regions'][0]['name'] == 'same', f'list of a served directory: {answer}')
    for options in ((), ('--checkpoint',)):
        result = shelf('verify', directory, *options)
        check(result.returncode == OK and b'no damage' in result.stdout or
              name == 'busy' and result.returncode == CONFLICT and b'overtook' in result.stderr, f'verify {options} beside {name}: {result}')
    expect(NOT_FOUND, 'dump', directory, 'nothing', path('x.dump'), says="no region named 'nothing'")
    expect(OK, 'clients', directory)
    expect(OK, 'status', directory, says='all is well')


# ---- Verify ---------------------------------------------------------------------------------------------------------


def expect_verify(directory, code, severity, file, *options, offset=None, says=''):
    """One of the findings is this one; its exit code is that."""
    answer = expect_json(code, 'verify', directory, *options)
    found = [f for f in answer.get('findings', []) if f['severity'] == severity and f.get('file') == file and
             says in f['what'] and (offset is None or f.get('offset') == offset)]
    check(found and all(f['todo'] for f in found), f'{file} {offset} {severity} "{says}" not in {answer}')
    return answer


def used_page(directory, region):
    """A page of the checkpoint whose slot has something, and its file."""
    for slot in 'ab':
        data = read(directory, f'pages.{region}.{slot}')
        for at in range(0, len(data), 4 * KIB):
            other = read(directory, f'pages.{region}.{"b" if slot == "a" else "a"}', at, 4 * KIB)
            if any(data[at:at + 4 * KIB]) and not any(other):
                return f'pages.{region}.{slot}', at
    raise AssertionError('no page has one slot only')


def records(directory):
    """Offsets in the log of the valid-looking records, by index."""
    log, found = read(directory, 'log'), {}
    at = log.find(b'SHELFREC')
    while at >= 0:
        if at % 512 == 0:
            found[struct.unpack_from('<Q', log, at + 32)[0]] = at
        at = log.find(b'SHELFREC', at + 1)
    return found


def test_verify_checkpoint():
    base = path('b')
    answer = expect_json(OK, 'verify', base)
    check(not answer['findings'] and answer['regions'][0]['map_entries'] == 400 and answer['regions'][0]['streams'] == 1 and
          answer['regions'][0]['live'] > 0, f'verify: {answer}')
    expect(OK, 'verify', base, says='streams 1')

    v = copy('b', 'v')
    flip(v, 'superblock', 100)
    expect_verify(v, OK, 'harmless', 'superblock', '--files', offset=0, says='copy 0')
    expect_verify(v, OK, 'harmless', 'superblock', offset=0)
    check(not expect_json(OK, 'verify', v)['findings'], 'the open has repaired the copy')
    for i in range(3):
        flip(v, 'superblock', 4096 * i + 100)
    expect_verify(v, CORRUPT, 'damage', 'superblock', offset=8192, says='copy 2')
    expect(CORRUPT, 'list', v, says='shelf verify')

    v = copy('b', 'v')
    for i in range(4):
        with open(os.path.join(v, 'superblock'), 'r+b') as f:
            f.seek(4096 * i + 12)
            f.write(b'\x63')
    expect_verify(v, CORRUPT, 'damage', 'superblock', says='newer version')

    slot = 'ab'[struct.unpack_from('<I', read(base, 'superblock'), 116)[0]]
    v = copy('b', 'v')
    flip(v, 'roots.' + slot, 40)
    expect_verify(v, CORRUPT, 'damage', 'roots.' + slot, offset=0, says='checksum')
    v = copy('b', 'v')
    os.unlink(os.path.join(v, 'roots.' + slot))
    expect_verify(v, CORRUPT, 'damage', 'roots.' + slot, says='missing')

    v = copy('b', 'v')
    for offset in (8, 4104):
        flip(v, 'table.2', offset)
    answer = expect_verify(v, CORRUPT, 'damage', 'table.2', says='fails its checksum')
    flip(v, 'superblock', 5)
    answer = expect_verify(v, CORRUPT, 'damage', 'table.2')
    check(answer['harmless'] == 1, 'it goes on after a problem')

    file, at = used_page(base, 2)
    v = copy('b', 'v')
    flip(v, file, at + 77)
    answer = expect_verify(v, CORRUPT, 'damage', file, offset=at, says='failing their checksums')
    expect_verify(v, CORRUPT, 'damage', file, '--checkpoint', offset=at)
    expect(CORRUPT, 'verify', v, says='restore')
    expect(CORRUPT, 'dump', v, 'data', path('x.dump'), says='shelf verify')
    v = copy('b', 'v')
    os.truncate(os.path.join(v, file), at + 100)
    expect_verify(v, CORRUPT, 'damage', file, offset=at, says='missing')
    v = copy('b', 'v')
    os.unlink(os.path.join(v, 'table.2'))
    expect_verify(v, CORRUPT, 'damage', 'table.2', says='is missing')
    file, at = used_page(base, 1)
    v = copy('b', 'v')
    flip(v, file, at + 7)
    expect_verify(v, CORRUPT, 'damage', file, offset=at)


def test_verify_other():
    v = copy('b', 'v')
    flip(v, 'configuration', 5)
    expect_verify(v, OK, 'harmless', 'configuration', '--files', offset=0, says='slot 0')
    expect(OK, 'list', v)
    flip(v, 'configuration', 5)
    flip(v, 'configuration', 4101)
    expect_verify(v, CORRUPT, 'damage', 'configuration', offset=4096, says='slot 1')
    os.unlink(os.path.join(v, 'configuration'))
    expect_verify(v, OK, 'harmless', 'configuration', says='missing')
    check(not expect_json(OK, 'verify', v)['findings'], 'the configuration is made anew')
    shutil.copy(os.path.join(v, 'table.2'), os.path.join(v, 'table.9'))
    expect_verify(v, OK, 'harmless', 'table.9', says='no region')
    check(not os.path.exists(os.path.join(v, 'table.9')), 'the open removes the leftover')
    os.unlink(os.path.join(v, 'superblock'))
    expect(NOT_FOUND, 'verify', v, says='superblock')
    expect_json(NOT_FOUND, 'verify', path('nothing'))
    v = copy('b', 'v')
    writer('smash', v)
    answer = expect_json(CORRUPT, 'verify', v)
    check(any('map of m' in f['what'] and f['file'] == 'region 2' for f in answer['findings']), f'smashed map: {answer}')
    expect(CORRUPT, 'verify', v, says='DAMAGE')
    expect_json(OK, 'verify', v, '--files')


def test_verify_log():
    """`crashed` has records behind its checkpoint, and no hint that says so."""
    expect(OK, 'create', path('crashed'))
    writer('fill', path('crashed'), 100)
    base = copy('crashed', 'base')
    answer = expect_json(OK, 'verify', base, '--files')
    check(answer['log']['whole'] and answer['log']['records'] > 40, f'log: {answer}')
    first, last = answer['checkpoint']['index'] + 1, answer['log']['index']
    places = records(base)
    for index in (first, (first + last) // 2, last - 1):
        for at in (places[index] + 20, places[index] + 200):
            v = copy('base', 'v')
            flip(v, 'log', at)
            expect_verify(v, CORRUPT, 'damage', 'log', offset=places[index], says=f'record {index} was durable')
            expect(CORRUPT, 'list', v)
    v = copy('base', 'v')
    flip(v, 'log', places[last] + 200)
    answer = expect_verify(v, OK, 'harmless', 'log', '--files', offset=places[last], says='torn')
    check(answer['log']['index'] == last - 1, f'torn tail: {answer}')
    expect_verify(v, OK, 'harmless', 'log', says='torn')
    check(not expect_json(OK, 'verify', v)['findings'], 'the torn tail is cut off')
    v = copy('base', 'v')
    flip(v, 'log', places[first] // SEGMENT * SEGMENT + 9)
    expect_verify(v, CORRUPT, 'damage', 'log', says='has no valid header')
    v = copy('base', 'v')
    os.unlink(os.path.join(v, 'log'))
    expect_verify(v, CORRUPT, 'damage', 'log', says='missing')
    test_verify_hint(places)


def test_verify_hint(places):
    v = copy('base', 'v')
    expect(OK, 'list', v)  # closed in peace: the hint names the last record
    copy('v', 'w')
    answer = expect_json(OK, 'verify', v, '--files')
    last = answer['log']['index']
    w = path('w')
    flip(w, 'log', records(w)[last] + 100)
    expect_verify(w, CORRUPT, 'damage', 'log', says='the file `hint`')
    expect(CORRUPT, 'list', w)
    alignment = struct.unpack_from('<I', read(v, 'superblock'), 120)[0]
    flip(v, 'hint', 20)
    flip(v, 'hint', alignment + 20)
    expect_verify(v, OK, 'harmless', 'hint', '--files', offset=alignment, says='block 1')
    os.unlink(os.path.join(v, 'hint'))
    expect_verify(v, OK, 'harmless', 'hint', says='missing')
    check(bool(places), 'there are records')


def test_verify_agrees():
    """Single changed bits anywhere: `verify --files`, with its own reader, and the library come to the same judgement."""
    base = path('base')
    files = [f for f in os.listdir(base) if os.path.getsize(os.path.join(base, f)) > 64]
    damaged = 0
    for _ in range(24):
        file = dice.choice(files)
        data = read(base, file)
        used = [at for at in range(0, len(data), 512) if any(data[at:at + 512])]
        at = dice.choice(used) + dice.randrange(512) if used else 0
        v = copy('base', 'v')
        flip(v, file, at, 1 << dice.randrange(8))
        verified, opened = shelf('verify', v, '--files').returncode, shelf('list', v).returncode
        check(verified == opened and verified in (OK, CORRUPT, FORMAT),
              f'{file} at {at}: verify says {verified}, open says {opened}')
        damaged += verified != OK
    check(damaged >= 6, f'only {damaged} changes did damage')


def test_bench():
    expect(OK, 'bench', '--help', says='usage: shelf bench')
    result = shelf('bench', '--list')
    missing = not os.path.exists(os.path.join(os.path.dirname(SHELF), 'shelf-bench'))
    check(result.returncode == NOT_FOUND and b'shelf-bench cannot be started' in result.stderr if missing else
          result.returncode == OK and b'commit.1' in result.stdout, f'bench --list: {result}')
    alone = path('alone')
    os.mkdir(alone)
    shutil.copy(SHELF, alone)
    result = subprocess.run([os.path.join(alone, 'shelf'), 'bench', 'x.y'], capture_output=True, timeout=60)
    check(result.returncode != OK and b'bench' in result.stderr, f'bench without shelf-bench: {result}')


def main():
    try:
        for test in (test_help, test_misspelt, test_create, test_entries, test_terminal, test_dump, test_dump_numbers,
                     test_dump_damaged, test_load_killed, test_dump_running, test_beside_changes, test_beside_damage,
                     test_verify_checkpoint, test_verify_other,
                     test_verify_log, test_verify_agrees, test_bench):
            try:
                test()
            except Exception as error:  # the others go on
                check(False, f'{test.__name__}: {error!r}')
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f'{passed} passed, {failed} failed')
    sys.exit(1 if failed or not passed else 0)


if __name__ == '__main__':
    main()
