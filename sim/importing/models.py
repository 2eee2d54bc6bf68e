"""The model that a configuration names: by a known name, or a config.json beside it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

from ersatz.device_models.text.problems import did_you_mean
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.known import known_names, named_model
from ersatz.sim.workload.adapters import MODULES, usual_targets
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import load_model

UNFUSED = frozenset({"eager", "disabled"})  # attention of several kernels, as trainers call it
# Names of products that may have adapters, as libraries call them, in a scenario's words.
TARGETS = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate", "up_proj": "up",
    "down_proj": "down", "query_key_value": "q k v", "qkv_proj": "q k v", "linear_qkv": "q k v",
    "c_attn": "q k v", "wqkv": "q k v", "dense": "o", "out_proj": "o", "linear_proj": "o", "wo": "o",
    "gate_up_proj": "gate up", "linear_fc1": "gate up", "dense_h_to_4h": "gate up", "w1": "gate",
    "w3": "up", "linear_fc2": "down", "dense_4h_to_h": "down", "w2": "down", "q_a_proj": "q",
    "q_b_proj": "q", "kv_a_proj_with_mqa": "k", "kv_b_proj": "v", "linear_q_proj": "q",
    "linear_q_down_proj": "q", "linear_q_up_proj": "q", "linear_kv_down_proj": "k",
    "linear_kv_up_proj": "v", "all": " ".join(MODULES), "all_linear": " ".join(MODULES),
}  # fmt: skip


def put_targets(flags: Flags, *names: str) -> None:
    """Put the modules that have adapters into the draft; a name that is not known is said."""
    draft, key = flags.draft, "model.lora_targets"
    if not draft.values.get("model.lora_rank") or not flags.find(*names):
        return
    given = flags.take(key, *names)
    if given is None or given.unknown:
        return
    words = given.value.strip("[]").replace(",", " ").replace("'", " ").replace('"', " ").split()
    plain = {word: _meant(word) for word in words}
    lost = [word for word, meant in plain.items() if not meant]
    if lost:
        draft.leave_out(given.shown, " ".join(lost), given.line, "products that no name here means, so"
                        " without adapters", given.file)  # fmt: skip
    found = {module for meant in plain.values() for module in meant}
    if found:
        draft.put(key, " ".join(module for module in MODULES if module in found))


def _meant(word: str) -> set[str]:
    """Return the modules that a name of products means; `*` stands for anything."""
    name = word.lower().replace("-", "_").rsplit(".", 1)[-1]
    names = fnmatch.filter(TARGETS, name) if "*" in name else [name]
    return {module for one in names for module in TARGETS.get(one, "").split()}


def assume_targets(draft: Draft, launch: str) -> None:
    """Put the modules that a framework gives adapters where the file names none, and say so."""
    key = "model.lora_targets"
    if not draft.values.get("model.lora_rank") or key in draft.values or draft.asked(key):
        return
    usual = usual_targets(launch=launch)
    draft.put(key, usual.targets)
    draft.assume(key, usual.targets, f"no modules are named: the default of {usual.framework}")


def put_model(draft: Draft, given: Given | None, *, gated: bool = False) -> None:
    """Put the sizes of a named model into the draft, or ask for it. `given` is the flag that names it."""
    if given is None:
        draft.ask("model", "the file names no model: give a name, a config.json or sizes")
        return
    draft.note("model", given.shown, given.value, given.line, given.file)
    if given.unknown:
        draft.ask("model", f"{given.shown}: {given.unknown}", given.choices, given.line)
        return
    found = named_model(given.value)
    sizes = dict(found.sizes) if found else _beside(draft, given)
    if sizes is None:
        near = did_you_mean(given.value.rsplit("/", 1)[-1].lower()[:50], known_names())
        draft.ask("model", f"{given.shown} {given.value}: no model of that name is known{near}; name a"
                  " config.json or give sizes", line=given.line)  # fmt: skip
        return
    origin = (given.file or draft.file, given.line, given.shown)
    put_sizes(draft, {"name": found.name if found else given.value.rsplit("/", 1)[-1], **sizes})
    for key in draft.values:
        if key.startswith("model."):
            draft.origins[key] = origin


def put_sizes(draft: Draft, sizes: Mapping[str, Any]) -> None:
    """Put sizes into the draft as a scenario takes them."""
    for key, value in {"tied": False, "gated": True, **sizes}.items():
        if isinstance(value, Mapping):
            for inner, one in value.items():
                draft.put(f"model.{key}.{inner}", one)
        else:
            draft.put(f"model.{key}", value)


def _beside(draft: Draft, given: Given) -> dict[str, Any] | None:
    """Return the sizes of a config.json that stands beside the file, or in a folder beside it."""
    folder = Path(draft.file).parent
    for name in (given.value, f"{given.value}/config.json"):
        path = folder / name
        if not name.endswith(".json") or not _inside(path, folder):
            continue
        model = load_model(str(path))
        sizes = model_sizes(model)
        if not _alike(load_model(sizes), model):
            draft.ask("model", f"{name} has kinds of layers that sizes cannot say: name the file itself",
                      (str(path),), given.line)  # fmt: skip
            return None
        return sizes
    return None


def _inside(path: Path, folder: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return False


def name_of_model(model: Model) -> str:
    """Return the name by which launch files call a model of these sizes, or an empty text."""
    wanted = bare(model)
    for name in known_names():
        found = named_model(name)
        if found and bare(load_model(found.sizes)) == wanted:
            return name
    return ""


def _alike(one: Model, other: Model) -> bool:
    """Tell whether two models have the same sizes and, however they say it, the same layers."""
    plain = [replace(bare(model), blocks=()) for model in (one, other)]
    return plain[0] == plain[1] and one.runs == other.runs


def bare(model: Model) -> Model:
    """Return a model without its name and what is said about it: its sizes alone."""
    words = {f.name: type(getattr(model, f.name))() for f in fields(Model) if f.name in _WORDS}
    return replace(model, **words)


_WORDS = ("name", "source", "notes")


def model_sizes(model: Model) -> dict[str, Any]:
    """Return the sizes of a model without those that are as by default.

    Kinds of layers are no sizes: whoever compares sees that they are missing.
    """
    defaults = {f.name: f.default for f in fields(Model) if f.default is not MISSING}
    data = asdict(model)
    return {
        k: v
        for k, v in data.items()
        if k not in ("notes", "blocks") and (k not in defaults or v != defaults[k])
    }


def put_attention(flags: Flags, *names: str) -> None:
    """Put attention without a fused kernel, where a flag of a trainer asks for it: eager, disabled."""
    given = flags.find(*names)
    if given and given.value.lower() in UNFUSED:
        flags.take("model.fused_attention", *names)
        flags.draft.put("model.fused_attention", False)
