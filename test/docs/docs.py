#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the documents say is true: names and places in the tour, sizes in the formats, snippets of the README,
programs of the tutorials, manual pages, and what operators are told.

Usage: docs.py SOURCE_ROOT BUILD_ROOT"""

import os
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD = (os.path.abspath(path) for path in sys.argv[1:3])
PYTHON = {**os.environ, 'PYTHONPATH': f'{SOURCE}/python', 'SHELF_LIBRARY': f'{BUILD}/libshelf.so.0'}
COUNTS = {True: 0, False: 0}


def check(name, condition, detail=''):
    COUNTS[bool(condition)] += 1
    if not condition:
        print(f'FAILED: {name} {detail}')


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding='utf-8') as file:
        return file.read()


def run(command, **options):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, **options)


def tour():
    """Each function named with a file is defined in that file."""
    stops = re.findall(r'`(\w+)`(?:\*\*)?\s+\(`([\w/.]+)`\)', read('docs', 'tour.md'))
    check('the tour has stops', len(stops) >= 15, str(len(stops)))
    for function, path in stops:
        exists = os.path.exists(os.path.join(SOURCE, path))
        defined = exists and re.search(rf'^[\w *]*\b{function}\([^;]*?\)\s*{{', read(path), re.M | re.S)
        check(f'tour: {function} is defined in {path}', defined)


def links():
    """Links and paths in the documents lead somewhere."""
    for page in ['README.md'] + [os.path.join('docs', name) for name in os.listdir(os.path.join(SOURCE, 'docs'))
                                 if name.endswith('.md')]:
        base = os.path.dirname(page)
        for target in re.findall(r'\]\(([^)#:]+)\)', read(page)):
            check(f'{page}: link {target}', os.path.exists(os.path.join(SOURCE, base, target)))


def formats(scratch):
    """The sizes and offsets of the tables in formats.md are those of the structures."""
    text = read('docs', 'formats.md')
    sizes = re.findall(r'`(\w+)`, (\d+) bytes', text)
    check('formats.md names structures', len(sizes) >= 6, str(len(sizes)))
    headers = ['log_format.h', 'checkpoint_format.h', 'system_region.h', 'configuration.h', 'coordinator_format.h', 'register_format.h', 'member_format.h',
               'peer.h']
    lines = ['#include <stddef.h>', '#include <stdio.h>'] + [f'#include "wire/{name}"' for name in headers] + ['int main(void) {']
    for name, _ in sizes:
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
    lines += ['printf("sessions %zu\\n", (size_t)SYSTEM_SESSIONS_OFFSET);', 'printf("results %zu\\n", (size_t)SYSTEM_RESULTS_OFFSET);',
              'printf("reserved %zu\\n", offsetof(struct superblock, reserved));', 'return 0; }']
    program = os.path.join(scratch, 'sizes')
    with open(program + '.c', 'w', encoding='utf-8') as file:
        file.write('\n'.join(lines))
    built = run(['cc', '-std=gnu17', '-I', f'{SOURCE}/src', '-I', f'{SOURCE}/include', program + '.c', '-o', program])
    check('the sizes program compiles', built.returncode == 0, built.stdout)
    if built.returncode:
        return
    actual = dict(line.split() for line in run([program]).stdout.splitlines())
    for name, size in sizes:
        check(f'formats.md: size of {name}', actual[name] == size, f'{actual[name]}, not {size}')
    check('formats.md: offset of the sessions', f"| {actual['sessions']} |" in text)
    check('formats.md: offset of the results', f"| {actual['results']} |" in text)
    check('formats.md: reserved part of the superblock', f"| {actual['reserved']} | 3960 |" in text)


def snippets(scratch):
    """The README's program compiles without a warning and counts its starts; its shell lines work."""
    text = read('README.md')
    code = re.search(r'```c\n(.*?)```', text, re.S).group(1)
    program = os.path.join(scratch, 'start')
    with open(program + '.c', 'w', encoding='utf-8') as file:
        file.write(code)
    built = run(['cc', '-std=c17', '-Wall', '-Wextra', '-Werror', '-I', f'{SOURCE}/include', program + '.c', '-o', program,
                 '-L', BUILD, '-lshelf', f'-Wl,-rpath,{BUILD}'])
    check("the README's program compiles", built.returncode == 0, built.stdout)
    for start in range(1, 4):
        ran = run([program], cwd=scratch)
        check(f'start {start}', ran.returncode == 0 and ran.stdout == f'start {start}\n', ran.stdout)
    python = re.search(r'```python\n(.*?)```', text, re.S).group(1)
    ran = run([sys.executable, '-B', '-W', 'error', '-c', python], cwd=scratch, env=PYTHON)
    check("the README's Python counts on", ran.returncode == 0 and ran.stdout == 'starts 3\n', ran.stdout)
    shell = re.search(r'```sh\n(.*?)```', text, re.S).group(1)
    environment = {**os.environ, 'PATH': BUILD + ':' + os.environ['PATH']}
    ran = run(['sh', '-e', '-c', shell], cwd=scratch, env=environment)
    check("the README's shell lines work", ran.returncode == 0 and 'Ada Lovelace' in ran.stdout, ran.stdout)
    check('no part of the README is unfinished', '@' not in re.sub(r'```.*?```', '', text, flags=re.S))


def blocks(page, language):
    """All pieces of code in one language, in their order: a tutorial is one program in pieces, and what that prints."""
    return '\n'.join(re.findall(rf'^```{language}\n(.*?)^```$', read('docs', page), re.M | re.S))


def tutorial_cpp(scratch):
    """The C++ tutorial compiles without a warning in both languages and prints what it says."""
    program = os.path.join(scratch, 'bank')
    with open(program + '.cpp', 'w', encoding='utf-8') as file:
        file.write(blocks('cpp.md', 'cpp'))
    for compiler, standard in ('g++', 'c++17'), ('clang++', 'c++20'):
        built = run([compiler, f'-std={standard}', '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Werror',
                     '-I', f'{SOURCE}/include', program + '.cpp', '-o', program, '-L', BUILD, '-lshelf', '-pthread',
                     f'-Wl,-rpath,{BUILD}'])
        check(f'cpp.md compiles as {standard}', built.returncode == 0, built.stdout)
        if built.returncode == 0:
            with tempfile.TemporaryDirectory(dir=scratch) as place:
                ran = run([program], cwd=place)
            check(f'cpp.md prints what it says, as {standard}',
                  ran.returncode == 0 and ran.stdout == blocks('cpp.md', 'text'), ran.stdout)


def tutorial_python(scratch):
    """The Python tutorial runs without a warning and prints what it says."""
    program = os.path.join(scratch, 'bank.py')
    with open(program, 'w', encoding='utf-8') as file:
        file.write(blocks('python.md', 'python'))
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        ran = run([sys.executable, '-B', '-W', 'error', program], cwd=place, env=PYTHON)
    check('python.md prints what it says', ran.returncode == 0 and ran.stdout == blocks('python.md', 'text'), ran.stdout)


def manual_pages():
    """Every command, option, setting, exit code and function is in its page, and the pages build without a warning."""
    pages = {name: read('docs', 'man', name + '.scd') for name in ('shelf.1', 'shelfd.8', 'shelf.conf.5', 'shelf.3')}
    for name, text in pages.items():
        built = os.path.join(BUILD, 'packaging', name)
        checked = run(['sh', '-c', 'MANROFFSEQ= man --warnings -E UTF-8 -l -Tutf8 -Z "$0" >/dev/null', built])
        check(f'{name} is built without a warning', os.path.getsize(built) > 0 and checked.returncode == 0 and not checked.stdout,
              checked.stdout[:300])
        check(f'{name} has a name and points elsewhere', '# NAME' in text and '# SEE ALSO' in text)
    table = read('src', 'cmd', 'main.c')
    for entry in re.split(r'\n    \{\n', table[table.index('const struct command commands[]'):table.index('{.name = NULL}')])[1:]:
        name = re.search(r'\.name = "([\w-]+)"', entry).group(1)
        line = re.search(rf'^\*{name}\* .*(?:\n\t.*)+', pages['shelf.1'], re.M)
        check(f'shelf(1) has {name}', line)
        options = re.search(r'\.options = \{(.*?)\},\n        \.(?:examples|run)', entry, re.S)
        for option in re.findall(r'\{"([\w-]+)",', options.group(1) if options else ''):
            check(f'shelf(1) has --{option} of {name}', line and f'*--{option}*' in line.group(0))
    header = read('include', 'shelf.h')
    for name, code in re.findall(r'^    X\((\w+), (\d+),', header, re.M):
        check(f'shelf(1) has exit code {code}', re.search(rf'\*{code}\*\n:. {name}\b', pages['shelf.1']))
    for name, preset in re.findall(r'^    X\(\w+, "([\w-]+)", \w+, [^"]*"([^"]*)"', read('src', 'cmd', 'shelfd_config.h'), re.M):
        check(f'shelf.conf(5) has {name} and its default', re.search(rf'^\*{name}\* = .*{preset}', pages['shelf.conf.5'], re.M))
        check(f'shelfd(8) has --{name}', f'*--{name}*' in pages['shelfd.8'])
    for function in set(re.findall(r'SHELF_API\b[^;{]*?\b(shelf_\w+)\s*\(', re.sub(r'/\*.*?\*/', '', header, flags=re.S))):
        check(f'shelf(3) has {function}', f'*{function}*()' in pages['shelf.3'])


def manual_example(scratch):
    """The program of shelf(3) compiles without a warning and counts."""
    code = re.search(r'```\n(.*?)```', read('docs', 'man', 'shelf.3.scd'), re.S).group(1).replace('\\\\', '\\')
    program = os.path.join(scratch, 'counter')
    with open(program + '.c', 'w', encoding='utf-8') as file:
        file.write(code)
    built = run(['cc', '-std=c17', '-Wall', '-Wextra', '-Werror', '-I', f'{SOURCE}/include', program + '.c', '-o', program,
                 '-L', BUILD, '-lshelf', f'-Wl,-rpath,{BUILD}'])
    check('the program of shelf(3) compiles', built.returncode == 0, built.stdout)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        for number in (1, 2):
            ran = run([program], cwd=place)
            check('the program of shelf(3) counts', ran.stdout == f'{number}\n', ran.stdout)


def operations(scratch):
    """The commands of operations.md work, beside a daemon; its tables of events and exit codes are those of the sources."""
    text = read('docs', 'operations.md')
    events = re.findall(r'X\(\w+, "([\w.-]+)", (\w+),\s*"(.*?)"\)', re.sub(r'\s*\\\n\s*', ' ', read('src', 'cmd', 'shelfd_log.h')))
    rows = re.findall(r'^\| `([\w.-]+)` \| (\w+) \| (.*) \|$', text, re.M)
    check('operations.md has the events', rows == [(name, level.lower(), meaning) for name, level, meaning in events], str(rows))
    check('the unit does not start again what it should not', {'6', '7', '9', '16'} ==
          set(re.search(r'RestartPreventExitStatus=(.*)', read('packaging', 'systemd', 'shelfd.service.in')).group(1).split()) ==
          set(re.findall(r'^\| (\d+) \| .* \| no \|$', text, re.M)))
    place = os.path.join(scratch, 'operations')
    os.mkdir(place)
    environment = {**os.environ, 'PATH': BUILD + ':' + os.environ['PATH']}
    daemon = subprocess.Popen(['shelfd', '--data', 'shop'], cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        while 'event=serving' not in (line := daemon.stderr.readline()) and line:
            pass
        for block in re.findall(r'```sh\n(.*?)```', text, re.S):
            for command in block.splitlines():
                ran = run(['sh', '-c', command], cwd=place, env=environment)
                check(f'operations.md: {command}', ran.returncode == 0, ran.stdout)
    finally:
        daemon.terminate()
        check('the daemon of operations.md ends', daemon.wait(60) == 0)
        daemon.stderr.close()


def main():
    tour()
    links()
    manual_pages()
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        formats(scratch)
        snippets(scratch)
        manual_example(scratch)
        operations(scratch)
        tutorial_cpp(scratch)
        tutorial_python(scratch)
    print(f'{COUNTS[True]} passed, {COUNTS[False]} failed')
    return 1 if COUNTS[False] else 0


sys.exit(main())
