"""ersatz: the training of large models on accelerators you cannot, or cannot yet, buy.

    import ersatz

    answer = ersatz.run("ling-plus-substitution")    # a shipped scenario, or the path of one
    print(answer)                                    # the report; in a notebook a table
    answer["h800"].step.duration_s                   # records by case
    answer.to_dict()                                 # what --json writes

What stands in `__all__` is public and stays; everything below `ersatz.sim` and
`ersatz.device_models` may move. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import an interrupt would have to wait for
if TYPE_CHECKING:
    from typing import Any

    from ersatz.sim.answers.anchor import anchor
    from ersatz.sim.answers.answer import Answer
    from ersatz.sim.answers.buy import buy
    from ersatz.sim.answers.cases import compare, load, run
    from ersatz.sim.answers.emulate import emulate
    from ersatz.sim.answers.exporting import export
    from ersatz.sim.answers.find import catalogue, devices, show
    from ersatz.sim.answers.importing import read_launch
    from ersatz.sim.answers.legal import legal
    from ersatz.sim.answers.plan import plan
    from ersatz.sim.answers.report import report
    from ersatz.sim.answers.schedule import schedule
    from ersatz.sim.answers.trace import trace
    from ersatz.sim.errors import InfeasibleError, InputError, Problem
    from ersatz.sim.records import RunResult
    from ersatz.sim.scenario.scenario import Scenario

__all__ = [
    "Answer",
    "InfeasibleError",
    "InputError",
    "Problem",
    "RunResult",
    "Scenario",
    "anchor",
    "buy",
    "catalogue",
    "compare",
    "devices",
    "emulate",
    "export",
    "legal",
    "load",
    "plan",
    "read_launch",
    "report",
    "run",
    "schedule",
    "show",
    "trace",
]

_HOMES = {
    "Answer": "sim.answers.answer",
    "InfeasibleError": "sim.errors",
    "InputError": "sim.errors",
    "Problem": "sim.errors",
    "RunResult": "sim.records",
    "Scenario": "sim.scenario.scenario",
    "anchor": "sim.answers.anchor",
    "buy": "sim.answers.buy",
    "catalogue": "sim.answers.find",
    "compare": "sim.answers.cases",
    "devices": "sim.answers.find",
    "emulate": "sim.answers.emulate",
    "export": "sim.answers.exporting",
    "legal": "sim.answers.legal",
    "load": "sim.answers.cases",
    "plan": "sim.answers.plan",
    "read_launch": "sim.answers.importing",
    "report": "sim.answers.report",
    "run": "sim.answers.cases",
    "schedule": "sim.answers.schedule",
    "show": "sim.answers.find",
    "trace": "sim.answers.trace",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ersatz")
    if name not in _HOMES:
        raise AttributeError(f"module 'ersatz' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ersatz.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
