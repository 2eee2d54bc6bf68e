"""The two ways in which a simulation cannot go on, each with its exit status."""

from __future__ import annotations

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean

__all__ = ["EXIT_BAD_INPUT", "EXIT_DONE", "EXIT_INFEASIBLE", "InfeasibleError", "InputError",
           "Problem", "did_you_mean"]  # fmt: skip

EXIT_DONE = 0
EXIT_INFEASIBLE = 1
EXIT_BAD_INPUT = 2


class InfeasibleError(Exception):
    """The input is sound but no run can satisfy it; the message says why and what would help."""
