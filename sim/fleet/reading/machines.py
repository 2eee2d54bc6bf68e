"""The machines of a fleet file: its nodes, and what takes them away."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.text.files import is_there
from ersatz.device_models.text.problems import InputError
from ersatz.sim.fleet.cluster import Cluster, make_cluster, make_pool
from ersatz.sim.fleet.engine.outages import Failures, Maintenance, Outage, components
from ersatz.sim.fleet.foreign import parted, read_fleet
from ersatz.sim.fleet.reading.given import Given
from ersatz.sim.fleet.schema import FleetFailuresSection, FleetPoolSection
from ersatz.sim.scenario.defaults import left_silent

MOST_FAILURES = 1.0  # per second, in the whole fleet
MOST_STRIKES = 100_000  # in a run: five years of 100,000 devices of which a fifth fails each year


@dataclass(slots=True)
class Machines:
    """Nodes and outages of a file."""

    given: Given
    nodes: list[Node | None] = field(init=False)  # of the catalogue, one for each pool

    def __post_init__(self) -> None:
        pools = self.given.spec.pools
        self.nodes = [self._node(i, pool) for i, pool in enumerate(pools)]
        names = [pool.name for pool in pools]
        for i, name in enumerate(names):
            if name in names[:i]:
                words = "stands twice; each pool has its own name"
                self.given.case.blame(("pools", i, "name"), name, words)
        for i, (pool, node) in enumerate(zip(pools, self.nodes, strict=True)):
            if node and pool.devices and pool.devices != node.devices:
                words = f"expected the {node.devices} of {pool.node}, or no node of the catalogue"
                self.given.case.blame(("pools", i, "devices"), str(pool.devices), words)

    def cluster(self) -> Cluster:
        """Return the nodes of the pools, or of a list."""
        if self.given.spec.nodes:
            kind, path = parted(self.given.spec.nodes)
            beside = self.given.folder / path
            self.given.assumptions.append("nodes of a list stand under one leaf unless it says otherwise, and"
                                    " do not fail unless rates are given")  # fmt: skip
            return read_fleet(beside if is_there(beside) else path, kind)
        pools = [
            make_pool(p.name, p.nodes, p.devices or (n.devices if n else 0),
                      nodes_per_leaf=p.nodes_per_leaf)
            for p, n in zip(self.given.spec.pools, self.nodes, strict=True)
        ]  # fmt: skip
        return make_cluster(*pools, name=self.given.case.name)

    def _node(self, i: int, pool: FleetPoolSection) -> Node | None:
        if pool.node is None:
            return None
        try:
            return load_node(pool.node)
        except InputError as error:
            self.given.case.blame(("pools", i, "node"), pool.node, error.problems[0].expected)
            return None

    def outages(self, cluster: Cluster) -> tuple[Outage, ...]:
        """Return what takes nodes away: planned maintenance and random failures."""
        outages: list[Outage] = []
        for i, plan in enumerate(self.given.spec.maintenance):
            nodes = [n for n, node in enumerate(cluster.nodes) if node.name in plan.nodes
                     or node.type in plan.nodes]  # fmt: skip
            if not nodes:
                self.given.case.blame(
                    ("maintenance", i, "nodes"), ", ".join(plan.nodes), "names no node"
                )
            outages.append(Maintenance(plan.start, plan.duration, tuple(nodes), plan.drain))
        failures = self.given.spec.failures
        if failures is None:
            return tuple(outages)
        types = [p.name for p in self.given.spec.pools] or list(cluster.types)
        for pool, node in zip(types, self.nodes or [None] * len(types), strict=True):
            for what, given, own in (
                ("device", failures.device_rate, node.device.failure_rate if node else None),
                ("node", failures.node_rate, node.failure_rate if node else None),
            ):
                rate = given if given is not None else own
                if rate is None:
                    self.given.assumptions.append(
                        f"{what}s of {pool} do not fail: no rate is given"
                    )
                elif rate:
                    outages.append(Failures(
                        what, rate * failures.scale, failures.repair, pool))  # type: ignore[arg-type]  # fmt: skip
        if failures.leaf_rate:
            outages.append(
                Failures("leaf", failures.leaf_rate * failures.scale, failures.leaf_repair)
            )
        if failures.slow_rate:
            outages.append(Failures("node", failures.slow_rate * failures.scale, failures.slow_repair,
                                    slowdown=failures.slow_factor, cause="slow"))  # fmt: skip
        self._say_failures(failures)
        return tuple(outages)

    def _say_failures(self, failures: FleetFailuresSection) -> None:
        """List what the file does not say of failures, of what happens at all."""
        keys: tuple[str, ...] = ("repair",)
        keys += ("leaf_repair",) if failures.leaf_rate else ()
        keys += ("slow_repair", "slow_factor") if failures.slow_rate else ()
        self.given.assumptions.extend(left_silent("failures", failures.model_fields_set, keys))
        silent = {"leaf_rate": "leaf switches do not fail", "slow_rate": "no node becomes slow"}
        self.given.assumptions.extend(
            [
                f"{words}: failures.{key} is not given"
                for key, words in silent.items()
                if key not in failures.model_fields_set
            ]
        )

    def check_pace(self, cluster: Cluster, outages: tuple[Outage, ...]) -> None:
        """Refuse failures so frequent that simulated time hardly passes."""
        rate = math.fsum(f.rate * components(cluster, f)[0] for f in outages
                         if isinstance(f, Failures))  # fmt: skip
        if rate > MOST_FAILURES:
            self.given.case.blame(("failures",), None, f"the fleet fails {rate:.3g} times a second;"
                            f" expected at most {MOST_FAILURES:g}")  # fmt: skip
        elif rate * (self.given.spec.until or 0.0) > MOST_STRIKES:
            times = f"{rate * (self.given.spec.until or 0):,.0f} times until then"
            self.given.case.blame(
                ("until",), None, f"the fleet fails {times}; expected at most {MOST_STRIKES:,}"
            )
