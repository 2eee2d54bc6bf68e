"""Read a user's file: regular files only, never more than a limit, every fault in words.

A name in a scenario may point anywhere: at a pipe that never ends, at a device that fills memory, at
gigabytes. What cannot be read is an `InputError` that names the file.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from ersatz.device_models.text.problems import InputError, Problem

MAX_BYTES = 4 * 2**20  # of what a person writes
MAX_TABLE_BYTES = 256 * 2**20  # of what a machine writes
MOST_KEPT = 256  # results of one reader
Stamp = tuple[str, int, int, int]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_only: tuple[str, ...] = ()  # folders below which alone files may be read; empty: anywhere
_readings: ContextVar[tuple[set[Stamp], ...]] = ContextVar("readings", default=())


def confine(folders: Iterable[Path | str]) -> None:
    """Read files below these folders only, from now on and in this process: it answers strangers."""
    global _only
    _only = tuple(os.path.realpath(folder) + os.sep for folder in folders)


def read_file(path: Path | str, most: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes; raises `InputError`."""
    name = str(path)
    if "\0" in name or not _encodable(name):
        raise _fault(name, "is no name of a file")
    if _only and not os.path.realpath(name).startswith(_only):
        raise _fault(
            os.path.basename(name), "is a file of its own; here only what is shipped has a name"
        )
    for reading in _readings.get():
        reading.add(_stamp(name))
    try:
        # A pipe without a writer would wait here for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            kind = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(kind):
                raise _fault(name, "is no regular file; expected one")
            raw = bytearray()  # grows with the file: `read(most)` would take as much at once
            while len(raw) <= most and (chunk := file.read(2**20)):
                raw += chunk
    except OSError as error:
        raise _fault(name, f"cannot be read: {error.strerror}") from error
    if len(raw) > most:
        raise _fault(name, f"is more than {most:,} bytes; expected at most that")
    return bytes(raw)


def is_there(path: Path | str) -> bool:
    """Return whether something has this name; one that no system could hold names nothing."""
    return os.path.exists(path)  # a path's own `exists` raises where a name is too long


def read_text_file(path: Path | str, kind: str, most: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file, a byte order mark dropped; `kind` is what was expected."""
    try:
        return read_file(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        words = f"is no UTF-8 text (byte {error.start}); expected {kind}"
        raise _fault(str(path), words) from error


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def read_csv(path: Path | str, most: int = MAX_TABLE_BYTES) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is not blank; raises `InputError`."""
    text = read_text_file(path, "CSV", most)
    if "\0" in text:
        raise _fault(str(path), "is a binary file; expected CSV")
    reader = csv.reader(text.splitlines(keepends=True))
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(cells))
    except csv.Error as error:
        raise InputError(
            [Problem(str(path), reader.line_num, 1, "", "", f"is no CSV: {error}")]
        ) from error


def remembered(read: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep what a reader made of its files until one of them changes.

    Every file that `read_file` opens meanwhile counts, those of other readers within it included.
    """
    kept: dict[object, tuple[set[Stamp], Result]] = {}

    @wraps(read)
    def again(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        key = (args, tuple(sorted(kwargs.items())))
        stamps, result = kept.get(key, (None, None))
        if stamps is None or any(stamp != _stamp(stamp[0]) for stamp in stamps):
            stamps = set()
            token = _readings.set((*_readings.get(), stamps))
            try:
                result = read(*args, **kwargs)
            finally:
                _readings.reset(token)
            kept[key] = stamps, result
            if len(kept) > MOST_KEPT:
                kept.pop(next(iter(kept)))
        for outer in _readings.get():
            outer |= stamps
        return result  # type: ignore[return-value]

    return again


def _stamp(path: Path | str) -> Stamp:
    """Return what changes when a file is written."""
    try:
        found = os.stat(path)
    except OSError:
        return str(path), 0, 0, -1
    return str(path), found.st_ino, found.st_mtime_ns, found.st_size


def _fault(file: str, expected: str) -> InputError:
    return InputError([Problem(file, 0, 0, "", "", expected)])
