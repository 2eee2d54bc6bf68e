"""What all parts of reading a fleet file have in common: the file, and what is found of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ersatz.sim.fleet.schema import FleetFile
from ersatz.sim.scenario.case_file import Case


@dataclass(frozen=True, slots=True)
class Given:
    """One file being resolved; faults go to its case."""

    case: Case
    spec: FleetFile
    folder: Path
    assumptions: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why training jobs cannot run somewhere
