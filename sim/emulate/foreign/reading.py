"""The one way in for recorded steps of others: which tool wrote a file, and what it says."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import read_file
from ersatz.device_models.text.problems import in_words
from ersatz.sim.emulate.foreign.chakra import read_chakra
from ersatz.sim.emulate.foreign.kineto import read_kineto
from ersatz.sim.emulate.foreign.msprof import is_msprof, read_msprof
from ersatz.sim.emulate.foreign.step import Step
from ersatz.sim.errors import InputError, Problem

MOST_BYTES = 1 << 30  # of a trace, unpacked, too
EXPECTED = "expected a trace of PyTorch's profiler (Kineto), of Ascend's (trace_view.json) or of Chakra (.et)"


def is_trace(path: Path) -> bool:
    """Tell whether a file is a recorded step, from its name and its first bytes."""
    if path.suffix == ".et":
        return True
    if not path.name.endswith((".json", ".json.gz")):
        return False
    try:
        head = _unpacked(read_file(path, MOST_BYTES), 1 << 16)
    except (InputError, ValueError, OSError):
        return False
    text = head.decode("utf-8", "replace")
    return '"traceEvents"' in text or (text.lstrip()[:1] == "[" and '"ph"' in text)


def read_step(path: Path, sizes: Mapping[int, str] | None = None, bandwidth: float = 0.0) -> Step:
    """Return the step that a file holds.

    `sizes` tell which parallelism a group of so many ranks is; `bandwidth` (bytes/s) is that of the device
    it was measured on. Raises `InputError` for what is no trace, and for one in which nothing was done.
    """
    data = read_file(path, MOST_BYTES)
    try:
        if path.suffix == ".et":
            return read_chakra(data, path.name)
        return _of_json(json.loads(_unpacked(data, MOST_BYTES)), sizes or {}, bandwidth)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError,
            OSError, SyntaxError, MemoryError) as error:  # fmt: skip
        words = f"{EXPECTED}: {in_words(error)}"
        raise InputError([Problem(str(path), 0, 0, "", "", words)]) from None


def _unpacked(data: bytes, most: int) -> bytes:
    """Return at most so many bytes of a file, without its compression."""
    if data[:2] != b"\x1f\x8b":
        return data[:most]
    try:
        found = zlib.decompressobj(wbits=31).decompress(data, most)
    except zlib.error as error:
        raise gzip.BadGzipFile(str(error)) from error
    return found


def _of_json(data: Any, sizes: Mapping[int, str], bandwidth: float) -> Step:
    rows = data if isinstance(data, list) else data["traceEvents"]
    if not isinstance(rows, list):
        raise ValueError("no list of events")
    if is_msprof(rows):
        return read_msprof(rows, sizes, bandwidth)
    if (
        isinstance(data, dict)
        and isinstance(data.get("otherData"), dict)
        and data["otherData"].get("made_by") == "ersatz"
    ):
        raise ValueError(
            "it is a timeline of ersatz: export --as chakra writes steps to be replayed"
        )
    return read_kineto({"traceEvents": rows} if isinstance(data, list) else data, sizes, bandwidth)
