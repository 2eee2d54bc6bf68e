"""The Chrome trace format, as Perfetto reads it: JSON in microseconds, compressed.

Times are rounded to nanoseconds, starts and ends alike, so that neighbours stay neighbours. The format:
"Trace Event Format", Google, 2016 (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import chain
from typing import Any

from ersatz.device_models.text.visible import stripped

AT_ONCE = 20_000  # events that are compressed together


def text_of(value: Any) -> str:
    """Write a value as JSON in as few bytes as can be, without what a terminal obeys."""
    return stripped(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def process(pid: int, name: str, order: int = 0) -> Iterator[str]:
    """Yield the name and the place of a process."""
    yield text_of({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
    yield text_of(
        {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": order}}
    )


def thread(pid: int, tid: int, name: str) -> str:
    """Return the name of a track of a process."""
    return text_of(
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
    )


def span(pid: int, tid: int, name: str, start_s: float, end_s: float, rest: str) -> str:
    """Return something that lasts; `name` and `rest` (category and arguments) are JSON already."""
    start, end = round(start_s * 1e9), round(end_s * 1e9)
    return (f'{{"ph":"X","pid":{pid},"tid":{tid},"ts":{_us(start)},"dur":{_us(end - start)},"name":{name}'
            f"{rest}}}")  # fmt: skip


def instant(pid: int, tid: int, name: str, at_s: float) -> str:
    """Return something that happens at once."""
    ts = _us(round(at_s * 1e9))
    return f'{{"ph":"i","s":"t","pid":{pid},"tid":{tid},"ts":{ts},"name":{text_of(name)}}}'


def counter(pid: int, name: str, at_s: float, values: Mapping[str, float]) -> str:
    """Return values that hold from a time on."""
    ts = _us(round(at_s * 1e9))
    return (
        f'{{"ph":"C","pid":{pid},"ts":{ts},"name":{text_of(name)},"args":{text_of(dict(values))}}}'
    )


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def packed(events: Iterable[str], about: Mapping[str, Any]) -> bytes:
    """Return a whole trace, compressed; the same events give the same bytes."""
    sink = BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=6, mtime=0) as out:
        out.write(
            b'{"displayTimeUnit":"ms","otherData":'
            + text_of(dict(about)).encode()
            + b',"traceEvents":[\n'
        )
        batch: list[str] = []
        first = True
        for event in chain(events, (None,)):
            if event is not None:
                batch.append(event)
            if batch and (event is None or len(batch) >= AT_ONCE):
                out.write((("" if first else ",\n") + ",\n".join(batch)).encode("utf-8", "replace"))
                first, batch = False, []
        out.write(b"\n]}\n")
    return sink.getvalue()


def unpacked(data: bytes) -> bytes:
    """Return the JSON of a trace, for a file whose name asks for no compression."""
    return gzip.decompress(data)
