"""Primus: a module of training with Megatron's or torchtitan's names as overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.configs.environment import filled_in
from ersatz.sim.importing.configs.torchtitan import read_given
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given, key_of
from ersatz.sim.importing.flat import flat_yaml
from ersatz.sim.importing.megatron.sizes import named_sizes, read_sizes
from ersatz.sim.importing.megatron.translate import translate

_OWN = "Primus's pre_trainer.yaml"
DEFAULTS = {
    "use_distributed_optimizer": ("true", f"use_distributed_optimizer is not given: on in {_OWN}"),
    "bf16": ("true", f"bf16 is not given: on in {_OWN}"),
    "train_iters": ("1000", f"train_iters is not given: {_OWN}"),
    "global_batch_size": ("16", f"global_batch_size is not given: {_OWN}"),
    "seq_length": ("1024", f"seq_length is not given: {_OWN}"),
    "micro_batch_size": ("2", "micro_batch_size is not given: Primus's trainer_base.yaml"),
    "untie_embeddings_and_output_weights": ("true", "embedding and head are untied in Primus's models"),
    "swiglu": ("true", "swiglu is on in Primus's models"),
}  # fmt: skip


def read_primus(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of an experiment of Primus; machines come from its surroundings and are asked for."""
    draft = Draft(text.file, "primus-yaml", "primus, August 2026")
    leaves = {k: filled_in(v, defines, draft) for k, v in flat_yaml(text).items()}
    module = next((k.split(".")[1] for k in leaves if k.startswith("modules.")), "pre_trainer")
    prefix = f"modules.{module}."
    inside = {k.removeprefix(prefix): v for k, v in leaves.items() if k.startswith(prefix)}
    for key, one in leaves.items():
        name = key.removeprefix(prefix).partition(".")[0]
        if key.startswith("modules.") and not key.startswith(prefix):
            words = f"one module is read, {module}: what the others take is not counted"
            draft.leave_out(one.shown, one.value, one.line, words, one.file)
        elif not key.startswith(prefix) or name in ("framework", "config"):
            draft.ignore(one.shown, one.line)
        elif name not in ("model", "overrides"):
            draft.leave_out(one.shown, one.value, one.line, "unknown", one.file)
    framework = inside.get("framework")
    kind = framework.value if framework else "megatron"
    own = {k.removeprefix("overrides."): v for k, v in inside.items() if k.startswith("overrides.")}
    if kind == "torchtitan":
        return read_given(draft, {k: replace(v, key=k, shown=k) for k, v in own.items()},
                          _model_flag(inside), stack="torchtitan")  # fmt: skip
    if kind not in ("megatron", "megatron_bridge"):
        draft.refuse(framework.line if framework else 0, f"framework: {kind}",
                     "is not read; expected megatron or torchtitan")  # fmt: skip
    given = {key_of(k): replace(v, key=key_of(k), shown=k) for k, v in own.items()}
    _refuse_pictures(draft, given)
    given |= _adapters(given)
    flags = Flags(given, draft, DEFAULTS)
    model = _model_flag(inside)
    translate(flags, "primus", named_sizes(model) if model else read_sizes)
    return draft


def _adapters(given: dict[str, Given]) -> dict[str, Given]:
    """Return in Megatron's words what Primus's trainers of adapters call otherwise."""
    kind = given.pop("peft", None)
    on = given.pop("lora.enabled", kind)
    own = {"dim": "lora_r", "target_modules": "lora_target_modules", "alpha": "lora_alpha",
           "dropout": "lora_dropout"}  # fmt: skip
    named = {
        f"{prefix}{key}": word
        for prefix in ("lora.", "peft_", "peft.")
        for key, word in own.items()
    }
    found = {word: replace(given.pop(key), key=word) for key, word in named.items() if key in given}
    given.pop("lora.dropout_position", None)
    if on is None or on.absent:
        return {}
    if kind and kind.value.lower() not in ("lora", "true"):
        found["peft"] = kind
    default = replace(on, key="lora_r", words=("32",))  # Megatron-Bridge's and Primus's default
    return {"lora_r": default, **found}


def _refuse_pictures(draft: Draft, given: Mapping[str, Given]) -> None:
    """Models of pictures have other layers and another loss."""
    marks = ("vae_scale", "guidance_embed", "cfg_dropout_prob", "mock_dataset.params.image_size")
    if mark := next((given[key] for key in marks if key in given), None):
        draft.refuse(
            mark.line,
            mark.shown,
            "trains a diffusion model, which is not simulated; language models are",
        )


def _model_flag(inside: Mapping[str, Given]) -> Given | None:
    model = inside.get("model")
    bare = model is None or model.value.removesuffix(".yaml").endswith(("_base", "language_model"))
    return replace(model, shown="model") if model and not bare else None
