"""The few parts of which a page is made: cards, tables, bars, sections. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as _escape

from ersatz.device_models.text.visible import stripped
from ersatz.sim.report.pictures.frame import COLOURS

STRIPES = "repeating-linear-gradient(45deg,{0} 0 4px,#fff8 4px 7px)"


def said(text: object) -> str:
    """Return text that is safe inside HTML, without what a terminal would obey."""
    return _escape(stripped(str(text)))


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the first screen: what, the value, and what qualifies it."""

    name: str
    value: str
    more: str = ""
    mood: str = ""  # good, doubtful, bad: shown as a sign and a word, never as a colour alone


SIGNS = {"good": "✓", "doubtful": "!", "bad": "✗"}


def card(title: str, facts: Sequence[Fact]) -> str:
    """Return a box of facts."""
    rows = "".join(_fact(fact) for fact in facts)
    head = f"<h3>{said(title)}</h3>" if title else ""
    return f'<article class="card">{head}<dl>{rows}</dl></article>'


def _fact(fact: Fact) -> str:
    sign = (
        f'<span class="sign {fact.mood}" aria-hidden="true">{SIGNS[fact.mood]}</span> '
        if fact.mood
        else ""
    )
    more = f'<span class="more">{said(fact.more)}</span>' if fact.more else ""
    return f"<div><dt>{said(fact.name)}</dt><dd>{sign}<b>{said(fact.value)}</b>{more}</dd></div>"


def cards(boxes: Iterable[str]) -> str:
    """Return boxes side by side, where there is room."""
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()
) -> str:
    """Return a table that scrolls where it is too wide; `right` are columns of numbers."""
    sides = set(right)

    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(f"<{tag}{' class=r' if i in sides else ''}>{said(cell)}</{tag}>"
                       for i, cell in enumerate(row))  # fmt: skip

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def bars(rows: Iterable[tuple[str, float, str]], most: float = 0.0) -> str:
    """Return (name, size, words) as bars with their words; the longest is `most`, or the largest."""
    listed = [row for row in rows if row[1] > 0]
    most = most or max((size for _, size, _ in listed), default=1.0)
    body = "".join(
        f'<tr><th scope="row">{said(name)}</th><td class=bar><i style="width:{100 * size / most:.1f}%"></i>'
        f"</td><td class=r>{said(text)}</td></tr>"
        for name, size, text in listed
    )
    return f'<div class="wide"><table class="bars"><tbody>{body}</tbody></table></div>'


def stacked(
    rows: Sequence[tuple[str, Mapping[str, float]]], order: Sequence[str], form: str
) -> str:
    """Return a bar per row, split by kind, each part a button that shows its number; with a legend.

    `form` is the unit; sizes are written with four digits. Rows share one scale.
    """
    most = max((sum(parts.values()) for _, parts in rows), default=1.0) or 1.0
    paint = {kind: paint_of(i) for i, kind in enumerate(order)}
    legend = "".join(
        f'<button type="button" class="key" data-kind="{said(kind)}" aria-pressed="false">'
        f'<i style="background:{paint[kind]}"></i>{said(kind)}</button>' for kind in order
    )  # fmt: skip
    lines = "".join(
        f'<tr><th scope="row">{said(name)}</th><td class="stack"><div>'
        + "".join(
            f'<i data-kind="{said(kind)}" style="width:{100 * parts[kind] / most:.2f}%;background:{paint[kind]}"'
            f' title="{said(name)}, {said(kind)}: {parts[kind]:.4g} {said(form)}"></i>'
            for kind in order if parts.get(kind)
        )
        + f'</div></td><td class="r" data-parts="{said(_listed(parts, order))}">{sum(parts.values()):.4g} {said(form)}'
        "</td></tr>"
        for name, parts in rows
    )  # fmt: skip
    return (f'<div class="split" data-unit="{said(form)}"><div class="keys">{legend}</div><div class="wide">'
            f'<table class="stacks"><tbody>{lines}</tbody></table></div></div>')  # fmt: skip


def _listed(parts: Mapping[str, float], order: Sequence[str]) -> str:
    return ";".join(f"{kind}={parts.get(kind, 0.0):.4g}" for kind in order)


def paint_of(i: int) -> str:
    """Return the CSS paint of the i-th kind: eight colours, the next eight striped."""
    if i < len(COLOURS):
        return COLOURS[i]
    return STRIPES.format(COLOURS[i % len(COLOURS)])


def section(title: str, *parts: str, name: str = "") -> str:
    """Return a section; nothing where its parts are empty."""
    body = "".join(parts)
    place = f' id="{said(name)}"' if name else ""
    return f"<section{place}><h2>{said(title)}</h2>{body}</section>" if body else ""


def folded(title: str, body: str, *, opened: bool = False) -> str:
    """Return something that is opened by a click; on paper it is open."""
    return (
        f"<details{' open' if opened else ''}><summary>{said(title)}</summary>{body}</details>"
        if body
        else ""
    )


def sentences(lines: Iterable[object], *, numbered: bool = True) -> str:
    """Return lines as a list; nothing where there are none."""
    items = "".join(f"<li>{said(line)}</li>" for line in lines)
    tag = "ol" if numbered else "ul"
    return f"<{tag}>{items}</{tag}>" if items else ""


def paragraph(text: object, kind: str = "") -> str:
    """Return a paragraph."""
    return f"<p{f' class={kind}' if kind else ''}>{said(text)}</p>" if str(text).strip() else ""


def picture(svg: str) -> str:
    """Return a picture that was drawn here, or `checked`; on a phone it scrolls."""
    return f'<figure class="pic">{svg.strip()}</figure>'
