#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""shelfd as its operator, its service manager and its users meet it; and every command on a directory, on a directory that
is served, and on a socket.

Usage: daemon.py SHELFD SHELF"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'crash'))
from harness import Cases, ended, run, scratch_directory, start, wait_until  # noqa: E402

SHELFD, SHELF = map(os.path.abspath, sys.argv[1:3])
OK, UNAVAILABLE, DENIED, INVALID, NOT_FOUND, EXISTS, BUSY, IO, AT_ONCE = 0, 3, 6, 7, 10, 11, 15, 17, 130
NOBODY = 65534
OTHER = {'user': 1234, 'group': 1234, 'extra_groups': []}

cases = Cases()
check = cases.check
work = scratch_directory(memory=False)
os.chmod(work, 0o755)
environment = {key: value for key, value in os.environ.items()
               if not key.startswith('SHELF_') and key not in ('NOTIFY_SOCKET', 'JOURNAL_STREAM')}
environment['NO_COLOR'] = '1'
TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
python_environment = {**environment, 'PYTHONPATH': os.path.join(TREE, 'python'), 'PYTHONDONTWRITEBYTECODE': '1',
                      'SHELF_LIBRARY': os.path.join(os.path.dirname(SHELF), 'libshelf.so.0')}


def path(name):
    return os.path.join(work, name)


def write(name, text):
    with open(path(name), 'w', encoding='utf-8') as file:
        file.write(text)
    return path(name)


def shelf(*arguments, **options):
    return run([SHELF, *arguments], env=environment, stdin=subprocess.DEVNULL, **options)


def expect(code, *arguments, says='', **options):
    done = shelf(*arguments, **options)
    check(done.returncode == code and says in done.stdout + done.stderr, f'shelf {" ".join(map(str, arguments))}',
          f'{done.returncode}, not {code} with "{says}": {done.stdout}{done.stderr}')
    return done.stdout


class Daemon:
    """A shelfd that is always ended. Its log is read as JSON, whatever it is written for."""

    def __init__(self, data, *arguments, wrapper=(), env=None, wait=True, **options):
        self.data, self.log = data, data + '.log'
        if os.path.exists(self.log):
            os.unlink(self.log)
        with open(self.log, 'wb') as log:
            self.process = start([*wrapper, SHELFD, '--data', data, '--log-format', 'json', *arguments], stderr=log,
                                 stdin=subprocess.DEVNULL, env={**environment, **(env or {})}, **options)
        if wait:
            try:
                wait_until(lambda: self.has('serving') or self.process.poll() is not None, 30, 'shelfd')
            except TimeoutError as error:
                check(False, 'shelfd starts', str(error))

    def lines(self):
        with open(self.log, encoding='utf-8') as file:
            return [json.loads(line) for line in file.read().splitlines() if line.startswith('{')]  # strace talks, too

    def has(self, event):
        return any(line['event'] == event for line in self.lines())

    def pid(self):
        return next(line['process'] for line in self.lines() if line['event'] == 'starting')

    def end(self, number=signal.SIGTERM):
        os.kill(self.pid(), number)
        code = self.process.wait(60)
        ended(self.process)
        return code


# ---- Settings -------------------------------------------------------------------------------------------------------


def effective(*arguments, env=None):
    """What --check-config says: {name: (value, origin)}."""
    done = run([SHELFD, *arguments, '--check-config'], env={**environment, **(env or {})})
    check(done.returncode == 0, f'check-config {arguments} {env}', done.stderr)
    lines = [re.fullmatch(r'(?:# )?([\w-]+) = (.*) ; (.*)', line) for line in done.stdout.splitlines()[1:]]
    return {line[1]: (line[2], line[3]) for line in lines}, done


def refused(says, *arguments, env=None):
    done = run([SHELFD, *arguments, '--check-config'], env={**environment, **(env or {})})
    check(done.returncode == INVALID and says in done.stderr and len(done.stderr.splitlines()) == 1,
          f'refused: {arguments} {env}', f'{done.returncode}, "{says}": {done.stderr}')


def test_settings():
    file = write('a.conf', '# comment\n[shelfd]\ndata = /a/b\nlog-level = debug ; why\nclients-max = 7\n')
    values, done = effective('--config', file)
    check(values['data'] == ('/a/b', f'{file}:3') and values['log-level'] == ('debug', f'{file}:4') and
          values['backend'] == ('auto', 'default'), 'values of a file', str(values))
    values, _ = effective('--config', file, '--clients-max', '9', env={'SHELF_CLIENTS_MAX': '8', 'SHELF_LOG_LEVEL': 'error'})
    check(values['clients-max'] == ('9', '--clients-max') and values['log-level'] == ('error', 'SHELF_LOG_LEVEL'),
          'flags before environment before file', str(values))
    values, _ = effective(env={'SHELF_CONFIG': file, 'SHELF_LOG_LEVEL': ''})
    check(values['log-level'][0] == 'debug', 'SHELF_CONFIG, and a variable that is empty', str(values))
    again = write('b.conf', done.stdout)
    values, _ = effective('--config', again)
    check(values['clients-max'][0] == '7' and values['data'][0] == '/a/b', 'what is printed is a configuration', str(values))
    values, _ = effective('--data', 'x', '--log-bytes-max', '256M')
    check(values['checkpoint-log-bytes'][0] == '64M', 'a quarter of the log', str(values))
    _, done = effective('--data', 'x', env={'SHELF_LOG_LEVLE': 'info'})
    check('SHELF_LOG_LEVLE' in done.stderr and "'log-level'" in done.stderr, 'a misspelt variable is remarked', done.stderr)
    _, done = effective('--data', 'x', env={'SHELF_SERVICE_HOST': '10.0.0.1'})
    check(done.stderr == '', 'a variable of somebody else is not', done.stderr)


def test_settings_wrong():
    def file(text):
        return ('--config', write('wrong.conf', text))

    refused('no directory is given')
    refused('did you mean --clients-max?', '--data', 'x', '--client-max', '7')
    refused('is no option', 'x')
    refused(f"wrong.conf:3: there is no setting 'clients-mx'; did you mean 'clients-max'?",
            *file('[shelfd]\ndata = x\nclients-mx = 7\n'))
    refused('wrong.conf:2: there is no setting', *file('[shelfd]\nbananas = 7\n'))
    refused("wrong.conf:3: 'data' is set in line 2 already", *file('[shelfd]\ndata = x\ndata = y\n'))
    refused('wrong.conf:1: ', *file('data = x\n'))
    refused('[node]', *file('[node]\ndata = x\n'))
    refused('wrong.conf:2: this is no line', *file('[shelfd]\nbananas\n'))
    refused('wrong.conf:2: the line is longer', *file('[shelfd]\ndata = ' + 'x' * 300 + '\n'))
    refused("wrong.conf:2: 'loud' is no value of 'log-level'; write error|", *file('[shelfd]\nlog-level = loud\n'))
    refused('No such file', '--config', path('nothing.conf'))
    for name, value in (('clients-max', '0'), ('clients-max', '7M'), ('log-bytes-max', '1M'), ('log-bytes-max', '1X'),
                        ('checkpoint-interval', '5'), ('checkpoint-interval', '1ms'), ('create', 'maybe'), ('backend', 'tape')):
        refused(f'--{name}: ', '--data', 'x', f'--{name}', value)
    refused('SHELF_BACKEND: ', '--data', 'x', env={'SHELF_BACKEND': 'tape'})
    refused('more than half', '--data', 'x', '--log-bytes-max', '128M', '--checkpoint-log-bytes', '100M')
    done = run([SHELFD, '--check-config', '--data'], env=environment)
    check(done.returncode == INVALID and 'needs a value' in done.stderr, 'an option without its value', done.stderr)
    text = run([SHELFD, '--help'], env=environment).stdout
    check(all(f'--{name}' in text for name in effective('--data', 'x')[0]) and ' 17 ' in text, 'help has all settings', text)
    check(run([SHELFD, '--version'], env=environment).stdout.startswith('shelfd '), 'version')


# ---- Life -----------------------------------------------------------------------------------------------------------


def test_life():
    data, place = path('life'), path('life.sock')
    daemon = Daemon(data, '--socket', place)
    check(stat.S_IMODE(os.stat(place).st_mode) == 0o666 and stat.S_ISSOCK(os.stat(data + '/sock').st_mode), 'two sockets')
    limits = open(f'/proc/{daemon.pid()}/limits', encoding='ascii').read()
    files = re.search(r'Max open files +(\d+) +(\d+)', limits)
    check(files[1] == files[2], 'as many open files as it may', files[0])
    expect(OK, 'create', data, 'main', '1M')
    expect(OK, 'put', place, 'main/m', 'k', 'one')
    for says, arguments in (('in use', ('--data', data)), ('another process listens', ('--data', path('other'), '--socket', place))):
        done = run([SHELFD, *arguments, '--log-format', 'text'], env=environment)
        check(done.returncode == BUSY and says in done.stderr, f'a second one: {says}', done.stderr)
    check(daemon.end() == 0 and not os.path.exists(place), 'SIGTERM ends it with 0, and the socket is gone')
    events = [line['event'] for line in daemon.lines()]
    check(events == ['starting', 'recovered', 'serving', 'stopping', 'stopped'], 'events', str(events))
    daemon = Daemon(data, '--socket', place)
    recovered = next(line for line in daemon.lines() if line['event'] == 'recovered')
    check(recovered['records'] <= 1, 'the checkpoint had it all', str(recovered))
    expect(OK, 'put', data, 'main/m', 'k', 'two')
    daemon.end(signal.SIGKILL)
    daemon = Daemon(data, '--socket', place)
    check(daemon.has('serving'), 'starts after kill -9, with the sockets that were left behind', str(daemon.lines()))
    check(expect(OK, 'get', place, 'main/m', 'k') == 'two', 'nothing is lost')
    check(daemon.end(signal.SIGINT) == 0, 'SIGINT')
    write('occupied', '')
    done = run([SHELFD, '--data', data, '--socket', path('occupied')], env=environment)
    check(done.returncode == EXISTS and os.path.exists(path('occupied')), 'a file is not taken for a socket', done.stderr)
    done = run([SHELFD, '--data', path('none'), '--create', 'no'], env=environment)
    check(done.returncode == NOT_FOUND and 'event=failed' in done.stderr, 'create = no', done.stderr)
    done = run([SHELFD, '--data', data, '--socket', '/' + 'x' * 200], env=environment)
    check(done.returncode == INVALID and 'longer' in done.stderr, 'a path that no socket can have', done.stderr)


def test_follower_stays():
    """A command that follows does not take the daemon's place while that is restarted."""
    data = path('stays')
    daemon = Daemon(data)
    expect(OK, 'create', data, 'main', '1M')
    expect(OK, 'append', data, 'main/s', 'one')
    with open(path('stays.out'), 'wb') as out:
        follower = start([SHELF, 'tail', data, 'main/s', '--follow'], stdout=out, stderr=subprocess.STDOUT, env=environment)
    wait_until(lambda: 'one' in open(path('stays.out'), encoding='ascii').read(), 20, 'the first record')
    daemon.end(signal.SIGKILL)
    time.sleep(0.2)
    daemon = Daemon(data)
    check(daemon.has('serving'), 'the daemon has its place back', str(daemon.lines()))
    expect(OK, 'append', data, 'main/s', 'two')
    try:
        wait_until(lambda: 'two' in open(path('stays.out'), encoding='ascii').read(), 20, 'the second record')
        check(True, 'follows on')
    except TimeoutError as error:
        check(False, 'follows on', f'{error}: {open(path("stays.out"), encoding="utf-8").read()}')
    follower.send_signal(signal.SIGINT)
    check(follower.wait(20) == 0, 'Ctrl-C ends it')
    ended(follower)
    check(daemon.end() == 0, 'end')


def test_its_directory():
    """What shelfd has kept stays its own while it is away; the command may work there meanwhile."""
    data = path('its')
    daemon = Daemon(data)
    expect(OK, 'create', data, 'main', '1M')
    check(os.path.exists(data + '/daemon'), 'the directory is marked')
    program = ('import sys, shelf\n'
               's = shelf.open("dir:" + sys.argv[1], open_deadline_ms=int(sys.argv[2]))\n'
               'print("node" if s.stats().is_node else "attached", flush=True)\n'
               'sys.stdin.readline()\n')
    check(daemon.end() == 0, 'end')

    def begin(deadline_ms):
        return start([sys.executable, '-c', program, data, str(deadline_ms)], env=python_environment, text=True,
                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    early = begin(1)
    _, text = early.communicate(timeout=60)
    ended(early)
    check(early.returncode != 0 and 'belongs to shelfd' in text, 'a program does not take its place', text)
    expect(OK, 'put', data, 'main/m', 'a', 'b')
    waiting = begin(60000)
    daemon = Daemon(data)
    check(daemon.has('serving'), 'the daemon has its place', str(daemon.lines()))
    check(waiting.stdout.readline() == 'attached\n', 'the program waited for it')
    waiting.communicate('\n', timeout=60)
    ended(waiting)
    check(expect(OK, 'get', data, 'main/m', 'a').strip() == 'b', 'what was put meanwhile')
    check(daemon.end() == 0, 'end')


def strace_missing():
    return not shutil.which('strace') or run(['strace', '-qq', '-o', '/dev/null', 'true']).returncode != 0


def test_faults():
    """A disk that fails ends it with 17; one that hangs does not keep a second signal from ending it."""
    if strace_missing():
        print('no strace: the faults are left out')
        return
    calls = 'pwrite64,pwritev,pwritev2,fdatasync,fsync'
    data = path('fault')
    strace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', f'trace={calls}', '-e', 'signal=none', '-e']
    daemon = Daemon(data, '--backend', 'plain', wrapper=[*strace, f'inject={calls}:error=EIO:when=60+'])
    shelf('create', data, 'main', '1M')
    # Their commands wait for another node, as long as their deadlines allow: that is not waited for here.
    script = 'while "$0" put "$1" main/m k v; do :; done'
    writer = start(['sh', '-c', script, SHELF, data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        code = daemon.process.wait(30)
    except subprocess.TimeoutExpired:
        code = None
    os.killpg(writer.pid, signal.SIGKILL)
    ended(daemon.process)
    fault = [line for line in daemon.lines() if line['event'] == 'disk-fault']
    check(code == IO and len(fault) == 1 and fault[0]['level'] == 'error' and fault[0]['reason'], 'a disk fault',
          f'{code}: {daemon.lines()[-3:]}')
    shutil.rmtree(data, ignore_errors=True)
    daemon = Daemon(data, '--backend', 'plain', wrapper=[*strace, f'inject=fsync,fdatasync:delay_enter=3000000:when=20+'])
    writer = start(['sh', '-c', 'for i in 1 2 3 4; do "$0" create "$1" r$i 1M; done', SHELF, data], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(1)
    pid = daemon.pid()
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.8)
    os.killpg(writer.pid, signal.SIGKILL)
    begin = time.monotonic()
    if daemon.process.poll() is None:
        os.kill(pid, signal.SIGTERM)
    code = daemon.process.wait(60)
    ended(daemon.process)
    check(code == AT_ONCE and daemon.has('quit') or code == 0 and daemon.has('stopped'), 'a second signal',
          f'{code} after {time.monotonic() - begin:.1f} s: {daemon.lines()[-3:]}')


# ---- Service manager ------------------------------------------------------------------------------------------------


def test_notify():
    place = path('notify')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(place)
        listener.settimeout(20)
        daemon = Daemon(path('notified'), env={'NOTIFY_SOCKET': place, 'WATCHDOG_USEC': '400000'})
        messages, pings, end = [], 0, time.monotonic() + 20
        while pings < 5 and time.monotonic() < end:
            messages += listener.recv(4096).decode().splitlines()
            pings = messages.count('WATCHDOG=1')
        check(pings >= 5, 'watchdog pings', str(messages))
        check('READY=1' in messages and any(m.startswith('STATUS=serving') for m in messages), 'ready and status', str(messages))
        daemon.end()
        listener.setblocking(False)
        rest = []
        try:
            while True:
                rest += listener.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass
        check('STOPPING=1' in rest, 'stopping', str(rest))
        daemon = Daemon(path('notified'), env={'NOTIFY_SOCKET': place})
        time.sleep(0.5)
        messages = []
        try:
            while True:
                messages += listener.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass
        check('READY=1' in messages and 'WATCHDOG=1' not in messages, 'no pings that nobody asked for', str(messages))
        check(daemon.end() == 0, 'end')


def activated(data, listeners, *arguments):
    """Starts it as systemd does, with sockets from descriptor 3 on."""
    moves = ' '.join(f'{3 + i}<&{100 + i}' for i in range(len(listeners)))
    for i, listener in enumerate(listeners):
        os.dup2(listener.fileno(), 100 + i)
    script = f'exec {moves}; export LISTEN_PID=$$ LISTEN_FDS={len(listeners)}; exec "$@"'
    try:
        return Daemon(data, *arguments, wrapper=['bash', '-c', script, 'bash'], pass_fds=[100 + i for i in range(len(listeners))])
    finally:
        for i in range(len(listeners)):
            os.close(100 + i)


def test_activation():
    listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for i, listener in enumerate(listeners):
        listener.bind(path(f'active{i}'))
        listener.listen(8)
    daemon = activated(path('activated'), listeners, '--socket', path('active.own'))
    check(next(line for line in daemon.lines() if line['event'] == 'serving')['activated'] == 2, 'two sockets are taken')
    for place in ('active0', 'active1', 'active.own', 'activated'):
        expect(OK, 'status', path(place), says='all is well')
    check(daemon.end() == 0 and os.path.exists(path('active0')), "systemd's sockets stay")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(path('stream'))
        stream.listen(8)
        daemon = activated(path('activated'), [stream])
        check(daemon.process.wait(20) == INVALID and 'ListenSequentialPacket' in daemon.lines()[-1]['reason'], 'a stream is refused',
              str(daemon.lines()))
        ended(daemon.process)
    for listener in listeners:
        listener.close()


def test_log():
    for style, pattern in (('journal', r'level=\w+ event=[\w.-]+( \w+=("([^"\\]|\\.)*"|[^\s"]*))*'),
                           ('text', r'\d\d:\d\d:\d\d\.\d{3} (error|warning|info|debug) +[\w.-]+ *( \w+=("([^"\\]|\\.)*"|[^\s"]*))*')):
        data = path('log "x"\n' + style)
        with open(path('log'), 'wb') as log:
            process = start([SHELFD, '--data', data, '--log-format', style, '--log-level', 'debug'], stderr=log, env=environment)
        wait_until(lambda: 'serving' in open(path('log'), encoding='utf-8').read() or process.poll() is not None, 20, 'shelfd')
        shelf('create', data, 'secret', '1M')
        shelf('put', data, 'secret/secretmap', 'secretkey', 'secretvalue')
        process.terminate()
        check(process.wait(20) == 0, f'{style}: end')
        ended(process)
        text = open(path('log'), encoding='utf-8').read()
        wrong = [line for line in text.splitlines() if not re.fullmatch(pattern, line)]
        check(not wrong and 'client.attached' in text, f'every line is of the format {style}', str(wrong[:3]))
        check('secret' not in text, f'{style}: nothing of users is in it', text)
        check(data.replace('"', '\\"').replace('\n', '\\u000a') in text, f'{style}: a strange name is quoted', text)
    table = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'src', 'cmd', 'shelfd_log.h'),
                 encoding='utf-8').read()
    check(len(re.findall(r'^    X\(\w+, "', table, re.M)) >= 12, 'the table of events')


def test_private():
    """Another user cannot look into it, and has the rights that regions give him."""
    if os.geteuid() != 0:
        print('not root: other users are left out')
        return
    data, place = path('private'), path('private.sock')
    os.mkdir(data)
    os.chown(data, NOBODY, NOBODY)
    daemon = Daemon(data, wrapper=['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups'])
    check(os.stat(f'/proc/{daemon.pid()}/environ').st_uid == 0, 'its memory is not open to its own user')
    check(daemon.end() == 0, 'end')
    shelf('create', data, 'main', '1M')
    check(all(os.stat(os.path.join(data, name)).st_uid == NOBODY for name in os.listdir(data)),
          'root leaves no files that the daemon could not open', str(os.listdir(data)))
    daemon = Daemon(data, '--socket', path('nowhere/x.sock'), wrapper=['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups'])
    check(daemon.process.wait(20) == NOT_FOUND, 'a socket in a directory that is not there', str(daemon.lines()))
    ended(daemon.process)
    data = path('shared')
    daemon = Daemon(data, '--socket', place)
    expect(OK, 'create', data, 'main', '1M')
    expect(OK, 'put', data, 'main/m', 'k', 'v')
    expect(DENIED, 'get', place, 'main/m', 'k', **OTHER)
    expect(OK, 'access', data, 'main', '--mode', '0664')
    check(expect(OK, 'get', place, 'main/m', 'k', **OTHER) == 'v', 'others may read')
    expect(DENIED, 'put', place, 'main/m', 'k', 'w', **OTHER)
    expect(DENIED, 'access', place, 'main', '--mode', '0666', **OTHER)
    expect(OK, 'access', data, 'main', '--owner', '1234', '--mode', '0600')
    expect(OK, 'put', place, 'main/m', 'k', 'w', **OTHER)
    answer = json.loads(expect(OK, 'access', data, 'main', '--json'))
    check((answer['owner'], answer['mode']) == (1234, 0o600), 'access', str(answer))
    expect(INVALID, 'access', data, 'main', '--mode', '0777', says='octal')
    expect(INVALID, 'access', data, 'main', '--mode', '9', says='octal')
    expect(NOT_FOUND, 'access', data, 'main', '--owner', 'no-such-user', says='no user')
    check(daemon.end() == 0, 'end')


# ---- Every command, wherever the shelf is ---------------------------------------------------------------------------


def commands(where, files, name):
    """`files`: the directory, for what reads files."""
    expect(OK, 'create', where, name, '1M', '--max', '8M', says=f"region '{name}'")
    expect(EXISTS, 'create', where, name, '1M', says='exists already')
    regions = json.loads(expect(OK, 'list', where, '--json'))
    check(regions['as_of'] == 'now' and name in [r['name'] for r in regions['regions']], 'list', str(regions))
    expect(OK, 'list', where, says=name)
    expect(OK, 'put', where, f'{name}/m', 'k', 'value')
    check(expect(OK, 'get', where, f'{name}/m', 'k') == 'value', f'get at {where}')
    check(expect(OK, 'scan', where, f'{name}/m') == 'k\tvalue\n', f'scan at {where}')
    expect(OK, 'del', where, f'{name}/m', 'k')
    expect(NOT_FOUND, 'get', where, f'{name}/m', 'k', says='no such key')
    for i in range(12):
        expect(OK, 'append', where, f'{name}/s', f'record {i}', '--keep-bytes', '1M')
    check(expect(OK, 'tail', where, f'{name}/s').splitlines() == [f'record {i}' for i in range(2, 12)], f'tail at {where}')
    lines = [json.loads(line) for line in expect(OK, 'tail', where, f'{name}/s', '--from', '10', '--json').splitlines()]
    check([(line['position'], line['record']) for line in lines] == [(10, 'record 10'), (11, 'record 11')], 'tail --json', str(lines))
    check(expect(OK, 'tail', where, f'{name}/s', '--count', '1', '--hex') == b'record 11'.hex() + '\n', 'tail --hex')
    expect(NOT_FOUND, 'tail', where, f'{name}/none', says="no stream 'none'")
    expect(INVALID, 'tail', where, name, says='REGION/STREAM')
    expect(INVALID, 'append', where, f'{name}/s', 'x', '--keep-time', '5', says='is no time')
    expect(OK, 'grow', where, name, '2M', says='2 MiB now')
    expect(INVALID, 'grow', where, name, '1M', says='do not shrink')
    expect(5, 'grow', where, name, '16M', says='can grow to 8 MiB')
    expect(NOT_FOUND, 'grow', where, 'nothing', '1M', says="no region named 'nothing'")
    expect(OK, 'access', where, name, '--mode', '0640', says='rw-r-----')
    expect(OK, 'verify', files, says='no damage')
    expect(OK, 'dump', files, name, path('x.dump'), '--force')
    answer = json.loads(expect(OK, 'dump', files, name, path('x.dump'), '--force', '--json'))
    check(answer['as_of'] == 'present state', 'a dump is of now', str(answer))
    expect(OK, 'load', where, name, path('x.dump'), '--as', name + '-copy')
    check(expect(OK, 'tail', where, f'{name}-copy/s', '--count', '1') == 'record 11\n', f'a dump at {where} is complete')
    expect(INVALID, 'drop', where, name, says='--yes')
    expect(OK, 'drop', where, name, '--yes', says='is gone')
    expect(NOT_FOUND, 'drop', where, name, '--yes')
    expect(OK, 'drop', where, name + '-copy', '--yes', '--json')


def test_commands():
    data, place = path('commands'), path('commands.sock')
    expect(OK, 'create', data)
    commands(data, data, 'alone')
    expect(OK, 'status', data, says='no process serves it')
    check(json.loads(expect(OK, 'status', data, '--json'))['served'] is False, 'status --json of a directory')
    expect(UNAVAILABLE, 'clients', data, says='no process serves it')
    expect(NOT_FOUND, 'status', path('nothing'), says='shelf create')
    expect(NOT_FOUND, 'status', 'unix:' + place, says='nobody listens')
    expect(NOT_FOUND, 'get', 'unix:' + place, 'a/b', 'c', says='nobody listens')
    daemon = Daemon(data, '--socket', place)
    commands(data, data, 'served')
    commands(place, data, 'socket')
    commands('unix:' + place, data, 'unix')
    expect(INVALID, 'dump', place, 'x', path('y.dump'), says='name the directory')
    expect(INVALID, 'verify', place, says='name the directory')
    text = expect(OK, 'status', data)
    check(all(word in text for word in ('served', 'all is well', 'checkpoint', 'attached')), 'status', text)
    answer = json.loads(expect(OK, 'status', place, '--json'))
    check(answer['served'] and answer['connected'] and answer['state'] == 'OK' and answer['clients'] == 1, 'status --json', str(answer))
    check(daemon.end() == 0, 'end')


def test_clients_and_watch():
    data = path('clients')
    daemon = Daemon(data)
    expect(OK, 'create', data, 'main', '1M')
    expect(OK, 'append', data, 'main/s', 'one')
    follower = start([SHELF, 'tail', data, 'main/s', '--follow'], stdout=subprocess.DEVNULL, env=environment)

    def waits():
        answer = json.loads(expect(OK, 'clients', data, '--json'))
        return any(c['process'] == follower.pid and c['waiters'] == 1 and c['regions'] >= 1 for c in answer['clients'])
    try:
        wait_until(waits, 20, 'a client that waits')
        check(True, 'clients --json')
    except TimeoutError as error:
        check(False, 'clients --json', str(error))
    text = expect(OK, 'clients', data)
    check(str(follower.pid) in text and 'program' in text, 'clients', text)
    with open(path('watch'), 'wb') as out:
        watcher = start([SHELF, 'status', data, '--watch', '--json'], stdout=out, env=environment)
    wait_until(lambda: len(open(path('watch'), encoding='ascii').read().splitlines()) >= 2, 20, 'two answers')
    watcher.send_signal(signal.SIGINT)
    check(watcher.wait(20) == 0, 'Ctrl-C ends status --watch')
    ended(watcher)
    lines = [json.loads(line) for line in open(path('watch'), encoding='ascii')]
    check(all(line['connected'] for line in lines), 'status --watch', str(lines))
    check(daemon.end() == 0, 'end')


def test_completion():
    names = [line.split()[0] for part in shelf('--help').stdout.split('\ncommands: ')[1:]
             for line in part.split('\n\n')[0].splitlines()[1:]]
    bash = write('c.bash', expect(OK, 'completion', 'bash'))
    check(run(['bash', '-n', bash]).returncode == 0, 'bash can read it')

    def complete(*words):
        script = f'. {bash}; compopt() {{ :; }}; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _shelf; echo ${{COMPREPLY[@]}}'
        return run(['bash', '-c', script]).stdout.split()
    check(complete('shelf', 'sta') == ['status', 'start'], 'bash completes a command', str(complete('shelf', 'sta')))
    check(set(names) <= set(complete('shelf', "''")), 'bash knows all commands', str(names))
    check(complete('shelf', 'tail', '--f') == ['--from', '--follow'], 'bash completes options', str(complete('shelf', 'tail', '--f')))
    zsh = write('c.zsh', expect(OK, 'completion', 'zsh'))
    if shutil.which('zsh'):
        done = run(['zsh', '-n', zsh])
        check(done.returncode == 0, 'zsh can read it', done.stderr)
        done = run(['zsh', '-f', '-c', f'autoload -Uz compinit; compinit -u -D; . {zsh}; echo ${{_comps[shelf]}}'], env={**environment, 'HOME': work})
        check(done.stdout.strip() == '_shelf', 'zsh uses it', done.stdout + done.stderr)
    check(all(f"'{name}:" in open(zsh, encoding='utf-8').read() for name in names), 'zsh knows all commands')
    expect(INVALID, 'completion', 'fish', says='bash and zsh')


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name, test in list(globals().items()):
        if name.startswith('test_'):
            try:
                test()
            except Exception as error:  # the others are worth running all the same
                check(False, name, repr(error))
    cases.finish()


main()
