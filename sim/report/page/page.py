"""A whole page: one file that needs nothing else, and the first screen alone for a notebook.

The page runs one script, which is its own and named by its hash: whatever a record or a picture holds, a
browser runs nothing else, and asks nobody for anything (Content-Security-Policy).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from ersatz.device_models.text.visible import stripped
from ersatz.sim.report.page import (
    buy_page,
    fleet_page,
    legal_page,
    plan_page,
    run_page,
    validation_page,
)
from ersatz.sim.report.page.markup import folded, paragraph, said
from ersatz.sim.report.page.material import Material
from ersatz.sim.report.page.pictures import within

NOTICE = "A model's estimate, no measurement; the documentation says how far off it can be."
PAGES: dict[str, ModuleType] = {"run": run_page, "compare": run_page, "result": run_page, "buy": buy_page,
                                "legal": legal_page, "plan": plan_page, "schedule": fleet_page, "validation": validation_page}  # fmt: skip
TITLES = {
    "legal": "May it be bought?",
    "validation": "How far off are predictions?",
}  # without a question
HERE = Path(__file__).parent


@cache
def asset(name: str) -> str:
    """Return a file of this room: the style or the script."""
    return (HERE / name).read_text("utf-8")


def script_hash(text: str) -> str:
    """Return how a policy names a script."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


# Of a notebook's page, whose colours are its own.
NOTEBOOK = (
    "<style>.ersatz .cards{display:flex;flex-wrap:wrap;gap:10px}.ersatz .card{border:1px solid;border-radius:8px;"
    "padding:8px 12px;min-width:280px;max-width:460px}.ersatz dl{margin:0}.ersatz dl div{display:grid;"
    "grid-template-columns:7em 1fr;gap:8px;padding:2px 0}.ersatz dt{opacity:.7}.ersatz dd{margin:0}"
    ".ersatz .more{display:block;opacity:.75;font-size:.9em}</style>"
)


def first_screen(m: Material) -> str:
    """Return the answer alone as HTML, in the colours of the page around it; the report is folded below."""
    return f'<div class="ersatz">{NOTEBOOK}{_answer(m)}{folded("The whole report", m.words)}</div>'


def _answer(m: Material) -> str:
    return f"{PAGES[m.verb].first(m)}"


def whole_page(materials: list[Material]) -> str:
    """Return one self-contained HTML file of one answer or of several below one another."""
    titles = [_title(m) for m in materials]
    bodies = [_body(m, title, i, several=len(materials) > 1)
              for i, (m, title) in enumerate(zip(materials, titles, strict=True))]  # fmt: skip
    contents = "".join(f'<a href="#answer-{i}">{said(t)}</a>' for i, t in enumerate(titles))
    nav = f"<nav>{contents}</nav>" if len(materials) > 1 else ""
    return document(titles[0], f"{nav}{''.join(bodies)}")


def document(title: str, inside: str) -> str:
    """Return a self-contained page around HTML that was made here."""
    script = asset("page.js")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {script_hash(script)}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{said(title)}</title><style>{asset('page.css')}</style></head><body><main>{inside}"
        f"<footer>{said(NOTICE)}</footer></main><script>{script}</script></body></html>\n"
    )
    return stripped(page)  # pictures hold names of strangers, too


def body(m: Material) -> str:
    """Return the answer and its sections, for a page around them."""
    return stripped(_body(m, _title(m), 1, several=False))


def _title(m: Material) -> str:
    return str(m.record.get("question") or TITLES.get(m.verb, f"ersatz {m.verb}"))


def _body(m: Material, title: str, i: int, *, several: bool) -> str:
    head = "h1" if i == 0 else "h2"
    whole = folded("The whole report in words", m.words) if m.words else ""
    shown, left_out = within(dict(m.pictures))
    m = replace(m, pictures=shown)
    if left_out:
        whole += paragraph(
            f"Pictures left out for their size (--out has them): {', '.join(left_out)}", "soft"
        )
    notice = paragraph(m.record.get("notice", ""), "soft")
    command = paragraph(f"Made with: {m.command}", "soft") if m.command else ""
    place = f' id="answer-{i}"' if several else ""
    return (f"<div{place}><{head}>{said(title)}</{head}>{_answer(m)}{notice}{command}"
            f"{''.join(PAGES[m.verb].sections(m))}{whole}</div>")  # fmt: skip
