"""A report as text: 100 columns, no colour, no blanks at the ends of lines; nothing that a terminal obeys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from ersatz.device_models.text.visible import is_plain, stripped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 100


def make_console(
    file: IO[str] | None = None, *, stderr: bool = False, width: int = WIDTH
) -> Console:
    """Return a console that takes out of all text what a terminal would obey."""
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class Harmless(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or is_plain(segment.text):
                    yield segment
                else:
                    yield Segment(stripped(segment.text), segment.style)

    return Harmless(
        file=file, stderr=stderr, width=width, highlight=False, markup=False, emoji=False
    )


def plain_text(view: RenderableType) -> str:
    """Return the report as text of 100 columns."""
    import io

    text = io.StringIO()
    make_console(text).print(view)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())
