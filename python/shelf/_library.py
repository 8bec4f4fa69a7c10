# SPDX-License-Identifier: Apache-2.0
"""The library, and what passes between it and Python."""

from __future__ import annotations

import os
import threading
from typing import Any, Optional, Union

from cffi import FFI

from ._cdef import CDEF
from .errors import Invalid, Result, error_class

NAME = 'libshelf.so.0'
VARIABLE = 'SHELF_LIBRARY'

Data = Union[bytes, bytearray, memoryview, str]

ffi: Any = FFI()
ffi.cdef(CDEF)


def _load() -> Any:
    path = os.environ.get(VARIABLE) or NAME
    try:
        return ffi.dlopen(path)
    except OSError as error:
        raise ImportError(f'the Shelf library cannot be loaded ({error}): install libshelf, '
                          f'or let {VARIABLE} name the path of {NAME}') from None


lib = _load()

# Types that are needed again and again, looked up once.
CHARS = ffi.typeof('char[]')
SIZE = ffi.typeof('size_t *')
WORD = ffi.typeof('uint64_t *')
RECEIPT = ffi.typeof('struct shelf_receipt *')

WORD_MASK = (1 << 64) - 1


def check(result: int, sequence: int = 0) -> None:
    """Raises the exception of a result that is not OK. To be called in the thread of the failed call, at once."""
    if result:
        detail = ffi.string(lib.shelf_detail()).decode(errors='replace')
        raise error_class(result)(detail, sequence)


def found(result: int) -> bool:
    """For calls to which NOT_FOUND is an answer."""
    if result == Result.NOT_FOUND:
        return False
    check(result)
    return True


def name_bytes(name: str) -> bytes:
    """A name as C wants it, which has no way to say that there is a NUL in the middle."""
    data = os.fsencode(name)
    if b'\0' in data:
        raise Invalid('a name has a NUL byte in it')
    return data


def data_bytes(data: Data) -> Any:
    """Something with a length in bytes that the library can read from; nothing is copied but a str."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    return ffi.from_buffer(data)


def text(chars: Any) -> str:
    """The text of an array of char."""
    return os.fsdecode(ffi.string(chars))


class Handle:
    """A pointer of the library's that any number of threads use, and one of them ends after all are done with it.

    In C the caller sees to that; here a mistake must not become a crash."""

    def __init__(self, pointer: Any, what: str) -> None:
        self._pointer: Optional[Any] = pointer
        self._what = what
        self._users = 0
        # Reentrant: a transaction that the garbage collector finds may end in a thread that is just in here.
        self._lock = threading.RLock()

    @property
    def closed(self) -> bool:
        return self._pointer is None

    def __enter__(self) -> Any:
        with self._lock:
            if self._pointer is None:
                raise Invalid(f'the {self._what} has been closed')
            self._users += 1
            return self._pointer

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1

    def take(self) -> Optional[Any]:
        """The pointer, for the one who ends it; None if somebody has done so before."""
        with self._lock:
            if self._users:
                raise Invalid(f'the {self._what} cannot be closed: transactions are open or calls under way')
            pointer, self._pointer = self._pointer, None
            return pointer
