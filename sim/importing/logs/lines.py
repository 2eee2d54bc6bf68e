"""Lines of training logs: prefixes of ranks and colours taken off, steps read with their units."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ersatz.device_models.text.digits import DECIMAL, WHOLE, whole
from ersatz.sim.importing.flags import scaled_number

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"^(?:\[?(?:default|rank)?\d+\]?:\s?)+")
WARM_UP = 2  # iterations that are left out
SLOW = 1.5  # times the median: evaluation, a checkpoint


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a log: the iteration, its seconds, and the batch where the line says it."""

    iteration: int
    seconds: float
    batch: int | None = None


def plain_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, without colours and prefixes of ranks."""
    for number, row in enumerate(text.splitlines(), 1):
        yield number, _RANK.sub("", _COLOUR.sub("", row))


def fields_of(line: str) -> dict[str, str]:
    """Return the fields `name: value` of a line that are separated by bars."""
    found = {}
    for part in line.split("|"):
        name, colon, value = part.rpartition(":")
        if colon:
            found[" ".join(name.split())] = value.strip()
    return found


def megatron_step(line: str) -> Step | None:
    """Read `iteration 7/ 100 | ... | elapsed time per iteration (ms): 1111.1 | ...` and its relatives."""
    found = re.search(rf"iteration:?\s+({WHOLE})(?:\s*/\s*\d+)?", line)
    if not found or "elapsed time per iteration" not in line:
        return None
    fields = fields_of(line[found.end() :])
    for name, unit in (("(ms)", 1e-3), ("(s)", 1.0)):
        value = fields.get(f"elapsed time per iteration {name}", "")
        number = re.match(DECIMAL, value)  # Primus adds a mean after a slash
        if number and float(number[0]) > 0:
            batch = fields.get("global batch size", "")
            return Step(int(found[1]), float(number[0]) * unit, whole(batch))
    return None


def nanotron_step(line: str) -> Step | None:
    """Read `iteration: 4 / 100 | ... | time_per_iteration_ms: 1.11K | ...`."""
    found = re.search(rf"iteration: ({WHOLE}) / \d+ \|", line)
    fields = fields_of(line)
    text = fields.get("time_per_iteration_ms") or fields.get("elapsed_time_per_iteration_ms")
    value = scaled_number(text) if text else None
    return Step(int(found[1]), value / 1e3) if found and value else None


def nemo_step(line: str) -> Step | None:
    """Read `Training epoch 0, iteration 9/99 | ... | train_step_timing in s: 1.11`."""
    found = re.search(rf"Training epoch \d+, iteration ({WHOLE})/\d+", line)
    fields = fields_of(line)
    value = scaled_number(fields.get("train_step_timing in s", ""))
    batch = fields.get("global_batch_size", "")
    if not found or not value:
        return None
    return Step(int(found[1]), value, whole(batch))


def bridge_step(line: str) -> Step | None:
    """Read `Step Time : 1.11s GPU utilization: 222.2MODEL_TFLOP/s/GPU`; it has no number of its own."""
    found = re.search(rf"Step Time : ({DECIMAL})s", line)
    return Step(-1, float(found[1])) if found else None


def swift_step(line: str) -> Step | None:
    """Read ms-swift's dictionary with 'iteration': '10/500' and 'train_speed(s/it)': 4.31."""
    found = re.search(rf"'iteration': '({WHOLE})/\d+'", line)
    speed = re.search(rf"'train_speed\(s/it\)': '?({DECIMAL})", line)
    return Step(int(found[1]), float(speed[1])) if found and speed else None


READERS: Mapping[str, Callable[[str], Step | None]] = {
    "megatron-log": megatron_step, "nanotron-log": nanotron_step, "nemo-log": nemo_step,
    "bridge-log": bridge_step, "swift-log": swift_step,
}  # fmt: skip


def measured(steps: Sequence[Step]) -> tuple[float | None, str]:
    """Return the seconds of a step and how they were found; None where too few lines are left.

    The first two iterations of a run are left out, lines of another batch than the last, and what takes
    over 1.5 times the median: evaluation and checkpoints. Of the rest the median.
    """
    last = steps[-1].batch if steps else None
    same = [s for s in steps if s.batch == last]
    every = same[1].iteration - same[0].iteration if len(same) > 1 else 1
    begin = 1 if every >= WARM_UP else WARM_UP
    kept = same[begin:]
    if len(kept) < 2:
        return None, f"only {len(steps)} lines with a step's time"
    usual = statistics.median(s.seconds for s in kept)
    fine = [s for s in kept if s.seconds <= SLOW * usual]
    if len(fine) < 2:
        return None, f"only {len(fine)} steady lines with a step's time"
    value = statistics.median(s.seconds for s in fine)
    span = f"{fine[0].iteration}-{fine[-1].iteration}"
    if fine[0].iteration < 0:
        return value, f"median of {len(fine)} lines of {len(steps)}"
    return value, f"median of {len(fine)} lines, iterations {span} of {steps[-1].iteration}"
