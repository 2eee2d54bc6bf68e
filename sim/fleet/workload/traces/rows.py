"""Rows of a trace file: read once, every cell that cannot be used named with its line.

A reader says which columns it needs and how a row becomes a job; a row that is sound but is no job
(it never ran, or used no device) yields None and is counted. Files may be gzip-compressed.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.workload.jobs import Job, Workload

MOST_PROBLEMS = 50  # after which the rest of a file is not looked at
MOST_BYTES = 4 * 2**30  # of text: no gzip bomb
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

    def text(self, key: str) -> str:
        """Return a cell; empty if the file has no such column."""
        return self.cells.get(key, "").strip()

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Return a number of at least `least`; raises `CellError`. Blank cells are `default`."""
        cell = self.text(key)
        if not cell and default is not None:
            return default
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
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
        except ValueError:
            raise CellError(key, cell, "expected a date, like 2020-06-09 18:41:01") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


Make = Callable[[Row], Job | None]


def open_text(path: Path) -> str:
    """Return the text of a file, unpacked if it is gzip; raises `InputError`."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as packed:
                raw = packed.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            fail(path, f"holds more than {MOST_BYTES >> 30} GiB")
        return raw.decode("utf-8-sig")
    except OSError as error:
        fail(path, f"cannot be read: {error.strerror or error}")
    except (EOFError, zlib.error):
        fail(path, "is a broken gzip file")
    except UnicodeDecodeError:
        fail(path, "is no UTF-8 text")


def fail(path: Path, expected: str, line: int = 0) -> NoReturn:
    """Raise the `InputError` of one fault."""
    raise InputError([Problem(str(path), line, 1 if line else 0, "", "", expected)])


def csv_rows(
    path: Path, needed: Iterable[str], *, delimiter: str = ",", header: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a CSV file. Without a `header` the first line is one.

    Raises `InputError` for missing columns, and at once for a row of another length.
    """
    reader = csv.reader(io.StringIO(open_text(path)), delimiter=delimiter)
    try:
        names = list(header) if header else next(reader, [])
        missing = [name for name in needed if name not in names]
        if missing:
            raise InputError(
                Problem(str(path), 1, 1, name, "", f"column is missing{did_you_mean(name, names)}")
                for name in missing
            )
        for cells in reader:
            if len(cells) == len(names):
                yield Row(reader.line_num, dict(zip(names, cells, strict=True)))
            elif any(cells):
                fail(path, f"has {len(cells)} cells; expected {len(names)}", reader.line_num)
    except csv.Error as error:
        fail(path, f"is no CSV: {error}", reader.line_num)


def jobs_of(path: Path, rows: Iterable[Row], make: Make) -> tuple[list[Job], int]:
    """Return the jobs of rows and the number of those that are none.

    Raises `InputError` with every row that cannot be read, the first `MOST_PROBLEMS` of them.
    """
    jobs: list[Job] = []
    left_out = 0
    problems: list[Problem] = []
    for row in rows:
        try:
            job = make(row)
        except CellError as error:
            problems.append(Problem(str(path), row.line, 1, error.key, error.value[:60],
                                    error.expected))  # fmt: skip
        except ValueError as error:
            problems.append(Problem(str(path), row.line, 1, "", "", str(error)))
        else:
            if job is None:
                left_out += 1
            else:
                jobs.append(job)
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise InputError(problems)
    return jobs, left_out


def workload_of(path: Path, jobs: list[Job], source: str, left_out: int = 0) -> Workload:
    """Return jobs as a workload whose first is submitted at 0; raises `InputError` if there is none."""
    if not jobs:
        fail(path, "has no job that ran")
    origin = min(job.submit_s for job in jobs)
    if origin:
        jobs = [replace(job, submit_s=job.submit_s - origin) for job in jobs]
    note = f"; {left_out:,} rows left out: no run, or no device" if left_out else ""
    try:
        return Workload(tuple(jobs), path.name.split(".")[0], source + note)
    except ValueError as error:
        fail(path, str(error))


def read_csv(path: Path, needed: Iterable[str], make: Make, source: str) -> Workload:
    """Read a CSV file with a header into a workload."""
    jobs, left_out = jobs_of(path, csv_rows(path, needed), make)
    return workload_of(path, jobs, source, left_out)
