"""What a page is made of: the record of an answer, its pictures, and its report in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Material:
    """An answer as it is shown.

    `record` is what `--json` writes, `pictures` are SVG texts by file name (drawn here, or checked by
    `pictures.checked`), `words` is HTML of the whole report or empty. `day` and `place` are when and
    whereto devices would go: the law is asked about them. `command` is how to get it again.
    """

    verb: str
    record: Record
    pictures: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    day: date | None = None  # None: the last day on which the rules are known
    place: str = "China"
    command: str = ""

    @property
    def cases(self) -> Mapping[str, Record]:
        """Return the records of all cases by name; a single one that has no name of its own is ''."""
        many = self.record.get("cases")
        return many if many else {str(self.record.get("name", "")): self.record}

    def picture(self, name: str) -> str:
        """Return a picture by its file name, or nothing."""
        return self.pictures.get(name, "")


def verb_of(record: Record) -> str:
    """Return the verb that wrote a record; empty where none of those that are shown did."""
    if "step" in record and "memory" in record:
        return "run"
    if "best" in record and "plans" in record:
        return "plan"
    if "policies" in record and "definitions" in record:
        return "schedule"
    if "rows" in record and "summary" in record:
        return "validation"
    cases = record.get("cases")
    first: object = next(iter(cases.values()), None) if isinstance(cases, Mapping) else None
    if isinstance(first, Mapping) and "verdicts" in first and "courses" in first:
        return "legal"
    return "buy" if "notice" in record and first else ""
