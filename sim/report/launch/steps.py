"""What is said of steps that go out as traces, and of those that come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_duration

MOST_RANKS = 6  # columns


@dataclass(frozen=True, slots=True)
class ExportedStep:
    """A simulated step as execution traces."""

    case: str
    world: int
    ranks: tuple[int, ...]
    nodes: int
    step_s: float
    unsaid: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: what `ersatz export --as chakra --json` writes."""
        return asdict(self)


def render_exported_step(found: ExportedStep) -> RenderableType:
    """Return what was written, and what the format cannot say."""
    head = (f"{found.case}: Chakra execution traces of {len(found.ranks):,} ranks of {found.world:,};"
            f" {found.nodes:,} nodes; a step of {format_duration(found.step_s)}")  # fmt: skip
    lines = [
        "chakra.RANK.et, groups.json   for ASTRA-sim: workload and communicator groups",
        "replay.yaml, ranks.json       ersatz run DIR/replay.yaml --set cluster.node=NODE",
        *(f"not said: {words}" for words in found.unsaid),
        "not said to others: launches of the host, and times below a microsecond",
    ]
    return Group(Text(head, style="bold"), *map(Text, lines))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A step of a rank as another tool recorded it."""

    file: str
    format: str
    device: str
    rank: int
    world: int
    measured_s: float
    replayed_s: float  # by the clock of an emulation, in its own times
    causes: Mapping[str, float]  # seconds; they add up to the step
    said: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: what `ersatz import --json` writes of a trace."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Beside:
    """A measured step beside a predicted one, by class of work."""

    case: str
    measured_s: float
    predicted_s: float
    rows: tuple[tuple[str, float, float], ...]  # class, measured, predicted
    said: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        rows = [{"class": name, "measured_s": m, "predicted_s": p} for name, m, p in self.rows]
        return {"case": self.case, "measured_s": self.measured_s, "predicted_s": self.predicted_s,
                "rows": rows, "said": list(self.said)}  # fmt: skip


def render_recorded(found: Sequence[Recorded], beside: Beside | None) -> RenderableType:
    """Return what was measured, and what is predicted beside it."""
    parts: list[RenderableType] = [Text(_headline(one), style="bold") for one in found]
    if beside:
        parts += [Text(_verdict(beside), style="bold"), Text(""), _compared(beside)]
        parts += [Text(f"not alike: {words}") for words in beside.said]
        parts.append(
            Text(
                "Kernels slow each other down beside collectives: predicted under other kernels.",
                style="dim",
            )
        )
    parts += [Text(""), _causes(found), *_replayed(found)]
    said = dict.fromkeys(words for one in found for words in one.said)
    if said:
        parts += [Text(""), Text("assumed:"), *(Text(f"  {words}") for words in said)]
    return Group(*parts)


def _headline(one: Recorded) -> str:
    device = f" on {one.device}" if one.device else ""
    head = f"{one.file}: {one.format}{device}; rank {one.rank} of {one.world:,}"
    return f"{head}; a step of {format_duration(one.measured_s)}"


def _verdict(beside: Beside) -> str:
    off = 100 * (beside.predicted_s / beside.measured_s - 1) if beside.measured_s else 0.0
    predicted, measured = format_duration(beside.predicted_s), format_duration(beside.measured_s)
    return f"{beside.case} predicted {predicted}, {off:+.1f} % against the measured {measured}"


def _compared(beside: Beside) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(("class of work", "measured", "predicted", "off by", "of the step")):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for name, measured, predicted in beside.rows:
        off = f"{100 * (predicted / measured - 1):+.0f} %" if measured else "-"
        share = 100 * (predicted - measured) / beside.measured_s if beside.measured_s else 0.0
        table.add_row(
            name, format_duration(measured), format_duration(predicted), off, f"{share:+.1f} %"
        )
    return table


def _causes(found: Sequence[Recorded]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("measured, by cause")
    for one in found[:MOST_RANKS]:
        table.add_column(f"rank {one.rank}", justify="right")
    names = sorted(
        {n for one in found for n in one.causes}, key=lambda n: (-found[0].causes.get(n, 0.0), n)
    )
    for name in names:
        table.add_row(
            name, *(format_duration(one.causes.get(name, 0.0)) for one in found[:MOST_RANKS])
        )
    return table


def _replayed(found: Sequence[Recorded]) -> list[RenderableType]:
    """Say how near a replay of the trace in its own times comes to it: its order and waits are inferred."""
    off = [100 * (one.replayed_s / one.measured_s - 1) for one in found if one.measured_s]
    worst = max(off, key=abs, default=0.0)
    return [Text(""), Text(f"replayed in its own times: {worst:+.1f} % against the trace")]
