#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the documents say is true: names and places in the tour, sizes in the formats, snippets of the README.

Usage: docs.py SOURCE_ROOT BUILD_ROOT"""

import os
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD = (os.path.abspath(path) for path in sys.argv[1:3])
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
    for page in ['README.md'] + [os.path.join('docs', name) for name in os.listdir(os.path.join(SOURCE, 'docs'))]:
        base = os.path.dirname(page)
        for target in re.findall(r'\]\(([^)#:]+)\)', read(page)):
            check(f'{page}: link {target}', os.path.exists(os.path.join(SOURCE, base, target)))


def formats(scratch):
    """The sizes and offsets of the tables in formats.md are those of the structures."""
    text = read('docs', 'formats.md')
    sizes = re.findall(r'`(\w+)`, (\d+) bytes', text)
    check('formats.md names structures', len(sizes) >= 6, str(len(sizes)))
    headers = ['log_format.h', 'checkpoint_format.h', 'system_region.h']
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
    check('formats.md: reserved part of the superblock', f"| {actual['reserved']} | 3968 |" in text)


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
    shell = re.search(r'```sh\n(.*?)```', text, re.S).group(1)
    environment = {**os.environ, 'PATH': BUILD + ':' + os.environ['PATH']}
    ran = run(['sh', '-e', '-c', shell], cwd=scratch, env=environment)
    check("the README's shell lines work", ran.returncode == 0 and 'Ada Lovelace' in ran.stdout, ran.stdout)
    check('no part of the README is unfinished', '@' not in re.sub(r'```.*?```', '', text, flags=re.S))


def main():
    tour()
    links()
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        formats(scratch)
        snippets(scratch)
    print(f'{COUNTS[True]} passed, {COUNTS[False]} failed')
    return 1 if COUNTS[False] else 0


sys.exit(main())
