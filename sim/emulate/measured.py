"""The live timer of an emulation: a clean process with PyTorch times each distinct operator.

    python -m ersatz.sim.emulate.measured BACKEND      asked by lines on standard input

An operator is told by its name, shapes, strides and formats, and by what of it the cache holds in the
script (`virtual.residency`). It is run with made-up operands several times, and the median counts: each
time the cache is written over, a short operator is run on other operands (in training its instructions
are at hand), and what the script would find in the cache is touched. A result that finds its block there
takes the one just freed. Fused attention that a CPU calls otherwise is run under the CPU's name.
"""

from __future__ import annotations

import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ersatz.sim.hil.device.attached import Attached, attach

SAMPLES, LONG_S, FEW = 7, 0.05, 3
SHORT_S = 2e-3  # below it instructions that have to be fetched first would count
SPREAD, TINY = 0.02, 1e-4  # of made-up floats: positive, for roots of negative numbers take longer
HIGHEST = 50  # of made-up integers


@dataclass(slots=True)
class Measurer:
    """Asks the measuring process, each distinct operator once."""

    backend: str
    known: dict[object, float | None] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __call__(self, signature: object) -> float | None:
        """Return the seconds of an operator; None: the device cannot run it."""
        if signature not in self.known:
            self.known[signature] = self._ask(signature)
        return self.known[signature]

    def _ask(self, signature: object) -> float | None:
        if self.process is None:
            words = [sys.executable, "-m", "ersatz.sim.emulate.measured", self.backend]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin
        assert self.process.stdout
        pickle.dump(signature, self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        return float(answer) if isinstance(answer, float) else None


def serve(backend: str, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer signatures with seconds until the asker goes away."""
    attached = attach(backend, catalog_name="cpu" if backend == "cpu" else "")
    while True:
        try:
            signature = pickle.load(questions)
        except EOFError:
            return
        pickle.dump(seconds_of(attached, signature), answers)
        answers.flush()


def seconds_of(attached: Attached, signature: Any) -> float | str:
    """Return the seconds of an operator on the attached device, or why it cannot be run."""
    try:
        trial = Trial(attached, signature)
        first = trial.seconds()
        times = [trial.seconds() for _ in range(SAMPLES if first < LONG_S else FEW)]
    except Exception as error:
        return f"{signature[0]}: {str(error)[:120]}"
    return statistics.median(times)


class Trial:
    """One operator with operands where a script finds them."""

    def __init__(self, attached: Attached, signature: Any) -> None:
        name, args, kwargs, self.found, self.freed = signature
        self.attached = attached
        self.run, self.operands = prepared(attached, (name, args, kwargs))
        self.other: Callable[[], object] = self.run
        began = time.process_time()
        self.run()
        self.short = time.process_time() - began < SHORT_S
        if self.short:
            self.other, _ = prepared(attached, (name, args, kwargs))

    def seconds(self) -> float:
        """Return the seconds of one run."""
        self.attached.empty_cache([])
        result = self.other() if self.short else None
        for operand, there in zip(self.operands, self.found, strict=True):
            if there:
                operand.sum()
        if self.freed:
            del result
        seconds: float = self.attached.time_once(self.run)[0]
        return seconds


def prepared(attached: Attached, signature: Any) -> tuple[Callable[[], object], list[Any]]:
    """Return a call of the operator with made-up operands, and these."""
    import torch

    name, args, kwargs = signature
    operands: list[Any] = []
    made = [_made(attached, value, operands) for value in args]
    named = {k: _made(attached, v, operands) for k, v in kwargs}
    if attached.backend == "cpu" and "_scaled_dot_product" in name:
        return _cpu_attention(name, made), operands
    space, op, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, space), op), overload)
    return lambda: function(*made, **named), operands


def _made(attached: Attached, value: Any, operands: list[Any]) -> Any:
    import torch

    if not isinstance(value, tuple) or not value:
        return list(value) if isinstance(value, tuple) else value
    if value[0] == "tensor" and len(value) == 5:
        tensor = _operand(attached, *value[1:4])
        operands.append(tensor)
        return tensor
    if value[0] == "dtype":
        return getattr(torch, value[1])
    if value[0] == "device":
        return attached.device
    if value == ("left out",):
        return None
    return [_made(attached, v, operands) for v in value]


def _operand(attached: Attached, shape: Any, stride: Any, dtype: str) -> Any:
    import torch

    kind = getattr(torch, dtype)
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if shape else 1
    extent = max(extent, 1)
    if kind.is_floating_point:
        base = (torch.rand(extent) * SPREAD + TINY).to(kind)
    elif kind == torch.bool:
        base = torch.zeros(extent, dtype=kind)
    else:
        base = torch.randint(0, HIGHEST, (extent,)).to(kind)
    return base.to(attached.device).as_strided(shape, stride)


def _cpu_attention(name: str, args: list[Any]) -> Callable[[], object]:
    """Return the CPU's own fused attention in place of an accelerator's."""
    import torch

    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if not name.split(".")[1].endswith("backward"):
        q, k, v = args[:3]
        causal = next((a for a in reversed(args) if isinstance(a, bool)), True)
        return lambda: forward(q, k, v, 0.0, causal)
    grad, q, k, v = args[:4]
    causal = next((a for a in reversed(args) if isinstance(a, bool)), True)
    out, sums = forward(q, k, v, 0.0, causal)
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return lambda: backward(grad, q, k, v, out, sums, 0.0, causal)


if __name__ == "__main__":
    output = sys.stdout.buffer
    sys.stdout = sys.stderr
    serve(sys.argv[1], sys.stdin.buffer, output)
