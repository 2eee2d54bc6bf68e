"""Recorded steps as Chakra execution traces, one file for each rank, with every collective.

A file is a sequence of protobuf messages, each behind its length: metadata, then a node for each entry of the
last whole step. Field numbers are those of MLCommons' `et_def.proto` (schema 0.0.4); the wire format is so
simple that no library is needed. Times are whole microseconds there; `duration_ns` keeps what they lose.

    data dependencies      the entry before on the same stream, and what is waited for
    COMP_NODE              a kernel, with num_ops and tensor_size
    COMM_COLL_NODE         a collective, with comm_type, comm_size and the number of its group
    COMM_SEND, COMM_RECV   a message, with comm_src, comm_dst and comm_tag
    METADATA_NODE          the host, waiting or busy; the first one lists the groups, as PyTorch does

What the schema has no word for stands in attributes of our own, so that nothing is lost on the way back
(`ersatz.sim.emulate.foreign.chakra`): stream, launch_ns, category, kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.emulate.clock import Clock, Entry
from ersatz.sim.emulate.trace import Ranks, Task, Trace

METADATA, COMPUTE, SEND, RECEIVE, COLLECTIVE = 1, 4, 5, 6, 7
COLLECTIVES = {"all_reduce": 0, "reduce": 1, "all_gather": 2, "gather": 3, "scatter": 4, "broadcast": 5,
               "all_to_all": 6, "reduce_scatter": 7, "barrier": 9}  # fmt: skip
VERSION = "0.0.4"
GROUPS = "## process_group:init ##"  # the node that lists them, as PyTorch's observer calls it
FIRST = 1  # number of the first entry's node; the groups have 0
_VARINT, _BYTES = 0, 2
_INT64, _BOOL, _STRING = 9, 27, 29  # kinds of an attribute's value
_DEFAULTS = {f.name: f.default for f in fields(Kernel)}


def chakra_files(traces: Sequence[Trace]) -> dict[int, bytes]:
    """Return the last whole step of each rank as an execution trace; groups bear the same numbers in all."""
    groups = {t.ranks for trace in traces for t in trace.table if t.ranks and t.peer < 0}
    numbers = {group: i for i, group in enumerate(sorted(groups), start=1)}
    return {trace.rank: _file(trace, numbers) for trace in traces}


def members(group: Ranks) -> list[int]:
    """Return the ranks of a group."""
    return list(group.irregular) or [group.start + group.stride * i for i in range(group.size)]


def _file(trace: Trace, groups: Mapping[Ranks, int]) -> bytes:
    parts = [_framed(_text(1, VERSION) + _message(2, _attribute("rank", trace.rank)))]
    own = {t.ranks for t in trace.table if t.ranks} & set(groups)
    if own:
        parts.append(_framed(_listed({groups[group]: members(group) for group in sorted(own)})))
    clock = Clock()
    last: dict[int, int] = {}
    for number, entry in enumerate(trace.last_step(), start=FIRST):
        task = trace.table[entry.work] if entry.work >= 0 else None
        seconds = task.seconds if task else entry.host_s
        clock.again(entry, seconds)
        before = {FIRST + i for i in entry.after}
        before |= {last[entry.stream]} if entry.stream in last else set()
        last[entry.stream] = number
        node = b"".join((
            _number(1, number), _text(2, task.name if task else "host"), _number(3, _kind(task)),
            _packed(5, sorted(before)), _number(6, round(1e6 * (clock.ends[-1] - seconds))),
            _number(7, round(1e6 * seconds)),
            *(_message(10, _attribute(k, v)) for k, v in _facts(task, entry, trace.rank, groups)),
        ))  # fmt: skip
        parts.append(_framed(node))
    return b"".join(parts)


def _listed(groups: Mapping[int, Sequence[int]]) -> bytes:
    """Return the node that lists the groups of a rank."""
    rows = [{"pg_name": str(number), "pg_desc": "", "ranks": list(ranks), "group_size": len(ranks)}
            for number, ranks in groups.items()]  # fmt: skip
    values = _message(8, _text(1, f"['{json.dumps(rows)}']"))
    return b"".join((_number(1, 0), _text(2, GROUPS), _number(3, METADATA), values,
                     _message(10, _attribute("is_cpu_op", True))))  # fmt: skip


def _kind(task: Task | None) -> int:
    if task is None:
        return METADATA
    if task.peer >= 0:
        return RECEIVE if task.name == "recv" else SEND
    return COLLECTIVE if task.collective else COMPUTE


def _facts(
    task: Task | None, entry: Entry, rank: int, groups: Mapping[Ranks, int]
) -> Iterator[tuple[str, int | bool | str]]:
    yield "is_cpu_op", task is None
    yield "stream", entry.stream
    if task is None:
        yield "duration_ns", round(1e9 * entry.host_s)
        yield "host_waits", entry.waits
        return
    yield "duration_ns", round(1e9 * task.seconds)
    yield "launch_ns", round(1e9 * entry.host_s)
    yield "category", task.category
    if task.peer >= 0:
        here, there = ("comm_dst", "comm_src") if task.name == "recv" else ("comm_src", "comm_dst")
        yield here, rank
        yield there, task.peer
        yield "comm_size", round(task.nbytes)
        yield "comm_tag", task.tag
    elif task.collective and task.ranks:
        yield "comm_type", COLLECTIVES[task.collective]
        yield "comm_size", round(task.nbytes)
        yield "pg_name", str(groups[task.ranks])
    elif task.kernel:
        yield "num_ops", round(task.kernel.flop)
        yield "tensor_size", round(task.kernel.nbytes)
        yield "kernel", json.dumps({k: v for k, v in asdict(task.kernel).items() if v != _DEFAULTS[k]})
    else:
        yield "tensor_size", round(task.nbytes)


def _attribute(name: str, value: int | bool | str) -> bytes:
    if isinstance(value, bool):
        return _text(1, name) + _number(_BOOL, int(value))
    if isinstance(value, int):
        return _text(1, name) + _number(_INT64, value)
    return _text(1, name) + _text(_STRING, value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers as 64 bits
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _packed(field: int, values: list[int]) -> bytes:
    return _message(field, b"".join(map(_varint, values))) if values else b""


def _framed(content: bytes) -> bytes:
    return _varint(len(content)) + content
