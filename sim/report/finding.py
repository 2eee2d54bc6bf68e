"""What is known by name: the kinds, the names of one kind, and one thing with its sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.finding.entry import Entry, Shelf
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.tables.text import WIDTH

MOST = 40  # letters of a value that is kept on one line


def kinds_record(shelves: Sequence[Shelf]) -> list[dict[str, Any]]:
    """Return the kinds with how many things they hold."""
    return [{"kind": s.kind, "meaning": s.meaning, "count": len(s.names())} for s in shelves]


def render_kinds(shelves: Sequence[Shelf]) -> RenderableType:
    """Return the table of kinds."""
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("how many", justify="right", no_wrap=True)
    table.add_column("what they are")
    for row in kinds_record(shelves):
        table.add_row(row["kind"], str(row["count"]), row["meaning"])
    return Group(
        table, Text(""), Text("ersatz list KIND names them; ersatz show NAME explains one.")
    )


def shelf_record(shelf: Shelf) -> list[dict[str, str]]:
    """Return the names of a kind, each with its line."""
    return [{"name": name, "line": shelf.line(name)} for name in shelf.names()]


def render_shelf(shelf: Shelf) -> RenderableType:
    """Return the names of a kind, a line each; what is too long for its line is cut."""
    table = Table(box=None, pad_edge=False)
    rows = shelf_record(shelf)
    table.add_column("name", no_wrap=True)
    table.add_column(shelf.meaning, no_wrap=True)
    room = WIDTH - 2 - max(len(row["name"]) for row in rows)
    for row in rows:
        line = row["line"]
        table.add_row(row["name"], line if len(line) <= room else f"{line[: room - 3].rstrip()}...")
    return Group(table, Text(""), Text("ersatz show NAME explains one with its sources."))


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return everything that is known of one thing."""
    record: dict[str, Any] = plain(entry)
    return record


def render_entry(entry: Entry) -> RenderableType:
    """Return one thing with every value, its source, date and confidence."""
    parts: list[RenderableType] = [Text(entry.title, style="bold")]
    if entry.warning:
        parts.append(Text(entry.warning, style="red"))
    if entry.facts:
        parts += [Text(""), _facts(entry)]
    if entry.notes:
        parts += [Text(""), *map(Text, entry.notes)]
    if entry.sources:
        parts += [Text(""), Text("sources:")]
        parts += [Text(f"  {key}  {text}") for key, text in entry.sources.items()]
    return Group(*parts)


def _facts(entry: Entry) -> Table:
    """Return the table of values; what no value has is no column."""
    dated = any(f.date or f.confidence for f in entry.facts)
    short = all(len(f.text) <= MOST for f in entry.facts) and dated
    table = Table(box=None, pad_edge=False)
    table.add_column("value", min_width=26, no_wrap=True)
    table.add_column("", min_width=16, no_wrap=short, overflow="fold")
    table.add_column("source", min_width=8, no_wrap=True)
    if dated:
        table.add_column("date", min_width=7, no_wrap=True)
        table.add_column("confidence", min_width=10, no_wrap=True)
        table.add_column("note", overflow="fold")
    for f in entry.facts:
        more = (f.date, f.confidence, f.note) if dated else ()
        table.add_row(f.key, f.text, f.source, *more)
    return table
