"""Scenarios from a few keys, for tests of whole steps and jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.scenario.case_file import Case, validated
from ersatz.sim.scenario.resolve import resolve
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.schema import ScenarioFile


def known_case(
    nodes: int = 2, node: str = "h100-8", cluster: dict[str, Any] | None = None, **keys: Any
) -> Scenario:
    """Return a scenario: Llama 3 70B on nodes of eight H100, tp 8, full recomputation, four a node.

    `training`, `parallel` and all other sections are laid over these. Raises `InputError`.
    """
    cluster = cluster or {"node": node, "nodes": nodes}
    training = {"sequence_length": 4096, "global_batch": 4 * nodes} | keys.pop("training", {})
    layout = {"tp": 8, "pp": 1, "zero": 1, "recompute": "full"} | keys.pop("parallel", {})
    data = {"question": "?", "model": "llama3-70b", "stack": "megatron-core", "cluster": cluster,
            "training": training, "parallel": layout} | keys  # fmt: skip
    case = Case("known", YamlText("known.yaml", data, {}, {}), data, set())
    spec = validated(case, ScenarioFile)
    made = resolve(spec, "known", Path(), case.blame, lambda: bool(case.problems)) if spec else None
    if made is None:
        raise InputError(case.problems)
    return made
