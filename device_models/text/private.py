"""Private folders for programs beside ersatz; those of runs that were killed are cleared by the next."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def private_folder(kind: str) -> Path:
    """Return a new folder that only this user may enter, after clearing dead ones of its kind."""
    for old in Path(tempfile.gettempdir()).glob(f"ersatz-{kind}-*"):
        if is_dead(old):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"ersatz-{kind}-{_maker(os.getpid())}-"))


@contextmanager
def private_place(kind: str) -> Iterator[Path]:
    """Give a private folder for as long as a block runs."""
    folder = private_folder(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_dead(folder: Path) -> bool:
    """Tell whether a folder is ours and its maker, of this space of process numbers, is gone."""
    match = re.fullmatch(r"ersatz-[a-z]+-([0-9a-f]+)\.([0-9a-f]+)-\w+", folder.name)
    if match is None or int(match[1], 16) != _space():
        return False
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    return not _lives(int(match[2], 16), found.st_mtime)


def _maker(pid: int) -> str:
    """Return who made a folder, in few letters: a socket's path may not be long."""
    return f"{_space():x}.{pid:x}"


def _space() -> int:
    """Return the number of the process namespace: containers may share a folder, not processes.

    Linux counts on from its first one, so the distance to that is short to write.
    """
    try:
        return abs(os.stat("/proc/self/ns/pid").st_ino - 0xEFFFFFFC)
    except OSError:
        return 0


def _lives(pid: int, since_s: float) -> bool:
    """Tell whether a process lives that is older than a time: a younger one has only its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return True
    started = (int(boot[1]) if boot else 0) + ticks / os.sysconf("SC_CLK_TCK")
    return started <= since_s + 2.0
