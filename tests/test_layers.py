"""Imports go one way, and what is heavy stays out of the start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A module may import modules of its own layer's line and of the lines above it.
ORDER = [
    ["sim.errors", "sim.records", "sim.case_file", "sim.workload.model"],
    ["sim.scenario", "sim.workload.pieces", "sim.workload.ops", "sim.workload.model_file"],
    ["sim.plan"],
    ["sim.schema", "sim.checks", "sim.resolve", "sim.scenario_file", "sim.fabric_file"],
    ["sim.validation.intervals"],
    ["sim.step"],
    ["sim.job"],
    ["sim.run", "sim.validation"],
    ["sim.hil"],
    ["sim.market", "sim.fleet"],
    ["sim.report"],
    ["sim.cli.app"],
    ["sim.cli.output"],
    ["sim.cli", "sim.__main__"],
]
HEAVY = {"scipy", "networkx", "jinja2", "pandas", "torch", "ray", "zmq", "plotly"}
ALLOWED = {("sim.report.generated", "sim.cli.output")}  # writes what the command prints


def modules() -> list[tuple[str, Path]]:
    paths = [p for room in ("sim", "device_models") for p in (ROOT / room).rglob("*.py")]
    return [(".".join(p.relative_to(ROOT).with_suffix("").parts), p) for p in sorted(paths)]


def imports(path: Path, *, top_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def rank(module: str) -> int:
    best = [(len(prefix), i) for i, line in enumerate(ORDER) for prefix in line
            if module == prefix or module.startswith(prefix + ".")]  # fmt: skip
    assert best, f"{module} has no place in ORDER"
    return max(best)[1]


@pytest.mark.parametrize(("name", "path"), modules())
def test_imports_go_one_way(name: str, path: Path) -> None:
    for other in imports(path, top_only=False):
        if name.startswith("device_models"):
            assert not other.startswith("sim"), f"{name} imports {other}"
        elif other.startswith("sim.") and not name.endswith("__init__"):
            fine = rank(other) <= rank(name) or (name, other) in ALLOWED
            assert fine, f"{name} imports {other}, which stands after it"


@pytest.mark.parametrize(("name", "path"), modules())
def test_heavy_modules_are_imported_late(name: str, path: Path) -> None:
    tops = {module.split(".")[0] for module in imports(path, top_only=True)}
    assert not tops & HEAVY


def test_help_starts_without_the_engines() -> None:
    heavy = "('numpy', 'simpy', 'pydantic', 'yaml')"
    code = f"import sim.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
