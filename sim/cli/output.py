"""What a verb prints and writes: reports of 100 columns, JSON, files, progress, complaints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ersatz.sim.cli.app import Failure
from ersatz.sim.report.tables.text import WIDTH, plain_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def deliver(
    name: str, record: Any, view: RenderableType, json: str | None, out: Path | None = None,
    files: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Print a report; write its record to `json`, and `name`.json with `files` into `out`.

    `record` must be of mappings, lists, numbers and text. Raises `Failure` where a file cannot
    be written.
    """
    from ersatz.sim.report.json_out import to_text

    if json != "-":
        console().print(view)
    if json:
        write_text(json, to_text(record))
    if out:
        try:
            out.mkdir(parents=True, exist_ok=True)
            written = {f"{name}.json": to_text(record), "report.txt": plain_text(view)}
            for file, text in {**written, **(files or {})}.items():
                (out / file).write_text(text, "utf-8")
        except OSError as error:
            raise Failure(2, [f"{out}: cannot be written: {error.strerror}"]) from error


def grouped(*views: RenderableType) -> RenderableType:
    """Return several views, one below the other."""
    from rich.console import Group

    return Group(*views)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on a terminal's standard error while several things are simulated."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, width=WIDTH), transient=True) as bar:
        task = bar.add_task("simulating", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


def telling(words: str) -> None:
    """Show on a terminal's standard error what is being done, in place."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{words[:WIDTH]:{WIDTH}}\r")
        sys.stderr.flush()


def console() -> Console:
    """Return the console of the report: 100 columns at most, colour on a terminal only."""
    import shutil

    from rich.console import Console

    terminal = shutil.get_terminal_size((WIDTH, 50)).columns if sys.stdout.isatty() else WIDTH
    width = min(WIDTH, terminal)
    return Console(width=width, highlight=False, markup=False, emoji=False)


def write_text(target: str, text: str) -> None:
    """Write to a path, or to standard output for '-'; raises `Failure`."""
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(2, [f"{target}: cannot be written: {error.strerror}"]) from error


def explain(error: Exception) -> tuple[Sequence[str], int]:
    """Return the lines and the exit status that an exception deserves."""
    from ersatz.sim.errors import InfeasibleError, InputError

    if isinstance(error, InputError):
        return [str(problem) for problem in error.problems], 2
    if isinstance(error, InfeasibleError):
        return [f"infeasible: {line}" for line in str(error).splitlines()], 1
    kind = type(error).__name__
    return [f"ersatz failed: {kind}: {error} (please report this; --debug shows where)"], 70


def complain(lines: Sequence[str], status: int) -> None:
    """Print lines on standard error and end."""
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(status)


def captured(arguments: Sequence[str]) -> str:
    """Return what `ersatz ARGUMENTS` prints, without trailing blanks; complaints at the end."""
    import io
    from contextlib import redirect_stdout

    from ersatz.sim.cli.app import app
    from ersatz.sim.errors import InfeasibleError

    text, complaints = io.StringIO(), ""
    with redirect_stdout(text):
        try:
            app(list(arguments), standalone_mode=False)
        except (Failure, InfeasibleError) as failure:
            lines, status = (
                (failure.lines, failure.status)
                if isinstance(failure, Failure)
                else explain(failure)
            )
            complaints = "\n".join([*lines, f"exit status {status}"])
    return "".join(f"{line.rstrip()}\n" for line in (text.getvalue() + complaints).splitlines())
