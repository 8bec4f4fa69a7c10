# SPDX-License-Identifier: Apache-2.0
"""The shelf itself, its regions and its sessions."""

from __future__ import annotations

import enum
import os
import time
import warnings
import weakref
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

from ._library import SIZE, WORD, Handle, check, ffi, lib, name_bytes, text
from .errors import Result, Unknown
from .transaction import Completion, Receipt, Transaction, receipt_of, run

Value = TypeVar('Value')

DEADLINE_MS = 30000  # of shelf_open(), where nothing else is said


class Backend(enum.IntEnum):
    """How the log is written."""

    AUTO = 0
    URING = 1
    PLAIN = 2


class Info(NamedTuple):
    """What the node is and does; all values since the open. The fields are those of shelf.h."""

    applied: int
    epoch: int
    checkpoint: int
    records: int
    commits: int
    conflicts: int
    log_bytes: int
    log_bytes_live: int
    recovered_records: int
    recovered_cut_bytes: int
    backend: Backend
    state: Result


class RegionInfo(NamedTuple):
    name: str
    number: int
    size: int
    size_max: int
    floor: int
    owner: int
    group: int
    mode: int


def _region_info(info: Any) -> RegionInfo:
    return RegionInfo(text(info.name), info.region, info.size, info.size_max, info.floor, info.owner, info.group, info.mode)


class Stats(NamedTuple):
    """What this store object has done since it was opened. The fields are those of shelf.h."""

    commits: int
    conflicts: int
    failures: int
    retries: int
    commit_ns: int
    commit_ns_max: int
    waits: int
    wakes: int
    reconnects: int
    takeovers: int
    replicas_held: int
    is_node: bool


class Staleness(NamedTuple):
    """How far behind the local replica may be."""

    index: int
    age_ms: int
    connected: bool


class Part(enum.IntEnum):
    """The part that a node has in its cluster."""

    LEARNER = lib.SHELF_PART_LEARNER
    BACKUP = lib.SHELF_PART_BACKUP
    PRIMARY = lib.SHELF_PART_PRIMARY


class Node(NamedTuple):
    """A node of a cluster, as the one that was asked sees it. The fields are those of shelf.h."""

    node: int
    part: Part
    connected: bool
    known: bool
    index: int
    behind_records: int
    behind_bytes: int
    silent_ms: int
    address: str


class Cluster(NamedTuple):
    """The cluster, as the node that was asked sees it. The fields are those of shelf.h."""

    name: str
    node: int
    part: Part
    serves: bool
    changing: bool
    primary: int
    epoch: int
    silent_ms: int
    in_sync: int
    copies: int
    copies_min: int
    coordinator_reachable: bool
    coordinator_refused: bool
    coordinator_ms: int
    coordinator: str
    coordinator_text: str
    nodes: List[Node]


def _value_of(field: str, value: Any) -> Any:
    """A field of a C struct as Python has it: arrays of char are text."""
    if field == 'part':
        return Part(value)
    return text(value) if isinstance(value, ffi.CData) else value


def _cluster_of(info: Any) -> Cluster:
    nodes = [Node(**{name: _value_of(name, getattr(node, name)) for name in Node._fields})
             for node in info.nodes[0:info.node_count]]
    return Cluster(**{name: _value_of(name, getattr(info, name)) for name in Cluster._fields[:-1]}, nodes=nodes)


class Client(NamedTuple):
    """A program that is attached to the node. The fields are those of shelf.h."""

    client: int
    attached_ms: int
    commits: int
    bytes: int
    pending_bytes: int
    pending: int
    regions: int
    process: int
    owner: int
    group: int
    waiters: int
    program: str


_FOREVER = 0xffffffff  # ms, of shelf_wait()
_KEEP = 0xffffffff  # SHELF_KEEP


class Region:
    """A region's number, and the shelf that it is in."""

    __slots__ = ('_store', 'number')

    def __init__(self, store: Store, number: int) -> None:
        self._store = store
        self.number = number

    def at(self, offset: int) -> int:
        """The address of an offset."""
        return self.number << 48 | offset

    def info(self) -> RegionInfo:
        info = ffi.new('struct shelf_region_info *')
        with self._store._handle as s:
            check(lib.shelf_region_info_get(s, self.number, info))
        return _region_info(info)

    def grow(self, size: int) -> None:
        """Grows to at least `size` bytes, online."""
        with self._store._handle as s:
            check(lib.shelf_region_grow(s, self.number, size))

    def set_access(self, owner: Optional[int] = None, group: Optional[int] = None, mode: Optional[int] = None) -> None:
        """Changes owner, group and mode, as far as they are given. Denied unless it is yours."""
        wanted = [_KEEP if each is None else each for each in (owner, group, mode)]
        with self._store._handle as s:
            check(lib.shelf_region_access(s, self.number, *wanted))

    def __int__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and (self._store, self.number) == (other._store, other.number)

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f'<shelf.Region {self.number}>'


class Session:
    """A named session: what is committed under one of its sequences happens once. Any number of threads may use it."""

    def __init__(self, store: Store, name: str) -> None:
        ret_session = ffi.new('shelf_session **')
        with store._handle as s:
            check(lib.shelf_session_open(s, name_bytes(name), ret_session))
        self._store = store
        self._handle = Handle(ret_session[0], 'session')
        store._sessions.add(self)

    @property
    def last(self) -> int:
        """The highest sequence that has committed; 0 if none."""
        with self._handle as session:
            return lib.shelf_session_last(session)

    def transaction(self, sequence: Optional[int] = None) -> Transaction:
        """Begins a read-write transaction. Without a sequence it takes the next one when it commits."""
        tx = Transaction(lib.shelf_session_begin, self._handle, lib.SHELF_READ_WRITE)
        if sequence is not None:
            tx.sequence_set(sequence)
        return tx

    def run(self, body: Callable[[Transaction], Value], sequence: Optional[int] = None,
            deadline_ms: Optional[int] = None) -> Value:
        """Store.run() in the session, with its effect once, as shelf_session_run(): an outcome that is unknown is settled.

        If the sequence has committed before, the body runs without effect."""
        until = time.monotonic() + (deadline_ms or self._store._deadline_ms) / 1000
        values: List[Value] = []

        def kept(tx: Transaction) -> Value:
            values[:] = [body(tx)]
            return values[0]

        unsettled: Optional[Unknown] = None
        while True:
            try:
                return run(lambda: self.transaction(sequence), kept, until - time.monotonic())
            except Unknown as unknown:
                if time.monotonic() >= until:
                    raise
                if sequence is not None:
                    unsettled = unknown
                elif self.outcome(unknown.sequence) is not None:
                    return values[0]
            except Exception as error:
                if unsettled is None:
                    raise
                raise unsettled from error

    def outcome(self, sequence: int) -> Optional[Receipt]:
        """Settles an Unknown: the receipt, or None if the sequence has not had and will never have an effect."""
        receipt = ffi.new('struct shelf_receipt *')
        with self._handle as session:
            result = lib.shelf_session_outcome(session, sequence, receipt)
            if result == Result.ABORTED:
                return None
            check(result)
        return receipt_of(receipt)

    def expire(self) -> None:
        """Forgets the session for good, and closes this handle."""
        session = self._handle.take()
        if session is not None:
            check(lib.shelf_session_expire(session))

    def close(self) -> None:
        """Ends the handle. The session itself stays and can be resumed."""
        session = self._handle.take()
        if session is not None:
            lib.shelf_session_close(session)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store:
    """An open shelf. Any number of threads may use it."""

    def __init__(self, where: Union[str, os.PathLike[str]], flags: int, **options: int) -> None:
        place = where if isinstance(where, str) else 'dir:' + os.fspath(where)
        ret_shelf = ffi.new('shelf **')
        check(lib.shelf_open(name_bytes(place), ffi.new('struct shelf_options *', {'flags': flags, **options}),
                             ret_shelf))
        self._handle = Handle(ret_shelf[0], 'shelf')
        self._deadline_ms = options.get('commit_deadline_ms') or DEADLINE_MS
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    # ---- The end

    def close(self) -> None:
        """Closes sessions that are still open, writes a checkpoint and releases the directory.

        Invalid if a transaction is open. An exception of another kind means that the checkpoint could not be written;
        the shelf is closed all the same, and what was committed is durable."""
        for session in list(self._sessions):
            session.close()
        s = self._handle.take()
        if s is not None:
            check(lib.shelf_close(s))

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, '_handle') and not self.closed:
            warnings.warn('a shelf was dropped without close()', ResourceWarning, source=self)
            self.close()

    # ---- State

    @property
    def applied(self) -> int:
        """The index of the last record whose effects are visible."""
        with self._handle as s:
            return lib.shelf_applied(s)

    def checkpoint(self) -> int:
        """Writes a checkpoint and returns the index that it is exact at."""
        ret_index = ffi.new(WORD)
        with self._handle as s:
            check(lib.shelf_checkpoint(s, ret_index))
        return ret_index[0]

    def info(self) -> Info:
        info = ffi.new('struct shelf_info *')
        with self._handle as s:
            check(lib.shelf_info_get(s, info))
        fields = {name: getattr(info, name) for name in Info._fields}
        fields.update(backend=Backend(info.backend), state=Result(info.state))
        return Info(**fields)

    def stats(self) -> Stats:
        stats = ffi.new('struct shelf_stats *')
        with self._handle as s:
            check(lib.shelf_stats_get(s, stats))
        return Stats(**{name: getattr(stats, name) for name in Stats._fields})

    def staleness(self) -> Staleness:
        staleness = ffi.new('struct shelf_staleness *')
        with self._handle as s:
            check(lib.shelf_staleness_get(s, staleness))
        return Staleness(staleness.index, staleness.age_ms, staleness.connected)

    def clients(self) -> List[Client]:
        """The programs that are attached to the node, in the order in which they came."""
        count_max, ret_count = 64, ffi.new(SIZE)
        while True:
            infos = ffi.new('struct shelf_client_info[]', count_max)
            with self._handle as s:
                check(lib.shelf_client_list(s, infos, count_max, ret_count))
            if ret_count[0] <= count_max:
                break
            count_max = ret_count[0]
        return [Client(**{name: getattr(info, name) for name in Client._fields[:-1]}, program=text(info.program))
                for info in infos[0:ret_count[0]]]

    def cluster(self) -> Cluster:
        """Who is primary, who is in sync, how far behind the others are. NotFound: the node is alone."""
        info = ffi.new('struct shelf_cluster_info *')
        with self._handle as s:
            check(lib.shelf_cluster_get(s, info))
        return _cluster_of(info)

    # ---- Waiting

    def wait(self, address: int, length: int, since: int, timeout_ms: Optional[int] = None) -> bool:
        """Sleeps until a line of the range has changed after index `since` (such as transaction.index), here or in another
        process. False: it has not within the time; without one it waits for ever. NotFound: the region is gone."""
        with self._handle as s:
            result = lib.shelf_wait(s, address, length, since, _FOREVER if timeout_ms is None else timeout_ms)
            if result == Result.TIMEOUT:
                return False
            check(result)
        return True

    # ---- Regions

    def create_region(self, name: str, size: int, size_max: int = 0) -> Region:
        """A region of zeros that can grow to `size_max` bytes (0: 64 GiB). Exists if there is one."""
        ret_region = ffi.new('shelf_region *')
        with self._handle as s:
            check(lib.shelf_region_create(s, name_bytes(name), size, size_max, ret_region))
        return Region(self, ret_region[0])

    def region(self, name: str) -> Region:
        """NotFound if there is none."""
        ret_region = ffi.new('shelf_region *')
        with self._handle as s:
            check(lib.shelf_region_open(s, name_bytes(name), ret_region))
        return Region(self, ret_region[0])

    def regions(self) -> List[RegionInfo]:
        """All of them."""
        infos = ffi.new('struct shelf_region_info[]', lib.SHELF_REGIONS_MAX)
        ret_count = ffi.new(SIZE)
        with self._handle as s:
            check(lib.shelf_region_list(s, infos, lib.SHELF_REGIONS_MAX, ret_count))
        return [_region_info(infos[i]) for i in range(ret_count[0])]

    def drop_region(self, name: str) -> None:
        """Removes a region and all that is in it."""
        with self._handle as s:
            check(lib.shelf_region_drop(s, name_bytes(name)))

    # ---- Transactions

    def transaction(self, read_only: bool = False, fresh: bool = False) -> Transaction:
        """Begins a transaction; `with` commits it. fresh: sees all that was acknowledged anywhere before."""
        kind = lib.SHELF_READ_ONLY if read_only else lib.SHELF_READ_WRITE
        return Transaction(lib.shelf_begin, self._handle, kind | (lib.SHELF_FRESH if fresh else 0))

    def run(self, body: Callable[[Transaction], Value], read_only: bool = False, fresh: bool = False,
            deadline_ms: Optional[int] = None) -> Value:
        """Calls body(transaction) and commits; on Conflict again, with pauses, until the deadline (Timeout).

        Returns what the body returned. An exception of the body aborts, and is passed on. The body may be called several
        times: it should change nothing but the shelf."""
        return run(lambda: self.transaction(read_only, fresh), body, (deadline_ms or self._deadline_ms) / 1000)

    def session(self, name: str) -> Session:
        """Opens or resumes a named session; its older holder is fenced."""
        return Session(self, name)

    # ---- Asynchronous commits

    def fileno(self) -> int:
        """A descriptor that is readable while completions wait, so that a store can be given to select and its like."""
        with self._handle as s:
            return lib.shelf_completion_fd(s)

    def completions(self, count_max: int = 256) -> List[Completion]:
        """Takes completions of asynchronous commits, without waiting."""
        completions = ffi.new('struct shelf_completion[]', count_max)
        with self._handle as s:
            count = lib.shelf_completions(s, completions, count_max)
        return [Completion(c.tag, Result(c.result), receipt_of(c.receipt)) for c in completions[0:count]]


def open(where: Union[str, os.PathLike[str]], create: bool = False, *, exclusive: bool = False, alone: bool = False,
         checkpoint_on_close: bool = True, backend: Backend = Backend.AUTO, log_bytes_max: int = 0,
         checkpoint_log_bytes: int = 0, checkpoint_interval_ms: int = 0, commit_deadline_ms: int = 0,
         open_deadline_ms: int = 0, session_idle_ms: int = 0, session_named_idle_ms: int = 0) -> Store:
    """Opens the shelf at "dir:PATH", at "unix:PATH" (where a node listens), or at a pathlib.Path (a directory).

    create: makes an empty one if there is none; exclusive: and refuses (Exists) if there is one. alone: refuses (Busy) if
    another process is the node, and lets no other attach. The numbers mean what they mean in shelf.h, 0 is the default there.
    NotFound, Busy, Unavailable, Timeout, Corrupt, Format, Io, NoSpace, Denied, Invalid."""
    flags = (create and lib.SHELF_OPEN_CREATE) | (exclusive and lib.SHELF_OPEN_EXCLUSIVE)
    flags |= alone and lib.SHELF_OPEN_ALONE
    flags |= 0 if checkpoint_on_close else lib.SHELF_OPEN_NO_CHECKPOINT
    return Store(where, flags, backend=backend, log_bytes_max=log_bytes_max, checkpoint_log_bytes=checkpoint_log_bytes,
                 checkpoint_interval_ms=checkpoint_interval_ms, commit_deadline_ms=commit_deadline_ms,
                 open_deadline_ms=open_deadline_ms, session_idle_ms=session_idle_ms, session_named_idle_ms=session_named_idle_ms)


def version() -> str:
    """Of the library that runs, such as "0.1.0"."""
    return ffi.string(lib.shelf_version()).decode()


def layout_hash(type_name: str, size: int, fields: Sequence[Tuple[str, int, int]]) -> int:
    """SHELF_LAYOUT of C: the hash of a struct with fields (name, offset, size)."""
    names = [ffi.new('char[]', name_bytes(name)) for name, _, _ in fields]
    array = ffi.new('struct shelf_field[]', [(chars, offset, width) for chars, (_, offset, width) in zip(names, fields)])
    return lib.shelf_layout_hash(name_bytes(type_name), size, array, len(fields))
