"""A report as text: 100 columns, no colour, no blanks at the ends of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100


def plain_text(view: RenderableType) -> str:
    """Return the report as text of 100 columns."""
    import io

    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDTH, highlight=False, markup=False, emoji=False).print(view)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())
