"""The chapter of docs/validation.md on other simulators: their published errors beside ours."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.validation.errors.heldout import Judged

COLUMNS = ["peer", "judged on", "its mean error", "it knows",
           "ersatz: lineage left out / model left out / seen", "source"]  # fmt: skip


def peers() -> list[dict[str, str]]:
    """Return what is known of other simulators (data/validation/peers.yaml)."""
    path = DATA / "validation" / "peers.yaml"
    found: dict[str, Any] = parse_yaml(path.read_text("utf-8"), path.name).data
    rows: list[dict[str, str]] = found["peers"]
    return rows


def peer_rows(judged: Sequence[Judged]) -> Iterator[list[str]]:
    """Yield a row for each peer, with ersatz's mean errors where the table has its runs."""
    for peer in peers():
        mine = [j for j in judged if "rows" in peer and re.search(peer["rows"], j.source)]
        yield [
            peer["peer"],
            peer["points"],
            peer["error"],
            peer["knows"],
            _ours(mine),
            peer["source"],
        ]


def _ours(judged: Sequence[Judged]) -> str:
    if not judged:
        return "-"
    ways = ("lineage_error", "family_error", "seen_error")
    means = (
        math.fsum(abs(math.expm1(getattr(j, way))) for j in judged) / len(judged) for way in ways
    )
    return " / ".join(f"{100 * mean:.0f} %" for mean in means) + f" ({len(judged)} of the runs)"
