"""Random valid scenarios: dense and mixture-of-experts models, layouts and machines that go together."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_node
from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.records import RunResult
from ersatz.sim.run import run_case
from ersatz.sim.scenario.case_file import Case, validated
from ersatz.sim.scenario.resolve import resolve
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.schema import ScenarioFile

STACKS = ("megatron-core", "deepseek", "fsdp", "mindspeed", "primus", "ling", "torchtitan", None)


@cache
def training_nodes() -> tuple[str, ...]:
    """Return the nodes of the catalogue whose devices train and multiply bf16."""
    return tuple(name for name in list_nodes() if load_node(name).device.trains
                 and load_node(name).device.supports("bf16"))  # fmt: skip


def scenario_of(data: Mapping[str, Any]) -> Scenario:
    """Return a scenario of plain data; raises `InputError`."""
    case = Case("drawn", YamlText("drawn", data, {}, {}), dict(data), set())
    spec = validated(case, ScenarioFile)
    found = (
        resolve(spec, "drawn", Path(), case.blame, lambda: bool(case.problems)) if spec else None
    )
    if found is None:
        raise InputError(case.problems)
    return found


@dataclass(frozen=True)
class Plan:
    """A scenario as plain data, resolved, with its result."""

    data: Mapping[str, Any]
    scenario: Scenario

    @cached_property
    def result(self) -> RunResult:
        """What `ersatz run` would say."""
        return run_case(self.scenario)

    def changed(self, *path: Any, to: Any) -> Plan:
        """Return the plan with another value; raises `InputError` where that makes none."""
        data = copy.deepcopy(dict(self.data))
        inner = data
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = to
        return Plan(data, scenario_of(data))

    def on(self, make: Any) -> Plan:
        """Return the plan on other machines: `make` is told each node and returns another."""
        pools = tuple(replace(pool, node=make(pool.node)) for pool in self.scenario.pools)
        return Plan(self.data, replace(self.scenario, pools=pools))

    @property
    def node(self) -> Node:
        """Its node."""
        return self.scenario.pools[0].node


def drawn_plans(count: int, seed: int) -> Iterator[Plan]:
    """Yield valid plans, which a step can be made of."""
    number = made = 0
    while made < count:
        data = _drawn(random.Random(f"{seed} plan {number}"))
        number += 1
        try:
            plan = Plan(data, scenario_of(data))
            plan.result  # noqa: B018  (those that cannot run are no plans)
        except (InputError, InfeasibleError):
            continue
        made += 1
        yield plan


def _drawn(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(training_nodes())
    inside = load_node(name).devices
    nodes = rng.choice((1, 1, 2, 4, 8))
    devices = inside * nodes
    tp = rng.choice([t for t in (1, 1, 2, 4, 8) if inside % t == 0])
    pp = rng.choice([p for p in (1, 1, 2, 4) if devices % (tp * p) == 0] or [1])
    dp = max(devices // (tp * pp), 1)
    cp = rng.choice((1, 1, 1, 2)) if dp % 2 == 0 else 1
    schedule = (
        rng.choice(("1f1b", "gpipe", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipev"))
        if pp > 1
        else "1f1b"
    )
    vp = 2 if schedule == "interleaved" else 1
    micro = rng.choice((1, 1, 2, 4))
    model = _model(rng, tp, pp * 2 * rng.choice((1, 1, 2, 3)))
    parallel = {
        "tp": tp,
        "pp": pp,
        "cp": cp,
        "dp": dp // cp,
        "vp": vp,
        "schedule": schedule,
        "zero": rng.choice((0, 1, 2, 3) if pp == 1 else (0, 1, 2)),
        "sequence_parallel": rng.random() < 0.7,
        "recompute": rng.choice(("none", "selective", "full")),
    }
    if "experts" in model:
        parallel["ep"] = rng.choice([e for e in (1, 2, 4, 8) if (dp * tp) % e == 0])
    data: dict[str, Any] = {
        "question": "?", "seed": rng.randrange(1000), "model": model,
        "cluster": {"node": name, "nodes": nodes}, "parallel": parallel,
        "training": {"sequence_length": rng.choice((512, 1024, 2048, 4096)), "micro_batch": micro,
                     "global_batch": micro * (dp // cp) * pp * rng.choice((2, 4, 8)), "precision": "bf16"},
        "stragglers": rng.choice(({}, {}, {"fraction": "5 %", "slowdown": "10 %"})),
    }  # fmt: skip
    if stack := rng.choice(STACKS):
        data["stack"] = stack
    if rng.random() < 0.5:
        data["training"]["tokens"] = f"{rng.choice((1, 10, 300))} B tokens"
        data["job"] = {"replicas": 8, "failures": {"scale": rng.choice((0, 1, 20))}}
        data["cost"] = {"rent": f"{rng.choice((2, 20))} CNY/h"}
    return data


def _model(rng: random.Random, tp: int, layers: int) -> dict[str, Any]:
    head_dim = rng.choice((64, 128))
    heads = tp * rng.choice((1, 2, 4, 8))
    kv_heads = rng.choice([h for h in (heads, heads // 2, heads // 4) if h and heads % h == 0])
    hidden = heads * head_dim
    model: dict[str, Any] = {
        "name": "drawn",
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab": rng.choice((1000, 32000, 128000)),
    }
    if rng.random() < 0.4:
        routed = rng.choice((8, 16, 64))
        model["experts"] = {
            "routed": routed,
            "top_k": rng.choice((1, 2, 4)),
            "hidden": rng.choice((256, 1024, 2048)),
            "shared": rng.choice((0, 1)),
            "dense_layers": 0,
        }
    else:
        model["ffn_hidden"] = hidden * rng.choice((2, 3, 4))
    return model
