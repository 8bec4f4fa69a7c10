# SPDX-License-Identifier: Apache-2.0
"""Maps and streams, as Python has dictionaries and sequences.

Both belong to a transaction; at() gives the same one in another transaction, without looking its name up again."""

from __future__ import annotations

import time
from collections.abc import ItemsView, MutableMapping, ValuesView
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, SupportsInt, Tuple, overload

from ._library import CHARS, SIZE, WORD, Data, check, data_bytes, ffi, found, lib, name_bytes
from .errors import NotFound
from .transaction import Transaction

BUFFER_BYTES = 512  # to begin with, for values and records
MANY_VALUE_BYTES = 256  # for each value of get_many(); larger ones cost another look
MANY_BATCH = 64


class Buffer:
    """Memory that values are copied to on their way into bytes; grows to the largest."""

    __slots__ = ('chars', 'size', 'ret_size')

    def __init__(self) -> None:
        self.size = BUFFER_BYTES
        self.chars = ffi.new(CHARS, self.size)
        self.ret_size = ffi.new(SIZE)

    def fits(self) -> bool:
        """Was it large enough for the size that was returned? It is now."""
        wanted = self.ret_size[0]
        if wanted <= self.size:
            return True
        self.size = wanted
        self.chars = ffi.new(CHARS, wanted)
        return False

    def taken(self) -> bytes:
        return ffi.buffer(self.chars, self.ret_size[0])[:]


def fetch(buffer: Buffer, get: Callable[[], int]) -> Optional[bytes]:
    """What get() puts into the buffer, called once more if that was too small; None if there is nothing."""
    while True:
        if not found(get()):
            return None
        if buffer.fits():
            return buffer.taken()


# ---- Map


class Map(MutableMapping[Data, bytes]):
    """Bytes to bytes. A str as key or value means its UTF-8; what comes out is always bytes.

    While entries are walked, others may be deleted, but none put."""

    __slots__ = ('_transaction', '_map', '_buffer')

    def __init__(self, transaction: Transaction, handle: Any) -> None:
        self._transaction = transaction
        self._map = handle
        self._buffer = Buffer()

    def at(self, transaction: Transaction) -> Map:
        """The same map in another transaction."""
        return Map(transaction, self._map)

    @overload
    def get(self, key: Data) -> Optional[bytes]: ...

    @overload
    def get(self, key: Data, default: Any) -> Any: ...

    def get(self, key: Data, default: Any = None) -> Any:
        """The value, or the default."""
        tx, key, buffer = self._transaction._pointer(), data_bytes(key), self._buffer
        value = fetch(buffer, lambda: lib.shelf_map_get(tx, self._map, key, len(key), buffer.chars, buffer.size,
                                                        buffer.ret_size))
        return default if value is None else value

    def put(self, key: Data, value: Data) -> None:
        """Inserts or replaces."""
        key, value = data_bytes(key), data_bytes(value)
        check(lib.shelf_map_put(self._transaction._pointer(), self._map, key, len(key), value, len(value)))

    def get_many(self, keys: Iterable[Data]) -> List[Optional[bytes]]:
        """The values of many keys, in their order, None for those that are not there; faster than one after another."""
        wanted = list(keys)
        values: List[Optional[bytes]] = []
        for start in range(0, len(wanted), MANY_BATCH):
            values += self._get_batch(wanted[start:start + MANY_BATCH])
        return values

    def _get_batch(self, keys: List[Data]) -> List[Optional[bytes]]:
        space = ffi.new(CHARS, len(keys) * MANY_VALUE_BYTES)
        items = ffi.new('struct shelf_map_item[]', len(keys))
        # The items only point to them.
        kept = [ffi.from_buffer(key.encode() if isinstance(key, str) else key) for key in keys]
        for i, (item, key) in enumerate(zip(items, kept)):
            item.key, item.key_size = key, len(key)
            item.value, item.value_max = space + i * MANY_VALUE_BYTES, MANY_VALUE_BYTES
        check(lib.shelf_map_get_many(self._transaction._pointer(), self._map, items, len(keys)))
        values: List[Optional[bytes]] = []
        for item, key in zip(items, keys):
            if item.result:
                values.append(None)
            elif item.value_size > MANY_VALUE_BYTES:
                values.append(self.get(key))
            else:
                values.append(ffi.buffer(item.value, item.value_size)[:])
        return values

    def __getitem__(self, key: Data) -> bytes:
        value = self.get(key)
        if value is None:
            raise NotFound(f'there is no key {key!r}')
        return value

    def __setitem__(self, key: Data, value: Data) -> None:
        self.put(key, value)

    def __delitem__(self, key: Data) -> None:
        data = data_bytes(key)
        if not found(lib.shelf_map_delete(self._transaction._pointer(), self._map, data, len(data))):
            raise NotFound(f'there is no key {key!r}')

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, (bytes, bytearray, memoryview, str)):
            return False
        data = data_bytes(key)
        return found(lib.shelf_map_get(self._transaction._pointer(), self._map, data, len(data), ffi.NULL, 0,
                                       self._buffer.ret_size))

    def __len__(self) -> int:
        """Conflicts with every insert and delete: better in a read-only transaction."""
        ret_count = ffi.new(WORD)
        check(lib.shelf_map_count(self._transaction._pointer(), self._map, ret_count))
        return ret_count[0]

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[bytes]:
        for key, _ in self._walk(False):
            yield key

    def items(self) -> ItemsView[Any, bytes]:
        return _Items(self)

    def values(self) -> ValuesView[bytes]:
        return _Values(self)

    def clear(self) -> None:
        """Deletes all entries."""
        for key in self:
            del self[key]

    def verify(self) -> None:
        """Checks every bucket and entry; Corrupt says where. For read-only transactions."""
        check(lib.shelf_map_verify(self._transaction._pointer(), self._map))

    def _walk(self, with_values: bool) -> Iterator[Tuple[bytes, bytes]]:
        """All entries, in no particular order; values only if they are asked for, else b''."""
        cursor = ffi.new('struct shelf_map_cursor *')
        before = ffi.new('struct shelf_map_cursor *')
        key, value = Buffer(), Buffer()
        while True:
            before[0] = cursor[0]
            if not found(lib.shelf_map_next(self._transaction._pointer(), self._map, cursor, key.chars, key.size,
                                            key.ret_size, value.chars, value.size if with_values else 0,
                                            value.ret_size)):
                return
            key_fits, value_fits = key.fits(), not with_values or value.fits()
            if key_fits and value_fits:
                yield key.taken(), value.taken() if with_values else b''
            else:
                cursor[0] = before[0]


class _Items(ItemsView[Any, bytes]):
    """Walks keys and values together instead of looking every key up again."""

    _mapping: Map

    def __iter__(self) -> Iterator[Tuple[Any, bytes]]:
        return self._mapping._walk(True)


class _Values(ValuesView[bytes]):
    _mapping: Map

    def __iter__(self) -> Iterator[bytes]:
        for _, value in self._mapping._walk(True):
            yield value


def map_open(transaction: Transaction, region: SupportsInt, name: str, create: bool) -> Map:
    tx, number, chars = transaction._pointer(), int(region), name_bytes(name)
    ret_map = ffi.new('shelf_map *')
    result = lib.shelf_map_open(tx, number, chars, ret_map)
    if create and not found(result):
        result = lib.shelf_map_create(tx, number, chars, ret_map)
    check(result)
    return Map(transaction, ret_map[0])


# ---- Stream


class Record(NamedTuple):
    """A record of a stream."""

    position: int
    time_ms: int
    data: bytes


class Bounds(NamedTuple):
    """Positions of the oldest record kept and of the next append."""

    first: int
    next: int


class Stream:
    """Records in order, at positions 0, 1, 2, ... that stay theirs when older ones are removed."""

    __slots__ = ('_transaction', '_stream', '_buffer')

    def __init__(self, transaction: Transaction, handle: Any) -> None:
        self._transaction = transaction
        self._stream = handle
        self._buffer = Buffer()

    def at(self, transaction: Transaction) -> Stream:
        """The same stream in another transaction."""
        return Stream(transaction, self._stream)

    def append(self, data: Data, time_ms: Optional[int] = None) -> int:
        """Appends a record with the caller's time, or with now, and returns its position."""
        data = data_bytes(data)
        when = time.time_ns() // 1000000 if time_ms is None else time_ms
        ret_position = ffi.new(WORD)
        check(lib.shelf_stream_append(self._transaction._pointer(), self._stream, when, data, len(data), ret_position))
        return ret_position[0]

    def read(self, position: int) -> Optional[Record]:
        """The record at a position; None at and past the end, Expired if it was removed."""
        tx, buffer = self._transaction._pointer(), self._buffer
        ret_time_ms = ffi.new(WORD)
        data = fetch(buffer, lambda: lib.shelf_stream_read(tx, self._stream, position, buffer.chars, buffer.size,
                                                           buffer.ret_size, ret_time_ms))
        return None if data is None else Record(position, ret_time_ms[0], data)

    def bounds(self) -> Bounds:
        ret_first, ret_next = ffi.new(WORD), ffi.new(WORD)
        check(lib.shelf_stream_bounds(self._transaction._pointer(), self._stream, ret_first, ret_next))
        return Bounds(ret_first[0], ret_next[0])

    def records(self, first: int = 0) -> Iterator[Record]:
        """All records from a position, or from the oldest kept if that is newer, to the end."""
        position = max(first, self.bounds().first)
        while (record := self.read(position)) is not None:
            yield record
            position += 1

    def trim(self, position: int) -> None:
        """Removes records before a position, as far as they fill whole chunks."""
        check(lib.shelf_stream_trim(self._transaction._pointer(), self._stream, position))

    def verify(self) -> None:
        check(lib.shelf_stream_verify(self._transaction._pointer(), self._stream))

    def __iter__(self) -> Iterator[Record]:
        return self.records()

    def __len__(self) -> int:
        """How many records are kept."""
        first, after = self.bounds()
        return after - first

    def __getitem__(self, position: int) -> Record:
        """The record at a position; negative ones count from the end. NotFound at and past the end."""
        absolute = position if position >= 0 else self.bounds().next + position
        record = self.read(absolute) if absolute >= 0 else None
        if record is None:
            raise NotFound(f'there is no record {position}')
        return record


def stream_open(transaction: Transaction, region: SupportsInt, name: str, create: bool, bytes_max: int,
                age_max_ms: int) -> Stream:
    tx, number, chars = transaction._pointer(), int(region), name_bytes(name)
    ret_stream = ffi.new('shelf_stream *')
    result = lib.shelf_stream_open(tx, number, chars, ret_stream)
    if create and not found(result):
        options = ffi.new('struct shelf_stream_options *', {'bytes_max': bytes_max, 'age_max_ms': age_max_ms})
        result = lib.shelf_stream_create(tx, number, chars, options, ret_stream)
    check(result)
    return Stream(transaction, ret_stream[0])
