"""What a terminal shows: reports of 100 columns, progress, complaints; nothing that it would obey."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ersatz.device_models.text.visible import stripped, visible
from ersatz.sim.report.tables.text import WIDTH, make_console, plain_text

if TYPE_CHECKING:
    from rich.console import RenderableType


def grouped(*views: RenderableType) -> RenderableType:
    """Return several views, one below the other."""
    from rich.console import Group

    return Group(*views)


def show(view: RenderableType) -> None:
    """Print a report on standard output: in colour on a terminal, else as in report.txt.

    Raises OSError, at once and not when the process ends.
    """
    import shutil

    if sys.stdout.isatty():
        columns = shutil.get_terminal_size((WIDTH, 50)).columns
        make_console(width=min(WIDTH, columns)).print(view)
    else:
        sys.stdout.write(plain_text(view))
    sys.stdout.flush()


def say(words: Any) -> None:
    """Print a line on standard error; a reader that went away is no reason to fail."""
    with suppress(OSError):
        print(visible(str(words)), file=sys.stderr, flush=True)


@contextmanager
def _bar(*columns: Any) -> Iterator[Any]:
    from rich.progress import Progress

    with Progress(*columns, console=make_console(stderr=True), transient=True) as bar:
        yield bar


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on a terminal's standard error while several things are simulated."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    with _bar(words, BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("simulating", total=total)
        yield lambda name: bar.update(task, advance=1, description=name[: WIDTH // 2])


@contextmanager
def clock_bar(total_s: float) -> Iterator[Callable[[float, str], None]]:
    """Show on a terminal how much of a time budget is spent, and what is being done."""
    if not sys.stderr.isatty():
        yield lambda spent_s, name: None
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description:50}", markup=False)
    with _bar(words, BarColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=total_s)
        yield lambda spent_s, name: bar.update(task, completed=spent_s, description=name[:50])


def telling(words: str) -> None:
    """Show on a terminal's standard error what is being done, in place."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{stripped(words)[:WIDTH]:{WIDTH}}\r")
        sys.stderr.flush()
