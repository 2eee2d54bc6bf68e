"""Read a table of measured training runs: CSV with the columns of `REQUIRED` and `OPTIONAL`.

Cells that cannot be read are reported with line and column; the row is then left out. Blank cells
are unknown and become None.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_text_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean

REQUIRED = ("device", "n_devices", "layers", "hidden", "seq_len", "metric_name", "metric_value")
NUMBERS = (
    "n_devices", "devices_per_node", "params_total_b", "params_active_b", "layers", "hidden",
    "ffn_hidden", "heads", "kv_heads", "head_dim", "vocab", "seq_len", "n_experts", "top_k",
    "shared_experts", "moe_ffn_hidden", "global_batch_seqs", "micro_batch", "tp", "pp", "vpp", "cp",
    "ep", "dp", "metric_value", "peak_memory",
)  # fmt: skip
MEASURED = ("params_total_b", "params_active_b", "metric_value", "peak_memory")  # the others count
TEXTS = (
    "id", "source", "source_ref", "confidence", "vendor", "device", "model_name", "attention_kind",
    "sharding", "seq_parallel", "recompute", "precision", "framework", "interconnect_note",
    "metric_name", "metric_unit", "mfu_definition_note", "notes", "peak_memory_unit",
    "peak_memory_counts",
)  # fmt: skip
SHAPE = ("heads", "kv_heads", "head_dim", "vocab", "ffn_hidden", "moe_ffn_hidden", "n_experts", "top_k",
         "shared_experts")  # fmt: skip
MOST = {"layers": 2000.0, "n_devices": 1e7, "pp": 1e4, "vpp": 1e4, "global_batch_seqs": 1e9}
LEAST = 1e-15  # what is smaller is no measurement: times made of it are beyond any number
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
MAX_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run; `texts` and `numbers` hold the cells that are not blank."""

    line: int
    texts: dict[str, str]
    numbers: dict[str, float]
    inferred: dict[str, str] = field(default_factory=dict)  # blank cells that other rows fill

    @property
    def id(self) -> str:
        """The row's id, or its line when it has none."""
        return self.texts.get("id") or f"line {self.line}"

    def text(self, name: str) -> str:
        """Return a text cell; blank cells are empty."""
        return self.texts.get(name, "")

    def number(self, name: str) -> float | None:
        """Return a numeric cell, or None when it is blank."""
        return self.numbers.get(name)

    def count(self, name: str, default: int = 0) -> int:
        """Return a whole number, or `default` when the cell is blank."""
        value = self.numbers.get(name)
        return default if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that could be read, and what was wrong with the others."""

    file: str
    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


def read_table(path: Path | str) -> Table:
    """Read a table; raises `InputError` when nothing in it can be used."""
    file = str(path)
    text = read_text_file(path, "CSV", MAX_TABLE_BYTES)
    if "\x00" in text:
        raise _fault(file, "is a binary file; expected CSV")
    reader = csv.reader(text.splitlines(keepends=True))
    try:
        header = next(reader)
    except StopIteration:
        raise _fault(file, "is empty; expected CSV with a header") from None
    except csv.Error as error:
        raise _fault(file, f"is no CSV: {error}") from error
    _check_header(file, header)
    runs: list[Run] = []
    problems: list[Problem] = []
    for run, faults in _rows(file, header, reader):
        problems += faults
        if not faults:
            runs.append(run)
    if not runs:
        raise InputError(problems or [Problem(file, 1, 0, "", "", "has no rows")])
    return Table(file, with_siblings(runs), tuple(problems))


def with_siblings(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Return the rows with blank cells of a shape filled from rows of the same source and model.

    Only where all of these state the same number; what was filled stands in `Run.inferred`.
    """
    stated: dict[object, dict[str, set[float]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for key in SHAPE:
            if run.number(key):
                stated[_shape_of(run)][key].add(run.numbers[key])
    return tuple(_filled(run, stated[_shape_of(run)]) for run in runs)


def _shape_of(run: Run) -> object:
    return (run.text("source"), run.text("model_name"), run.number("layers"), run.number("hidden"))


def _filled(run: Run, stated: dict[str, set[float]]) -> Run:
    blank = {key: next(iter(stated[key])) for key in SHAPE
             if not run.number(key) and len(stated.get(key, ())) == 1}  # fmt: skip
    if not blank:
        return run
    words = {key: f"{value:g} (as other rows of the same source and model say)"
             for key, value in blank.items()}  # fmt: skip
    return replace(run, numbers={**run.numbers, **blank}, inferred=words)


def _fault(file: str, expected: str) -> InputError:
    return InputError([Problem(file, 0, 0, "", "", expected)])


def _check_header(file: str, header: list[str]) -> None:
    problems = [
        Problem(file, 1, 0, name, "", f"column is missing{did_you_mean(name, header)}")
        for name in REQUIRED
        if name not in header
    ]
    problems += [
        Problem(file, 1, header.index(name) + 1, name, "", "column stands twice")
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    if problems:
        raise InputError(problems)


def _rows(
    file: str, header: list[str], reader: Iterator[list[str]]
) -> Iterator[tuple[Run, list[Problem]]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Run(0, {}, {}), [Problem(file, 0, 0, "", "", f"is no CSV: {error}")]
            return
        line = reader.line_num  # type: ignore[attr-defined]
        if not any(cells):
            continue
        if len(cells) != len(header):
            yield (
                Run(line, {}, {}),
                [Problem(file, line, 0, "", "", f"has {len(cells)} cells; expected {len(header)}")],
            )
            continue
        yield _run(file, line, header, cells)


def _run(file: str, line: int, header: list[str], cells: list[str]) -> tuple[Run, list[Problem]]:
    texts: dict[str, str] = {}
    numbers: dict[str, float] = {}
    problems: list[Problem] = []
    for column, (name, raw) in enumerate(zip(header, cells, strict=True), start=1):
        cell = raw.strip()
        if not cell:
            continue
        if name in NUMBERS:
            value = _number(cell, MOST.get(name, 1e15))
            whole = name not in MEASURED
            if value is None or (whole and not value.is_integer()):
                most = f" and at most {MOST[name]:g}" if name in MOST else ""
                kind = "whole number" if whole else "number"
                expected = f"expected a {kind} above 0{most}, or a blank cell"
                problems.append(Problem(file, line, column, name, cell[:60], expected))
            else:
                numbers[name] = value
        elif name in TEXTS:
            texts[name] = cell
    return Run(line, texts, numbers), problems


def _number(cell: str, most: float) -> float | None:
    if "," in cell and not THOUSANDS.fullmatch(cell):
        return None  # a decimal comma, say: 3,2 is not 32
    try:
        value = float(cell.replace(",", ""))
    except ValueError:
        return None
    return value if value == 0 or LEAST <= value <= most else None
