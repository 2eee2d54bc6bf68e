"""Accelerate: how its configuration, or its launcher's flags, share state and choose a number format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.cluster import NODES, PER_NODE
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_yaml
from ersatz.sim.importing.shell.launches import Launch
from ersatz.sim.importing.shell.pieces import Value
from ersatz.sim.importing.trainers.deepspeed import arguments_beside, settings_beside
from ersatz.sim.importing.trainers.trainer import STRATEGIES, Names, translate_trainer

SECTIONS = ("fsdp_config.", "deepspeed_config.", "parallelism_config.", "megatron_lm_config.")
# What Accelerate says of DeepSpeed without a file, in the words of DeepSpeed's own settings.
OWN = {"zero_stage": "zero_optimization.stage",
       "offload_optimizer_device": "zero_optimization.offload_optimizer.device",
       "offload_param_device": "zero_optimization.offload_param.device"}  # fmt: skip
MACHINES = frozenset({*PER_NODE, *NODES, "num_processes"})
KINDS = frozenset({"", "NO", "DEEPSPEED", "FSDP", "MEGATRON_LM",
                   "MULTI_GPU", "MULTI_NPU", "MULTI_XPU", "MULTI_MLU", "MULTI_SDAA", "MULTI_MUSA",
                   "MULTI_HPU"})  # fmt: skip
MEGATRON = "Megatron-LM under Accelerate is not read; say its flags as a script of Megatron"


def read_accelerate(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of an Accelerate configuration: machines and sharding; the rest is asked for."""
    draft = Draft(text.file, "accelerate-yaml")
    flags = Flags(short_keys(flat_yaml(text)), draft)
    total = flags.whole("cluster.nodes", "num_processes")
    machines = flags.whole("cluster.nodes", "num_machines") or 1
    if total and total % machines:
        draft.contradict(f"{total} processes are no whole number on each of {machines} machines")
    draft.devices = total
    draft.devices_per_node = total // machines if total and total % machines == 0 else None
    draft.put("cluster.nodes", machines)
    settings = put_sharding(flags, {})
    translate_trainer(flags, settings, Names())
    return draft


def short_keys(given: Mapping[str, Given]) -> dict[str, Given]:
    """Return the keys of a configuration as the launcher's flags call them."""
    found = {}
    for key, value in given.items():
        for section in SECTIONS:
            key = key.removeprefix(section)
        found[key] = value
    return found


def of_launcher(
    draft: Draft, launch: Launch, written: Mapping[str, Value]
) -> tuple[dict[str, Given], dict[str, Given]]:
    """Return what the launcher says of machines, and what of the training: its flags over its file's."""
    head = dict(launch.launcher)
    if not {"accelerate", "accelerate.commands.launch"} & set(launch.tools):
        return head, {}
    named = head.pop("config_file", None)
    beside = {} if named is None else _configuration(draft, named, written)
    both = {**beside, **head}
    machines = {key: given for key, given in both.items() if key in MACHINES}
    return machines, {key: given for key, given in both.items() if key not in MACHINES}


def _configuration(draft: Draft, named: Given, written: Mapping[str, Value]) -> dict[str, Given]:
    found = arguments_beside(draft, named.value, written)
    if found is None:
        draft.ask("parallel.zero", f"{named.shown} {named.value} cannot be read: how is state shared?",
                  ("0", "1", "2", "3"), named.line)  # fmt: skip
        draft.ask("training.precision", f"{named.shown} {named.value} cannot be read: which format?",
                  ("bf16", "fp16", "fp8"), named.line)  # fmt: skip
        return {}
    draft.note("parallel.zero", named.shown, named.value, named.line)
    return short_keys(found)


def put_sharding(flags: Flags, written: Mapping[str, Value]) -> Flags | None:
    """Put into the draft who shares what; return DeepSpeed's settings where it is DeepSpeed that does."""
    draft, key, given = flags.draft, "parallel.zero", flags.given
    for degree in ("tp", "cp"):
        size = flags.whole(f"parallel.{degree}", f"parallelism_config_{degree}_size")
        draft.put(f"parallel.{degree}", size or draft.values.get(f"parallel.{degree}", 1))
    kind = (flags.text(key, "distributed_type") or "").upper()
    if kind not in KINDS:
        line = given["distributed_type"].line
        draft.refuse(line, f"distributed_type: {kind}", "is not read; expected one of"
                     f" {', '.join(sorted(KINDS - {''}))}")  # fmt: skip
    if kind == "MEGATRON_LM" or flags.on(key, "use_megatron_lm"):
        line = given["distributed_type"].line if "distributed_type" in given else 0
        draft.refuse(line, "MEGATRON_LM", MEGATRON)
    if kind == "DEEPSPEED" or flags.on(key, "use_deepspeed"):
        return _deepspeed(flags, written)
    if kind == "FSDP" or flags.on(key, "use_fsdp"):
        _fsdp(flags)
    return None


def _fsdp(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.zero"
    shared = flags.whole("parallel.shard", "parallelism_config_dp_shard_size")
    copies = flags.whole("parallel.shard", "parallelism_config_dp_replicate_size")
    if shared and copies and copies > 1:
        draft.put("parallel.shard", shared)
    strategy = flags.given.get("fsdp_sharding_strategy")
    second = flags.find("fsdp_version")
    if strategy and not (second and second.value == "2"):
        words = STRATEGIES.get(strategy.value, strategy.value)
        flags.given["fsdp_sharding_strategy"] = replace(strategy, words=(words,))
        return
    if strategy:
        flags.take(key, "fsdp_sharding_strategy")  # of the first version alone
    reshard = flags.text(key, "fsdp_reshard_after_forward")
    if reshard and reshard.upper() in (
        *STRATEGIES,
        *(name.upper() for name in STRATEGIES.values()),
    ):
        flags.given["fsdp_sharding_strategy"] = replace(
            flags.given["fsdp_reshard_after_forward"],
            words=(STRATEGIES.get(reshard, reshard),),
        )
        return
    off = "fsdp_reshard_after_forward" in flags.given and reshard is None
    draft.put(key, 2 if off else 3)


def _deepspeed(flags: Flags, written: Mapping[str, Value]) -> Flags | None:
    """Return DeepSpeed's settings: its own file, or what Accelerate says in its place."""
    draft = flags.draft
    named = flags.take("parallel.zero", "deepspeed_config_file")
    if named is not None:
        found = settings_beside(draft, named, written)
        if found is None:
            words = f"{named.shown} {named.value} cannot be read: which stage of ZeRO?"
            draft.ask("parallel.zero", words, ("0", "1", "2", "3"), named.line)
            draft.put("stack", "deepspeed")
            return None
        shown = Path(named.value).name
        return Flags({k: replace(v, file=v.file or shown) for k, v in found.items()}, draft)
    own = {OWN[key]: replace(flags.given[key], key=OWN[key]) for key in OWN if key in flags.given}
    flags.used.update(OWN)
    if "zero_stage" not in flags.given:
        draft.assume("parallel.zero", 2, "zero_stage is not given: Accelerate's default")
        own[OWN["zero_stage"]] = Given(OWN["zero_stage"], "zero_stage", ("2",), 0)
    return Flags(own, draft)
