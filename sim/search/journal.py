"""What was priced already, in one SQLite file: a search that was killed goes on where it was.

A price belongs to everything that it depends on: model, machine, software, batch, and the code that
worked it out. All of that is in its key, so that a journal of another question or version is never
taken for this one's. Several journals may be read, as those of shards are; the first is written.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.pricing import Price, Pricer, Row

TABLE = (
    "CREATE TABLE IF NOT EXISTS prices"
    " (question TEXT, layout TEXT, peak_bytes REAL, verdict TEXT, seconds REAL,"
    " PRIMARY KEY (question, layout)) WITHOUT ROWID"
)
FIND = "SELECT peak_bytes, verdict, seconds FROM prices WHERE question = ? AND layout = ?"
KEEP = "INSERT OR REPLACE INTO prices VALUES (?, ?, ?, ?, ?)"
CODE = ("sim/step", "sim/plan", "sim/workload", "device_models/kernels", "device_models/networks")
BEGIN = b"SQLite format 3"


def question_key(scenario: Scenario, least: str) -> str:
    """Return the content hash of all that the prices of a scenario's layouts depend on."""
    step = replace(scenario.training, micro_batch=0, tokens=0.0)
    parts = (
        scenario.model, [(p.name, p.node, p.nodes, p.stack) for p in scenario.pools], step,
        scenario.parallel.cp_comm, scenario.parallel.cp_inner, scenario.parallel.expert_layout,
        scenario.fabric, scenario.stragglers, scenario.seed, least, kernel_constants(), _code(),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Return the hash of the code and the constants that price a layout."""
    root, found = DATA.parents[1], hashlib.sha256()
    for room in CODE:
        for path in sorted((root / room).rglob("*.py")):
            found.update(path.read_bytes())
    found.update((DATA / "memory.yaml").read_bytes())
    return found.hexdigest()


@dataclass(slots=True)
class Journal:
    """Opened journals: the first is written, all are read."""

    paths: Sequence[Path]
    _open: list[sqlite3.Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the files; raises `InputError` for one that is no journal or cannot be written."""
        problems = []
        for number, path in enumerate(self.paths):
            try:
                self._open.append(_opened(path, write=number == 0))
            except (sqlite3.Error, OSError, ValueError) as error:
                problems.append(Problem("--journal", 0, 0, "", str(path)[:60], str(error)))
        if problems:
            self.close()
            raise InputError(problems)

    def find(self, question: str, row: Row) -> Price | None:
        """Return what is known of a layout."""
        for one in self._open:
            found = one.execute(FIND, (question, _text(row))).fetchone()
            if found:
                return Price(*found)
        return None

    def keep(self, question: str, row: Row, price: Price) -> None:
        """Note a price: once this returns, killing the process does not lose it."""
        with self._open[0]:
            self._open[0].execute(KEEP, (question, _text(row), *price))

    def count(self) -> int:
        """Return how many prices the first journal holds."""
        return int(self._open[0].execute("SELECT COUNT(*) FROM prices").fetchone()[0])

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.pop().close()


def _text(row: Row) -> str:
    return " ".join(map(str, row))


def _opened(path: Path, *, write: bool) -> sqlite3.Connection:
    if path.exists() and not path.is_file():
        raise ValueError("is no file; expected one, or a new name")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(16).startswith(BEGIN):
                raise ValueError("holds something else than a journal; expected another file")
    if not write and not path.exists():
        raise ValueError("cannot be read: there is no such file")
    with closing(sqlite3.connect(path, timeout=30)) as first:
        first.execute("PRAGMA journal_mode=WAL")
        tables = {
            name for (name,) in first.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        if tables - {"prices"}:
            raise ValueError("is a database of something else; expected another file")
        if write:
            first.execute(TABLE)
        elif not tables:
            raise ValueError("holds no prices")
    found = sqlite3.connect(path, timeout=30)
    found.execute("PRAGMA synchronous=NORMAL")
    return found


@dataclass(slots=True)
class Remembering:
    """Asks a pricer only for what no journal knows."""

    journal: Journal
    question: str
    other: Pricer
    asked: int = 0  # of the other

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        known = self.journal.find(self.question, row)
        if known is None:
            known = self.other.price(row)
            self.asked += 1
            self.journal.keep(self.question, row, known)
        return known

    @property
    def ahead(self) -> int:
        """How many rows the other is to be told of."""
        return self.other.ahead

    def expect(self, rows: Sequence[Row]) -> None:
        """Tell the other of the rows that are not known."""
        self.other.expect([row for row in rows if self.journal.find(self.question, row) is None])

    def close(self) -> None:
        """Let the other end what it has begun."""
        self.other.close()
