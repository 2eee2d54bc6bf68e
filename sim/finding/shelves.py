"""All shelves, and the search for a name on them.

A name is guessed to be of the one kind that knows it; where several do, the kind must be said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.finding.entry import Entry, Shelf
from ersatz.sim.finding.hardware import HARDWARE
from ersatz.sim.finding.market import MARKET
from ersatz.sim.finding.schedulers import SCHEDULERS
from ersatz.sim.finding.texts import TEXTS

SHELVES: dict[str, Shelf] = {
    shelf.kind: shelf for shelf in (*TEXTS, *HARDWARE, *MARKET, *SCHEDULERS)
}


def shelf_of(kind: str) -> Shelf:
    """Return the shelf of a kind, in the plural or the singular; raises `InputError`."""
    wanted = kind.strip().lower()
    for name in (wanted, f"{wanted}s"):
        if name in SHELVES:
            return SHELVES[name]
    expected = f"no such kind{did_you_mean(wanted, SHELVES)}; expected one of {', '.join(SHELVES)}"
    raise InputError([Problem("kind", 0, 0, "", kind, expected)])


def find_entry(name: str, kind: str | None = None) -> Entry:
    """Return what is known of a name; without a kind, of the one kind that knows it.

    With a kind, a path of one's own file will do where files of that kind can be one's own. Raises
    `InputError` where nothing or several things are so called, with near names.
    """
    if kind is not None:
        return _on_shelf(shelf_of(kind), name)
    known = {k: index[name.strip().lower()] for k, shelf in SHELVES.items()
             if name.strip().lower() in (index := _index(shelf))}  # fmt: skip
    if len(known) == 1:
        [(kind, found)] = known.items()
        return SHELVES[kind].entry(found)
    if known:
        raise _fault(name, f"is among {' and '.join(known)}: say which by --kind")
    if _is_path(name):
        if not os.path.exists(name):  # unlike a Path, it bears names that none can have
            raise InputError([Problem(name, 0, 0, "", "", "cannot be read: there is no such file")])
        kinds = ", ".join(k for k, shelf in SHELVES.items() if shelf.by_path)
        raise _fault(name, f"is a path: say by --kind what it holds: {kinds}")
    raise _fault(name, f"nothing is so called{_near(name, SHELVES.values())}; see ersatz list")


def _on_shelf(shelf: Shelf, name: str) -> Entry:
    found = _index(shelf).get(name.strip().lower())
    if found is None and not (shelf.by_path and _is_path(name)):
        raise _fault(name, f"is not among the {shelf.kind}{_near(name, [shelf])}")
    return shelf.entry(found or name)


def _index(shelf: Shelf) -> dict[str, str]:
    """Return the names of a shelf by name and other name, in small letters."""
    return {**shelf.aliases(), **{name.lower(): name for name in shelf.names()}}


def _near(name: str, shelves: Iterable[Shelf]) -> str:
    return did_you_mean(name.strip().lower(), [n for shelf in shelves for n in _index(shelf)])


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml", ".json"))


def _fault(name: str, expected: str) -> InputError:
    return InputError([Problem("name", 0, 0, "", name, expected)])
