"""Scenarios by path or by the name of a shipped one."""

from __future__ import annotations

import os
from pathlib import Path

from ersatz.device_models.shipped import SCENARIOS


def find_scenario(name: str | Path) -> Path:
    """Return the path of a scenario file, or of the shipped scenario of that name."""
    path = Path(name)
    if os.path.exists(path):
        return path
    inside = path.relative_to("scenarios") if path.parts[:1] == ("scenarios",) else path
    beside = (SCENARIOS / inside, SCENARIOS / f"{inside}.yaml")
    return next((p for p in beside if os.path.isfile(p)), shipped_scenarios().get(str(name), path))


def shipped_scenarios() -> dict[str, Path]:
    """Return the shipped scenarios of all kinds by name."""
    return {path.stem: path for path in sorted(SCENARIOS.rglob("*.yaml"))}
