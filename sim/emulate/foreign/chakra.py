"""Chakra execution traces as recordings: those of ersatz without a loss, those of others by what they say.

A node of another's trace has a kind, a time, FLOPs and bytes at most: its kernel is then known by these
alone. Read are the fields of MLCommons' `et_def.proto` (schema 0.0.4); a field that is not known is passed
over, as protobuf has it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import unpack
from typing import Any

from ersatz.sim.emulate.clock import HOST, Clock, Entry
from ersatz.sim.emulate.foreign.step import NOTHING_HELD, Step, facts_of, kernel_like
from ersatz.sim.emulate.replaying.believed import believed_kernel, check
from ersatz.sim.emulate.replaying.chakra import (
    COLLECTIVE,
    COLLECTIVES,
    COMPUTE,
    RECEIVE,
    SEND,
    parts_of,
)
from ersatz.sim.emulate.trace import Ranks, Task, Trace, ranks_of

MOST_NODES = 3_000_000
KINDS = {number: name for name, number in COLLECTIVES.items()}
Fields = dict[int, list[Any]]
Facts = Mapping[str, Any]


@dataclass(slots=True)
class Reader:
    """Reads the nodes of one file."""

    rank: int
    groups: dict[str, Ranks] = field(default_factory=dict)
    table: list[Task] = field(default_factory=list)
    numbers: dict[object, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    entry_of: dict[int, int] = field(default_factory=dict)  # by the number of its node
    first: dict[int, Facts] = field(
        default_factory=dict
    )  # of a piece of work, where it first occurs
    hosted: set[int] = field(default_factory=set)  # entries that the host has waited for
    guessed_s: float = 0.0  # of kernels that are known by FLOPs and bytes alone

    def add(self, node: Fields) -> None:
        """Append a node."""
        facts = _attributes(node)
        kind, name = node.get(3, [0])[0], _words(node.get(2, [b""])[0])
        if "process_group" in name:
            self._learn(node)
            return
        after = tuple(sorted({self.entry_of[i] for i in _deps(node) if i in self.entry_of}))
        micros = node.get(7, [0])[0]
        seconds = facts["duration_ns"] / 1e9 if "duration_ns" in facts else micros / 1e6
        if kind not in (COMPUTE, SEND, RECEIVE, COLLECTIVE) or facts.get("is_cpu_op"):
            waits = bool(facts.get("host_waits", seconds == 0 and bool(after)))
            entry = Entry(HOST, -1, after if waits else (), 0.0 if waits else seconds, waits)
        else:
            after = self._without_host(facts, after)
            task = self._task(kind, name, seconds, facts)
            key = facts.get(
                "work", (kind, name, seconds, task.tag, task.nbytes, task.ranks, task.kernel)
            )
            if key not in self.numbers:
                self.numbers[key] = len(self.table)
                self.table.append(task)
            stream = int(facts.get("stream", 0 if kind == COMPUTE else 1))
            same = {i for i in after if self.entries[i].stream == stream}
            launch = facts.get("launch_ns", 0) / 1e9
            entry = Entry(
                stream, self.numbers[key], tuple(i for i in after if i not in same), launch, False
            )
        self.entry_of[node.get(1, [0])[0]] = len(self.entries)
        self.entries.append(entry)

    def _without_host(self, facts: Facts, after: tuple[int, ...]) -> tuple[int, ...]:
        """Let the host do what it did before a node of ours; returns what the node itself waits for."""
        for waited, nanos, waits in json.loads(facts.get("host", "[]")):
            before = tuple(sorted(self.entry_of[i] for i in waited))
            self.entries.append(Entry(HOST, -1, before, nanos / 1e9, bool(waits)))
            self.hosted |= set(before)
        return tuple(i for i in after if i not in self.hosted)

    def _learn(self, node: Fields) -> None:
        """Note the groups that PyTorch lists: a list of JSON texts in Python's notation."""
        values = _words(_fields(node[8][0])[1][0]) if node.get(8) else ""
        for text in ast.literal_eval(values) if values else ():
            for row in json.loads(text):
                if row["ranks"]:
                    self.groups[str(row["pg_name"])] = _members(row["ranks"])

    def _task(self, kind: int, name: str, seconds: float, facts: Facts) -> Task:
        facts = {**self.first.setdefault(facts.get("work", -1), facts), **facts}
        category = str(facts.get("category", ""))
        size = float(facts.get("comm_size", 0))
        if kind in (SEND, RECEIVE):
            peer = int(facts["comm_dst" if kind == SEND else "comm_src"])
            pair = Ranks(min(peer, self.rank), abs(peer - self.rank) or 1, 2)
            way, said = ("send", "pipeline") if kind == SEND else ("recv", "bubble")
            return Task(way, category or said, seconds, None, "send", size, pair, peer,
                        tag=int(facts.get("comm_tag", 0)))  # fmt: skip
        if kind == COLLECTIVE:
            done = KINDS[int(facts["comm_type"])]
            group = self.groups.get(str(facts.get("pg_name", "")))
            size *= parts_of(done, group) if group else 1
            return Task(name, category or done, seconds, None, done, size, group)
        if "kernel" in facts:
            kernel = believed_kernel(json.loads(facts["kernel"]))
            return Task(name, category or kernel.category, seconds, kernel)
        flop, nbytes = float(facts.get("num_ops", 0)), float(facts.get("tensor_size", 0))
        if category:  # ours, and neither a kernel nor a collective
            return Task(name, category, seconds, nbytes=nbytes)
        self.guessed_s += seconds
        kernel = kernel_like(name, flop, nbytes)
        return Task(name, kernel.category, seconds, kernel, known=False)


def read_chakra(data: bytes, name: str) -> Step:
    """Return the step that a file holds; raises `ValueError` where it is no execution trace."""
    reader: Reader | None = None
    said: list[str] = []
    for number, message in enumerate(_messages(data)):
        if number == 0:
            facts = {k: v for a in message.get(2, []) for k, v in [_attribute(a)]}
            groups = json.loads(facts.get("groups", "{}"))
            reader = Reader(int(facts.get("rank", _rank_in(name))),
                            {name: _members(ranks) for name, ranks in groups.items()})  # fmt: skip
            continue
        if number > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES:,} nodes")
        assert reader
        reader.add(message)
    if reader is None or not reader.entries:
        raise ValueError("no nodes")
    if reader.guessed_s:
        said.append(f"{reader.guessed_s:.4g} s of kernels are known by their FLOPs and bytes alone")
    clock = Clock()
    for entry in reader.entries:
        task = reader.table[entry.work] if entry.work >= 0 else None
        clock.again(entry, task.seconds if task else 0.0)
    streams = {entry.stream: f"stream {entry.stream}" for entry in reader.entries}
    trace = Trace(reader.rank, tuple(reader.table), tuple(reader.entries), (0, len(reader.entries)),
                  (clock.drained,), {**streams, 0: "compute"}, NOTHING_HELD, facts_of())  # fmt: skip
    world = max((g.start + g.stride * (g.size - 1) if not g.irregular else max(g.irregular)
                 for g in (t.ranks for t in trace.table) if g), default=reader.rank) + 1  # fmt: skip
    check(trace, world)
    return Step("Chakra", trace, world, clock.drained, tuple(said))


def _members(ranks: Any) -> Ranks:
    """Return a group of JSON's numbers; raises `ValueError` where these are none."""
    if not isinstance(ranks, list) or not ranks or not all(isinstance(r, int) for r in ranks):
        raise ValueError("a group without numbers of ranks")
    return ranks_of(ranks)


def _rank_in(name: str) -> int:
    """Return the number at the end of a file's name: PREFIX.RANK.et."""
    words = name.removesuffix(".et").rsplit(".", 1)
    return int(words[-1]) if words[-1].isdecimal() else 0


def _messages(data: bytes) -> Iterator[Fields]:
    at = 0
    while at < len(data):
        size, at = _varint(data, at)
        if at + size > len(data):
            raise ValueError("ends in the midst of a node")
        yield _fields(data[at : at + size])
        at += size


def _fields(data: bytes) -> Fields:
    """Return the fields of a message by number."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                raise ValueError("ends in the midst of a number")
            (value,) = unpack("<d" if wire == 1 else "<f", data[at : at + size])
            at += size
        elif wire == 2:
            size, at = _varint(data, at)
            found.setdefault(key >> 3, []).append(data[at : at + size])
            at += size
            continue
        else:
            raise ValueError(f"wire type {wire}")
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("no protobuf")
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _deps(node: Fields) -> Iterator[int]:
    """Yield the nodes that a node waits for, packed or one by one."""
    for item in [*node.get(4, []), *node.get(5, [])]:
        if isinstance(item, int):
            yield item
            continue
        at = 0
        while at < len(item):
            number, at = _varint(item, at)
            yield number


def _attributes(node: Fields) -> dict[str, Any]:
    return dict(_attribute(a) for a in node.get(10, []))


def _attribute(data: bytes) -> tuple[str, Any]:
    """Return the name and the value of an attribute, whatever kind it has; lists are passed over."""
    row = _fields(data)
    value = next((v[0] for number, v in sorted(row.items()) if number > 2), 0)
    return _words(row[1][0]), value.decode("utf-8", "replace") if isinstance(
        value, bytes
    ) else _signed(value)


def _signed(value: Any) -> Any:
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value


def _words(data: Any) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
