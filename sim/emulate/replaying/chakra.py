"""Recorded steps as Chakra execution traces, one file for each rank, with every collective.

A file is a sequence of protobuf messages, each behind its length: metadata, then a node for each entry of the
last whole step. Field numbers are those of MLCommons' `et_def.proto` (schema 0.0.4); the wire format is so
simple that no library is needed. Times are whole microseconds there; `duration_ns` keeps what they lose.

    data dependencies      the entry before on the same stream, and what is waited for
    COMP_NODE              a kernel, with num_ops and tensor_size
    COMM_COLL_NODE         a collective, with comm_type, comm_size (what a rank gives) and its group's number
    COMM_SEND, COMM_RECV   a message, with comm_src, comm_dst and comm_tag

There are no nodes of the host, since ASTRA-sim takes none: what the host waits for, all later nodes wait for.
What the schema has no word for stands in attributes of our own, so that nothing is lost on the way back
(`ersatz.sim.emulate.foreign.chakra`): the ranks of the groups in the metadata; stream, launch_ns and what the
host did before; and for each distinct piece of `work` where it first occurs its category and kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.emulate.clock import Clock, Entry
from ersatz.sim.emulate.trace import Ranks, Task, Trace

COMPUTE, SEND, RECEIVE, COLLECTIVE = 4, 5, 6, 7
COLLECTIVES = {"all_reduce": 0, "reduce": 1, "all_gather": 2, "gather": 3, "scatter": 4, "broadcast": 5,
               "all_to_all": 6, "reduce_scatter": 7, "barrier": 9}  # fmt: skip
VERSION = "0.0.4"
_VARINT, _BYTES = 0, 2
_INT64, _BOOL, _STRING = 9, 27, 29  # kinds of an attribute's value
_DEFAULTS = {f.name: f.default for f in fields(Kernel)}


def chakra_files(traces: Sequence[Trace]) -> dict[int, bytes]:
    """Return the last whole step of each rank as an execution trace; groups bear the same numbers in all."""
    numbers = _numbered(traces)
    return {trace.rank: _file(trace, numbers) for trace in traces}


def members(group: Ranks) -> list[int]:
    """Return the ranks of a group."""
    return list(group.irregular) or [group.start + group.stride * i for i in range(group.size)]


def groups_text(traces: Sequence[Trace]) -> str:
    """Return the ranks of every group by its number, as ASTRA-sim takes them beside the files."""
    rows = {str(number): members(group) for group, number in _numbered(traces).items()}
    return json.dumps(rows) + "\n"


def _numbered(traces: Sequence[Trace]) -> dict[Ranks, int]:
    groups = {t.ranks for trace in traces for t in trace.table if t.ranks and t.peer < 0}
    return {group: i for i, group in enumerate(sorted(groups), start=1)}


@dataclass(slots=True)
class Host:
    """What the host did since the last node, and what each stream still has to wait for on its account."""

    done: list[tuple[tuple[int, ...], int, bool]] = field(default_factory=list)
    waited: set[int] = field(default_factory=set)
    seen: dict[int, set[int]] = field(default_factory=dict)  # by stream

    def add(self, entry: Entry, nodes: Mapping[int, int]) -> None:
        """Note an entry of the host."""
        after = tuple(sorted({nodes[i] for i in entry.after if i in nodes}))
        self.done.append((after, round(1e9 * entry.host_s), entry.waits))
        self.waited |= set(after) if entry.waits else set()

    def before(self, stream: int) -> set[int]:
        """Return what the host waited for and a stream's nodes did not yet."""
        new = self.waited - self.seen.setdefault(stream, set())
        self.seen[stream] |= new
        return new

    def told(self) -> str:
        """Return what it did, for the node that follows."""
        found, self.done = json.dumps(self.done) if self.done else "", []
        return found


def _file(trace: Trace, groups: Mapping[Ranks, int]) -> bytes:
    own = sorted({t.ranks for t in trace.table if t.ranks} & set(groups))
    listed = json.dumps({groups[group]: members(group) for group in own})
    about = [_message(2, _attribute("rank", trace.rank)), _message(2, _attribute("groups", listed))]
    parts = [_framed(_text(1, VERSION) + b"".join(about))]
    clock, host = Clock(), Host()
    last: dict[int, int] = {}
    nodes: dict[int, int] = {}  # by entry
    told: set[int] = set()
    for index, entry in enumerate(trace.last_step()):
        task = trace.table[entry.work] if entry.work >= 0 else None
        clock.again(entry, task.seconds if task else entry.host_s)
        if task is None:
            host.add(entry, nodes)
            continue
        number = nodes[index] = len(nodes)
        before = {nodes[i] for i in entry.after if i in nodes} | host.before(entry.stream)
        before |= {last[entry.stream]} if entry.stream in last else set()
        last[entry.stream] = number
        facts = dict(_facts(task, entry, trace.rank, groups))
        if did := host.told():
            facts["host"] = did
        if entry.work not in told:
            told.add(entry.work)
            facts |= _at_first(task)
        parts.append(_framed(b"".join((
            _number(1, number), _text(2, task.name), _number(3, _kind(task)), _packed(5, sorted(before)),
            _number(6, round(1e6 * (clock.ends[-1] - task.seconds))),
            _number(7, round(1e6 * task.seconds)),
            *(_message(10, _attribute(k, v)) for k, v in facts.items()),
        ))))  # fmt: skip
    return b"".join(parts)


def _kind(task: Task) -> int:
    if task.peer >= 0:
        return RECEIVE if task.name == "recv" else SEND
    return COLLECTIVE if task.collective else COMPUTE


def _facts(
    task: Task, entry: Entry, rank: int, groups: Mapping[Ranks, int]
) -> Iterator[tuple[str, int | bool | str]]:
    yield "is_cpu_op", False
    yield "stream", entry.stream
    yield "duration_ns", round(1e9 * task.seconds)
    yield "launch_ns", round(1e9 * entry.host_s)
    yield "work", entry.work
    if task.peer >= 0:
        here, there = ("comm_dst", "comm_src") if task.name == "recv" else ("comm_src", "comm_dst")
        yield here, rank
        yield there, task.peer
        yield "comm_size", round(task.nbytes)
        yield "comm_tag", task.tag
    elif task.collective and task.ranks:
        yield "comm_type", COLLECTIVES[task.collective]
        yield "comm_size", round(task.nbytes / parts_of(task.collective, task.ranks))
        yield "pg_name", str(groups[task.ranks])
    elif task.kernel:
        yield "num_ops", round(task.kernel.flop)
        yield "tensor_size", round(task.kernel.nbytes)
    else:
        yield "tensor_size", round(task.nbytes)


def parts_of(kind: str, ranks: Ranks) -> int:
    """Return by how much less a rank gives than what is counted here: ASTRA-sim takes what each one gives."""
    return ranks.size if kind == "all_gather" else 1


def _at_first(task: Task) -> Mapping[str, str]:
    """Return what is said of a piece of work where it first occurs, and holds wherever it does."""
    found = {"category": task.category}
    if task.kernel:
        row = {k: v for k, v in asdict(task.kernel).items() if v != _DEFAULTS[k]}
        found["kernel"] = json.dumps(row)
    return found


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
