"""docs/model-file.md: every key of a model file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from ersatz.sim.cli.pages.keys import HEAD, kind_words
from ersatz.sim.workload.configs.families import family_names
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import PARTS, REQUIRED, list_models

DERIVED = {
    "name": "name of the file", "kv_heads": "as `heads`", "head_dim": "`hidden` / `heads`",
    "ffn_hidden": "4 x `hidden`; 0 with experts",
}  # fmt: skip
HIDDEN = ("predicts", "notes")  # of models that were read from a configuration
EXAMPLE = """layers: 48
hidden: 2048
heads: 16
kv_heads: 2
head_dim: 256
vocab: 151936
experts: {routed: 512, top_k: 10, hidden: 512, shared: 1}
blocks:
  L: {recurrence: {kind: gated_delta, heads: 32, key_dim: 128, value_dim: 128, key_heads: 16}}
  F: {gate: element}
pattern: LLLF"""


def model_markdown() -> str:
    """Return docs/model-file.md: every key of a model file."""
    named = ", ".join(f"`{name}`" for name in list_models())
    families = ", ".join(family_names())
    lines = [
        "# Model files",
        "",
        "Generated from `sim/workload/model.py`. A scenario's `model` is a name of the catalogue, the path",
        "of a file with the keys below, these keys themselves, or the path of a Hugging Face",
        "`config.json` as it is. `ersatz show NAME` explains one.",
        "",
        f"Catalogue: {named}.",
        "",
        "Layers of several kinds are a `pattern` of letters, repeated over the layers, and under `blocks`",
        "for each letter the sizes in which it differs from those above. A block with a `recurrence` has",
        "no attention unless it gives `heads`; one with `ffn_hidden` has a dense MLP, and with",
        "`ffn_hidden: 0` none. Qwen3-Next, three gated DeltaNet layers to one of gated attention:",
        "",
        "```yaml",
        *EXAMPLE.splitlines(),
        "```",
        "",
        "Of a `config.json` every key that shapes the model is read, or said under what is assumed, or",
        "refused by name and line; vision and audio towers are left out and said with their size.",
        "Known `model_type`s, of which some are refused by name:",
        *textwrap.wrap(f"{families}.", 116),
        *_table("top level", Model),
    ]
    for key, part in PARTS.items():
        lines += _table(key, part)
    return "\n".join([*lines, ""])


def _table(title: str, kind: type) -> Iterator[str]:
    yield from ("", f"## {title}", "", str(kind.__doc__).splitlines()[0], "", *HEAD)
    hints = get_type_hints(kind)
    if kind is Model:
        yield "| `pattern` | text | none | letters of `blocks`, repeated over the layers |"
    for f in fields(kind):
        if f.name in HIDDEN and kind is Model:
            continue
        section = f.name in (*PARTS, "blocks") and kind is Model
        words = "section" if section else kind_words(hints[f.name])
        yield f"| `{f.name}` | {words} | {_default(f, kind)} | {f.metadata['meaning']} |"


def _default(f: Field[Any], kind: type) -> str:
    if kind is Model and f.name in DERIVED:
        return DERIVED[f.name]
    if f.default is MISSING or (kind is Model and f.name in REQUIRED):
        return "required"
    return {"": "none", "None": "none", "()": "none"}.get(str(f.default), str(f.default).lower())
