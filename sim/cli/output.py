"""What a verb hands over: its report, its records, its files; and how its failures are worded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ersatz.device_models.text.visible import json_escaped, visible
from ersatz.sim.cli.app import Failure, asked_words
from ersatz.sim.cli.process.inputs import was_read
from ersatz.sim.cli.process.terminal import show
from ersatz.sim.errors import (
    EXIT_BAD_INPUT,
    EXIT_CANNOT_WRITE,
    EXIT_FAULT,
    EXIT_INFEASIBLE,
    BrokenAnswerError,
    InfeasibleError,
    InputError,
)
from ersatz.sim.report.artefacts import ForeignFileError, write_artefacts
from ersatz.sim.report.tables.text import plain_text

if TYPE_CHECKING:
    from rich.console import RenderableType

Files = Mapping[str, str | bytes]  # by wanted name
Drawing = str | bytes | Callable[[], str | bytes]
_BEGINS = {
    ".json": b"{[",
    ".svg": b"<",
    ".html": b"<",
    ".gz": b"\x1f",
    ".yaml": b"#",
    ".scenario": b"qn",  # with its question, a network with its name
}  # how what ersatz writes to a named file begins


def deliver(
    name: str, record: Any, view: RenderableType, json: str | None, out: Path | None = None,
    files: Files | Callable[[], Files] | None = None,
    drawings: Mapping[Path, Drawing] | None = None,
) -> None:  # fmt: skip
    """Print a report; write its record to `json`, and `name`.json with `files` into `out`.

    `record` must be of mappings, lists, finite numbers and text. `files`, or what makes them, are by
    wanted name; bytes are written as they are, text without what a terminal obeys. `drawings` (or what makes
    them: pictures and pages), and
    files that other runs read (YAML that begins with a comment), go to places of their own. Whatever
    cannot be written, the rest is, and the report is shown; then raises `Failure`.
    """
    from ersatz.sim.report.json_out import to_text

    text = json_escaped(to_text(record))
    faults: list[tuple[int, str]] = []
    if out:  # first: the others' places may lie in the folder that this makes
        faults += _attempt(str(out), lambda: _fill(out, name, text, view, files or {}))
    if json and json != "-":
        faults += _attempt(json, lambda: write_file(Path(json), text, ".json"))
    for place, drawing in (drawings or {}).items():
        faults += _attempt(str(place), partial(_draw, place, drawing))
    faults += _attempt("standard output", lambda: _answer(text if json == "-" else view))
    if faults:
        raise Failure(faults[0][0], [line for _, line in faults])


def _draw(place: Path, drawing: Drawing) -> None:
    text = drawing() if callable(drawing) else drawing
    write_file(place, visible(text) if isinstance(text, str) else text, _kind(text))


def _kind(text: str | bytes) -> str:
    if isinstance(text, bytes):
        return ".gz" if text.startswith(b"\x1f") else ".json"
    if text.startswith("<!doctype html>"):
        return ".html"
    return ".svg" if text.startswith("<") else ".yaml"


def _answer(answer: RenderableType) -> None:
    if isinstance(answer, str):
        sys.stdout.write(answer)
        sys.stdout.flush()
    else:
        show(answer)


def _fill(
    out: Path, name: str, text: str, view: RenderableType, files: Files | Callable[[], Files]
) -> None:
    made = files() if callable(files) else files
    ours = {key: visible(v) if isinstance(v, str) else v for key, v in made.items()}
    content = {f"{name}.json": text, "report.txt": plain_text(view), **ours}
    write_artefacts(out, *asked_words(), content)


def _attempt(place: str, write: Callable[[], None]) -> list[tuple[int, str]]:
    """Try to write; returns the exit status and the sentence of a failure."""
    try:
        write()
    except BrokenPipeError:
        raise
    except Failure as failure:
        return [(failure.status, line) for line in failure.lines]
    except OSError as error:
        return [(EXIT_CANNOT_WRITE, cannot_be_written(place, error))]
    return []


def cannot_be_written(place: str | Path, error: OSError) -> str:
    """Return the sentence for something that could not be written."""
    if isinstance(error, ForeignFileError):
        return f"{error.filename}: {error.strerror}"
    return f"{place}: cannot be written: {error.strerror or error}"


def write_file(path: Path, text: str | bytes, kind: str) -> None:
    """Write one file to the place that a person named, whole or not at all.

    `kind` is a key of `_BEGINS`: what stands there and is neither empty nor of that kind is left alone, and
    so is what the run was made from. Raises `Failure` for these, and OSError.
    """
    from ersatz.device_models.text.whole import write_whole

    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with target.open("wb") as stream:  # a device or a pipe is never replaced
            stream.write(text.encode("utf-8") if isinstance(text, str) else text)
        return
    if was_read(target):
        raise Failure(EXIT_BAD_INPUT, [f"{path}: the run was made from it; expected another file"])
    if target.is_file():
        with target.open("rb") as file:
            begin = file.read(4096).lstrip()[:1]
        if begin not in (b"", *(bytes([c]) for c in _BEGINS[kind])):
            words = f"{path}: holds something else than {kind[1:].upper()}; expected another file"
            raise Failure(EXIT_BAD_INPUT, [words])
    write_whole(target, text)


def explain(error: Exception) -> tuple[Sequence[str], int]:
    """Return the lines and the exit status that an exception deserves."""
    if isinstance(error, Failure):
        return error.lines, error.status
    if isinstance(error, InputError):
        return [str(problem) for problem in error.problems], EXIT_BAD_INPUT
    if isinstance(error, InfeasibleError):
        return [f"infeasible: {line}" for line in str(error).splitlines()], EXIT_INFEASIBLE
    if isinstance(error, BrokenAnswerError):
        begin = (
            "the answer is not shown, for it cannot be true (a fault of ersatz: please report this)"
        )
        return [begin, *error.broken], EXIT_FAULT
    kind = type(error).__name__
    return [f"ersatz failed: {kind}: {error} (please report this; --debug shows where)"], EXIT_FAULT


def captured(arguments: Sequence[str]) -> str:
    """Return what `ersatz ARGUMENTS` prints, without trailing blanks; complaints at the end, as wide."""
    import io
    from contextlib import redirect_stdout
    from textwrap import wrap

    from ersatz.sim.cli.app import invoke
    from ersatz.sim.report.tables.text import WIDTH

    text, complaints = io.StringIO(), ""
    with redirect_stdout(text):
        try:
            invoke(list(arguments))
        except (Failure, InfeasibleError) as failure:
            lines, status = explain(failure)
            said = [part for line in lines for part in wrap(line, WIDTH, break_on_hyphens=False)]
            complaints = "\n".join([*said, f"exit status {status}"])
    return "".join(f"{line.rstrip()}\n" for line in (text.getvalue() + complaints).splitlines())
