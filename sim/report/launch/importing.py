"""What `ersatz import` says: the scenario, and what it lacks, takes for granted and leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ersatz.sim.exporting.record import Exported
from ersatz.sim.importing.record import Ignored, Imported, NotModelled
from ersatz.sim.importing.writing import scenario_yaml

MOST = 8  # flags without effect that are named on a line each block


def render_imports(found: Sequence[Imported]) -> RenderableType:
    """Return the reports of several imports below one another."""
    parts: list[RenderableType] = []
    for i, one in enumerate(found):
        parts += [Text("")] if i else []
        parts += render_import(one)
    return Group(*parts)


def render_import(found: Imported) -> list[RenderableType]:
    """Return the report of one import: first what it is and what it lacks."""
    parts: list[RenderableType] = [Text(headline(found), style="bold")]
    parts += [Text(f"defaults of {found.version}")] if found.version else []
    if found.measured_step_s is not None:
        parts.append(Text(f"measured step {found.measured_step_s:.4g} s ({found.measured_from})"))
    parts += [Text(f"cannot be: {words}", style="red") for words in found.wrong]
    parts += _list("to answer (--set KEY=VALUE)", [
        f"{q.key}: {q.why}" + (f" [{', '.join(q.choices)}]" if q.choices else "")
        for q in found.questions
    ])  # fmt: skip
    body = found.text if not found.scenario else scenario_yaml(found)
    parts += [Text(""), Text(body.rstrip("\n"))] if body else []
    parts += _list("assumed", [f"{a.key} = {a.value}: {a.why}" for a in found.assumed])
    parts += _list("not modelled", [_left_out(n) for n in found.not_modelled])
    parts += _list("without effect", _ignored(found.ignored))
    return parts


def headline(found: Imported) -> str:
    """Return what was read, in a line."""
    name = Path(found.file).name
    devices = f"{found.devices} devices" if found.devices else "devices not known"
    each = f" ({found.devices_per_node} per machine)" if found.devices_per_node else ""
    open_ = f"{len(found.questions)} to answer" if found.questions else "nothing to answer"
    return f"{name}: {found.format}; {devices}{each}; {open_}"


def render_export(found: Exported) -> RenderableType:
    """Return the text to paste."""
    return Text(found.text.rstrip("\n"))


def _left_out(flag: NotModelled) -> str:
    effect = (
        "not known to ersatz: its effect is not known" if flag.effect == "unknown" else flag.effect
    )
    return f"{flag.flag} {flag.value}".rstrip() + f" (line {flag.line}): {effect}"


def _ignored(flags: Sequence[Ignored]) -> list[str]:
    """Return the flags without effect, many to a line."""
    names = [f.flag if n == 1 else f"{f.flag} x {n}"
             for f, n in zip(flags, Counter(f.flag for f in flags).values(), strict=False)]  # fmt: skip
    names = list(dict.fromkeys(names))
    return [", ".join(names[i : i + MOST]) for i in range(0, len(names), MOST)]


def _list(title: str, rows: Sequence[str]) -> list[RenderableType]:
    return [Text(""), Text(f"{title}:"), *(Text(f"  {row}") for row in rows)] if rows else []
