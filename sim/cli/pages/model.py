"""docs/model-file.md: every key of a model file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from ersatz.sim.cli.pages.keys import HEAD, kind_words
from ersatz.sim.workload.model import Experts, LatentAttention, Model
from ersatz.sim.workload.model_file import HUGGING_FACE, REQUIRED, list_models

DERIVED = {
    "name": "name of the file", "kv_heads": "as `heads`", "head_dim": "`hidden` / `heads`",
    "ffn_hidden": "4 x `hidden`; 0 with experts",
}  # fmt: skip
PARTS: dict[str, type] = {"experts": Experts, "latent": LatentAttention}


def model_markdown() -> str:
    """Return docs/model-file.md: every key of a model file."""
    named = ", ".join(f"`{name}`" for name in list_models())
    recognised = " or ".join(f"`{key}`" for key in HUGGING_FACE)
    lines = [
        "# Model files",
        "",
        "Generated from `sim/workload/model.py`. A scenario's `model` is a name of the catalogue, the path",
        "of a file with the keys below, these keys themselves, or the path of a Hugging Face",
        f"`config.json` as it is (recognised by {recognised}). `ersatz show NAME`",
        "explains one.",
        "",
        f"Catalogue: {named}.",
        *_table("top level", Model),
    ]
    for key, part in PARTS.items():
        lines += _table(key, part)
    return "\n".join([*lines, ""])


def _table(title: str, kind: type) -> Iterator[str]:
    yield from ("", f"## {title}", "", str(kind.__doc__).splitlines()[0], "", *HEAD)
    hints = get_type_hints(kind)
    for f in fields(kind):
        words = "section" if f.name in PARTS and kind is Model else kind_words(hints[f.name])
        yield f"| `{f.name}` | {words} | {_default(f, kind)} | {f.metadata['meaning']} |"


def _default(f: Field[Any], kind: type) -> str:
    if kind is Model and f.name in DERIVED:
        return DERIVED[f.name]
    if f.default is MISSING or (kind is Model and f.name in REQUIRED):
        return "required"
    return {"": "none", "None": "none"}.get(str(f.default), str(f.default).lower())
