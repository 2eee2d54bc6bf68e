"""The live timer of an emulation: a clean process with PyTorch times each distinct operator.

    python -m ersatz.sim.emulate.measured BACKEND      asked by lines on standard input

An operator is told by its signature (`sim/hil/device/operators.py`), and by what of it the cache holds in the
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

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.device.attached import Attached, attach
from ersatz.sim.hil.device.operators import prepared

SAMPLES, LONG_S, FEW = 7, 0.05, 3
CACHE = "cache"  # asked in the place of a signature
SHORT_S = 2e-3  # below it instructions that have to be fetched first would count


@dataclass(slots=True)
class Measurer:
    """Asks the measuring process, each distinct operator once."""

    backend: str
    known: dict[object, float | str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __call__(self, signature: object) -> float | str:
        """Return the seconds of an operator, or why the device cannot run it."""
        if signature not in self.known:
            self.known[signature] = self._ask(signature)
        return self.known[signature]

    def cache_holds(self) -> float:
        """Return how many bytes the attached device's cache holds.

        Raises `InputError` where the device cannot be attached.
        """
        answer = self._ask(CACHE)
        if isinstance(answer, str):
            raise InputError([Problem("--timer live", 0, 0, "", "", answer)])
        return answer

    def _ask(self, signature: object) -> float | str:
        if self.process is None:
            words = [sys.executable, "-m", "ersatz.sim.emulate.measured", self.backend]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin
        assert self.process.stdout
        pickle.dump(signature, self.process.stdin)
        self.process.stdin.flush()
        answer: float | str = pickle.load(self.process.stdout)
        return answer


def serve(backend: str, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer signatures with seconds, and `CACHE` with bytes, until the asker goes away.

    Where the device cannot be attached the first answer is why, and the last.
    """
    try:
        attached = attach(backend, catalog_name="cpu" if backend == "cpu" else "")
    except InputError as error:
        pickle.dump(str(error), answers)
        return
    while True:
        try:
            signature = pickle.load(questions)
        except EOFError:
            return
        asked_cache = signature == CACHE
        answer = attached.cache_holds() if asked_cache else seconds_of(attached, signature)
        pickle.dump(answer, answers)
        answers.flush()


def seconds_of(attached: Attached, signature: Any) -> float | str:
    """Return the seconds of an operator on the attached device, or why it cannot be run."""
    try:
        trial = Trial(attached, signature)
        first = trial.seconds()
        times = [trial.seconds() for _ in range(SAMPLES if first < LONG_S else FEW)]
    except Exception as error:  # PyTorch raises of every kind for what it cannot do
        return (str(error) or type(error).__name__).splitlines()[0][:120]
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


if __name__ == "__main__":
    output = sys.stdout.buffer
    sys.stdout = sys.stderr
    serve(sys.argv[1], sys.stdin.buffer, output)
