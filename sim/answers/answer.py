"""What every question gives: records by case, a report as text or HTML, and plain data.

An answer is a read-only mapping from the name of a case to its record. Nothing is computed here,
and a report is laid out only when somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ersatz.sim.report.json_out import to_text
from ersatz.sim.report.tables.text import plain_text

if TYPE_CHECKING:
    from datetime import date

    from rich.console import RenderableType

    from ersatz.sim.report.page.material import Material

Record = TypeVar("Record", covariant=True)
Item = TypeVar("Item")
Overrides = Mapping[str, object] | Sequence[str]
# Called with how much there is to do; gives what is told the name of each thing done.
Watch = Callable[[int], AbstractContextManager[Callable[[str], None]]]


@contextmanager
def unwatched(total: int) -> Iterator[Callable[[str], None]]:
    """Show no progress."""
    yield lambda name: None


def _no_files() -> Mapping[str, str | bytes]:
    return {}


@dataclass(frozen=True, eq=False, repr=False)
class Answer(Mapping[str, Record], Generic[Record]):
    """The answer to a question: a read-only mapping from the name of a case to its record.

    `str()` gives the report that the command line prints, a notebook shows it as a table,
    `to_dict()` gives what `--json` writes, and `files()` what `--out` adds: pictures (SVG) and tables
    by file name. `reasons`
    says why something is infeasible, where the command would end with status 1.
    """

    verb: str
    records: Mapping[str, Record]
    view: Callable[[], RenderableType] = field(kw_only=True)
    record: Callable[[], Any] = field(kw_only=True)
    files: Callable[[], Mapping[str, str | bytes]] = field(default=_no_files, kw_only=True)
    reasons: tuple[str, ...] = field(default=(), kw_only=True)

    def __getitem__(self, name: str) -> Record:
        """Return the record of a case; the error names those that there are."""
        try:
            return self.records[name]
        except KeyError:
            raise KeyError(f"{name!r}: expected one of {', '.join(self.records)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        """Return the report as the command line prints it."""
        return plain_text(self.view()).rstrip("\n")

    def __repr__(self) -> str:
        return f"<ersatz {self.verb}: {', '.join(self.records)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first screen of the page, and the report folded below."""
        from ersatz.sim.report.page.page import PAGES, first_screen
        from ersatz.sim.report.tables.html import html

        return first_screen(self.material()) if self.verb in PAGES else html(self.view())

    def material(
        self, day: date | None = None, place: str = "China", command: str = ""
    ) -> Material:
        """Return what a page of it is made of; the law is asked for `day` (the last known) and `place`."""
        from ersatz.sim.report.page.material import Material
        from ersatz.sim.report.tables.html import html

        return Material(
            self.verb, self.record(), words=html(self.view()), day=day, place=place, command=command
        )

    def to_html(self, day: date | None = None, place: str = "China", command: str = "") -> str:
        """Return one self-contained page: the answer, why, pictures, what was assumed.

        `day` and `place` are when and whereto devices would go, for what the law says of them; by
        default the last day on which the rules are known, and China. Raises `ValueError` for an
        answer of a kind that has no page.
        """
        from ersatz.sim.report.page.page import PAGES, whole_page

        if self.verb not in PAGES:
            raise ValueError(f"{self.verb}: has no page; expected an answer of {', '.join(PAGES)}")
        return whole_page([replace(self.material(day, place, command), pictures=self.pictures())])

    def pictures(self) -> dict[str, str]:
        """Return the pictures among the files: SVG text by name."""
        return {name: text for name, text in self.files().items()
                if isinstance(text, str) and name.endswith(".svg")}  # fmt: skip

    @property
    def feasible(self) -> bool:
        """Tell whether everything asked about can be done."""
        return not self.reasons

    def to_dict(self) -> Any:
        """Return everything as mappings, lists, numbers and text: what `--json` writes."""
        return self.record()

    def to_json(self) -> str:
        """Return the text that `--json` writes."""
        return to_text(self.record())


def by_name(pairs: Iterable[tuple[str, Item]]) -> dict[str, Item]:
    """Return records by name; a name that comes again is numbered, so that none is lost."""
    found: dict[str, Item] = {}
    for name, record in pairs:
        again = (f"{name} ({i})" for i in count(2))
        found[name if name not in found else next(n for n in again if n not in found)] = record
    return found


def override_texts(overrides: Overrides) -> list[str]:
    """Return overrides as the command line takes them: {"parallel.tp": 2} is "parallel.tp=2"."""
    if isinstance(overrides, Mapping):
        return [f"{key}={_written(value)}" for key, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _written(value: object) -> str:
    """Write a value as YAML reads it; JSON is YAML, and a text stands as it is."""
    if isinstance(value, str | Path):
        return str(value)
    return to_text(value).replace("\n", " ").strip()
