"""What is said of steps that go out as traces, and of those that come in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ersatz.device_models.text.units import format_duration


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
