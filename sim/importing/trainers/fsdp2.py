"""MindSpeed-LLM's trainer on PyTorch's FSDP2: a YAML of sections, and the command line over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.importing.cluster import read_machines
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_yaml
from ersatz.sim.importing.megatron.training import RECIPES
from ersatz.sim.importing.shell.launches import Launch
from ersatz.sim.importing.trainers.trainer import Names, translate_trainer

PROGRAM = "train_fsdp2.py"
NAMES = Names(length=("cutoff_len",), micro_default=1, defaults_of="MindSpeed-LLM")
CONTEXT = {"ulysses": "a2a", "ring": "p2p", "kvallgather": "all_gather"}


def read_fsdp2(draft: Draft, path: Path, launch: Launch, head: dict[str, Given]) -> Draft:
    """Return the draft of a script that starts the trainer with its YAML beside it."""
    draft.format, draft.version = "mindspeed-fsdp2-sh", "mindspeed-llm, August 2026"
    read_machines(draft, launch.launcher, head)
    leaves = {**_beside(draft, path, launch), **launch.flags}
    given = {key.rsplit(".", 1)[-1]: replace(one, key=key.rsplit(".", 1)[-1])
             for key, one in leaves.items() if "*" not in key}  # fmt: skip
    flags = Flags(given, draft)
    _layout(flags)
    quantised = flags.take("training.recipe", "quant_recipe_name")
    if quantised and quantised.value.lower() in RECIPES:
        draft.put("training.precision", "fp8")
        draft.put("training.recipe", RECIPES[quantised.value.lower()])
        flags.take("training.recipe", "quant_converters")
    elif "bf16" not in given and "fp16" not in given:
        draft.put("training.precision", "bf16")
        draft.assume(
            "training.precision", "bf16", "the mixed precision of the trainer is not given"
        )
    draft.put("stack", "fsdp")
    draft.assume("stack", "fsdp", "PyTorch's FSDP2, as it was fitted on other devices")
    translate_trainer(flags, None, NAMES)
    return draft


def _beside(draft: Draft, path: Path, launch: Launch) -> Mapping[str, Given]:
    """Return the leaves of the YAML that the command names, which stands beside the script."""
    named = next((word for word in launch.words if word.endswith((".yaml", ".yml"))), None)
    if named is None:
        return {}
    beside = path.parent / Path(named).name
    try:
        return flat_yaml(read_yaml(beside), beside.name)
    except InputError as error:
        words = f"{named}: {beside.name} beside it {error.problems[0].expected}"
        draft.ask("training.sequence_length", words, line=launch.line)
        return {}


def _layout(flags: Flags) -> None:
    draft = flags.draft
    for key in ("tp", "cp"):
        draft.put(f"parallel.{key}", flags.whole(f"parallel.{key}", f"{key}_size") or 1)
    kind = flags.text("parallel.cp_comm", "cp_type")
    if draft.values["parallel.cp"] > 1:
        draft.put("parallel.cp_comm", CONTEXT.get(kind or "ulysses", "a2a"))
    ep = flags.whole("parallel.ep", "ep_size") or 1
    if ep > 1:
        draft.put("parallel.ep", ep)
        draft.put("parallel.etp", 1)
    sharded = flags.whole("parallel.shard", "fsdp_size")
    draft.put("parallel.zero", 3 if sharded is None or sharded > 1 else 0)
    ranks = (draft.devices or 0) // (draft.values["parallel.tp"] * draft.values["parallel.cp"])
    if sharded and 1 < sharded < ranks:
        draft.put("parallel.shard", sharded)
    draft.put(
        "parallel.recompute", "full" if flags.on("parallel.recompute", "recompute") else "none"
    )
    flags.take("parallel.recompute", "recompute_modules")
