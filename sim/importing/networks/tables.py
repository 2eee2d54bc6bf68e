"""Tables of collectives: nccl-tests, rccl-tests and hccl_test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from ersatz.device_models.text.digits import DECIMAL, is_whole
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.logs.lines import plain_lines
from ersatz.sim.importing.networks.fit import fitted
from ersatz.sim.importing.networks.found import Answers, machine, made
from ersatz.sim.importing.record import Imported

KINDS = {"all_reduce": "all_reduce", "allreduce": "all_reduce", "all_gather": "all_gather",
         "allgather": "all_gather", "reduce_scatter": "reduce_scatter", "reducescatter": "reduce_scatter",
         "alltoall": "all_to_all", "all_to_all": "all_to_all", "alltoallv": "all_to_all"}  # fmt: skip
NCCL_MARK = re.compile(r"^#\s+(?:nThread|Rank\s+\d+)", re.M)
HCCL_MARK = re.compile(r"data_size\(Bytes\):\s*\|\s*aveg?_time\(us\)")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s.*?\bon\s+(\S+)\s+device\s+\S+\s+\[\S+\]\s+(.+?)\s*$")
_ROW = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\w+)\s+(\S+)\s+(.*)$")
_ZERO = 1e-12
MOST_DEVICES = 1_000_000  # that a table may tell of


@dataclass(frozen=True, slots=True)
class Point:
    """One size: bytes of the buffer, seconds, and how many times it was measured."""

    nbytes: float
    seconds: float


@dataclass(slots=True)
class Table:
    """What stands in a table of nccl-tests."""

    points: list[Point]
    devices: int = 0
    hosts: int = 0
    device: str = ""
    factor: float | None = None  # bus bandwidth / algorithm bandwidth
    named: str = ""  # the collective, where a line says it


def read_nccl(text: str, file: str, answers: Answers) -> Imported:
    """Return the network that a table of nccl-tests or rccl-tests measured."""
    draft = Draft(file, "nccl-tests")
    table = nccl_table(text)
    draft.devices, hosts = table.devices or None, table.hosts
    draft.devices_per_node = (
        table.devices // hosts if hosts and table.devices % hosts == 0 else None
    )
    draft.device_hint = table.device
    if not table.points:
        draft.contradict("the table holds no row with a size and a time")
        return made(draft, [])
    node = machine(draft, answers, table.device, draft.devices_per_node)
    kind = _kind(draft, table, answers.variables)
    devices = draft.devices or answers.devices
    if devices is None:
        draft.ask("cluster.devices", "the table's head does not list its ranks")
    elif devices > MOST_DEVICES:
        draft.contradict(f"{devices:,} ranks; expected at most {MOST_DEVICES:,}")
        devices = None
    if node is None or kind is None or devices is None:
        return made(draft, [])
    return made(
        draft, fitted(draft, node, kind, devices, [(p.nbytes, p.seconds) for p in table.points])
    )


def nccl_table(text: str) -> Table:
    """Return ranks and rows of a table, whatever stands before its lines."""
    table, hosts, device = Table([]), set(), ""
    ratios = []
    for _, line in plain_lines(text):
        if found := re.search(r"#.*?\b(\w+?)_perf\b", line):
            table.named = KINDS.get(found[1].lower(), table.named)
        if rank := _RANK.search(line):
            table.devices = max(table.devices, int(rank[1]) + 1)
            hosts.add(rank[2])
            device = device or rank[3]
        elif row := _row(line):
            nbytes, times, rates = row
            table.points.append(Point(nbytes, median(times)))
            ratios += [bus / plain for plain, bus in rates if plain > _ZERO]
    table.hosts, table.device = len(hosts), device
    table.factor = median(ratios[-8:]) if ratios else None
    return table


def _row(line: str) -> tuple[float, list[float], list[tuple[float, float]]] | None:
    """Return size, seconds (out of place, in place) and (algbw, busbw) of a row."""
    found = _ROW.match(line)
    if not found or found[3] in ("size",):
        return None
    words = found[5].split()
    if words and re.fullmatch(r"-?\d+", words[0]) and len(words) not in (4, 8):
        words = words[1:]  # the column `root`, which older tables lack
    numbers = [
        float(w) if re.fullmatch(rf"{DECIMAL}(?:e[+-]?[0-9]{{1,2}})?", w) else None for w in words
    ]
    times, rates = [], []
    for at in range(0, len(numbers) - 2, 4):
        took, plain, bus = numbers[at : at + 3]
        if took and plain is not None and bus is not None:
            times.append(took * 1e-6)
            rates.append((plain, bus))
    nbytes = float(found[1])
    return (nbytes, times, rates) if times and nbytes else None


def _kind(draft: Draft, table: Table, variables: Mapping[str, str]) -> str | None:
    """Return the collective: as said, as the command's name, or by the ratio of its two rates."""
    said = variables.get("COLLECTIVE", "").lower()
    if said:
        kind = KINDS.get(said.removesuffix("_perf"))
        if kind is None:
            _ask(draft, f"{said} is no collective that is known")
        return kind
    if table.named:
        return table.named
    n = table.devices
    if table.factor and n > 1 and abs(table.factor - 2 * (n - 1) / n) < 0.05:
        draft.assume("COLLECTIVE", "all_reduce", "the bus bandwidth is 2(n-1)/n of the algorithm's")
        return "all_reduce"
    _ask(draft, "the table does not name its collective: --define COLLECTIVE=all_gather,"
                " reduce_scatter or alltoall")  # fmt: skip
    return None


def _ask(draft: Draft, why: str) -> None:
    draft.ask("COLLECTIVE", why, ("all_reduce", "all_gather", "reduce_scatter", "alltoall"))


def read_hccl(text: str, file: str, answers: Answers) -> Imported:
    """Return the network that a table of hccl_test measured; ranks stand in its command alone."""
    draft = Draft(file, "hccl-test")
    points = []
    for _, line in plain_lines(text):
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 3 and is_whole(words[0]) and re.fullmatch(DECIMAL, words[1]):
            points.append((float(words[0]), float(words[1]) * 1e-6))
    draft.devices = answers.devices
    if answers.devices is None:
        draft.ask("cluster.devices", "hccl_test names its ranks in the command alone (-n)")
    said = answers.variables.get("COLLECTIVE", "").lower().removesuffix("_test")
    kind = KINDS.get(said)
    if kind is None:
        _ask(
            draft,
            "hccl_test names its collective in the command alone: --define COLLECTIVE=all_reduce",
        )
    node = machine(draft, answers, "", None)
    if not points:
        draft.contradict("the table holds no row with a size and a time")
    if node is None or kind is None or answers.devices is None or not points:
        return made(draft, [])
    return made(draft, fitted(draft, node, kind, answers.devices, points))
