"""The fitted parameters: their bounds and priors, how a scenario takes them, how files keep them.

A parameter is named by what it belongs to, never by a run or a model:

    stack/NAME|NAME/field             of software stacks (the others named inherit from the first)
    device/PREFIX|PREFIX/field/dtype|dtype   of all devices whose names start so
    scale_out/NAME/field, scale_up/NAME/field   of a network

`device_models/data/validation/fit.yaml` lists them with physical bounds and either a prior value or
a relative (`like`) whose fitted value is the prior.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.reading import (
    load_device,
    load_scale_out,
    load_scale_up,
    load_stack,
)
from ersatz.device_models.catalog.sheet import shown
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.scenario.scenario import Pool, Scenario

SOURCE = "REFIT"
ORIGIN = "own fit to measured/training_runs.csv, all parameters together: python -m ersatz.sim.validation.fit"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted parameter; `like` names the one whose value is its prior, if any."""

    name: str
    low: float
    high: float
    prior: float
    like: str = ""

    @property
    def kind(self) -> str:
        """What owns it: stack, device, scale_out or scale_up."""
        return self.name.split("/")[0]

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of stacks or networks, or prefixes of device names."""
        return tuple(self.name.split("/")[1].split("|"))

    @property
    def takers(self) -> frozenset[str]:
        """All stacks that take the value: the first owner and those that inherit it from there."""
        return _takers(self.owners[0], self.field)

    @property
    def field(self) -> str:
        """The field of the owner."""
        return self.name.split("/")[2]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The entries of a field that is a table by dtype; empty for a plain field."""
        parts = self.name.split("/")
        return tuple(parts[3].split("|")) if len(parts) > 3 else ()

    def concerns(self, scenario: Scenario) -> bool:
        """Tell whether the scenario's time can depend on the parameter."""
        pool = scenario.pools[0]
        dtypes = self.dtypes
        if dtypes and not {scenario.training.precision, "bf16", "fp16"} & set(dtypes):
            return False
        if self.kind == "stack":
            return pool.stack.name in self.takers and _is_felt(self.field, scenario)
        if self.kind == "device":
            return pool.node.device.name.startswith(self.owners)
        return bool(getattr(pool.node, self.kind).name in self.owners)


def _is_felt(field: str, scenario: Scenario) -> bool:
    """Tell whether a scenario does at all what a stack's field is about."""
    model, precision = scenario.model, scenario.training.precision
    if field.startswith("expert_"):
        return model.experts is not None
    if field == "unfused_activation":
        return not model.fused_activation
    if field == "cast_traffic":
        return DTYPE_BYTES[precision] <= 1
    return field != "tp_overlap_chunks" or scenario.parallel.tp > 1


@lru_cache(maxsize=256)
def _takers(owner: str, field: str) -> frozenset[str]:
    return frozenset(name for name in _sheets() if _giver(name, field) == owner)


def _giver(stack: str, field: str) -> str:
    """Return the stack whose file gives a field to `stack`."""
    while field not in _sheets()[stack] and "based_on" in _sheets()[stack]:
        stack = _sheets()[stack]["based_on"]
    return stack


@lru_cache(maxsize=1)
def _sheets() -> dict[str, dict[str, Any]]:
    paths = sorted((DATA / "stacks").glob("*.yaml"))
    return {path.stem: parse_yaml(path.read_text("utf-8"), path.name).data for path in paths}


@lru_cache(maxsize=1)
def fitted_parameters() -> tuple[Parameter, ...]:
    """Return the parameters of `fit.yaml`, in its order."""
    text = parse_yaml((DATA / "validation" / "fit.yaml").read_text(), "fit.yaml").data
    found: dict[str, Parameter] = {}
    for row in text["parameters"]:
        like = str(row.get("like", ""))
        prior = found[like].prior if like else float(row["prior"])
        found[row["name"]] = Parameter(row["name"], row["low"], row["high"], prior, like)
    return tuple(found.values())


def turned(scenario: Scenario, values: Mapping[Parameter, float]) -> Scenario:
    """Return a scenario with parameters set on all its pools."""
    return replace(scenario, pools=tuple(_turned_pool(pool, values) for pool in scenario.pools))


def _turned_pool(pool: Pool, values: Mapping[Parameter, float]) -> Pool:
    stack, node = pool.stack, pool.node
    for parameter, value in values.items():
        change: dict[str, Any] = {parameter.field: value}
        if parameter.kind == "stack":
            if stack.name in parameter.takers:
                stack = replace(stack, **change)
        elif parameter.kind == "device":
            if node.device.name.startswith(parameter.owners):
                if parameter.dtypes:
                    known = getattr(node.device, parameter.field)
                    new = {dtype: value for dtype in parameter.dtypes if dtype in known}
                    change = {parameter.field: {**known, **new}}
                node = replace(node, device=replace(node.device, **change))
        else:
            owner = getattr(node, parameter.kind)
            if owner.name in parameter.owners:
                node = replace(node, **{parameter.kind: replace(owner, **change)})
    return replace(pool, stack=stack, node=node)


def shipped_values() -> dict[Parameter, float]:
    """Return the values that the catalogue's files hold, those of each first owner."""
    return {p: _shipped(p) for p in fitted_parameters()}


def _shipped(parameter: Parameter) -> float:
    if parameter.kind == "stack":
        owner: Any = load_stack(parameter.owners[0])
    elif parameter.kind == "device":
        owner = load_device(_paths(parameter)[0].stem)
    else:
        load = load_scale_out if parameter.kind == "scale_out" else load_scale_up
        owner = load(parameter.owners[0])
    value = getattr(owner, parameter.field)
    return float(
        next(value[d] for d in parameter.dtypes if d in value) if parameter.dtypes else value
    )


def fitted_texts(values: Mapping[Parameter, float], note: str) -> dict[Path, str]:
    """Return the catalogue's files that fitted values change, with their new text."""
    texts: dict[Path, str] = {}
    for parameter, value in values.items():
        for path in _paths(parameter):
            text = texts.get(path) or path.read_text("utf-8")
            new = text
            for key in parameter.dtypes or (parameter.field,):
                section = parameter.field if parameter.dtypes else ""
                new = write_leaf(new, section, key, value, note)
            if new != text:
                texts[path] = with_source(new)
    return texts


def _paths(parameter: Parameter) -> list[Path]:
    if parameter.kind == "stack":
        return [DATA / "stacks" / f"{parameter.owners[0]}.yaml"]
    if parameter.kind != "device":
        return [DATA / "fabrics" / f"{parameter.owners[0]}.yaml"]
    known = sorted((DATA / "devices").glob("*.yaml"))
    return [path for path in known if path.stem.startswith(parameter.owners)]


def with_source(text: str) -> str:
    """Return a data file's text with the fit among its sources."""
    if f"\n  {SOURCE}:" in text:
        return text
    return text.replace("\nsources:\n", f'\nsources:\n  {SOURCE}: "{ORIGIN}"\n', 1)


def write_leaf(text: str, section: str, key: str, value: float, note: str) -> str:
    """Replace one leaf's value, its source and its note in the text of a data file."""
    start = text.index(f"\n{section}:") if section and f"\n{section}:" in text else 0
    pattern = rf"^(\s*{key}: )\{{value: .*?, source: \w+, date: ([\d-]+).*\}}$"

    def rewrite(found: re.Match[str]) -> str:
        return (f"{found[1]}{{value: {shown(value, key)}, source: {SOURCE}, date: {found[2]},"
                f' confidence: medium, note: "{note}"}}')  # fmt: skip

    return text[:start] + re.sub(pattern, rewrite, text[start:], count=1, flags=re.M)
