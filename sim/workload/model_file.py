"""Find a model by name, in a YAML file, inline, or in a Hugging Face `config.json` as it is.

The catalogue holds YAML files with the fields of `ersatz.sim.workload.model.Model` and a source. A
config.json is recognised by its keys, not by its class name, so that relatives of the known
families work. Problems name file, line and key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import UNPRINTABLE, YamlText, read_yaml
from ersatz.sim.workload.model import Experts, LatentAttention, Model

MODELS = DATA / "models"
REQUIRED = ("layers", "hidden", "heads", "vocab")
MAX_SIZE = 10**9
MAX_LAYERS = 2000  # each is simulated
MOST = {"layers": MAX_LAYERS, "predict_layers": 100}
POSITIVE = {"experts": ("routed", "top_k", "hidden"), "latent": ("kv_rank", "nope_dim", "v_dim")}
HUGGING_FACE = ("num_hidden_layers", "n_layer", "hidden_size", "n_embd")
PLAIN_ACTIVATIONS = ("gelu", "relu", "relu2", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
GATED_TYPES = ("gemma",)


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
        return _from_json(path) if path.suffix == ".json" else _from_yaml(path)
    if name.lower() not in list_models():
        hint = did_you_mean(name.lower(), list_models())
        words = f"no such model in the catalogue{hint}"
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

    known = [f.name for f in fields(Model)]
    for key in sizes:
        if key not in known:
            blame((key,), "", f"unknown key{did_you_mean(key, known)}")
    for key in REQUIRED:
        if key not in sizes:
            blame((), key, "key is missing")
    values = {key: sizes[key] for key in sizes if key in known}
    for key, kind in (("experts", Experts), ("latent", LatentAttention)):
        if isinstance(values.get(key), dict):
            values[key] = _part(kind, key, values[key], blame)
        elif values.get(key) is not None:
            blame((key,), values[key], "expected keys and values")
    for f in fields(Model):
        if f.name in values and str(f.type) in ("int", "bool", "str"):
            _check_value(f.name, values[f.name], str(f.type), blame)
    if problems:
        raise InputError(problems)
    heads, hidden = values["heads"], values["hidden"]
    values.setdefault("name", "inline")
    values.setdefault("kv_heads", heads)
    values.setdefault("head_dim", hidden // heads)
    values.setdefault("ffn_hidden", 0 if values.get("experts") else 4 * hidden)
    model = Model(**values)
    _check_shape(model, blame)
    if problems:
        raise InputError(problems)
    return model


def _check_shape(model: Model, blame: Any) -> None:
    """What each size must be, given the others."""
    if not model.head_dim:
        blame(("hidden",), model.hidden, f"is less than the {model.heads} heads")
    if not model.latent and model.heads % model.kv_heads:
        blame(("kv_heads",), model.kv_heads, f"expected a divisor of the {model.heads} heads")
    if model.window_layers > model.layers:
        expected = f"expected at most the {model.layers} layers"
        blame(("window_layers",), model.window_layers, expected)
    experts = model.experts
    if not model.ffn_hidden and not (experts and not experts.dense_layers):
        blame(("ffn_hidden",), 0, "expected a number above 0: some layers have a dense MLP")
    if experts and experts.top_k > experts.routed:
        expected = f"expected at most the {experts.routed} routed experts"
        blame(("experts", "top_k"), experts.top_k, expected)
    if experts and experts.dense_layers > model.layers:
        expected = f"expected at most the {model.layers} layers"
        blame(("experts", "dense_layers"), experts.dense_layers, expected)


def _check_value(key: str, value: object, kind: str, blame: Any) -> None:
    if kind == "int" and (isinstance(value, bool) or not isinstance(value, int)):
        blame((key,), value, "expected a whole number")
    elif kind == "int" and isinstance(value, int) and not 0 <= value <= MOST.get(key, MAX_SIZE):
        blame((key,), value, f"expected 0 to {MOST.get(key, MAX_SIZE)}")
    elif kind == "int" and key in (*REQUIRED, "kv_heads", "head_dim") and not value:
        blame((key,), value, "expected a number above 0")
    elif kind == "bool" and not isinstance(value, bool):
        blame((key,), value, "expected true or false")
    elif kind == "str" and (not isinstance(value, str) or UNPRINTABLE.search(value)):
        blame((key,), None, "expected a printable text")


def _part(kind: type, key: str, sizes: Mapping[str, Any], blame: Any) -> Any:
    known = [f.name for f in fields(kind)]
    for name, value in sizes.items():
        if name not in known:
            blame((key, name), "", f"unknown key{did_you_mean(name, known)}")
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SIZE:
            blame((key, name), value, f"expected a whole number from 0 to {MAX_SIZE}")
        elif not value and name in POSITIVE[key]:
            blame((key, name), value, "expected a number above 0")
    try:
        return kind(**{name: sizes[name] for name in known if name in sizes})
    except TypeError:
        needed = ", ".join(name for name in known if name not in sizes)
        blame((key,), "", f"keys are missing: {needed}")
        return None


def _from_json(path: Path) -> Model:
    """Read a Hugging Face config.json."""
    try:
        config = json.loads(read_text_file(path, "JSON"))
    except json.JSONDecodeError as error:
        raise _fault(path, error.lineno, f"is no valid JSON: {error.msg}") from error
    except InputError:
        raise
    except ValueError as error:  # Python reads no whole number of thousands of digits
        raise _fault(path, 0, "holds a number that is too large") from error
    except RecursionError as error:
        raise _fault(path, 0, "is nested too deeply") from error
    if not isinstance(config, dict) or not any(key in config for key in HUGGING_FACE):
        raise _fault(path, 1, "is no model config: hidden_size or n_embd is missing")
    return _from_sizes(_sizes_of(config, path), str(path), None)


def _fault(path: Path, line: int, expected: str) -> InputError:
    return InputError([Problem(str(path), line, 1 if line else 0, "", "", expected)])


def _sizes_of(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Translate the keys of the common families (Llama, Qwen, Mixtral, DeepSeek, Bailing, GPT)."""

    def first(*names: str, default: Any = None) -> Any:
        return next((config[n] for n in names if config.get(n) is not None), default)

    hidden = first("hidden_size", "n_embd")
    heads = first("num_attention_heads", "n_head")
    name = str(first("model_type", default=path.parent.name))
    sizes: dict[str, Any] = {
        "name": name,
        "layers": first("num_hidden_layers", "n_layer"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": first("num_key_value_heads", "multi_query_group_num", default=heads),
        "vocab": first("vocab_size", "padded_vocab_size"),
        "ffn_hidden": first("intermediate_size", "n_inner", "ffn_hidden_size"),
        "tied": bool(first("tie_word_embeddings", default=name.startswith("gpt"))),
        "gated": _is_gated(config, name),
        "predict_layers": first("num_nextn_predict_layers", default=0),
        "source": f"config.json of {name}",
    }
    if config.get("head_dim"):
        sizes["head_dim"] = config["head_dim"]
    if first("kv_lora_rank"):
        sizes["latent"] = {
            "q_rank": first("q_lora_rank", default=0), "kv_rank": config["kv_lora_rank"],
            "rope_dim": first("qk_rope_head_dim", default=64),
            "nope_dim": first("qk_nope_head_dim", default=128),
            "v_dim": first("v_head_dim", default=128),
        }  # fmt: skip
    routed = first("n_routed_experts", "num_local_experts", "num_experts")
    if routed:
        sizes["experts"] = _experts_of(config, routed, first)
    missing = [key for key in REQUIRED if sizes[key] is None]
    if missing:
        raise _fault(path, 1, f"lacks what gives {', '.join(missing)}")
    return {key: value for key, value in sizes.items() if value is not None}


def _is_gated(config: Mapping[str, Any], name: str) -> bool:
    activation = str(config.get("hidden_act") or config.get("activation_function") or "silu")
    return name.startswith(GATED_TYPES) or activation not in PLAIN_ACTIVATIONS


def _experts_of(config: Mapping[str, Any], routed: int, first: Any) -> dict[str, int]:
    inner = first("moe_intermediate_size", "intermediate_size")
    shared = first("n_shared_experts", "num_shared_experts", default=0)
    shared_size = config.get("shared_expert_intermediate_size")
    if isinstance(shared_size, int) and isinstance(inner, int) and inner:
        shared = shared_size // inner
    elif shared_size:
        shared = shared_size  # no whole number, which is then said
    return {
        "routed": routed,
        "top_k": first("num_experts_per_tok", "moe_topk", default=2),
        "hidden": inner,
        "shared": shared,
        "dense_layers": first("first_k_dense_replace", default=0),
        "groups_limit": first("topk_group", default=0),
    }
