"""A report as HTML for a notebook: the paragraphs and tables of the text, escaped.

No colour is set, so that it reads on a light page as on a dark one, and nothing is loaded. What is
neither text nor table stands as it does on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from ersatz.device_models.text.visible import stripped
from ersatz.sim.report.tables.text import plain_text

STYLE = (
    "<style>.ersatz table{border-collapse:collapse;margin:.4em 0}"
    ".ersatz th,.ersatz td{padding:.15em .7em;text-align:left;border:0;background:none;"
    "vertical-align:top;white-space:pre-wrap}"
    ".ersatz thead th{border-bottom:1px solid currentColor}"
    ".ersatz tbody tr{background:none}"
    ".ersatz .right{text-align:right;font-variant-numeric:tabular-nums}"
    ".ersatz p{margin:.2em 0;white-space:pre-wrap}"
    ".ersatz caption{text-align:left;font-weight:bold;white-space:nowrap}</style>"
)


def html(view: RenderableType) -> str:
    """Return a report as one self-contained `<div>`."""
    return f'<div class="ersatz">{STYLE}{"".join(_parts(view))}</div>'


def _parts(view: RenderableType) -> Iterator[str]:
    if isinstance(view, Group):
        for part in view.renderables:
            yield from _parts(part)
    elif isinstance(view, Table):
        yield _table(view)
    elif isinstance(view, Text | str):
        yield _paragraph(view)
    else:
        yield f"<pre>{escape(plain_text(view))}</pre>"


def _paragraph(text: Text | str) -> str:
    words = escape(_plain(text))
    bold = isinstance(text, Text) and "bold" in str(text.style)
    return f"<p>{f'<b>{words}</b>' if bold else words}</p>" if words.strip() else ""


def _plain(cell: RenderableType) -> str:
    if isinstance(cell, Text | str):
        return stripped(str(cell))
    return plain_text(cell).rstrip()


def _table(table: Table) -> str:
    columns = table.columns
    rows = zip(*(column.cells for column in columns), strict=True)
    body = "".join(f"<tr>{_cells('td', columns, row)}</tr>" for row in rows)
    names = [column.header for column in columns]
    head = f"<thead><tr>{_cells('th', columns, names)}</tr></thead>"
    title = f"<caption>{escape(_plain(table.title))}</caption>" if table.title else ""
    shown = head if table.show_header and any(map(_plain, names)) else ""
    return f"<table>{title}{shown}<tbody>{body}</tbody></table>"


def _cells(tag: str, columns: Sequence[Column], cells: Sequence[RenderableType]) -> str:
    return "".join(
        f"<{tag}{_side(column)}>{escape(_plain(cell))}</{tag}>"
        for column, cell in zip(columns, cells, strict=True)
    )


def _side(column: Column) -> str:
    return ' class="right"' if column.justify == "right" else ""
