"""The chapter on memory of docs/validation.md."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.device_models.shipped import DATA
from ersatz.sim.plan.memory.facts import spread
from ersatz.sim.validation.errors.memory_peaks import Errors
from ersatz.sim.validation.errors.memory_table import MemoryVerdicts, judge_memory
from ersatz.sim.validation.reading.lineages import SHIPPED

COLUMNS = ("", "rows", "median / 90th percentile", "bias", "source left out", "lineage left out")


INTRO = """\
## Memory

Peaks that rows state (allocated: tensors; reserved: the allocator's blocks; device: all that it shows)
against those of plans; runs that ran and runs that ran out of memory against the verdict.
`ersatz validate --memory` prints this again.
"""
KNOWN = (
    "The nanotron sweep's wide tensor groups without a pipeline hold up to twice of what is predicted, and"
    " rows that differ in the number of nodes alone differ by a third: not explained.",
    "torchtitan's six 405B rows hold the same tensors in five of them and state peaks 13 % apart: no"
    " plan meets all. Some of BLOOM's rows contradict their neighbours by a third.",
    "mf-0062 (Qwen-7B in MindFormers, four sequences of 2,048 a card, nothing computed again) ran on 64 GB."
    " Weights that its parallel optimiser gathers and keeps (14 GiB), state (11) and what its layers keep"
    " (32) leave 7 GiB for logits that take 9 at least, and nothing for gradients: not explained.",
    "Some of the sweep's crashes are of plans that need a tenth of the memory: they crashed for other"
    " reasons, and count as missed.",
)


def memory_chapter() -> Iterator[str]:
    """Judge the shipped tables and yield the chapter."""
    yield from chapter(judge_memory(DATA / "measured" / "out_of_memory_h100_nanotron.csv", SHIPPED))


def chapter(v: MemoryVerdicts) -> Iterator[str]:
    """Yield the chapter's parts: what falls short first, then peaks, then verdicts."""
    yield INTRO
    yield "\n".join(f"* {line}" for line in _short(v)) + "\n"
    if v.peaks:
        rows = [
            _row("all, sources equal", v.peaks),
            *map(_row, v.peaks_by_source, v.peaks_by_source.values()),
        ]
        yield _table(COLUMNS, rows)
    for groups in (v.peaks_by_stack, v.peaks_by_kind):
        yield _table(COLUMNS, [_row(name, errors) for name, errors in groups.items()])
    kept, caught, right = (
        100 * (share or 0.0)
        for share in (v.kept_sources_equal, v.caught_sources_equal, v.sources_equal)
    )
    yield (f"Verdicts are {right:.1f} % right with sources equal: {kept:.1f} % of what ran is kept (a row"
           f" that leaves something blank under any reading of it), and {caught:.1f} % of crashes are"
           " caught. Vetoed although they"
           f" ran: {', '.join(v.vetoed) or 'none'}.\n")  # fmt: skip
    yield _table(("model", "crashed", "caught", "ran", "kept"), list(_models(v)))


def _short(v: MemoryVerdicts) -> Iterator[str]:
    """What a reader must know before the figures."""
    if v.peaks:
        yield ("Software that no other source shows, or whose memory was fitted to a source's own runs, read"
               " as a stranger's would be:"
               f" {_pair(v.peaks.source_out_median, v.peaks.source_out_p90)} with a source left out,"
               f" {_pair(v.peaks.left_out_median, v.peaks.left_out_p90)} with a whole"
               " lineage (median / 90th percentile). What a framework keeps is a fact of that framework;"
               " without it a plan is a guess.")  # fmt: skip
    yield from KNOWN
    yield ("A verdict is `tight` where neither side is nine times as probable as the other, with errors of"
           f" {100 * spread():.0f} % (standard deviation).")  # fmt: skip


def _models(v: MemoryVerdicts) -> Iterator[list[str]]:
    for name, share in [*v.by_model.items(), ("all", v.total)]:
        yield [name, f"{share.crashed:,}", _share(share.caught, share.crashed), f"{share.ran:,}",
               _share(share.kept, share.ran)]  # fmt: skip


def _row(name: str, e: Errors) -> list[str]:
    return [name, f"{e.rows:,}", _pair(e.median, e.p90), f"{100 * e.bias:+.1f} %",
            _pair(e.source_out_median, e.source_out_p90),
            _pair(e.left_out_median, e.left_out_p90)]  # fmt: skip


def _pair(median: float, p90: float) -> str:
    return f"{100 * median:.1f} / {100 * p90:.0f} %"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
