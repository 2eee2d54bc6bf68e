"""Where the files that ersatz ships lie, in a clone as in an installed package."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
SCENARIOS = DATA.parents[1] / "scenarios"
