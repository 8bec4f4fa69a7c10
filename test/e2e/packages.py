#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: built, clean, and on a machine of their own: installed, the daemon run by systemd in its sandbox, killed,
upgraded, removed, purged. The machine is a folder made by debootstrap and started by systemd-nspawn.

Usage: packages.py SOURCE_ROOT"""

import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'crash'))
from harness import Cases, at_end, run, scratch_directory, skip  # noqa: E402

SOURCE = os.path.abspath(sys.argv[1])
PACKAGES = ['shelfd', 'shelf-cli', 'libshelf0', 'libshelf-dev']

# Runs in the machine, as root; a line "ok NAME" or "no NAME" for each check.
TRIAL = r'''#!/bin/bash
exec >/root/trial.log 2>&1
export DEBIAN_FRONTEND=noninteractive
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "ok $name"; else echo "no $name: $*: $(tail -n 5 /tmp/out | tr '\n' ' ')"; fi; }
says() { grep -q "$1" && return 0; return 1; }
main() { systemctl show -p MainPID --value shelfd; }
got() { [ "$(shelf get /run/shelf/sock orders/m k)" = value ]; }
same_index() { [ "$(shelf status /run/shelf/sock --json | grep -o '"commits":[0-9]*')" = '"commits":0' ]; }
wait_for() { for i in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done; "$@"; }

try "the daemon runs" wait_for systemctl is-active shelfd.service
try "its socket too" systemctl is-active shelfd.socket
try "status" sh -c 'shelf status /run/shelf/sock | grep -q "all is well"'
try "io_uring or plain" sh -c 'journalctl -u shelfd -o cat | grep -q "event=recovered.*backend="'
try "a region" shelf create /run/shelf/sock orders 4M
try "put" shelf put /run/shelf/sock orders/m k value
try "get" got
try "a directory for the group only" sh -c '[ "$(stat -c %a:%U /var/lib/shelf)" = 750:shelf ]'
try "a socket for all" sh -c '[ "$(stat -c %a /run/shelf/sock)" = 666 ]'
try "others may look" setpriv --reuid=nobody --regid=nogroup --clear-groups shelf status /run/shelf/sock
try "others may not read" sh -c '! setpriv --reuid=nobody --regid=nogroup --clear-groups shelf get /run/shelf/sock orders/m k'
try "a dump" shelf dump /var/lib/shelf orders /root/orders.dump
try "verify" shelf verify /var/lib/shelf
try "no capabilities" grep -q 'CapEff:.*0000000000000000' /proc/$(main)/status
try "system calls are filtered" grep -q 'Seccomp:.*2' /proc/$(main)/status
try "not root" sh -c "[ \"\$(stat -c %U /proc/$(main)/cmdline)\" = root ] && grep -q 'Uid:.*[1-9]' /proc/$(main)/status"
kill -9 "$(main)"
sleep 1
try "comes back after kill -9" wait_for got
try "the watchdog is on" sh -c 'systemctl show -p WatchdogUSec --value shelfd | grep -q 1min'
try "restart" systemctl restart shelfd
try "get after a restart" wait_for got
try "the last checkpoint was written" sh -c 'journalctl -u shelfd -o cat | grep -q event=stopped'
try "upgrade" dpkg -i /debs/new/shelfd.deb /debs/new/shelf-cli.deb /debs/new/libshelf0.deb /debs/new/libshelf-dev.deb
try "the daemon runs after an upgrade" wait_for got
try "the new version" sh -c 'dpkg-query -W -f "\${Version}" shelfd | grep -q 0.1.0+next'
systemctl stop shelfd.service shelfd.socket
try "root works in a directory of the daemon" shelf list /var/lib/shelf
try "and leaves nothing of root's" sh -c '[ -z "$(find /var/lib/shelf -user root)" ]'
try "start again" systemctl start shelfd
try "get after that" wait_for got
systemctl stop shelfd.service shelfd.socket
try "remove" apt-get -qy remove shelfd
try "the data stay" test -s /var/lib/shelf/superblock
try "purge" apt-get -qy purge shelfd shelf-cli
try "the settings are gone" sh -c '! test -e /etc/shelf'
try "the units are gone" sh -c '! find /etc/systemd -name "shelfd*" | grep -q .'
try "the data stay on purge" test -s /var/lib/shelf/superblock
echo end
systemctl poweroff --force --force || halt -ff
'''

UNIT = '''[Unit]
After=multi-user.target
[Service]
Type=idle
ExecStart=/root/trial
[Install]
WantedBy=multi-user.target
'''

cases = Cases()


def build(directory, version=None):
    """The packages of this tree; {name: path}."""
    done = run([os.path.join(SOURCE, 'packaging', 'deb'), directory, *([version] if version else [])], timeout_s=900)
    cases.check(done.returncode == 0, f'packages {version or ""} are built, and lintian has nothing to say',
                (done.stdout + done.stderr)[-1500:])
    if done.returncode:
        cases.finish()
    found = {name: [path for path in done.stdout.splitlines() if re.search(rf'/{name}_[^/]*\.deb$', path)] for name in PACKAGES}
    cases.check(all(len(paths) == 1 for paths in found.values()), 'four packages', done.stdout)
    return {name: paths[0] for name, paths in found.items()}


def symbols(package, work):
    """The symbols file names what the library shows."""
    run(['dpkg-deb', '-x', package, work])
    library = run(['find', work, '-name', 'libshelf.so.0.*']).stdout.split()[0]
    shown = {line.split()[-1].replace('@@', '@') for line in run(['nm', '-D', '--defined-only', library]).stdout.splitlines()}
    with open(os.path.join(SOURCE, 'debian', 'libshelf0.symbols'), encoding='ascii') as file:
        named = {line.split()[0] for line in file.readlines()[1:]}
    cases.check({name for name in shown if name.startswith('shelf_')} == {name for name in named if name.startswith('shelf_')},
                'the symbols file is what the library shows', str(shown ^ named))


def machine_make(root, packages, new):
    done = run(['debootstrap', '--variant=minbase', '--include=systemd,systemd-sysv', 'bookworm', root], timeout_s=900)
    if done.returncode:
        skip(f'debootstrap makes no machine here: {done.stdout[-300:]}')
    os.makedirs(os.path.join(root, 'debs/new'))
    for name, path in packages.items():
        shutil.copy(path, os.path.join(root, 'debs', name + '.deb'))
        shutil.copy(new[name], os.path.join(root, 'debs/new', name + '.deb'))
    done = run(['chroot', root, 'sh', '-c', 'mount -t proc proc /proc; export DEBIAN_FRONTEND=noninteractive; '
                'apt-get -qy --no-install-recommends install /debs/*.deb; code=$?; umount /proc; exit $code'], timeout_s=600,
               stdin=subprocess.DEVNULL)
    cases.check(done.returncode == 0, 'the packages can be installed', (done.stdout + done.stderr)[-1500:])
    for path, text in (('root/trial', TRIAL), ('etc/systemd/system/trial.service', UNIT)):
        with open(os.path.join(root, path), 'w', encoding='ascii') as file:
            file.write(text)
    os.chmod(os.path.join(root, 'root/trial'), 0o755)
    run(['chroot', root, 'systemctl', 'enable', 'trial.service'])


def machine_run(root):
    done = run(['systemd-nspawn', '-q', '-D', root, '--register=no', '--keep-unit', '--boot'], timeout_s=300, stdin=subprocess.DEVNULL)
    try:
        with open(os.path.join(root, 'root/trial.log'), encoding='utf-8') as file:
            lines = file.read().splitlines()
    except OSError:
        skip(f'systemd-nspawn starts no machine here: {(done.stdout + done.stderr)[-300:]}')
    for line in lines:
        if line.startswith(('ok ', 'no ')):
            cases.check(line.startswith('ok '), line[3:])
    cases.check('end' in lines, 'the trial comes to its end', '\n'.join(lines[-5:]))


def main():
    if os.geteuid() != 0:
        skip('only root can make a machine')
    for tool in ('debootstrap', 'systemd-nspawn', 'dpkg-buildpackage', 'lintian'):
        if not shutil.which(tool):
            skip(f'there is no {tool} here')
    work = scratch_directory(memory=False)
    os.environ['DEB_BUILD_OPTIONS'] = 'noautodbgsym'
    packages = build(os.path.join(work, 'one'))
    new = build(os.path.join(work, 'two'), '0.1.0+next')
    symbols(packages['libshelf0'], os.path.join(work, 'library'))
    root = os.path.join(work, 'root')
    at_end(lambda: shutil.rmtree(root, ignore_errors=True))
    machine_make(root, packages, new)
    machine_run(root)
    cases.finish()


main()
