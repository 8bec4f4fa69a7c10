# SPDX-License-Identifier: Apache-2.0
"""One exception for each result of the library that is not OK.

Some are also what Python programs expect in their place: NotFound is a KeyError, Invalid a ValueError, Timeout a
TimeoutError, NoMemory a MemoryError."""

from __future__ import annotations

import enum
from typing import Dict, Type


class Result(enum.IntEnum):
    """The results of the library. The numbers are stable: they are exit codes of the `shelf` command, too."""

    OK = 0
    CONFLICT = 1
    UNKNOWN = 2
    UNAVAILABLE = 3
    NO_SPACE = 4
    TOO_LARGE = 5
    DENIED = 6
    INVALID = 7
    EXPIRED = 8
    CORRUPT = 9
    NOT_FOUND = 10
    EXISTS = 11
    FENCED = 12
    LAYOUT = 13
    TIMEOUT = 14
    BUSY = 15
    FORMAT = 16
    IO = 17
    NO_MEMORY = 18
    ABORTED = 19


class Error(Exception):
    """What all of them have: `result`, `detail`, and after an unsettled commit its `sequence`."""

    result = Result.OK

    def __init__(self, detail: str = '', sequence: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.sequence = sequence

    def __str__(self) -> str:
        return self.detail or self.result.name


class Conflict(Error):
    """Another transaction changed what this one has read. run() tries again by itself."""

    result = Result.CONFLICT


class Unknown(Error):
    """The outcome could not be learned. `sequence` is what to ask Session.outcome() about."""

    result = Result.UNKNOWN


class Unavailable(Error):
    """The node cannot serve now; nothing was changed."""

    result = Result.UNAVAILABLE


class NoSpace(Error):
    """The region, the disk or a table is full; nothing was changed."""

    result = Result.NO_SPACE


class TooLarge(Error):
    """Over a limit; nothing was changed."""

    result = Result.TOO_LARGE


class Denied(Error):
    """You may not do this."""

    result = Result.DENIED


class Invalid(Error, ValueError):
    """The call makes no sense as it stands: an error in the program."""

    result = Result.INVALID


class Expired(Error):
    """The session or sequence is too old to be answered, or the record was removed by retention."""

    result = Result.EXPIRED


class Corrupt(Error):
    """Stored bytes fail their checks. Do not go on; run `shelf verify`."""

    result = Result.CORRUPT


class NotFound(Error, KeyError):
    """There is nothing under that name, key or position."""

    result = Result.NOT_FOUND


class Exists(Error):
    """That name is taken already."""

    result = Result.EXISTS


class Fenced(Error):
    """Another holder has resumed this session."""

    result = Result.FENCED


class Layout(Error):
    """The data was stored with another type or layout."""

    result = Result.LAYOUT


class Timeout(Error, TimeoutError):
    """The deadline passed before it could be done; nothing was changed."""

    result = Result.TIMEOUT


class Busy(Error):
    """Another process is the node of this directory."""

    result = Result.BUSY


class Format(Error):
    """Written by a newer or foreign version of Shelf; nothing was touched."""

    result = Result.FORMAT


class Io(Error):
    """The disk failed, and the node has stopped."""

    result = Result.IO


class NoMemory(Error, MemoryError):
    """The system has no memory left for this; nothing was changed."""

    result = Result.NO_MEMORY


class Aborted(Error):
    """This sequence has not had and will not have any effect."""

    result = Result.ABORTED


_CLASSES: Dict[int, Type[Error]] = {each.result: each for each in Error.__subclasses__()}


def error_class(result: int) -> Type[Error]:
    """The exception of a result; Error itself for one that a newer library may have."""
    return _CLASSES.get(result, Error)
