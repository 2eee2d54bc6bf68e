"""Launch scripts: Megatron-LM, MindSpeed-LLM, and a Slurm batch script around Megatron."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ersatz.sim.exporting.megatron import (
    layout_options,
    model_options,
    training_options,
    unsaid,
)
from ersatz.sim.exporting.record import Exported, Option, remarks
from ersatz.sim.scenario.scenario import Scenario

_YOURS = "# Yours: tokenizer, data, checkpoints, learning rate and logging."


def to_megatron(scenario: Scenario) -> Exported:
    """Return a script for Megatron-LM."""
    head = [*_machines(scenario, "GPUS_PER_NODE"), *_blocks(scenario)]
    text = _script([*head, *_torchrun()])
    return Exported(
        scenario.name, "megatron", _with_remarks(text, scenario), tuple(unsaid(scenario))
    )


def to_mindspeed(scenario: Scenario) -> Exported:
    """Return a script for MindSpeed-LLM."""
    head = [*_machines(scenario, "NPUS_PER_NODE"), *_blocks(scenario, mindspeed=True)]
    text = _script([*head, *_torchrun("NPUS_PER_NODE")])
    return Exported(
        scenario.name,
        "mindspeed",
        _with_remarks(text, scenario, mindspeed=True),
        tuple(unsaid(scenario, mindspeed=True)),
    )


def to_slurm(scenario: Scenario) -> Exported:
    """Return a batch script that starts Megatron-LM on every device."""
    pool = scenario.pools[0]
    devices = pool.node.devices
    head = [f"#SBATCH --nodes={pool.nodes}", f"#SBATCH --ntasks-per-node={devices}",
            f"#SBATCH --gpus-per-node={devices}", ""]  # fmt: skip
    last = 'srun python -u pretrain_gpt.py "${MODEL[@]}" "${TRAINING[@]}" "${LAYOUT[@]}"'
    text = _script([*_blocks(scenario), last], head)
    return Exported(scenario.name, "slurm", _with_remarks(text, scenario), tuple(unsaid(scenario)))


def _machines(scenario: Scenario, name: str) -> Iterator[str]:
    pool = scenario.pools[0]
    yield f"{name}={pool.node.devices}  # {pool.node.name}"
    yield f"NNODES={pool.nodes}"
    yield ""


def _blocks(scenario: Scenario, *, mindspeed: bool = False) -> Iterator[str]:
    tp = scenario.parallel.tp
    options: dict[str, Sequence[Option]] = {
        "MODEL": [*model_options(scenario.model, tp, mindspeed=mindspeed)],
        "TRAINING": [*training_options(scenario)],
        "LAYOUT": [*layout_options(scenario, mindspeed=mindspeed)],
    }
    for name, rows in options.items():
        yield f"{name}=("
        yield from (f"    {command_words(row)}" for row in rows)
        yield ")"


LISTS = ("recompute_modules", "lora_target_modules", "rampup_batch_size")  # flags of several words


def command_words(option: Option) -> str:
    """Return a flag with its value as a shell reads it back; a list of words stays one."""
    if option.value is None:
        return option.flag
    words = str(option.value).split() if option.key in LISTS else [str(option.value)]
    return f"{option.flag} {' '.join(map(shlex.quote, words))}"


def _torchrun(name: str = "GPUS_PER_NODE") -> Iterator[str]:
    yield f"torchrun --nproc_per_node ${name} --nnodes $NNODES pretrain_gpt.py \\"
    yield '    "${MODEL[@]}" "${TRAINING[@]}" "${LAYOUT[@]}"'


def _script(lines: Sequence[str], head: Sequence[str] = ()) -> str:
    return "\n".join(["#!/bin/bash", *head, _YOURS, *lines]) + "\n"


def _with_remarks(text: str, scenario: Scenario, *, mindspeed: bool = False) -> str:
    """Return a script with what it cannot say as remarks at its end."""
    return text + "".join(f"{line}\n" for line in remarks(unsaid(scenario, mindspeed=mindspeed)))
