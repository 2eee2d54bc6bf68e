"""Batches that grow over a training: `--rampup-batch-size`, and steps at given numbers of tokens."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from ersatz.sim.importing.flags import Flags, Given, whole_number

RAMP, PHASES, TOKENS = "training.batch_ramp", "training.phases", "training.tokens"
SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
STEP = re.compile(r"([0-9.]+)([KMBT]?):([0-9]+)", re.I)


def read_growth(flags: Flags) -> bool:
    """Put how the batch grows into the draft; tells whether it does."""
    ramp = flags.take(RAMP, "rampup_batch_size")
    steps = flags.take(PHASES, "step_batch_size_schedule")
    if ramp and steps:
        flags.draft.contradict(f"{ramp.shown} and {steps.shown} are both given")
    if ramp and not ramp.unknown:
        _ramp(flags, ramp)
    elif steps and not steps.unknown:
        _steps(flags, steps)
    return bool(ramp or steps)


def _ramp(flags: Flags, given: Given) -> None:
    words = re.sub(r"[\[\],'\"]", " ", given.value).split()
    numbers = [whole_number(word) for word in words]
    if len(numbers) != 3 or None in numbers:
        words_ = "expected three whole numbers: first batch, increment, samples over which it grows"
        flags.draft.blame(RAMP, given.line, given.shown, given.value, words_)
        return
    draft = flags.draft
    draft.assume(
        RAMP,
        given.value,
        "as Megatron counts it until it called it --step-batch-size-schedule (2026)",
    )
    for key, number in zip(("start", "increment", "sequences"), numbers, strict=True):
        draft.put(f"{RAMP}.{key}", number)


def _steps(flags: Flags, given: Given) -> None:
    """One phase for each size: Megatron's thresholds are tokens, the first is 0."""
    draft = flags.draft
    found = [STEP.fullmatch(word) for word in given.value.strip("[]'\"").replace(",", " ").split()]
    if not found or None in found:
        draft.blame(PHASES, given.line, given.shown, given.value,
                    "expected TOKENS:BATCH TOKENS:BATCH ..., the first from 0")  # fmt: skip
        return
    rows = [(float(m[1]) * SCALE[m[2].upper()], int(m[3])) for m in found if m]
    starts = [start for start, _ in rows]
    if starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        draft.blame(
            PHASES, given.line, given.shown, given.value, "expected rising numbers of tokens from 0"
        )
        return
    phases: list[dict[str, Any]] = []
    for (start, batch), end in zip(rows, [*starts[1:], None], strict=True):
        own: dict[str, Any] = {
            "name": f"batch {batch:,} from {start:.4g} tokens",
            "global_batch": batch,
        }
        phases.append(own | ({"tokens": f"{end - start:.12g} tokens"} if end is not None else {}))
    largest = max(batch for _, batch in rows)
    stated = flags.find("global_batch_size")
    if stated and whole_number(stated.value) not in (None, largest):
        draft.contradict(
            f"{given.shown} ends at a batch of {largest}, {stated.shown} says {stated.value}"
        )
    draft.assumed.pop("training.global_batch", None)
    draft.put("training.global_batch", largest)
    if len(phases) > 1:
        draft.put(PHASES, phases)


def _in_steps(phases: list[dict[str, Any]], steps: int, length: int) -> list[dict[str, Any]]:
    """Return phases by steps, so many in all: a size lasts until its samples are done."""
    done, due, found = 0, 0, []
    for phase in phases:
        batch, tokens = phase["global_batch"], phase.get("tokens")
        due += int(float(str(tokens).split()[0])) // length if tokens else 0
        own = min(max(-((done - due) // batch), 0), steps) if tokens else steps
        done, steps = done + own * batch, steps - own
        if own:
            found.append({"name": phase["name"], "global_batch": batch, "steps": own})
    return found


def put_growing_length(flags: Flags, steps: int | None, samples: int | None) -> None:
    """Put how long a job with a growing batch goes on: samples count, or steps over the sizes."""
    draft = flags.draft
    length = draft.values.get("training.sequence_length")
    if samples and isinstance(length, int):
        draft.put(TOKENS, f"{samples * length} tokens")
    elif steps and isinstance(length, int) and PHASES in draft.values:
        draft.put(PHASES, _in_steps(draft.values[PHASES], steps, length))
    elif steps:
        draft.contradict("a batch that grows is counted in samples: Megatron takes --train-samples with"
                         " it, no --train-iters")  # fmt: skip
        draft.ask(TOKENS, f"{steps:,} steps of a growing batch; how many tokens?")
    elif PHASES in draft.values:
        draft.ask(TOKENS, "how long the last size of the batch lasts is not given")
