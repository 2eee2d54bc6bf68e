"""What a search may choose: the values of each axis of a layout, from stack, model and what is held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.search.host.away import ways_of

SCHEDULES = tuple(PIPELINE_SCHEDULES)
RECOMPUTE = ("none", "selective", "full")
AXES = ("tp", "cp", "ep", "etp", "pp", "vp", "schedule", "micro_batch", "recompute",
        "sequence_parallel", "zero", "shard")  # fmt: skip
Held = Mapping[str, object]  # axes with the one value that they may have


@dataclass(frozen=True, slots=True)
class Choices:
    """The values that a search may take; the degrees themselves follow from model and devices."""

    schedules: tuple[str, ...]
    zero: tuple[int, ...]
    most_tensor: int
    least_context_tokens: int
    most_micro_batch: int
    most_chunks: int
    tensor: bool = True
    sequence: bool = True  # norms and residuals may be spread over the tensor group
    recompute: tuple[str, ...] = RECOMPUTE
    away: tuple[int, ...] = ()  # ways in which something leaves for the host
    uneven: bool = False  # stages may have any number of layers
    remark: str = ""  # what of it is an assumption, in words

    @property
    def reach(self) -> str:
        """How far degrees were tried, in words: a proof says nothing of what lies beyond."""
        return (
            f"tried are tp up to {self.most_tensor}, micro_batch up to {self.most_micro_batch},"
            f" {self.most_chunks} chunks a stage, cp of {self.least_context_tokens:,} tokens a rank or"
            " more; beyond, nothing is proved"
        )


@lru_cache(maxsize=1)
def _data() -> Any:
    return read_yaml(DATA / "planning.yaml").data


def _row(table: str, stack: str) -> Any:
    """Return the first row of a table whose pattern a stack's name suits."""
    return next(row for row in _data()[table] if fnmatchcase(stack, row["name"]))


def usual(name: str) -> float:
    """Return what is usual of a training of which nothing is said: tokens, or tokens per weight."""
    return float(_data()["usual"][name]["value"])


def choices_of(scenario: Scenario, *, everything: bool = False) -> Choices:
    """Return what the stack of a scenario runs, within the limits of the space that is searched.

    With `everything` any schedule, ZeRO stage and part that may leave for the host is offered, whether or
    not the stack has it. Nothing leaves where the scenario itself says what does.
    """
    stack, limits = scenario.pools[0].stack, _data()["limits"]
    domain = max(pool.node.scale_up.domain for pool in scenario.pools)
    far: dict[str, Any] = {
        "most_tensor": min(int(limits["tensor"]["value"]), domain),
        "least_context_tokens": int(limits["context_tokens"]["value"]),
        "most_micro_batch": int(limits["micro_batch"]["value"]),
        "most_chunks": int(limits["chunks"]["value"]),
    }
    asked = "any" if everything else stack.name
    far["uneven"] = bool(_row("uneven", asked)["value"])
    if "offload" in scenario.open:
        far["away"] = ways_of(_row("offload", asked)["parts"], stack)
    if everything:
        return Choices(SCHEDULES, (0, 1, 2, 3), **far)
    row = _row("stacks", stack.name)
    guessed = row["confidence"] == "assumed"
    remark = f"what {stack.name} runs (schedules, ZeRO) is an assumption" if guessed else ""
    return Choices(
        tuple(row["schedules"]),
        tuple(row["zero"]),
        tensor=row.get("tensor", True),
        sequence=row.get("sequence", True),
        recompute=tuple(row.get("recompute", RECOMPUTE)),
        **far,
        remark=remark,
    )


def with_defaults(parallel: Parallel, stack: Stack) -> Parallel:
    """Return a layout that spreads context and experts as a stack does where nothing is said."""
    said = stack.defaults
    return replace(
        parallel, cp_comm=said.get("cp_comm", "p2p"),  # type: ignore[arg-type]
        expert_layout=said.get("expert_layout", "folded"),  # type: ignore[arg-type]
    )  # fmt: skip


def divisors(number: int) -> list[int]:
    """Return the divisors of a number in order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
