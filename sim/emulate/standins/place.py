"""Putting stand-ins where a script imports the packages from, if it was asked for them (`--with`)."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import sys
import types
from collections.abc import Sequence
from typing import Any

from ersatz.sim.emulate.standins import attention, fused, grouped
from ersatz.sim.emulate.standins.pattern import Rule
from ersatz.sim.emulate.virtual.machine import Machine

WITH = {"fused_weight_gradient_mlp_cuda": "apex"}  # modules that another package brings


def install(machine: Machine, wanted: Sequence[str]) -> None:
    """Put the packages of these names in place; the report says that they are no more than that."""
    Rule.machine = machine
    packages = {**attention.PACKAGES, **fused.PACKAGES, **grouped.PACKAGES}
    for name, content in packages.items():
        top = name.partition(".")[0]
        if WITH.get(top, top) in wanted:
            _put(name, content)
    if not wanted:
        return
    machine.note(
        f"stand-ins in place of compiled packages, by their bytes and FLOPs: {', '.join(wanted)}"
    )
    _versions({n: str(c.get("__version__", "1.0")) for n, c in packages.items() if n in wanted})


def _put(name: str, content: dict[str, Any]) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    known = ", ".join(sorted(n for n in content if not n.startswith("__"))) or "nothing"

    def missing(wanted: str) -> Any:
        if wanted.startswith("__"):
            raise AttributeError(wanted)
        raise AttributeError(f"{name}.{wanted} has no stand-in in the emulator; {name} has {known}")

    module.__getattr__ = missing  # type: ignore[method-assign]
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


def _versions(known: dict[str, str]) -> None:
    """Let packages find the versions of the stand-ins where they look for them."""
    real = importlib.metadata.version

    def version(distribution_name: str) -> str:
        found = known.get(distribution_name.replace("-", "_"))
        return real(distribution_name) if found is None else found

    importlib.metadata.version = version
