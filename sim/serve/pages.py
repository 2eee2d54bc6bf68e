"""The pages' own HTML: a form, an answer, and how to go from one page to another."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.sim.report.page.markup import said
from ersatz.sim.report.page.page import NOTICE
from ersatz.sim.serve.forms import FORMS, Field, Form


def page(form: Form, values: Mapping[str, str]) -> str:
    """Return a page with the values of its address filled in."""
    links = " ".join(f'<a href="{name}"{" aria-current=page" if name == form.name else ""}>{said(f.title)}</a>'
                    for name, f in FORMS.items())  # fmt: skip
    fields = "".join(_field(field, values.get(field.name, field.default)) for field in form.fields)
    button = (
        f'<button type="submit" id="ask">{said(form.button)}</button> <button type="button" id="cancel" hidden>Cancel</button>'
        '<p id="progress" role="status" hidden><progress aria-label="How far it has come"></progress> <span></span></p>'
        if form.button
        else ""
    )
    sliding = " data-sliding" if form.sliding else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{said(form.title)}: ersatz</title>"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="page.css"><link rel="stylesheet" href="app.css"></head><body>'
        f'<a class="skip" href="#answer">To the answer</a><header><b>ersatz</b><nav aria-label="Pages">{links}</nav></header>'
        f'<main class="two"><form data-page="{form.name}"{sliding} aria-label="{said(form.title)}">'
        f"<h1>{said(form.title)}</h1><p class=soft>{said(form.words)}</p>{fields}{button}"
        '<p><button type="button" id="save">Save the answer as a page</button></p></form>'
        '<div id="answer" role="region" aria-live="polite" aria-label="Answer" tabindex="-1"></div></main>'
        f'<footer class="soft">{said(NOTICE)}</footer><script src="page.js" defer></script>'
        '<script src="app.js" defer></script></body></html>\n'
    )


def _field(field: Field, value: str) -> str:
    """Return a field with its label; what it is for stands below it and is read with it."""
    told = f'<small id="h-{field.name}">{said(field.help)}</small>' if field.help else ""
    by = f' aria-describedby="h-{field.name}"' if field.help else ""
    name = f'id="f-{field.name}" name="{field.name}"{by}'
    label = f'<label for="f-{field.name}">{said(field.label)}</label>'
    return f'<div class="field">{label}{_input(field, value, name)}{told}</div>'


def _input(field: Field, value: str, name: str) -> str:
    if field.kind in ("choice", "several"):
        return _select(field, value, name)
    if field.kind == "range":
        low, high = (f"{end:g}" for end in field.ends)
        shown = said(value or "scenario's")
        return (f'<span class="slide"><input type="range" {name} min="{low}" max="{high}" step="1"'
                f' value="{said(value or low)}" data-set="{said(value)}"><output for="f-{field.name}">{shown}</output>'
                "</span>")  # fmt: skip
    if field.kind in ("lines", "file"):
        rows = 14 if field.kind == "file" else 3
        return f'<textarea {name} rows="{rows}" spellcheck="false">{said(value)}</textarea>'
    kind = {"number": "number", "date": "date"}.get(field.kind, "text")
    ends = (
        f' min="{field.ends[0]:g}" max="{field.ends[1]:g}" step="any"'
        if field.kind == "number"
        else ""
    )
    return f'<input type="{kind}" {name}{ends} value="{said(value)}">'


def _select(field: Field, value: str, name: str) -> str:
    chosen = set(value.split(",")) if field.kind == "several" else {value}
    options = "".join(
        f"<option{' selected' if c in chosen else ''}>{said(c)}</option>" for c in field.choices()
    )
    empty = (
        ""
        if field.default or field.kind == "several"
        else f'<option value="">{said(field.empty)}</option>'
    )
    many = ' multiple size="8"' if field.kind == "several" else ""
    return f"<select {name}{many}>{empty}{options}</select>"
