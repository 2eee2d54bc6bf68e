"""The terminal report of `ersatz run --ops`: what every rank sends and computes in a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_duration, format_si
from ersatz.sim.records import CollectiveRow, FlopRow, OperationsResult, RunResult
from ersatz.sim.scenario.scenario import Scenario

LEFT_OUT = (
    "Left out, below 0.1 % of a step: sums of amax, of the balance loss and of the loss scale, and"
    " gradients of adapters. Alone: without stalls and what other traffic adds."
)


def render_operations(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> RenderableType:
    """Return the collectives and FLOPs of every rank, case by case."""
    parts: list[RenderableType] = [Text(scenarios[0].question, style="bold"), Text("")]
    for result in results:
        if result.operations:
            parts += [*_case(result, result.operations, titled=len(results) > 1), Text("")]
    return Group(*parts, Text(LEFT_OUT, style="dim"))


def _case(result: RunResult, found: OperationsResult, *, titled: bool) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if titled:
        parts += [Text(f"== {result.name} ==", style="bold"), Text("")]
    ranks = sum(
        {(r.pool, r.stages): r.ranks for r in found.collectives if r.group == "world"}.values()
    )
    parts.append(Text(f"a step of {format_duration(result.step.duration_s)}; {_flop_line(found)}"))
    if ranks:
        parts.append(Text(_sent_line(found, ranks)))
    parts += [Text(""), *_collectives(found.collectives), Text(""), _flops(found.flops)]
    return parts


def _flop_line(found: OperationsResult) -> str:
    whole = found.executed_flop or 1.0
    return (
        f"all ranks execute {format_si(found.executed_flop, 'FLOP')}:"
        f" {100 * found.model_flop / whole:.1f} % the model's,"
        f" {100 * found.recomputed_flop / whole:.1f} % again,"
        f" {100 * found.padding_flop / whole:.1f} % for nothing"
    )


def _sent_line(found: OperationsResult, ranks: int) -> str:
    def mean(each: str) -> str:
        total = math.fsum(r.count * r.ranks * getattr(r, each) for r in found.collectives)
        return format_si(total / ranks, "B")

    return (
        f"the mean of {ranks:,} ranks sends {mean('inside_bytes')} over scale-up links"
        f" and {mean('network_bytes')} over the network"
    )


COLUMNS = {"each rank sends": 16, "kind": 14, "group (inside)": 15, "stages": 8, "stream": 7,
           "times": 6, "each": 8, "in all": 8, "alone": 9}  # fmt: skip
KINDS = {"node_limited_all_to_all": "two-hop to-all", "all_to_all": "all-to-all"}


def _collectives(rows: Sequence[CollectiveRow]) -> Iterator[RenderableType]:
    """A heading per pool and phase, a line per kind of collective, all in the same columns."""
    yield _columns(header=True)
    for (pool, phase), found in groupby(rows, key=lambda r: (r.pool, r.phase)):
        yield Text(f"{phase} on {pool}" if pool else phase, style="bold")
        table = _columns(header=False)
        for row in found:
            kind = KINDS.get(row.kind, row.kind.replace("_", "-"))
            table.add_row(f" {row.name.removeprefix('tensor ')}", kind,
                          f"{row.group} {row.size} ({row.inside})", stage_text(row.stages),
                          row.stream, f"{row.count:,}", format_si(row.nbytes, "B"),
                          format_si(row.count * row.nbytes, "B"), format_duration(row.seconds))  # fmt: skip
        yield table


def _columns(*, header: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header)
    for name, width in COLUMNS.items():
        right = name in ("times", "each", "in all", "alone")
        table.add_column(name, width=width, justify="right" if right else "left", overflow="fold")
    return table


def _flops(rows: Sequence[FlopRow]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("each rank computes", "phase", "stages"):
        table.add_column(name, overflow="fold")
    for name in ("executed", "the model's", "again", "for nothing"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        parts = (row.flop, row.model_flop, row.recomputed_flop, row.padding_flop)
        kind = f"{row.kind} on {row.pool}" if row.pool else row.kind
        table.add_row(kind, row.phase, stage_text(row.stages),
                      *(format_si(x, "FLOP") if x >= 1.0 else "-" for x in parts))  # fmt: skip
    return table


def stage_text(stages: Sequence[int]) -> str:
    """Write stages as ranges: '0-3, 7'."""
    runs: list[list[int]] = []
    for stage in stages:
        if runs and stage == runs[-1][-1] + 1:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
