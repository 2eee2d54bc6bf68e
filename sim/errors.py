"""How a simulation can fail to answer, each way with its exit status."""

from __future__ import annotations

from collections.abc import Sequence

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean

__all__ = ["EXIT_BAD_INPUT", "EXIT_CANNOT_WRITE", "EXIT_DONE", "EXIT_FAULT", "EXIT_INFEASIBLE",
           "BrokenAnswerError", "InfeasibleError", "InputError", "LayoutError", "Problem",
           "did_you_mean"]  # fmt: skip

EXIT_DONE = 0
EXIT_INFEASIBLE = 1
EXIT_BAD_INPUT = 2
EXIT_CANNOT_WRITE = 3
EXIT_FAULT = 70  # of ersatz itself; sysexits.h calls it EX_SOFTWARE


class InfeasibleError(Exception):
    """The input is sound but no run can satisfy it; the message says why and what would help."""


class LayoutError(ValueError):
    """Layers, schedule and micro-batches that do not go together: there is no such plan.

    What reads a scenario tells it as a fault of the input; what tries layouts passes over this one, and
    over no other `ValueError`, which would be a fault of ersatz.
    """


class BrokenAnswerError(Exception):
    """An answer breaks what every answer must keep: a fault of ersatz, so it is not shown.

    `broken` says what, one sentence each.
    """

    def __init__(self, broken: Sequence[str]) -> None:
        self.broken = tuple(broken)
        super().__init__("; ".join(self.broken))
