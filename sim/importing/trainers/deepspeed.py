"""Files beside a script, and DeepSpeed's settings in one: sharding, offload, batch and precision."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_json, flat_yaml
from ersatz.sim.importing.shell.pieces import Value, text_of, unknown_of

STACK = "deepspeed"
DEVICES = ("none", "cpu", "nvme")  # where state may lie
Flat = Callable[[str, str, str], dict[str, Given]]  # text, file, file as it is shown


def settings_beside(
    draft: Draft, given: Given, written: Mapping[str, Value]
) -> dict[str, Given] | None:
    """Return the settings of DeepSpeed or FSDP that a flag names, in JSON; None where they cannot be read."""
    return _beside(draft, given.value, written, "JSON", flat_json)


def arguments_beside(
    draft: Draft, named: str, written: Mapping[str, Value]
) -> dict[str, Given] | None:
    """Return the arguments in a YAML file that is named; None where it cannot be read."""
    return _beside(draft, named, written, "YAML",
                   lambda text, file, shown: flat_yaml(parse_yaml(text, file), shown))  # fmt: skip


def _beside(
    draft: Draft, named: str, written: Mapping[str, Value], kind: str, flat: Flat
) -> dict[str, Given] | None:
    """Read a file that lies beside the draft's, or that its script writes; its folder is not looked at."""
    name = Path(named).name
    if name in written:
        if unknown := unknown_of(written[name]):
            words = f"is written here, and {unknown.reason}"
            raise InputError([Problem(draft.file, unknown.line, 1, name, "", words)])
        return flat(text_of(written[name]), draft.file, name)
    path = Path(draft.file).parent / name
    try:
        return flat(read_text_file(path, kind), str(path), name)
    except InputError:
        if os.path.isfile(path):  # unlike a Path's own, it bears names that no file can have
            raise
        return None


def put_settings(flags: Flags) -> None:
    """Put sharding and offload of the settings into the draft."""
    draft, key = flags.draft, "parallel.zero"
    stage = flags.whole(key, "zero_optimization.stage", "zero_optimization")
    if stage is None and not draft.asked(key):
        stage = 0
        draft.assume(key, 0, "zero_optimization.stage is not given: DeepSpeed's default")
    draft.put(key, stage)
    _shard(flags)
    offloads = [
        flags.take("stack", name)
        for name in ("zero_optimization.offload_optimizer.device",
                     "zero_optimization.offload_param.device", "zero_optimization.cpu_offload",
                     "zero_optimization.cpu_offload_params")
    ]  # fmt: skip
    for given in offloads[:2]:
        if given and given.value.lower() not in DEVICES:
            words = f"expected one of {', '.join(DEVICES)}"
            draft.blame("memory.optimizer_offload", given.line, given.shown, given.value, words)
    away = [
        given
        for given in (offloads[0], offloads[2])
        if given and given.value.lower() not in ("none", "false")
    ]
    draft.put("stack", "deepspeed-offload" if away else STACK)
    for name, at in (("tensor_parallel.autotp_size", "parallel.tp"),
                     ("sequence_parallel_size", "parallel.cp")):  # fmt: skip
        size = flags.whole(at, name)
        draft.put(at, size if size and size > 1 else draft.values.get(at, 1))


def _shard(flags: Flags) -> None:
    size = flags.whole("parallel.shard", "zero_optimization.mics_shard_size",
                       "zero_optimization.zero_hpz_partition_size")  # fmt: skip
    if size and size > 1:
        flags.draft.put("parallel.shard", size)
    hpz = flags.find("zero_optimization.zero_hpz_partition_size")
    if size and size > 1 and hpz:
        words = (
            "weights alone are gathered within the group; gradients and states, which all replicas share,"
            " are taken to lie within it, too: more memory and less traffic than there is"
        )
        flags.draft.leave_out(hpz.shown, hpz.value, hpz.line, words, hpz.file)


def stage_of_name(name: str) -> int | None:
    """Return the ZeRO stage that a file's name says: ds_z2_config.json, zero3_offload.json."""
    found = re.search(r"(?:^|[_-])z(?:ero)?[_-]?(?:stage[_-]?)?([0-3])(?=[_.-]|$)", name.lower())
    return int(found[1]) if found else None


def automatic(given: Given | None) -> bool:
    """Tell whether a setting is left to the trainer."""
    return given is None or given.value == "auto"
