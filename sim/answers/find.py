"""What ersatz knows by name, as answers: `catalogue`, `show` and `devices`."""

from __future__ import annotations

from ersatz.sim.answers.answer import Answer
from ersatz.sim.finding.entry import Entry
from ersatz.sim.finding.shelves import SHELVES, find_entry, shelf_of
from ersatz.sim.report.devices import device_list_records, render_device_list
from ersatz.sim.report.finding import (
    entry_record,
    kinds_record,
    render_entry,
    render_kinds,
    render_shelf,
    shelf_record,
)


def catalogue(kind: str | None = None) -> Answer[str]:
    """List what is known: the kinds, or the things of one kind, with a line each.

    Kinds are models, scenarios, rules, devices, parts, nodes, networks, stacks, prices and
    schedulers. Raises `InputError` for another.
    """
    if kind is None:
        shelves = list(SHELVES.values())
        return Answer(
            "list", {shelf.kind: shelf.meaning for shelf in shelves},
            view=lambda: render_kinds(shelves), record=lambda: kinds_record(shelves),
        )  # fmt: skip
    shelf = shelf_of(kind)
    return Answer(
        "list", {name: shelf.line(name) for name in shelf.names()},
        view=lambda: render_shelf(shelf), record=lambda: shelf_record(shelf),
    )  # fmt: skip


def show(name: str, kind: str | None = None) -> Answer[Entry]:
    """Explain one thing: every value, with its source, date and confidence.

    The kind is guessed; it must be said where a name is of several kinds, and for the path of a
    file of one's own. Raises `InputError` where nothing or several things are so called.
    """
    entry = find_entry(name, kind)
    return Answer("show", {entry.name: entry}, view=lambda: render_entry(entry),
                  record=lambda: entry_record(entry))  # fmt: skip


def devices() -> Answer[dict[str, object]]:
    """Return the accelerators of the catalogue with their main figures, in SI units."""
    return Answer("devices", {row["name"]: row for row in device_list_records()},
                  view=render_device_list, record=device_list_records)  # fmt: skip
