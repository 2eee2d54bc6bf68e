"""Rows of a trace file: read once, every cell that cannot be used named with its line.

A reader says which columns it needs and how a row becomes a job; a row that is sound but is no job
yields the reason as text (None: it never ran, or used no device), and is counted by it. Files may be
gzip-compressed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.workload.jobs import Job, Workload

MOST_PROBLEMS = 50  # after which the rest of a file is not looked at
MOST_BYTES = MAX_TABLE_BYTES  # of text
MOST_RATIO = 200  # of text to its gzip file, beyond ...
FREE_BYTES = 16 * 2**20  # ... so much text
MOST_NUMBER = 1e15
FOREVER_S = 100 * 365.25 * 86400.0  # run time of what never ended


class CellError(ValueError):
    """A cell that cannot be used: (column, value, what was expected)."""

    def __init__(self, key: str, value: str, expected: str) -> None:
        self.key, self.value, self.expected = key, value, expected
        super().__init__(expected)


@dataclass(slots=True)
class Row:
    """One row; its cells as text, by column."""

    line: int
    cells: dict[str, str]
    fault: str = ""  # why it is none
    data: Any = None  # what it was made of, where that has no columns
    raw: str = ""  # the text of the line, ...
    delimiter: str = ""  # ... and what stands between its cells; empty: blanks

    def column(self, key: str) -> int:
        """Return at which character of its line a cell begins, from 1 on; 1 where that is not known."""
        if not self.raw or key not in self.cells:
            return 1
        at = list(self.cells).index(key)
        starts = _starts(self.raw, self.delimiter)
        return starts[at] + 1 if at < len(starts) else 1

    def text(self, key: str) -> str:
        """Return a cell; empty if the file has no such column."""
        return self.cells.get(key, "").strip()

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Return a number of at least `least`; raises `CellError`. Blank cells are `default`."""
        cell = self.text(key)
        if not cell and default is not None:
            return default
        try:  # Python also reads digits of other scripts, and '1_000'
            value = float(cell) if cell.isascii() and "_" not in cell else math.nan
        except ValueError:
            value = math.nan
        if abs(value) > MOST_NUMBER:
            raise CellError(key, cell, f"expected at most {MOST_NUMBER:g}")
        if not value >= least:
            low = "a number" if least == -math.inf else f"a number from {least:g} on"
            raise CellError(key, cell, f"expected {low}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number that is not negative; raises `CellError`."""
        value = self.number(key, None if default is None else float(default))
        if value != int(value):
            raise CellError(key, self.text(key), "expected a whole number")
        return int(value)

    def clock(self, key: str) -> float:
        """Return a date and time as seconds since 1970; raises `CellError`. No zone: UTC."""
        cell = self.text(key)
        try:
            moment = datetime.fromisoformat(cell)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise CellError(key, cell, "expected a date, like 2020-06-09 18:41:01") from None


def _starts(line: str, delimiter: str) -> list[int]:
    """Return where the cells of a line begin; quoted ones may hold the delimiter."""
    if not delimiter:
        return [match.start() for match in re.finditer(r"\S+", line)]
    starts, quoted = [0], False
    for at, letter in enumerate(line):
        quoted ^= letter == '"'
        if letter == delimiter and not quoted:
            starts.append(at + 1)
    return starts


Make = Callable[[Row], Job | str | None]
T = TypeVar("T")
NO_JOB = "no run, or no device"


def sound(row: Row) -> Row:
    """Return a row as it is; raises `CellError` for one that is none."""
    if row.fault:
        raise CellError("", "", row.fault)
    return row


def open_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a file, unpacked if it is gzip; raises `InputError`.

    Only what is a file is read, and no more of it than `MOST_BYTES`. `errors` is Python's word for
    what to do with bytes that are no UTF-8.
    """
    raw = read_file(path, MOST_BYTES)
    if raw[:2] == b"\x1f\x8b":
        raw = _unpacked(path, raw)
    try:
        return raw.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        fail(path, "is no UTF-8 text", raw.count(b"\n", 0, error.start) + 1)


def _unpacked(path: Path, packed: bytes) -> bytes:
    """Return what a gzip file holds, unless it is a bomb."""
    raw = bytearray()
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            while chunk := stream.read(2**20):
                raw += chunk
                if len(raw) > MOST_BYTES:
                    fail(path, f"unpacks to more than {MOST_BYTES:,} bytes; expected at most that")
                if len(raw) > max(FREE_BYTES, MOST_RATIO * len(packed)):
                    fail(path, f"unpacks to more than {MOST_RATIO} times its size")
    except (EOFError, OSError, zlib.error):
        fail(path, "is a broken gzip file")
    return bytes(raw)


def read_json(path: Path) -> Any:
    """Return the data of a JSON file; raises `InputError`."""
    try:
        return json.loads(open_text(path))
    except json.JSONDecodeError as error:
        fail(path, f"is no JSON: {error.msg}", error.lineno)
    except RecursionError:
        fail(path, "is nested too deeply; expected jobs")
    except ValueError as error:  # a number of thousands of digits
        if isinstance(error, InputError):
            raise
        fail(path, f"is no JSON: {error}")


def shown(value: object) -> str:
    """Write data of any depth and length in short."""
    return value if isinstance(value, str) else reprlib.repr(value)


def fail(path: Path, expected: str, line: int = 0) -> NoReturn:
    """Raise the `InputError` of one fault."""
    raise InputError([Problem(str(path), line, 1 if line else 0, "", "", expected)])


def csv_rows(
    path: Path, needed: Iterable[str], *, delimiter: str = ",", header: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a CSV file. Without a `header` the first line is one.

    Raises `InputError` for missing columns. A row of another length has a fault and no cells.
    """
    text = open_text(path)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        names = list(header) if header else next(reader, [])
        missing = [name for name in needed if name not in names]
        problems = [
            Problem(str(path), 1, 1, name, "", f"column is missing{did_you_mean(name, names)}")
            for name in missing
        ]
        problems += [
            Problem(str(path), 1, 1, name, "", "column stands twice")
            for name in dict.fromkeys(names)
            if name and names.count(name) > 1
        ]
        if problems:
            raise InputError(problems)
        lines = text.splitlines()
        for cells in reader:
            at = reader.line_num
            raw = lines[at - 1] if at <= len(lines) else ""
            if len(cells) == len(names):
                yield Row(at, dict(zip(names, cells, strict=True)), "", None, raw, delimiter)
            elif any(cells):
                fault = f"has {len(cells)} cells; expected {len(names)}"
                yield Row(at, {}, fault)
    except csv.Error as error:
        fail(path, f"is no CSV: {error}", reader.line_num)


def items_of(path: Path, rows: Iterable[Row], make: Callable[[Row], T]) -> list[T]:
    """Return what rows become.

    Raises `InputError` with every row that cannot be read, the first `MOST_PROBLEMS` of them.
    """
    items: list[T] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            items.append(make(sound(row)))
        except CellError as error:
            problems.append(Problem(str(path), row.line, row.column(error.key), error.key,
                                    error.value[:60], error.expected))  # fmt: skip
        except ValueError as error:
            problems.append(Problem(str(path), row.line, 1, "", "", str(error)))
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise InputError(problems)
    return items


def jobs_of(path: Path, rows: Iterable[Row], make: Make) -> tuple[list[Job], Counter[str]]:
    """Return the jobs of rows, and why how many others are none; raises `InputError`."""
    lines: dict[str, int] = {}

    def once(row: Row) -> Job | str:
        job = make(row)
        if isinstance(job, Job) and lines.setdefault(job.id, row.line) != row.line:
            raise ValueError(f"job id {job.id!r} stands twice; first in line {lines[job.id]}")
        return NO_JOB if job is None else job

    found = items_of(path, rows, once)
    left_out = Counter(reason for reason in found if isinstance(reason, str))
    return [job for job in found if isinstance(job, Job)], left_out


def workload_of(
    path: Path, jobs: list[Job], source: str, left_out: Mapping[str, int] | None = None
) -> Workload:
    """Return jobs as a workload whose first is submitted at 0; raises `InputError` if there is none."""
    left_out = left_out or {}
    why = "".join(
        f"; {count:,} rows left out: {reason}" for reason, count in sorted(left_out.items())
    )
    if not jobs:
        fail(path, f"has no job that ran{why}")
    origin = min(job.submit_s for job in jobs)
    if origin:
        jobs = [replace(job, submit_s=job.submit_s - origin, deadline_s=job.deadline_s - origin)
                for job in jobs]  # fmt: skip
    try:
        return Workload(tuple(jobs), path.name.split(".")[0], source + why)
    except ValueError as error:
        fail(path, str(error))


def read_csv(path: Path, needed: Iterable[str], make: Make, source: str) -> Workload:
    """Read a CSV file with a header into a workload."""
    jobs, left_out = jobs_of(path, csv_rows(path, needed), make)
    return workload_of(path, jobs, source, left_out)
