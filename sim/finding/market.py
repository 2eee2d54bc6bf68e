"""Prices and other dated market values, by item."""

from __future__ import annotations

from ersatz.sim.finding.entry import Entry, Shelf, stated
from ersatz.sim.market.items import items
from ersatz.sim.market.observations import Observation
from ersatz.sim.market.prices import market_prices


def _rows(item: str) -> list[Observation]:
    return [row for series in market_prices().series if series[0].item == item for row in series]


def _line(item: str) -> str:
    rows = _rows(item)
    if not rows:
        return f"{items()[item].meaning}: by the rules"
    days = sorted(row.day for row in rows)
    if len(rows) == 1:
        return f"{items()[item].meaning}: one observation, {days[0]:%Y-%m}"
    seen = f"{len(rows)} observations, {days[0]:%Y-%m} to {days[-1]:%Y-%m}"
    return f"{items()[item].meaning}: {seen}"


def _entry(item: str) -> Entry:
    about, rows = items()[item], _rows(item)
    sources = {f"P{i}": text for i, text in enumerate(dict.fromkeys(r.source for r in rows), 1)}
    short = {text: name for name, text in sources.items()}
    facts = tuple(
        stated(f"{row.device or '*'} in {row.region}", _amount(row), short[row.source],
               date=str(row.day)[:7], confidence=row.confidence, note=_note(row))
        for row in sorted(rows, key=lambda r: (r.device, r.region, r.day))
    )  # fmt: skip
    notes = (f"an observation holds {about.back} months before and {about.ahead} after it",)
    if not rows:
        notes = ("follows from the rules: ersatz list rules",)
    return Entry("prices", item, f"{item}: {about.meaning}", facts, "", notes, sources)


def _amount(row: Observation) -> str:
    span = f"{row.low:,.6g} - {row.high:,.6g}"
    value = f"{row.mid:,.6g}" if row.low == row.high else f"{row.mid:,.6g} ({span})"
    return f"{value} {row.unit}"


def _note(row: Observation) -> str:
    bought = f"{row.basis} of {row.devices}" if row.basis == "server" else row.basis
    return "; ".join(part for part in (row.kind, bought, row.note) if part)


MARKET = (Shelf("prices", "prices and other dated values of the market", lambda: list(items()),
                _line, _entry),)  # fmt: skip
