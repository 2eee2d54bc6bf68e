"""The folder of `--out`: all artefacts of a run together, and a manifest that says what they are.

Names come from scenarios, so they are made safe here and nowhere else. The artefacts are written
into a folder of their own inside, which one rename declares ready; then each takes its place. One
that is stopped before that rename leaves the earlier run as it was, one that is stopped after it is
brought to its end by the next run. What an earlier run wrote and this one did not is removed. A file
that ersatz did not write, or that was changed since, is never touched: the run is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ersatz.device_models.text.whole import clear_leftovers, held, put, settle, unbroken

MANIFEST = "manifest.json"
WRITING, READY = ".ersatz-writing", ".ersatz-ready"
MOST_BYTES = 180  # of a name; file systems take 255
AUTHOR = "ersatz"


class ForeignFileError(OSError):
    """Something that ersatz did not write stands where it would write."""

    def __init__(self, path: Path) -> None:
        super().__init__(17, "was not written by ersatz, or was changed since; move it away or name"
                             " another folder", str(path))  # fmt: skip


def write_artefacts(
    folder: Path, verb: str, arguments: Sequence[str], files: Mapping[str, str | bytes]
) -> None:
    """Write the artefacts of one run into `folder`, by name; raises OSError with all as it was.

    Names may hold anything; see `safe_names`. The manifest lists the verb, the arguments and each
    file with its size and SHA-256.
    """
    if folder.exists() and not folder.is_dir():
        raise OSError(20, "is a file; expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    raw = {name: text.encode("utf-8") if isinstance(text, str) else text
           for name, text in files.items()}  # fmt: skip
    names = safe_names(raw)
    content = {names[name]: data for name, data in raw.items()}
    with held(folder):
        _finish_earlier(folder)
        _refuse_foreign(folder, content)
        _stage(folder, content, _manifest(verb, arguments, names, raw))
        with unbroken():
            (folder / WRITING).rename(folder / READY)
            settle(folder)
            _take_places(folder)


def safe_names(wanted: Iterable[str]) -> dict[str, str]:
    """Return a name inside a folder for each wanted one: readable, and no two alike.

    Letters, digits, `.`, `_` and `-` stay; the rest becomes `-`. Those that would be the same, also
    on a file system that does not tell capitals, get a number. None hides, none leaves the folder.

    >>> list(safe_names(["tp8/pp4-fan.svg", "tp8-pp4-fan.svg", "../etc/passwd"]).values())
    ['tp8-pp4-fan.svg', 'tp8-pp4-fan-2.svg', 'etc-passwd']
    """
    taken = {MANIFEST}
    found = {}
    for name in wanted:
        stem, suffix = _plain_name(name)
        safe, number = f"{stem}{suffix}", 1
        while safe.casefold() in taken:
            number += 1
            safe = f"{stem}-{number}{suffix}"
        taken.add(safe.casefold())
        found[name] = safe
    return found


def _plain_name(name: str) -> tuple[str, str]:
    """Return (stem, suffix) of only harmless characters, short enough, neither hidden nor empty."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(c if c.isalnum() or c in "._-" else "-" for c in text).lstrip(".-")
    stem, dot, suffix = text.rpartition(".")
    if not dot or not suffix.isalnum() or len(suffix) > 5 or not suffix.isascii():
        stem, suffix = text, ""
    stem = stem.encode("utf-8")[:MOST_BYTES].decode("utf-8", "ignore").rstrip(".-")
    return stem or "unnamed", f".{suffix}" if suffix else ""


def _manifest(
    verb: str, arguments: Sequence[str], names: Mapping[str, str], raw: Mapping[str, bytes]
) -> bytes:
    listed = []
    for name, safe in names.items():
        entry: dict[str, Any] = {"name": safe}
        if safe != name:
            entry["of"] = name
        listed.append({**entry, "bytes": len(raw[name]), "sha256": _digest(raw[name])})
    record = {"written_by": AUTHOR, "verb": verb, "arguments": list(arguments), "files": listed}
    return (json.dumps(record, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ours(folder: Path) -> dict[str, tuple[int, str]]:
    """Return (size, digest) by name of what the folder's manifest lists; raises on a strange one."""
    path = folder / MANIFEST
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError(path)
        record = json.loads(path.read_bytes())
        if record["written_by"] != AUTHOR:
            raise ValueError(path)
        return {str(e["name"]): (int(e["bytes"]), str(e["sha256"])) for e in record["files"]
                if _inside(str(e["name"]))}  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ForeignFileError(path) from None


def written_files(folder: Path) -> dict[str, str]:
    """Return what a manifest says stands in a folder: file name by the name that was wanted.

    Raises `ForeignFileError` for a manifest that ersatz did not write.
    """
    known = _ours(folder)
    if not known:
        return {}
    entries = json.loads((folder / MANIFEST).read_bytes())["files"]
    return {str(e.get("of", e["name"])): str(e["name"]) for e in entries if e["name"] in known}


def _inside(name: str) -> bool:
    """Tell whether a name can only mean a file of the folder itself."""
    return name not in ("", ".", "..", MANIFEST) and not set(name) & set("/\\\0")


def _is_as_written(path: Path, size: int, digest: str) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
        return False
    return _digest(path.read_bytes()) == digest


def _refuse_foreign(folder: Path, content: Mapping[str, bytes]) -> None:
    """Raise `ForeignFileError` where a file would be lost that ersatz has not written like this."""
    ours = _ours(folder)
    for name, data in content.items():
        path = folder / name
        if not path.exists() and not path.is_symlink():
            continue
        same = _is_as_written(path, len(data), _digest(data))
        if not same and not (name in ours and _is_as_written(path, *ours[name])):
            raise ForeignFileError(path)


def _stage(folder: Path, content: Mapping[str, bytes], manifest: bytes) -> None:
    """Bring all files to the disk inside `WRITING`; leaves nothing behind where that fails."""
    writing = folder / WRITING
    try:
        writing.mkdir()
        for name, data in {**content, MANIFEST: manifest}.items():
            put(writing / name, data)
        settle(writing)
    except BaseException:  # an interrupt, too
        shutil.rmtree(writing, ignore_errors=True)
        raise


def _finish_earlier(folder: Path) -> None:
    """End what a killed run began: what was ready takes its place, what was not is removed."""
    clear_leftovers(folder)
    for name in (WRITING, READY):
        if (folder / name).is_symlink() or (folder / name).is_file():
            raise ForeignFileError(folder / name)
    if (folder / WRITING).is_dir():
        shutil.rmtree(folder / WRITING)
    if (folder / READY).is_dir():
        _take_places(folder)


def _take_places(folder: Path) -> None:
    """Move everything out of `READY`, the manifest last, and remove what only an earlier run wrote.

    Can be done again from wherever it was stopped.
    """
    ready = folder / READY
    if (ready / MANIFEST).exists():
        new = _ours(ready)
        stale = {name: known for name, known in _ours(folder).items() if name not in new}
        for name in new:
            if (ready / name).is_file():
                (ready / name).replace(folder / name)
        for name, known in stale.items():
            if _is_as_written(folder / name, *known):
                (folder / name).unlink()
        (ready / MANIFEST).replace(folder / MANIFEST)
    shutil.rmtree(ready)
    settle(folder)
