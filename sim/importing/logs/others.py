"""Logs of trainers that print rates: torchtitan, Automodel, DeepSpeed, Hugging Face's Trainer, MLPerf.

They say how fast a step was, and little of what was trained: the rest is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ersatz.device_models.text.digits import DECIMAL, WHOLE
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.logs.lines import Step, measured, plain_lines

MARKS: Mapping[str, re.Pattern[str]] = {
    "torchtitan-log": re.compile(r"step:\s+\d+\s+loss:.*\btps:\s*[\d,]+"),
    "automodel-log": re.compile(r"\bstep \d+ \| epoch \d+ \|.*\btps [\d.]+"),
    "deepspeed-log": re.compile(r"global_step=\d+, .*CurrSamplesPerSec="),
    "trainer-log": re.compile(r"'train_steps_per_second':"),
    "mlperf-log": re.compile(r":::MLLOG .*\"(?:tracked_stats|global_batch_size)\""),
}


def log_kind(text: str) -> str | None:
    """Return the kind of a log, or None where it is none of these."""
    return next((name for name, mark in MARKS.items() if mark.search(text)), None)


def read_rates(path: Path, text: str, kind: str) -> Draft:
    """Return the draft of a log: its measured step, and questions for what was trained."""
    draft = Draft(str(path), kind)
    lines = [line for _, line in plain_lines(text)]
    batch = _first(lines, rf"global batch size[ :]+({WHOLE})") or _first(
        lines, rf'"global_batch_size", "value": ({WHOLE})'
    )
    if batch:
        draft.put("training.global_batch", int(batch))
    seconds, how = _READERS[kind](lines, draft)
    draft.measured_step_s, draft.measured_from = seconds, how
    draft.ask(
        "model", "the log does not say what was trained: name a model, a config.json or give sizes"
    )
    for key in ("training.sequence_length", "training.global_batch"):
        if key not in draft.values:
            draft.ask(key, "the log does not say it")
    return draft


def _first(lines: list[str], pattern: str) -> str | None:
    return next((found[1] for line in lines if (found := re.search(pattern, line))), None)


Timed = tuple[float | None, str]


def _torchtitan(lines: list[str], draft: Draft) -> Timed:
    """Tokens per second and device: with batch, length and devices a step; these the log does not have."""
    said = re.compile(r"step:\s+\d+\s+loss:.*\btps:\s*(\d[\d,]{0,17})(?!\d)")
    rates = [float(found[1].replace(",", "")) for line in lines if (found := said.search(line))]
    return _by_rate(rates, draft)


def _automodel(lines: list[str], draft: Draft) -> Timed:
    direct = _first(lines, rf"Max iter time: ({DECIMAL}) seconds")
    if direct:
        return float(direct), "the recipe's own maximum"
    summary = re.compile(rf"Total iteration time \(({WHOLE}) steps\): ({DECIMAL}) seconds")
    total = next((found for line in lines if (found := summary.search(line))), None)
    if total and int(total[1]):
        return float(total[2]) / int(total[1]), f"mean of {total[1]} steps"
    rates = [
        float(found[1])
        for line in lines
        if (found := re.search(rf"tps [\d.]+\(({DECIMAL})/gpu\)", line))
    ]
    return _by_rate(rates, draft)


def _by_rate(rates: list[float], draft: Draft) -> Timed:
    """A rate per device is told; it becomes a step once batch, length and devices are known."""
    steady = rates[2:] if len(rates) > 3 else []
    if not steady:
        return None, f"only {len(rates)} lines with a rate"
    middle = sorted(steady)[len(steady) // 2]
    draft.assume("measured rate", f"{middle:.6g} tokens/s per device", f"the middle of {len(steady)} lines; a"
                 " step is batch x length / devices of it")  # fmt: skip
    return None, f"{middle:.6g} tokens/s per device: batch, length and devices are not in the log"


def _deepspeed(lines: list[str], draft: Draft) -> Timed:
    found = [
        re.search(rf"global_step=({WHOLE}), .*CurrSamplesPerSec=({DECIMAL})", line)
        for line in lines
    ]
    batch = draft.values.get("training.global_batch")
    rows = [(int(f[1]), float(f[2])) for f in found if f and float(f[2]) > 0]
    if not batch:
        return None, "samples per second without a global batch"
    return measured([Step(step, batch / rate, batch) for step, rate in rows])


def _trainer(lines: list[str], draft: Draft) -> Timed:
    rate = _first(lines, rf"'train_steps_per_second': '?({DECIMAL})")
    if not rate or not float(rate):
        return None, "no rate of steps"
    return 1 / float(rate), "mean of the whole run, start-up included"


def _mlperf(lines: list[str], draft: Draft) -> Timed:
    times = [
        float(found[1])
        for line in lines
        if (found := re.search(rf'"train_step_time": ({DECIMAL})', line))
    ]
    return measured([Step(i, t) for i, t in enumerate(times, 1)])


_READERS: Mapping[str, Callable[[list[str], Draft], Timed]] = {
    "torchtitan-log": _torchtitan, "automodel-log": _automodel, "deepspeed-log": _deepspeed,
    "trainer-log": _trainer, "mlperf-log": _mlperf,
}  # fmt: skip
