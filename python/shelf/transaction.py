# SPDX-License-Identifier: Apache-2.0
"""Transactions: read, change, commit."""

from __future__ import annotations

import enum
import random
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, NamedTuple, Optional, SupportsInt, Tuple, Type, TypeVar

from ._library import CHARS, RECEIPT, SIZE, WORD, WORD_MASK, Data, Handle, check, data_bytes, ffi, found, lib
from ._library import name_bytes, text
from .errors import Conflict, Invalid, Result, Timeout, error_class

if TYPE_CHECKING:
    from .structures import Map, Stream

Value = TypeVar('Value')

BACKOFF_MAX_S = 0.008


class Durability(enum.IntEnum):
    """What a receipt says was really achieved."""

    NOT = 0
    LOCAL = 1
    MAJORITY = 2


@dataclass(frozen=True)
class Receipt:
    """What a commit returns."""

    index: int
    epoch: int
    sequence: int
    durability: Durability
    replayed: bool
    results: Tuple[int, ...]  # of add, min, max, bit_and, bit_or, in the order of the calls: the first twelve


class Root(NamedTuple):
    """A name in the directory of a formatted region."""

    name: str
    type: int
    layout: int
    address: int


class Audit(NamedTuple):
    """What an allocator has given out and what it has left, in bytes."""

    total: int
    live: int
    free: int
    overhead: int
    blocks_live: int


def receipt_of(receipt: Any) -> Receipt:
    return Receipt(receipt.index, receipt.epoch, receipt.sequence, Durability(receipt.durability), receipt.replayed,
                   tuple(receipt.results[0:receipt.result_count]))


class Transaction:
    """A transaction, begun by Store.transaction() or Session.transaction().

    As a context manager it commits at the end, and aborts if an exception leaves the block. One that is dropped aborts. It
    belongs to one thread at a time. Addresses are numbers, regions are Region objects or their numbers."""

    __slots__ = ('_tx', '_handle', '_views', '_receipt', '__weakref__')

    def __init__(self, begin: Callable[..., int], handle: Handle, flags: int) -> None:
        self._tx: Any = None
        self._handle = handle
        self._views: List[memoryview] = []
        self._receipt: Optional[Receipt] = None
        pointer = handle.__enter__()  # until _ended()
        try:
            ret_tx = ffi.new('shelf_tx **')
            check(begin(pointer, flags, ret_tx))
            self._tx = ret_tx[0]
        except BaseException:
            handle.__exit__()
            raise

    # ---- The end

    @property
    def open(self) -> bool:
        """Has it been neither committed nor aborted?"""
        return self._tx is not None

    @property
    def receipt(self) -> Optional[Receipt]:
        """The receipt of a transaction that has committed."""
        return self._receipt

    def commit(self) -> Receipt:
        """Ends the transaction, whatever comes of it; when it returns, the change is on stable storage."""
        if self._views:
            self._check_views()
        tx = self._take()
        receipt = ffi.new(RECEIPT)
        try:
            check(lib.shelf_commit(tx, receipt), receipt.sequence)
        finally:
            self._ended()
        self._receipt = receipt_of(receipt)
        return self._receipt

    def commit_async(self, tag: int = 0) -> None:
        """Ends the transaction without waiting. Store.completions() will deliver one completion with this tag."""
        if self._views:
            self._check_views()
        tx = self._take()
        try:
            check(lib.shelf_commit_async(tx, tag))
        finally:
            self._ended()

    def abort(self) -> None:
        """Ends the transaction without effect, if it has not ended already."""
        if self._tx is not None:
            tx = self._take()
            lib.shelf_abort(tx)
            self._ended()

    def __enter__(self) -> Transaction:
        self._pointer()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is not None:
            self.abort()
        elif self._tx is not None:
            self.commit()

    def __del__(self) -> None:
        self.abort()

    def _pointer(self) -> Any:
        if self._tx is None:
            raise Invalid('the transaction has ended')
        return self._tx

    def _take(self) -> Any:
        tx, self._tx = self._pointer(), None
        return tx

    def _ended(self) -> None:
        self._handle.__exit__()
        views, self._views = self._views, []
        for view in views:
            try:
                view.release()
            except BufferError:
                pass  # somebody made another buffer of it; the pages it shows stay mapped as long as the region

    def _check_views(self) -> None:
        try:
            self.check()
        except BaseException:
            self.abort()
            raise

    # ---- Reading

    @property
    def index(self) -> int:
        """The index that the transaction reads at."""
        return lib.shelf_tx_index(self._pointer())

    def read(self, address: int, size: int) -> bytes:
        """A copy of the bytes, exact at the transaction's index, with its own writes on top."""
        tx = self._pointer()
        chars = ffi.new(CHARS, size)
        check(lib.shelf_read(tx, address, chars, size))
        return ffi.buffer(chars, size)[:]

    def read_into(self, address: int, buffer: Any) -> None:
        """The same into a writable buffer, which says how many."""
        chars = ffi.from_buffer(buffer, require_writable=True)
        check(lib.shelf_read(self._pointer(), address, chars, len(chars)))

    def read_word(self, address: int) -> int:
        """An unsigned number of 64 bits."""
        word = ffi.new(WORD)
        check(lib.shelf_read(self._pointer(), address, word, 8))
        return word[0]

    def unpack(self, layout: str, address: int) -> Tuple[Any, ...]:
        """Reads values by a layout of the `struct` module. Begin it with '<', so that it means the same everywhere."""
        return struct.unpack(layout, self.read(address, struct.calcsize(layout)))

    def view(self, address: int, size: int) -> memoryview:
        """The bytes themselves, not copied, read-only, until the transaction ends.

        They may change while you look: what was made of them counts once check() has returned after the last look, or
        the transaction has committed."""
        ret_bytes = ffi.new('void const **')
        check(lib.shelf_view(self._pointer(), address, size, ret_bytes))
        view = memoryview(ffi.buffer(ret_bytes[0], size)).toreadonly()
        self._views.append(view)
        return view

    def check(self) -> None:
        """Raises Conflict if anything behind a view has changed."""
        check(lib.shelf_check(self._pointer()))

    def prefetch(self, address: int, size: int) -> None:
        """A hint that the range will be read soon."""
        lib.shelf_prefetch(self._pointer(), address, size)

    # ---- Changing

    def write(self, address: int, data: Data) -> None:
        """Visible to others after the commit."""
        data = data_bytes(data)
        check(lib.shelf_write(self._pointer(), address, data, len(data)))

    def write_word(self, address: int, value: int) -> None:
        """An unsigned number of 64 bits."""
        check(lib.shelf_write(self._pointer(), address, ffi.new(WORD, value), 8))

    def pack(self, layout: str, address: int, *values: Any) -> None:
        """Writes values by a layout of the `struct` module."""
        self.write(address, struct.pack(layout, *values))

    # Operations on aligned words of 64 bits. They read nothing and never conflict; results are in the receipt.

    def add(self, address: int, operand: int) -> None:
        """Wraps, so that negative numbers subtract."""
        check(lib.shelf_add(self._pointer(), address, operand & WORD_MASK))

    def min(self, address: int, operand: int) -> None:
        check(lib.shelf_min(self._pointer(), address, operand))

    def max(self, address: int, operand: int) -> None:
        check(lib.shelf_max(self._pointer(), address, operand))

    def bit_and(self, address: int, operand: int) -> None:
        check(lib.shelf_and(self._pointer(), address, operand & WORD_MASK))

    def bit_or(self, address: int, operand: int) -> None:
        check(lib.shelf_or(self._pointer(), address, operand & WORD_MASK))

    def sequence_set(self, sequence: int) -> None:
        """The sequence to commit under, for a retry; only in a named session's transaction."""
        check(lib.shelf_tx_sequence_set(self._pointer(), sequence))

    # ---- Space

    def format(self, region: SupportsInt) -> None:
        """Space management for a region, once, in its first transaction. Maps, streams, roots and alloc() need it."""
        check(lib.shelf_format(self._pointer(), int(region)))

    def alloc(self, region: SupportsInt, size: int) -> int:
        """The address of at least `size` bytes, whose contents are undefined."""
        ret_address = ffi.new(WORD)
        check(lib.shelf_alloc(self._pointer(), int(region), size, ret_address))
        return ret_address[0]

    def free(self, address: int) -> None:
        check(lib.shelf_free(self._pointer(), address))

    def alloc_size(self, address: int) -> int:
        """Usable bytes of an allocation."""
        ret_size = ffi.new(SIZE)
        check(lib.shelf_alloc_size(self._pointer(), address, ret_size))
        return ret_size[0]

    def alloc_audit(self, region: SupportsInt) -> Audit:
        """Goes through all of the allocator and checks it."""
        audit = ffi.new('struct shelf_alloc_sums *')
        check(lib.shelf_alloc_audit(self._pointer(), int(region), audit))
        return Audit(audit.total, audit.live, audit.free, audit.overhead, audit.blocks_live)

    # ---- Named roots

    def root_set(self, region: SupportsInt, name: str, address: int, type: int, layout: int) -> None:
        """Names an address, with a tag for its type and a layout_hash() of what is there."""
        chars = name_bytes(name)
        if len(chars) > lib.SHELF_NAME_MAX:
            raise Invalid(f"a root's name has 1 to {lib.SHELF_NAME_MAX} bytes")
        root = ffi.new('struct shelf_root *', {'name': chars, 'type': type, 'layout': layout, 'address': address})
        check(lib.shelf_root_set(self._pointer(), int(region), root))

    def root_get(self, region: SupportsInt, name: str, type: int = 0, layout: int = 0) -> int:
        """The address. NotFound; Layout if the type or layout differ (0: not compared)."""
        ret_address = ffi.new(WORD)
        check(lib.shelf_root_get(self._pointer(), int(region), name_bytes(name), type, layout, ret_address))
        return ret_address[0]

    def root_remove(self, region: SupportsInt, name: str) -> None:
        check(lib.shelf_root_remove(self._pointer(), int(region), name_bytes(name)))

    def roots(self, region: SupportsInt) -> Iterator[Root]:
        """All roots, in no particular order; maps and streams are among them."""
        position = 0
        root = ffi.new('struct shelf_root *')
        while found(lib.shelf_root_at(self._pointer(), int(region), position, root)):
            yield Root(text(root.name), root.type, root.layout, root.address)
            position += 1

    # ---- Structures

    def map(self, region: SupportsInt, name: str, create: bool = False) -> Map:
        """The map of that name, in this transaction. NotFound, unless it may be created."""
        from .structures import map_open
        return map_open(self, region, name, create)

    def map_drop(self, region: SupportsInt, name: str) -> None:
        """Removes a map and its entries. Delete the entries of a large one in several transactions before."""
        check(lib.shelf_map_drop(self._pointer(), int(region), name_bytes(name)))

    def stream(self, region: SupportsInt, name: str, create: bool = False, bytes_max: int = 0,
               age_max_ms: int = 0) -> Stream:
        """The stream of that name, in this transaction. NotFound, unless it may be created, with this retention."""
        from .structures import stream_open
        return stream_open(self, region, name, create, bytes_max, age_max_ms)

    def stream_drop(self, region: SupportsInt, name: str) -> None:
        check(lib.shelf_stream_drop(self._pointer(), int(region), name_bytes(name)))


def run(begin: Callable[[], Transaction], body: Callable[[Transaction], Value], deadline_s: float) -> Value:
    """Calls the body in transactions from begin() until one has committed.

    An exception is passed on only if the transaction that it came from is still good: one that has met a conflict, or
    has looked at a view that changed, makes no statement. The pauses are those of shelf_run()."""
    until = time.monotonic() + deadline_s
    pause_s = 0.0
    while True:
        try:
            with begin() as tx:
                try:
                    value = body(tx)
                except Exception:
                    if tx.open:
                        tx.check()
                    raise
            return value
        except Conflict as conflict:
            if time.monotonic() >= until:
                raise Timeout('still in conflict with others when the deadline passed') from conflict
        time.sleep(random.random() * pause_s)
        pause_s = min(2 * pause_s, BACKOFF_MAX_S) or 0.000016


class Completion(NamedTuple):
    """What came of an asynchronous commit."""

    tag: int
    result: Result
    receipt: Receipt

    def get(self) -> Receipt:
        """The receipt of one that has committed; raises the exception of one that has not."""
        if self.result != Result.OK:
            raise error_class(self.result)(ffi.string(lib.shelf_result_text(self.result)).decode(),
                                           self.receipt.sequence)
        return self.receipt
