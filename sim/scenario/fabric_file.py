"""Read what `ersatz fabric` describes: a run scenario, a file with a cluster alone, or neither.

A file without a `model` needs only `question`, `cluster` and, if wanted, `fabric`: a network can be
looked at before anybody knows what runs on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import YamlText, read_yaml
from ersatz.sim.scenario.case_file import Case, apply_overrides, read_cases, validated
from ersatz.sim.scenario.checks import MOST_NODES, check_fabric
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.resolving.machines import resolve_fabric, resolve_pools
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool
from ersatz.sim.scenario.sections.machines import ClusterSection, FabricSection
from ersatz.sim.scenario.sections.quantities import Section, Seed


class FabricFile(Section):
    """A file that describes machines and their network, and nothing that runs on them."""

    question: str = Field(description="what the description answers")
    seed: Seed = Field(0, description="of all random draws")
    stack: str | None = Field(None, description="software stack, or path of a stack file")
    cluster: ClusterSection = Field(description="the machines")
    fabric: FabricSection | None = Field(None, description="where nodes stand, and what is broken")
    cases: dict[str, dict[str, Any]] = Field({}, description="variants, as in a scenario")


@dataclass(frozen=True, slots=True)
class FabricCase:
    """Machines, their network and, where it is known, the layout of the job on them."""

    name: str
    question: str
    seed: int
    pools: tuple[Pool, ...]
    fabric: FabricSpec
    parallel: Parallel | None


def load_fabric_cases(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[FabricCase, ...]:
    """Return the cases of a file, the baseline first; raises `InputError` with every fault."""
    text = read_yaml(path)
    whole = isinstance(text.data, dict) and "model" in text.data
    if whole or not isinstance(text.data, dict):
        scenarios = load_cases(path, overrides, seed)
        most = max(pool.nodes for s in scenarios for pool in s.pools)
        if most > MOST_NODES:
            expected = f"expected at most {MOST_NODES:,} nodes, link by link"
            raise InputError([text.problem(("cluster",), f"{most:,}", expected)])
        return tuple(
            FabricCase(s.name, s.question, s.seed, s.pools, s.fabric or FabricSpec(), s.parallel)
            for s in scenarios
        )  # fmt: skip
    return _resolved(read_cases(path, overrides, seed), Path(path).parent)


def describe_nodes(
    node: str,
    nodes: int,
    network: str | None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> tuple[FabricCase, ...]:
    """Return `nodes` nodes in their network, or in another, without any file."""
    cluster = {"node": node, "nodes": nodes, **({"network": network} if network else {})}
    data: dict[str, Any] = {"question": f"What joins {nodes:,} x {node}?", "cluster": cluster}
    changed = apply_overrides(data, overrides)
    if seed is not None:
        data["seed"] = seed
    text = YamlText("the command line", data, {}, {})
    return _resolved([Case(node, text, data, changed)], Path())


def _resolved(cases: Sequence[Case], folder: Path) -> tuple[FabricCase, ...]:
    found: list[FabricCase] = []
    problems: list[Problem] = []
    for case in cases:
        made = _case(case, folder)
        problems += case.problems
        found += [made] if made else []
    if problems:
        raise InputError(problems)
    return tuple(found)


def _case(case: Case, folder: Path) -> FabricCase | None:
    file = validated(case, FabricFile)
    if file is None:
        return None
    pools = resolve_pools(file.cluster, file.stack, folder, case.blame, [])
    if not pools or case.problems:
        return None
    spec = resolve_fabric(file.fabric) if file.fabric else None
    check_fabric(pools, spec or FabricSpec(), case.blame)
    return FabricCase(case.name, file.question, file.seed, tuple(pools), spec or FabricSpec(), None)
