# SPDX-License-Identifier: Apache-2.0
"""The binding and the library agree: functions, structures, numbers, results."""

import os
import re
import subprocess
import sys
import tempfile
import unittest

import shelf
from bed import SOURCE
from shelf._library import ffi, lib

with open(os.path.join(SOURCE, 'include', 'shelf.h'), encoding='utf-8') as file:
    HEADER = re.sub(r'/\*.*?\*/', '', file.read(), flags=re.S)

STRUCTS = sorted(set(re.findall(r'\bstruct\s+(shelf_\w+)\s*{', HEADER)))
NUMBERS = sorted(set(re.findall(r'^#define (SHELF_[A-Z_]+)\s+[\\(\d]', HEADER, re.M)) - {'SHELF_API', 'SHELF_CHECKED'})
ENUMERATORS = sorted(set(re.findall(r'\b(SHELF_[A-Z_]+) = ', HEADER)))


class LibraryTest(unittest.TestCase):

    def test_every_function_is_declared(self):
        functions = re.findall(r'SHELF_API\b[^;{]*?\b(shelf_\w+)\s*\(', HEADER)
        self.assertGreater(len(functions), 50)
        for function in functions:
            with self.subTest(function):
                self.assertTrue(callable(getattr(lib, function)))

    def test_every_function_is_used(self):
        """What is left out is left out with a reason."""
        text = ''
        for name in os.listdir(os.path.join(SOURCE, 'python', 'shelf')):
            if name.endswith('.py') and name != '_cdef.py':
                with open(os.path.join(SOURCE, 'python', 'shelf', name), encoding='utf-8') as file:
                    text += file.read()
        unused = {function for function in re.findall(r'SHELF_API\b[^;{]*?\b(shelf_\w+)\s*\(', HEADER)
                  if f'lib.{function}' not in text}
        self.assertEqual(unused, {
            'shelf_run', 'shelf_session_run',  # loops in Python: no exception may pass through C
            'shelf_result_name',  # the class says it
            'shelf_tx_shelf', 'shelf_tx_hint',  # for structures that are written in C
        })

    def test_structures_and_numbers_agree(self):
        """A compiler's sizes, offsets and values, against those that cffi has computed."""
        self.assertGreater(len(STRUCTS), 10)
        self.assertGreater(len(NUMBERS), 9)
        self.assertGreater(len(ENUMERATORS), 8)
        lines = ['#include <stdio.h>', '#include <shelf.h>', 'int main(void) {']
        ours = {}

        def say(name, expression, value):
            lines.append(f'printf("{name} %llu\\n", (unsigned long long)({expression}));')
            ours[name] = value

        for name in STRUCTS:
            struct = ffi.typeof(f'struct {name}')
            say(name, f'sizeof(struct {name})', ffi.sizeof(struct))
            for field, layout in struct.fields:
                say(f'{name}.{field}', f'offsetof(struct {name}, {field})', layout.offset)
                say(f'{name}.{field}:', f'sizeof(((struct {name} *)0)->{field})', ffi.sizeof(layout.type))
        for name in NUMBERS + ENUMERATORS + [f'SHELF_{result.name}' for result in shelf.Result]:
            say(name, name, getattr(lib, name))
        lines.append('return 0; }')
        with tempfile.TemporaryDirectory(prefix='shelf-python.') as directory:
            program = os.path.join(directory, 'numbers')
            subprocess.run(['cc', '-x', 'c', '-', '-I', os.path.join(SOURCE, 'include'), '-o', program],
                           input='\n'.join(lines), text=True, check=True)
            output = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
        theirs = {name: int(value) for name, value in (line.rsplit(' ', 1) for line in output.splitlines())}
        self.assertEqual(ours, theirs)

    def test_every_result_has_its_exception(self):
        codes = {name: int(code) for name, code in re.findall(r'X\((\w+), (\d+),', HEADER)}
        self.assertEqual({result.name: result.value for result in shelf.Result}, codes)
        for name, code in codes.items():
            if name != 'OK':
                with self.subTest(name):
                    each = getattr(shelf, ''.join(word.capitalize() for word in name.split('_')))
                    self.assertTrue(issubclass(each, shelf.Error))
                    self.assertEqual(each.result, code)
                    self.assertEqual(str(each('the detail')), 'the detail')
                    self.assertEqual(str(each()), name)

    def test_enumerations_agree(self):
        for ours, prefix in (shelf.Backend, 'SHELF_BACKEND_'), (shelf.Durability, 'SHELF_DURABLE_'):
            self.assertEqual({prefix + each.name: each.value for each in ours},
                             {name: getattr(lib, name) for name in ENUMERATORS if name.startswith(prefix)})
        self.assertEqual(set(shelf.Info._fields), {name for name, _ in ffi.typeof('struct shelf_info').fields})

    def test_exceptions_are_what_python_programs_expect(self):
        for ours, theirs in ((shelf.NotFound, KeyError), (shelf.Invalid, ValueError), (shelf.Timeout, TimeoutError),
                             (shelf.NoMemory, MemoryError)):
            self.assertTrue(issubclass(ours, theirs))

    def test_a_missing_library_is_explained(self):
        done = subprocess.run([sys.executable, '-B', '-c', 'import shelf'], stderr=subprocess.PIPE, text=True,
                              env={**os.environ, 'SHELF_LIBRARY': '/nowhere/libshelf.so.0'})
        last = done.stderr.strip().splitlines()[-1]
        self.assertIn('ImportError: the Shelf library cannot be loaded', last)
        self.assertIn('SHELF_LIBRARY', last)

    def test_layout_hash_is_that_of_c(self):
        fields = [('owner', 0, 8), ('cents', 8, 8)]
        code = ('#include <stdio.h>\n#include <shelf.h>\nstruct account { uint64_t owner; int64_t cents; };\n'
                'int main(void) { printf("%llu", (unsigned long long)SHELF_LAYOUT(struct account, '
                'SHELF_FIELD(struct account, owner), SHELF_FIELD(struct account, cents))); }')
        build = os.path.dirname(os.environ['SHELF_LIBRARY'])
        with tempfile.TemporaryDirectory(prefix='shelf-python.') as directory:
            program = os.path.join(directory, 'hash')
            subprocess.run(['cc', '-x', 'c', '-', '-I', os.path.join(SOURCE, 'include'), '-o', program, '-L', build,
                            '-lshelf', f'-Wl,-rpath,{build}'], input=code, text=True, check=True)
            theirs = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(shelf.layout_hash('struct account', 16, fields), int(theirs))
        self.assertNotEqual(shelf.layout_hash('struct account', 16, fields[:1]), int(theirs))
