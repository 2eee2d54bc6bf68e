"""What `ersatz export` says: the text to paste."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ersatz.sim.exporting.record import Exported


def render_export(found: Exported) -> RenderableType:
    """Return the text alone, so that it can be piped; JSON has no remarks, so what it lacks is below."""
    parts: list[RenderableType] = [Text(found.text.rstrip("\n"))]
    return Group(*parts)
