"""Find a model by name, in a YAML file, inline, or in a Hugging Face `config.json` as it is.

The catalogue holds YAML files with the fields of `ersatz.sim.workload.model.Model` and a source. A
config.json is read by `ersatz.sim.workload.configs`. Problems name file, line and key.

Kinds of layer are given as `blocks`, each a letter with the sizes in which it differs, and a `pattern`
of these letters that is repeated over the layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import UNPRINTABLE, YamlText, read_yaml
from ersatz.sim.workload.adapters import MODULES
from ersatz.sim.workload.configs.config import MAX_LAYERS
from ersatz.sim.workload.configs.reader import read_config
from ersatz.sim.workload.layer import Compressed, Experts, Indexer, LatentAttention, Layer
from ersatz.sim.workload.model import Model, Runs
from ersatz.sim.workload.recurrence import RECURRENCES, Recurrence

MODELS = DATA / "models"
REQUIRED = ("layers", "hidden", "heads", "vocab")
MAX_SIZE = 10**9
MOST = {"layers": MAX_LAYERS, "predict_layers": 100}
POSITIVE = {
    "experts": ("routed", "top_k", "hidden"), "latent": ("kv_rank", "nope_dim", "v_dim"),
    "indexer": ("heads", "dim", "top_k"), "compressed": ("q_rank", "out_rank", "out_groups"),
    "recurrence": ("heads", "key_dim", "value_dim", "chunk"),
}  # fmt: skip
PARTS: Mapping[str, type] = {
    "experts": Experts, "latent": LatentAttention, "indexer": Indexer, "compressed": Compressed,
    "recurrence": Recurrence,
}  # fmt: skip
WHOLE_ONLY = ("name", "layers", "hidden", "vocab", "tied", "streams", "tables", "predict_layers", "lora_rank",
              "lora_targets",
              "window_layers", "predicts", "notes", "blocks", "source")  # fmt: skip


def list_models() -> list[str]:
    """Return the names of the catalogue's models."""
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def load_model(name: str | Mapping[str, Any], *, beside: Path | None = None) -> Model:
    """Return a model by catalogue name, path (YAML or config.json) or inline sizes.

    Relative paths are looked up `beside` the scenario first. Raises `InputError`.
    """
    if not isinstance(name, str):
        return _from_sizes(name, "model", None)
    if name.endswith((".json", ".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if beside and not path.is_absolute() and os.path.exists(beside / path):
            path = beside / path
        return read_config(path) if path.suffix == ".json" else _from_yaml(path)
    if name.lower() not in list_models():
        hint = did_you_mean(name.lower(), list_models())
        words = (
            f"no such model in the catalogue{hint or ' (ersatz list models)'}; any other is a config.json"
            " of Hugging Face, a YAML file or its sizes in the scenario"
        )
        raise InputError([Problem(name[:60], 0, 0, "", "", words)])
    return _from_yaml(MODELS / f"{name.lower()}.yaml")


def _from_yaml(path: Path) -> Model:
    text = read_yaml(path)
    if not isinstance(text.data, dict):
        raise InputError([text.problem((), None, "expected keys and values")])
    return _from_sizes({"name": path.stem, **text.data}, str(path), text)


def _from_sizes(sizes: Mapping[str, Any], file: str, text: YamlText | None) -> Model:
    """Build a model from its own field names; every fault is reported."""
    problems: list[Problem] = []

    def blame(path: tuple[str, ...], value: object, expected: str) -> None:
        if text:
            problems.append(text.problem(path, value, expected))
        else:
            problems.append(Problem(file, 0, 0, ".".join(path), str(value)[:60], expected))

    known = [*(f.name for f in fields(Model) if f.name not in ("predicts", "notes")), "pattern"]
    for key in REQUIRED:
        if key not in sizes:
            blame((), key, "key is missing")
    values = _read_values(sizes, known, (), blame)
    if problems:
        raise InputError(problems)
    heads, hidden = values["heads"], values["hidden"]
    values.setdefault("name", "inline")
    values.setdefault("kv_heads", heads)
    values.setdefault("head_dim", hidden // heads)
    values.setdefault("ffn_hidden", 0 if values.get("experts") else 4 * hidden)
    blocks, pattern = values.pop("blocks", None), values.pop("pattern", None)
    model = Model(**values)
    if blocks or pattern:
        model = replace(model, blocks=_runs(model, blocks, pattern, blame))
    _check_shape(model, blame)
    if problems:
        raise InputError(problems)
    return model


def _read_values(
    sizes: Mapping[str, Any], known: Sequence[str], path: tuple[str, ...], blame: Any
) -> dict[str, Any]:
    """Return the values of known keys, parts as what they describe; every fault is told."""
    for key in sizes:
        if key not in known:
            blame((*path, str(key)), "", f"unknown key{did_you_mean(str(key), known)}")
    values = {key: sizes[key] for key in sizes if key in known}
    for key, kind in PARTS.items():
        if isinstance(values.get(key), dict):
            values[key] = _part(kind, (*path, key), values[key], blame)
        elif values.get(key) is not None:
            blame((*path, key), values[key], "expected keys and values")
    for f in fields(Model):
        if f.name in values and str(f.type) in ("int", "bool", "str"):
            _check_value((*path, f.name), values[f.name], str(f.type), blame)
    named = str(values.get("lora_targets", "")).replace(",", " ").split()
    if set(named) - set(MODULES):
        blame(
            (*path, "lora_targets"),
            values["lora_targets"],
            f"expected words among {', '.join(MODULES)}",
        )
    if values.get("gate", "") not in ("", "head", "element"):
        blame((*path, "gate"), values["gate"], "expected head or element")
    return values


def _runs(model: Model, blocks: Any, pattern: Any, blame: Any) -> Runs:
    """Return the layers of a pattern of letters, each a block of `blocks`."""
    if (
        not isinstance(blocks, dict)
        or not blocks
        or any(len(str(letter)) != 1 for letter in blocks)
    ):
        blame(("blocks",), "", "expected a letter for each kind of layer, with its sizes")
        return ()
    kinds = {
        str(letter): _block(model, str(letter), sizes, blame) for letter, sizes in blocks.items()
    }
    if not isinstance(pattern, str) or not pattern or set(pattern) - set(kinds):
        blame(("pattern",), pattern, f"expected letters among {', '.join(kinds)}")
        return ()
    if model.layers % len(pattern):
        blame(("pattern",), f"{len(pattern)} letters", f"do not divide the {model.layers} layers")
        return ()
    whole = pattern * (model.layers // len(pattern))
    runs = [(kinds[letter], len(list(same))) for letter, same in groupby(whole)]
    return tuple((kind, count) for kind, count in runs if kind)


def _block(model: Model, letter: str, sizes: Any, blame: Any) -> Layer | None:
    """Return a kind of layer: the model's own sizes, but for those that the block has."""
    path = ("blocks", letter)
    if sizes is not None and not isinstance(sizes, dict):
        blame(path, sizes, "expected keys and values")
        return None
    known = [f.name for f in fields(Model) if f.name not in WHOLE_ONLY]
    values = _read_values(sizes or {}, known, path, blame)
    own = replace(model, **values)
    if (
        "recurrence" in values and "heads" not in values
    ):  # instead of attention, unless heads are given
        own = replace(own, heads=0, kv_heads=0)
    if values.get("ffn_hidden") is not None and "experts" not in values:
        own = replace(own, experts=None)
    kind = own.layer(moe=own.experts is not None)
    if not kind.blocks:
        blame(path, "", "has neither attention, nor a recurrence, nor an MLP")
    return kind


def _check_shape(model: Model, blame: Any) -> None:
    """What each size must be, given the others."""
    if not model.head_dim:
        blame(("hidden",), model.hidden, f"is less than the {model.heads} heads")
    if model.window_layers > model.layers:
        expected = f"expected at most the {model.layers} layers"
        blame(("window_layers",), model.window_layers, expected)
    experts = model.experts
    if experts and experts.dense_layers > model.layers:
        expected = f"expected at most the {model.layers} layers"
        blame(("experts", "dense_layers"), experts.dense_layers, expected)
    if not model.blocks and not model.ffn_hidden and not (experts and not experts.dense_layers):
        blame(("ffn_hidden",), 0, "expected a number above 0: some layers have a dense MLP")
    for kind in model.kinds:
        if kind.heads and not kind.latent and (not kind.kv_heads or kind.heads % kind.kv_heads):
            blame(("kv_heads",), kind.kv_heads, f"expected a divisor of the {kind.heads} heads")
        if kind.experts and kind.experts.top_k > kind.experts.routed:
            expected = f"expected at most the {kind.experts.routed} routed experts"
            blame(("experts", "top_k"), kind.experts.top_k, expected)


def _check_value(path: tuple[str, ...], value: object, kind: str, blame: Any) -> None:
    key, most = path[-1], MOST.get(path[-1], MAX_SIZE)
    needed = key in (*REQUIRED, "kv_heads", "head_dim", "streams") and path[0] != "blocks"
    if kind == "int" and (isinstance(value, bool) or not isinstance(value, int)):
        blame(path, value, "expected a whole number")
    elif kind == "int" and isinstance(value, int) and not 0 <= value <= most:
        blame(path, value, f"expected 0 to {most}")
    elif kind == "int" and needed and not value:
        blame(path, value, "expected a number above 0")
    elif kind == "bool" and not isinstance(value, bool):
        blame(path, value, "expected true or false")
    elif kind == "str" and (not isinstance(value, str) or UNPRINTABLE.search(value)):
        blame(path, None, "expected a printable text")


def _part(kind: type, path: tuple[str, ...], sizes: Mapping[str, Any], blame: Any) -> Any:
    """Return one of the parts of a layer from its keys."""
    types = {f.name: str(f.type) for f in fields(kind)}
    for name, value in sizes.items():
        if name not in types:
            blame((*path, str(name)), "", f"unknown key{did_you_mean(str(name), types)}")
        elif types[name] == "bool":
            if not isinstance(value, bool):
                blame((*path, name), value, "expected true or false")
        elif types[name] == "str":
            if value not in RECURRENCES:
                blame((*path, name), value, f"expected one of {', '.join(RECURRENCES)}")
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SIZE:
            blame((*path, name), value, f"expected a whole number from 0 to {MAX_SIZE}")
        elif not value and name in POSITIVE[path[-1]]:
            blame((*path, name), value, "expected a number above 0")
    try:
        return kind(**{name: sizes[name] for name in types if name in sizes})
    except TypeError:
        required = [f.name for f in fields(kind) if f.default is MISSING and f.name not in sizes]
        blame(path, "", f"keys are missing: {', '.join(required)}")
        return None
