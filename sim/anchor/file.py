"""The stack file that an anchor writes: the base stack, its moved numbers, and what is known of them."""

from __future__ import annotations

from ersatz.device_models.catalog.sheet import shown
from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.anchor.factors import FIELDS, NAMES, moved
from ersatz.sim.anchor.posterior import Posterior


def stack_text(base: Stack, found: Posterior, name: str, device: str, day: str, source: str) -> str:
    """Return the text of a stack file (YAML); `source` says whose steps these were, `day` when."""
    runs = len(found.errors) - len(found.bad)
    new = moved(base, list(found.logs))
    note = f"{runs} measured runs on {device}"
    lines = [
        "# Written by `ersatz anchor`; scenarios take it as `stack: FILE`.",
        f"name: {name}",
        f'title: "{_quoted(base.title)}; anchored on {note}"',
        f"based_on: {base.name}",
        "sources:",
        f'  ANCHOR: "own measured steps: {_quoted(source)}; ersatz anchor"',
    ]
    for factor in NAMES:
        for key in FIELDS[factor]:
            value = shown(getattr(new, key), key)
            was = shown(getattr(base, key), key).strip('"')
            lines.append(f"{key}: {{value: {value}, source: ANCHOR, date: {day}, confidence: medium,"
                         f' note: "{was} before; {note}"}}')  # fmt: skip
    rows = ", ".join(f"[{', '.join(f'{v:.4g}' for v in row)}]" for row in found.covariance)
    lines.append(
        f"# log factors of {', '.join(NAMES)}: what is still open of them; spread of runs beside"
    )
    lines.append(
        f"anchor: {{base: {base.name}, device: {device}, runs: {runs}, spread: {found.spread:.4g},"
        f" covariance: [{rows}]}}"
    )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'")
