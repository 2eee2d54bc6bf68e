"""The command line that would start a script for real: with `torchrun`, `accelerate launch`, or `python`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.errors import InputError, Problem

FLAGS = frozenset({"--standalone", "--no-python", "--run-path", "--multi-gpu", "--multi_gpu", "--use-fsdp",
                   "--use_fsdp", "--use_deepspeed", "--no_local_rank", "-u"})  # fmt: skip
LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})


@dataclass(frozen=True, slots=True)
class Command:
    """A script with its arguments, and what a launcher was told of the world."""

    words: tuple[str, ...]  # script and arguments; begins with -m for a module
    launcher: str = ""
    per_node: int = 0  # processes on a node; 0: not said
    nodes: int = 0


def parse_command(words: Sequence[str]) -> Command:
    """Return what a command line starts; raises `InputError` where no script can be found in it."""
    rest = list(words)
    if not rest:
        raise _fault(
            "", "expected the script to run, as in: ersatz emulate --node h800-8 -- train.py"
        )
    launcher = ""
    if Path(rest[0]).name.startswith("python"):
        rest = rest[1:]
        if rest[:2] in (["-m", "torch.distributed.run"], ["-m", "torch.distributed.launch"]):
            rest = ["torchrun", *rest[2:]]
    if rest and Path(rest[0]).name in LAUNCHERS:
        launcher = Path(rest[0]).name
        rest = rest[2:] if rest[:2] == ["accelerate", "launch"] else rest[1:]
    options, rest = _options(rest, bool(launcher))
    if not rest or rest == ["-m"]:
        raise _fault(" ".join(words), "has no script")
    if rest[0] != "-m":
        _check_script(rest[0])
    per_node = _number(options, "nproc-per-node", "nproc_per_node", "num_gpus", "num_processes")
    nodes = _number(options, "nnodes", "num_nodes", "num_machines")
    if launcher == "accelerate" and per_node and nodes:
        per_node //= nodes  # it counts the processes of all machines
    return Command(tuple(rest), launcher, per_node, nodes)


def _options(words: Sequence[str], launched: bool) -> tuple[dict[str, str], list[str]]:
    """Split what is the launcher's (or Python's) from the script and its arguments."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        word = rest.pop(0)
        key, given, value = word.partition("=")
        if key == "--module":
            return found, ["-m", *rest]
        if word in FLAGS or not launched:
            continue
        found[key.lstrip("-")] = value if given else (rest.pop(0) if rest else "")
    return found, rest


def _number(options: dict[str, str], *names: str) -> int:
    for name in names:
        value = options.get(name, "").partition(":")[0]
        if value in ("", "gpu", "auto"):
            continue
        if not is_whole(value) or int(value) < 1:
            raise _fault(f"--{name} {value}", "expected a whole number above 0")
        return int(value)
    return 0


def _check_script(name: str) -> None:
    path = Path(name)
    if not os.path.isfile(path):
        raise _fault(name, "is no file; expected a Python script")
    head = path.read_bytes()[:4096]
    if b"\0" in head:
        raise _fault(name, "is no Python script")


def _fault(value: str, expected: str) -> InputError:
    return InputError([Problem("emulate", 0, 0, "", value, expected)])
