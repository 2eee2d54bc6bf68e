"""One measured collective: what was exchanged, between whom, and how long it took."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")


@dataclass(frozen=True, slots=True)
class Timing:
    """Undisturbed time of one collective; `nbytes` counts as in `device_models.networks.collectives`."""

    kind: str
    nbytes: int
    members: int
    per_node: int  # members that share a node
    seconds: float
    spread: float = 0.0  # (80th - 20th percentile) / median of the samples
    samples: int = 1
    span: str = ""  # pair, node or nodes
    held_out: int = 0  # 1: no fit has seen it; what is fitted is held against it
    wall_s: float = 0.0  # lower decile by the wall, where the clock is another


def timings_csv(rows: Iterable[Timing]) -> str:
    """Return the rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Timing)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()}
        )
    return text.getvalue()
