"""Read the tables of nccl-tests and its kin (rccl-tests, hccl_test) as measured collectives.

Operation, ranks and hosts stand in what those programs print above the rows; where they do not, the
caller has to say. Each row is checked: size / time has to be the algorithm bandwidth that it states,
and the bus bandwidth the one of that operation over that many ranks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ersatz.device_models.text.files import read_file
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.links.timing import Timing

NAMES = {
    "all_reduce": "all_reduce", "allreduce": "all_reduce", "all_gather": "all_gather",
    "allgather": "all_gather", "reduce_scatter": "reduce_scatter", "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all", "all_to_all": "all_to_all", "sendrecv": "send", "send_recv": "send",
}  # fmt: skip
PROGRAM = re.compile(rf"\b({'|'.join(NAMES)})(?:_perf|_test)\b", re.IGNORECASE)
RANK = re.compile(r"#\s+Rank\s+(\d+)\s.*?\bon\s+(\S+)\s+device", re.IGNORECASE)
NCCL = re.compile(r"^\s*(\d+)\s+(\d+)\s+([a-z]\w*)\s+(?:([a-z]+)\s+)?(?:(-?\d+)\s+)?"
                  r"(\d[\d.eE+]*)\s+(\d[\d.eE+]*)\s+(\d[\d.eE+]*)\s+(\S+)")  # fmt: skip
# What begins as a row of either: a size, and after one in other units a number.
ROW = re.compile(
    r"^[\s|]*(?:-?\d+|-?[\d.]+\s?[KMGT]?i?B?[\s|]+-?\d[\d.]*)(?:[\s|]+[^\s|]+){3,}", re.IGNORECASE
)
HCCL = re.compile(
    r"^[\s|]*(\d+)[\s|]+(\d[\d.]*)[\s|]+(\d[\d.]*)[\s|]+(success|null|failed)\b", re.I
)
TOLERANCE = 0.05  # of a bandwidth against size / time; tables round, small sizes to two digits
MOST_BYTES = 50_000_000  # of a file


def read_table(path: Path, operation: str = "", ranks: int = 0, per_node: int = 0) -> list[Timing]:
    """Return the rows of a table; raises `InputError` with every fault."""
    text = read_file(path, MOST_BYTES).decode("utf-8", errors="replace")
    kind, members, beside = _heading(path, text, operation, ranks, per_node)
    problems: list[Problem] = []
    rows = [
        Timing(kind, size, members, beside, seconds, span=span_of(members, beside))
        for size, seconds in _rows(path, text, kind, members, problems)
    ]
    if not rows and not problems:
        problems.append(Problem(str(path), 0, 0, "", "", "holds no row of nccl-tests or its kin"))
    if problems:
        raise InputError(problems)
    return rows


def span_of(members: int, per_node: int) -> str:
    """Return what a group spans: a pair, a node or several nodes."""
    if per_node < members:
        return "nodes"
    return "pair" if members == 2 else "node"


def _heading(
    path: Path, text: str, operation: str, ranks: int, per_node: int
) -> tuple[str, int, int]:
    """Return operation, ranks and ranks per node, told by the caller or by the table."""
    named = PROGRAM.search(text) or PROGRAM.search(path.name.replace(".", " "))
    kind = (
        NAMES.get(operation.lower(), "") if operation else NAMES[named[1].lower()] if named else ""
    )
    hosts = Counter(host for _, host in dict(RANK.findall(text)).items())
    members = ranks or sum(hosts.values())
    beside = per_node or max(hosts.values(), default=0)
    faults = []
    if not kind:
        faults.append(
            f"names no operation; expected one of {', '.join(sorted(set(NAMES)))}: OP=FILE"
        )
    if per_node and members > per_node and members % per_node:
        faults.append(f"has {members} ranks, no whole number of nodes of {per_node} (--per-node)")
    elif members < 2 or not 1 <= beside <= members:
        faults.append("does not say which ranks ran where: give --ranks and --per-node")
    elif len(set(hosts.values())) > 1 and not per_node:
        faults.append(f"has uneven hosts ({dict(hosts)}): give --per-node")
    if faults:
        raise InputError([Problem(str(path), 0, 0, "", "", fault) for fault in faults])
    return kind, members, beside


def bus_factor(kind: str, members: int) -> float:
    """Return bus bandwidth / algorithm bandwidth of an operation."""
    if kind == "send":
        return 1.0
    return (2.0 if kind == "all_reduce" else 1.0) * (members - 1) / members


def _rows(
    path: Path, text: str, kind: str, members: int, problems: list[Problem]
) -> Iterator[tuple[int, float]]:
    """Yield (bytes, seconds) of out-of-place rows, those of no bytes left out."""
    for number, line in enumerate(text.splitlines(), 1):
        nccl, hccl = NCCL.match(line), HCCL.match(line)
        shown = line.strip()[:40]
        try:
            if nccl:
                size, (micros, algorithm, bus) = int(nccl[1]), (float(nccl[i]) for i in (6, 7, 8))
            elif hccl:
                size, micros, algorithm, bus = int(hccl[1]), float(hccl[2]), float(hccl[3]), 0.0
            elif ROW.match(line):
                raise ValueError(line)
            else:
                continue
            float(size)
        except (ValueError, OverflowError):
            problems.append(
                Problem(
                    str(path),
                    number,
                    1,
                    kind,
                    shown,
                    "expected numbers of bytes, microseconds and GB/s",
                )
            )
            continue
        if not size:
            continue
        if wrong := _wrong(nccl[9] if nccl else "", hccl[4] if hccl else ""):
            problems.append(Problem(str(path), number, 1, kind, shown, wrong))
            continue
        problems += [
            Problem(str(path), number, 1, kind, shown, fault)
            for fault in _faults(size, micros, algorithm, bus, bus_factor(kind, members))
        ]
        yield size, micros * 1e-6


def _wrong(elements: str, check: str) -> str:
    """Return what the program's own check of the results found: elements that are wrong, or a failure."""
    if elements.isdigit() and int(elements):
        return f"the program's check found {elements} wrong elements: the times are of no use"
    return (
        "the program's check failed: the times are of no use" if check.lower() == "failed" else ""
    )


def _faults(size: int, micros: float, algorithm: float, bus: float, factor: float) -> Iterator[str]:
    if micros <= 0:
        yield "expected a time above 0"
        return
    rate = size / micros * 1e-3  # GB/s
    slack = max(TOLERANCE * rate, 0.011)
    if abs(rate - algorithm) > slack:
        yield f"size / time is {rate:.3g} GB/s, the row says {algorithm:g}"
    elif bus and abs(bus - algorithm * factor) > max(TOLERANCE * bus, 0.011):
        yield f"the bus bandwidth {bus:g} is not {factor:.3g} times {algorithm:g}: other ranks or operation?"
