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
    for key, number in zip(("start", "increment", "sequences"), numbers, strict=True):
        flags.draft.put(f"{RAMP}.{key}", number)


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
    draft.put("training.global_batch", max(batch for _, batch in rows))
    if len(phases) > 1:
        draft.put(PHASES, phases)


def put_growing_length(flags: Flags, steps: int | None, samples: int | None) -> None:
    """Put how long a job with a growing batch goes on: samples count, steps would not say it."""
    draft = flags.draft
    length = draft.values.get("training.sequence_length")
    if samples and isinstance(length, int):
        draft.put(TOKENS, f"{samples * length} tokens")
    elif steps:
        draft.contradict("a batch that grows is counted in samples: Megatron takes --train-samples with"
                         " it, no --train-iters")  # fmt: skip
        draft.ask(TOKENS, f"{steps:,} steps of a growing batch; how many tokens?")
    elif PHASES in draft.values:
        draft.ask(TOKENS, "how long the last size of the batch lasts is not given")
