"""Megatron's names in YAML: FlagScale, Megatron-Bridge, and the test cases of Megatron-LM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import YamlText, read_yaml
from ersatz.sim.importing.cluster import read_machines
from ersatz.sim.importing.configs.environment import filled_in
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given, key_of
from ersatz.sim.importing.flat import flat_yaml
from ersatz.sim.importing.megatron.translate import translate

CORE = "megatron core, August 2026"
# Megatron-Bridge's names of the configuration's classes, and Megatron's flags for them.
BRIDGE_NAMES = {
    "num_moe_experts": "num_experts", "sequence_length": "seq_length", "seq_len": "seq_length",
    "gated_linear_unit": "swiglu", "num_layers_in_first_pipeline_stage":
    "decoder_first_pipeline_num_layers", "num_layers_in_last_pipeline_stage":
    "decoder_last_pipeline_num_layers", "moe_router_num_groups": "moe_router_num_groups",
}  # fmt: skip


# Its adapters; a class that is no LoRA's is refused by the name of its class.
BRIDGE_PEFT = {"peft.dim": "lora_r", "peft.alpha": "lora_alpha", "peft.dropout": "lora_dropout",
               "peft.target_modules": "lora_target_modules"}  # fmt: skip


def read_flagscale(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of FlagScale: a training file, or an experiment that names one beside it."""
    draft = Draft(text.file, "flagscale-yaml", CORE)
    leaves = {k: filled_in(v, defines, draft) for k, v in flat_yaml(text).items()}
    runner = {
        k.rsplit(".", 1)[-1]: v for k, v in leaves.items() if k.startswith("experiment.runner.")
    }
    if runner or any(k.startswith("experiment.") for k in leaves):
        for key, one in leaves.items():
            if not key.startswith("experiment.runner."):
                draft.ignore(one.shown, one.line)
        leaves = _training_file(draft, leaves, defines)
    for key, one in leaves.items():
        if ".hetero." in f".{key}" and one.value not in ("false", "null"):
            draft.leave_out(one.shown, one.value, one.line, "devices of several kinds in one job: say"
                            " cluster.pools and parallel.stage_pools", one.file)  # fmt: skip
    given = _by_last_name({k: v for k, v in leaves.items() if ".hetero." not in f".{k}"})
    read_machines(draft, runner)
    translate(Flags(given, draft), "megatron-core")
    return draft


def _training_file(
    draft: Draft, leaves: Mapping[str, Given], defines: Mapping[str, str]
) -> dict[str, Given]:
    """Return the leaves of the file that `defaults: - train: NAME` names."""
    named = next(
        (v for k, v in leaves.items() if k.startswith("defaults.") and k.endswith(".train")), None
    )
    if named is None:
        draft.ask("model", "the experiment names no training file (defaults: - train: NAME)")
        return {}
    path = Path(draft.file).parent / "train" / f"{Path(named.value).name}.yaml"
    try:
        inner = read_yaml(path)
    except InputError as error:
        draft.ask("model", f"{named.value}: {path.name} beside it {error.problems[0].expected}",
                  line=named.line)  # fmt: skip
        return {}
    return {k: filled_in(v, defines, draft) for k, v in flat_yaml(inner, path.name).items()}


def _by_last_name(leaves: Mapping[str, Given]) -> dict[str, Given]:
    """Return leaves by the last part of their path, which is Megatron's name."""
    given = {}
    for key, one in leaves.items():
        name = key_of(key.rsplit(".", 1)[-1])
        given[name] = replace(one, key=name)
    return given


def read_bridge(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a configuration that Megatron-Bridge wrote (ConfigContainer)."""
    draft = Draft(text.file, "bridge-yaml", "megatron-bridge, August 2026")
    whole = {k: filled_in(v, defines, draft) for k, v in flat_yaml(text).items()}
    _refuse_adapters(draft, whole)
    leaves = {k: v for k, v in whole.items() if not k.endswith("_target_") and
              "_call_" not in k and "_partial_" not in k}  # fmt: skip
    given: dict[str, Given] = {}
    for key, one in leaves.items():
        name = key_of(key.rsplit(".", 1)[-1])
        name = BRIDGE_PEFT.get(key) or BRIDGE_NAMES.get(name, name)
        known = given.get(name)
        if known is None or known.absent or key.startswith("model."):
            if known is not None:
                draft.ignore(known.shown, known.line)
            given[name] = replace(one, key=name)
        else:
            draft.ignore(one.shown, one.line)
    _bridge_switches(draft, given, leaves)
    translate(Flags(given, draft), "megatron-core-2025")
    return draft


def _refuse_adapters(draft: Draft, leaves: Mapping[str, Given]) -> None:
    """Adapters of another kind than LoRA's two matrices."""
    kind = leaves.get("peft._target_")
    if kind and kind.value.rsplit(".", 1)[-1] not in ("LoRA", "CanonicalLoRA"):
        draft.refuse(
            kind.line, f"peft: {kind.value}", "adapters that are not simulated; LoRA's are"
        )


def _bridge_switches(draft: Draft, given: dict[str, Given], leaves: Mapping[str, Given]) -> None:
    """Say in flags what the classes say by other means."""
    if (groups := given.get("num_query_groups")) and not groups.absent:
        given["group_query_attention"] = replace(
            groups, key="group_query_attention", words=("true",)
        )
    tied = leaves.get("model.share_embeddings_and_output_weights")
    if tied:
        words = ("false",) if tied.value == "true" else ("true",)
        given["untie_embeddings_and_output_weights"] = replace(tied, words=words)
        given.pop("share_embeddings_and_output_weights", None)
    padded = leaves.get("model.should_pad_vocab")
    if padded and padded.value == "false" and "vocab_size" in given:
        given["padded_vocab_size"] = given["vocab_size"]
    name = leaves.get("mixed_precision") or leaves.get("mixed_precision.name")
    if name and not name.absent:
        if "fp8" in name.value or "mxfp8" in name.value:
            given["fp8_format"] = replace(name, key="fp8_format")
        if "nvfp4" in name.value:
            given["fp4_format"] = replace(name, key="fp4_format")
        for kind in ("bf16", "fp16"):
            if kind in name.value:
                given.setdefault(kind, replace(name, key=kind, words=("true",)))
                given.pop("mixed_precision", None)
                break
        else:
            fault = "is no mixture of formats that is known"
            draft.blame("training.precision", name.line, name.shown, name.value, fault)


def read_test_case(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a test case: `MODEL_ARGS` with flags and values."""
    draft = Draft(text.file, "megatron-yaml", CORE)
    given = {}
    for key, one in flat_yaml(text).items():
        section, _, name = key.partition(".")
        if section != "MODEL_ARGS":
            draft.ignore(one.shown, one.line)
            continue
        words = () if one.value == "true" else one.words
        given[key_of(name)] = filled_in(
            replace(one, key=key_of(name), shown=name, words=words), defines, draft
        )
    translate(Flags(given, draft), "megatron-core")
    return draft
