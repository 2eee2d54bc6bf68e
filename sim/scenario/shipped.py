"""Scenarios by path or by the name of a shipped one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ersatz.device_models.shipped import SCENARIOS
from ersatz.device_models.text.files import is_there
from ersatz.sim.errors import InputError, Problem, did_you_mean


def find_scenario(name: str | Path) -> Path:
    """Return the path of a scenario file, or of the shipped scenario of that name.

    Raises `InputError` where there is neither, with what is called nearly so.
    """
    found = look_up(str(name))
    if found is None:
        near = did_you_mean(Path(name).stem[:100], shipped_scenarios())
        raise InputError(
            [Problem(str(name), 0, 0, "", "", f"cannot be read: there is no such file{near}")]
        )
    return found


def look_up(name: str) -> Path | None:
    """Return the path that a word of the command line means, if it means a file or a shipped name."""
    path = Path(name)
    if is_there(path):
        return path
    if path.parts[:1] == ("scenarios",) and ".." not in path.parts:
        inside = SCENARIOS / path.relative_to("scenarios")
        return inside if is_there(inside) else None
    return shipped_scenarios().get(name) or shipped_scenarios().get(name.removesuffix(".yaml"))


@cache
def shipped_scenarios() -> dict[str, Path]:
    """Return the shipped scenarios of all kinds by name."""
    return {path.stem: path for path in sorted(SCENARIOS.rglob("*.yaml"))}
