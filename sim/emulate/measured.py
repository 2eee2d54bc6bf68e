"""The live timer of an emulation: a clean process with PyTorch times each distinct operator.

    python -m ersatz.sim.emulate.measured BACKEND      asked by lines on standard input

An operator is told by its signature (`sim/hil/device/operators.py`); it is run with made-up operands, found
cold as a training step finds them, several times, and the median counts. Fused attention that a CPU calls
otherwise is run under the CPU's name.

Not modelled: which of its operands an operator finds in the cache.
"""

from __future__ import annotations

import pickle
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ersatz.sim.hil.device.attached import Attached, attach
from ersatz.sim.hil.device.operators import prepared

SAMPLES, LONG_S, FEW = 7, 0.05, 3


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
        run, operands = prepared(attached, signature)
        run()
        times = [_cold(attached, run, operands)]
        count = SAMPLES if times[0] < LONG_S else FEW
        times += [_cold(attached, run, operands) for _ in range(count - 1)]
    except Exception as error:
        return f"{signature[0]}: {str(error)[:120]}"
    return statistics.median(times)


def _cold(attached: Attached, run: Callable[[], object], operands: list[Any]) -> float:
    attached.empty_cache(operands[:1])
    return attached.time_once(run)[0]


if __name__ == "__main__":
    output = sys.stdout.buffer
    sys.stdout = sys.stderr
    serve(sys.argv[1], sys.stdin.buffer, output)
