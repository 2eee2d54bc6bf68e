"""Logs of Megatron and its kin: the block of arguments, resolved, and the iterations."""

from __future__ import annotations

import re
from pathlib import Path

from ersatz.device_models.text.digits import is_whole, whole
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given, key_of
from ersatz.sim.importing.logs.lines import READERS, Step, measured, plain_lines
from ersatz.sim.importing.megatron.translate import translate

_ARGUMENT = re.compile(r"^\s*([A-Za-z_]\w*) \.{2,} ?(.*)$")
_PADDED = re.compile(r"> padded vocab \(size: \d+\) with \d+ dummy tokens \(new size: (\d+)\)")
_KIND = {"MindSpeed": "mindspeed", "Primus": "primus"}
_BLANK = frozenset({"none", "false", "0", "0.0", "[]", "{}", "-1", "inf"})


def read_log(path: Path, text: str) -> Draft:
    """Return the draft of a log: what its arguments say, and how long its steps took."""
    draft = Draft(str(path), "megatron-log")
    given: dict[str, Given] = {}
    steps: dict[str, list[Step]] = {}
    inside = False
    for number, line in plain_lines(text):
        if "--- arguments ---" in line:
            given, inside = {}, True
        elif "end of arguments" in line:
            inside = False
        elif inside and (found := _ARGUMENT.match(line)):
            key = key_of(found[1])
            given[key] = Given(
                key, found[1], (found[2].strip(),) if found[2].strip() else ("None",), number
            )
        elif padded := _PADDED.search(line):
            _padded(given, padded[1], number)
        else:
            _steps(steps, line)
    _machines(draft, given)
    name = max(steps, key=lambda kind: len(steps[kind]), default="")
    if name:
        draft.measured_step_s, how = measured(steps[name])
        draft.measured_from = how
    if not given:
        draft.format = name or draft.format
        draft.ask(
            "model", "the log holds no arguments: give the model, the training and the layout"
        )
        for key in ("training.sequence_length", "training.global_batch"):
            draft.ask(key, "the log holds no arguments")
        batch = steps[name][-1].batch if name else None
        draft.put("training.global_batch", batch)
        return draft
    _translate(draft, given)
    return draft


def _steps(steps: dict[str, list[Step]], line: str) -> None:
    for name, read in READERS.items():
        if step := read(line):
            steps.setdefault(name, []).append(step)
            return


def _padded(given: dict[str, Given], size: str, line: int) -> None:
    """The size of the vocabulary as it was padded, where the arguments do not say it."""
    known = given.get("padded_vocab_size")
    if known is None or known.absent:
        given["padded_vocab_size"] = Given(
            "padded_vocab_size", "padded vocab (new size)", (size,), line
        )


def _machines(draft: Draft, given: dict[str, Given]) -> None:
    world = given.get("world_size")
    if world and is_whole(world.value):
        draft.devices = int(world.value)
        draft.note("cluster.devices", world.shown, world.value, world.line)


def _translate(draft: Draft, given: dict[str, Given]) -> None:
    """Read resolved arguments: what is None, False or 0 says that there is none."""
    stack = "megatron-core"
    if any(
        key in given
        for key in ("noop_layers", "use_ascend_coc", "reuse_fp32_param", "swap_attention")
    ):
        stack = "mindspeed"
    elif any(key.startswith(("enable_primus", "use_turbo")) for key in given):
        stack = "primus"
    flags = Flags(given, draft)
    flags.used.add("world_size")
    layers = given.get("num_layers")
    encoder = given.get("encoder_num_layers")
    if layers and not layers.absent and encoder:
        draft.ignore(encoder.shown, encoder.line)
        flags.used.add("encoder_num_layers")
    _agree(flags)
    for key, one in given.items():  # what is off decides nothing, and is no unknown
        if one.value.lower() in _BLANK and key not in _MEANS_SOMETHING:
            flags.given[key] = Given(key, one.shown, ("None",), one.line)
    translate(flags, stack)


_MEANS_SOMETHING = frozenset({"first_k_dense_replace", "moe_layer_freq", "recompute_num_layers",
                              "zero_stage", "window_size"})  # fmt: skip


def _agree(flags: Flags) -> None:
    """Check the data-parallel degree that the log states against the rest of it."""
    draft, given = flags.draft, flags.given
    stated = given.get("data_parallel_size")
    column = 1
    for name in (
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "context_parallel_size",
    ):
        degree = given.get(name)
        column *= (degree and whole(degree.value)) or 1
    if (
        stated
        and is_whole(stated.value)
        and draft.devices
        and int(stated.value) * column != draft.devices
    ):
        draft.contradict(f"data_parallel_size {stated.value} x {column} (tensor, pipeline, context) is not"
                         f" world_size {draft.devices}")  # fmt: skip
