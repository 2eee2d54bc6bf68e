"""Files that are either the old one or the new one, whatever stops the writing: disk, signal, power.

A text is written beside its place, brought to the disk and renamed. Whoever writes holds the folder;
what lies there under a name of `PART` while nobody else holds it was left by one that was killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".ersatz-part"  # how the names of unfinished files end
PATIENCE_S = 30.0  # writing takes milliseconds: whoever holds a folder longer than this is stuck
_STOPS = {signal.SIGINT, signal.SIGTERM}


def write_whole(path: Path, data: str | bytes) -> None:
    """Write one file whole or not at all; raises OSError. See `write_all_whole`."""
    write_all_whole({path: data})


def write_all_whole(files: Mapping[Path, str | bytes]) -> None:
    """Write files of one folder or of several: all are on the disk before the first takes its place.

    A link in the place of a file is replaced, not followed. Raises OSError with everything as it was.
    """
    folders = dict.fromkeys(path.parent for path in files)
    with _all_held(list(folders)):
        for folder in folders:
            clear_leftovers(folder)
        staged: dict[Path, Path] = {}
        try:
            for path, data in files.items():
                if path.is_dir():
                    raise IsADirectoryError(21, "Is a directory", str(path))
                staged[path] = beside(path)
                put(staged[path], data, like=path)
            with unbroken():
                for path, part in staged.items():
                    part.replace(path)
        finally:
            for part in staged.values():
                part.unlink(missing_ok=True)
        for folder in folders:
            settle(folder)


def beside(path: Path) -> Path:
    """Return where the text of a file is written before it is renamed: a name of at most 255 bytes."""
    stem = path.name.encode("utf-8", "surrogateescape")[:160].decode("utf-8", "ignore")
    return path.with_name(f".{stem}.{os.getpid()}{PART}")


def put(path: Path, data: str | bytes, like: Path | None = None) -> None:
    """Write a new file and bring it to the disk, with the permissions of `like` where that is there."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        with suppress(OSError):  # a pipe or a strange file system has no disk
            os.fsync(file.fileno())
    if like is not None and like.is_file() and not like.is_symlink():
        with suppress(OSError):
            path.chmod(like.stat().st_mode & 0o777)


def settle(folder: Path) -> None:
    """Bring the names of a folder to the disk."""
    with suppress(OSError):
        found = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(found)
        finally:
            os.close(found)


def clear_leftovers(folder: Path) -> None:
    """Remove unfinished files of a killed writer; the folder must be held."""
    for path in folder.glob(f".*{PART}"):
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, so that two that write into it come one after the other.

    The system lets go of it when the process ends, however it ends. Where the file system knows no
    locks, none is taken. Raises OSError, after `PATIENCE_S` also because another one holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(11, "another run has been writing there for long") from None
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(found)


@contextmanager
def _all_held(folders: list[Path]) -> Iterator[None]:
    if not folders:
        yield
        return
    first, *others = sorted(folders)  # in one order, so that two never wait for each other
    with held(first), _all_held(others):
        yield


@contextmanager
def unbroken() -> Iterator[None]:
    """Let an interrupt wait until a handful of renames is done."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
