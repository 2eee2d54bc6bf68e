"""Imports go one way, and what is heavy stays out of the start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A module may import modules of its own layer's line and of the lines above it.
ORDER = [
    ["device_models.shipped", "device_models.text"],
    ["device_models.catalog", "device_models.kernels", "device_models.networks"],
    ["device_models.calibration"],
    [
        "sim.errors",
        "sim.records",
        "sim.processes",
        "sim.signals",
        "sim.kept",
        "sim.scenario.case_file",
        "sim.workload.layer",
        "sim.workload.model",
        "sim.workload.recurrence",
    ],
    ["sim.scenario.scenario", "sim.scenario.formats", "sim.workload"],
    ["sim.plan"],
    ["sim.scenario"],
    ["sim.importing.draft", "sim.importing.record"],
    ["sim.importing.flags"],
    ["sim.importing.known"],
    ["sim.importing.shell"],
    ["sim.importing.cluster", "sim.importing.flat", "sim.importing.models"],
    ["sim.importing.megatron"],
    [
        "sim.importing.trainers",
        "sim.importing.configs",
        "sim.importing.logs",
        "sim.importing.networks",
    ],
    ["sim.importing"],
    ["sim.exporting"],
    ["sim.uncertainty"],
    ["sim.step"],
    ["sim.anchor"],
    ["sim.job"],
    ["sim.invariants"],
    ["sim.run"],
    ["sim.search"],
    ["sim.validation"],
    ["sim.hil.device"],
    ["sim.hil.links"],
    ["sim.hil.proof.subjects", "sim.hil.proof.transformer"],
    ["sim.hil"],
    ["sim.hil.proof"],
    [
        "sim.emulate.virtual_device",
        "sim.emulate.clock",
        "sim.emulate.allocator",
        "sim.emulate.records",
    ],
    ["sim.emulate"],
    ["sim.law"],
    ["sim.market"],
    [
        "sim.purchase.periods",
        "sim.purchase.programme",
        "sim.purchase.purchase",
        "sim.purchase.rates",
        "sim.purchase.rounding",
    ],
    ["sim.purchase.caps", "sim.purchase.needs"],
    ["sim.purchase.buildout", "sim.purchase.events", "sim.purchase.gate", "sim.purchase.diagnose"],
    ["sim.purchase.life"],
    ["sim.purchase.holds", "sim.purchase.decide"],
    ["sim.purchase.reading"],
    ["sim.purchase.answer"],
    ["sim.options"],
    ["sim.fleet.cluster", "sim.fleet.workload.jobs"],
    ["sim.fleet.log", "sim.fleet.fits", "sim.fleet.free", "sim.fleet.protocol"],
    ["sim.fleet.workload"],
    ["sim.fleet.judge"],
    ["sim.fleet.foreign"],
    ["sim.fleet.engine.happening", "sim.fleet.engine.nodes"],
    ["sim.fleet.engine.view", "sim.fleet.engine.watchdog"],
    ["sim.fleet.engine.decisions", "sim.fleet.engine.outages", "sim.fleet.engine.speeds"],
    ["sim.fleet.engine"],
    ["sim.fleet.kueue"],
    ["sim.fleet.policies"],
    ["sim.fleet.doors"],
    ["sim.fleet.schema", "sim.fleet.reading", "sim.fleet.compare", "sim.fleet.standing"],
    ["sim.finding"],
    ["sim.report"],
    ["sim.answers"],
    ["sim.serve"],
    ["sim.cli"],
    ["sim.__main__"],
    ["ersatz"],
]
HEAVY = {"scipy", "networkx", "pandas", "torch", "ray", "zmq", "plotly", "starlette", "uvicorn"}
# Rooms that only the process of an emulated rank imports, where every module is PyTorch's.
TORCH = (
    "sim.emulate.virtual.",
    "sim.emulate.surface.",
    "sim.emulate.world.",
    "sim.emulate.standins.",
)


def modules() -> list[tuple[str, Path]]:
    paths = [p for room in ("sim", "device_models") for p in (ROOT / room).rglob("*.py")]
    inside = [(".".join(p.relative_to(ROOT).with_suffix("").parts), p) for p in sorted(paths)]
    return [*inside, *((f"ersatz.{p.stem}", p) for p in sorted((ROOT / "ersatz").glob("*.py")))]


def imports(path: Path, *, top_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {_module(node.module, alias.name) for alias in node.names}
    return found


def _module(module: str, name: str) -> str:
    """`from a.b import c` means the module a.b.c where there is one, else a name of a.b."""
    inside = ROOT / module.removeprefix("ersatz.").replace(".", "/") / f"{name}.py"
    return f"{module}.{name}" if inside.exists() else module


def rank(module: str) -> int:
    best = [(len(prefix), i) for i, line in enumerate(ORDER) for prefix in line
            if module == prefix or module.startswith(prefix + ".")]  # fmt: skip
    assert best, f"{module} has no place in ORDER"
    return max(best)[1]


@pytest.mark.parametrize(("name", "path"), modules())
def test_imports_go_one_way(name: str, path: Path) -> None:
    for other in imports(path, top_only=False):
        assert other.split(".")[0] not in {"sim", "device_models", "scenarios"}, "not under ersatz"
        inside = other.removeprefix("ersatz.")
        if inside != other and not name.endswith("__init__"):
            assert rank(inside) <= rank(name), f"{name} imports {other}, which stands after it"


@pytest.mark.parametrize(("name", "path"), modules())
def test_heavy_modules_are_imported_late(name: str, path: Path) -> None:
    found = imports(path, top_only=True)
    inside = name.startswith(TORCH)
    assert not {module.split(".")[0] for module in found} & (HEAVY - {"torch"} if inside else HEAVY)
    assert inside or not any(m.removeprefix("ersatz.").startswith(TORCH) for m in found)


def test_rooms_are_small() -> None:
    rooms: dict[Path, int] = {}
    for _, path in modules():
        if path.name != "__init__.py":
            rooms[path.parent] = rooms.get(path.parent, 0) + 1
    crowded = {str(room.relative_to(ROOT)): n for room, n in rooms.items() if n > 15}
    assert not crowded


@pytest.mark.parametrize(
    ("start", "heavy"),
    [
        ("ersatz.sim.cli", "('numpy', 'simpy', 'pydantic', 'yaml', 'rich.table')"),
        ("ersatz", "('numpy', 'simpy', 'pydantic', 'yaml', 'rich', 'typer', 'ersatz.sim')"),
    ],
)
def test_starts_without_the_engines(start: str, heavy: str) -> None:
    code = f"import {start}, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
