# SPDX-License-Identifier: Apache-2.0
"""Shelf: memory that outlives the program.

    import shelf

    with shelf.open('dir:counter.shelf', create=True) as s:
        with s.transaction() as tx:
            ...

A Store has regions, named ranges of bytes that are read at the speed of memory and changed in transactions. When the commit
returns, the change is on stable storage. docs/python.md is a tutorial; what each function promises is in shelf.h.

The library is libshelf.so.0, or what the environment variable SHELF_LIBRARY names. Every call into it releases the GIL."""

from .errors import (Aborted, Busy, Conflict, Corrupt, Denied, Error, Exists, Expired, Fenced, Format, Invalid, Io, Layout,
                     NoMemory, NoSpace, NotFound, Result, Timeout, TooLarge, Unavailable, Unknown)
from .store import (Backend, Client, Cluster, Info, Node, Part, Region, RegionInfo, Session, Staleness, Stats, Store, layout_hash, open,
                    version)
from .structures import Bounds, Map, Record, Stream
from .transaction import Audit, Completion, Durability, Receipt, Root, Transaction

__version__ = '0.1.0'

__all__ = [
    'Aborted', 'Audit', 'Backend', 'Bounds', 'Busy', 'Client', 'Cluster', 'Completion', 'Conflict', 'Corrupt', 'Denied', 'Durability', 'Error',
    'Exists', 'Expired', 'Fenced', 'Format', 'Info', 'Invalid', 'Io', 'Layout', 'Map', 'NoMemory', 'NoSpace', 'Node', 'NotFound',
    'Part', 'Receipt', 'Record', 'Region', 'RegionInfo', 'Result', 'Root', 'Session', 'Staleness', 'Stats', 'Store', 'Stream', 'Timeout', 'TooLarge',
    'Transaction', 'Unavailable', 'Unknown', 'layout_hash', 'open', 'version',
]
