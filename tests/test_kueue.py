"""Kueue's configuration: read with every fault, rehearsed on a fleet, fast enough."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.kueue.fields import quantity
from ersatz.sim.fleet.kueue.reading import parse_kueue
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.policies.registry import make_scheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload
from tests.pace import within

FLAVOR = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: %s}
---
"""
QUEUE = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: %s}
spec:
  cohortName: all
  namespaceSelector: {}
  queueingStrategy: %s
  preemption: {withinClusterQueue: LowerPriority, reclaimWithinCohort: Any}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h800, resources: [{name: nvidia.com/gpu, nominalQuota: %s}]}]
---
"""


def two_queues(strategy: str = "BestEffortFIFO", a: int = 8, b: int = 8) -> str:
    return FLAVOR % "h800" + QUEUE % ("a", strategy, a) + QUEUE % ("b", strategy, b)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), (8, 8), ("500m", Fraction(1, 2)), ("96Ti", 96 * 2**40), ("1k", 1000), ("1.5Ki", 1536),
     ("1e3", 1000), ("2E", 2 * 10**18), ("1u", Fraction(1, 10**6))],
)  # fmt: skip
def test_quantities(text: object, value: object) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "8x", "1 k", "0x8", "1e", None, True, [], "1" * 40, "nan"]
)
def test_what_is_no_quantity(text: object) -> None:
    assert quantity(text) is None


def test_what_is_read() -> None:
    found = parse_kueue(
        two_queues("StrictFIFO").replace("nominalQuota: 8", "nominalQuota: 7500m", 1)
    )
    a, b = found.config.queues
    assert (a.name, a.cohort, a.strict, a.within, a.reclaim) == ("a", "all", True, "lower", "any")
    assert a.groups[0].quotas["h800", "nvidia.com/gpu"].nominal == 7500
    assert b.groups[0].quotas["h800", "nvidia.com/gpu"].nominal == 8000
    assert not found.assumptions


def test_an_old_version_and_a_list() -> None:
    old = two_queues().replace("v1beta2", "v1beta1").replace("cohortName", "cohort")
    assert parse_kueue(old).config.queues[0].cohort == "all"
    items = [part for part in two_queues().split("---\n") if part.strip()]
    as_list = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
        "- " + part.strip().replace("\n", "\n  ") + "\n" for part in items)  # fmt: skip
    assert parse_kueue(as_list).config == parse_kueue(two_queues()).config


CHECKS = [
    ("nominalQuota: 8", "nominalQouta: 8", "unknown field, did you mean 'nominalQuota'?"),
    ("nominalQuota: 8", "nominalQuota: lots", "expected a quantity"),
    ("cohortName: all", "stopPolicy: None", ""),
    ("nominalQuota: 8}", "nominalQuota: 8, borrowingLimit: -1}", "expected a quantity"),
    ("[nvidia.com/gpu]", "[cpu, nvidia.com/gpu]", "expected all covered resources in their order"),
    ("BestEffortFIFO", "BestEffort", "expected one of StrictFIFO, BestEffortFIFO"),
    ("name: h800, res", "name: h80, res", "no such ResourceFlavor, did you mean 'h800'?"),
    ("reclaimWithinCohort: Any", "borrowWithinCohort: {policy: LowerPriority}",
     "needs reclaimWithinCohort other than Never"),
    ("preemption:", "flavorFungibility: {preference: BorrowingOverPreemption}\n  preemption:",
     "to be TryNextFlavor"),
    ("kind: ClusterQueue", "kind: ClusterQeue", "did you mean 'ClusterQueue'?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), CHECKS)
def test_faults_name_object_field_and_line(old: str, new: str, words: str) -> None:
    text = two_queues().replace(old, new, 1)
    if not words:
        assert parse_kueue(text)
        return
    with pytest.raises(InputError) as error:
        parse_kueue(text, "k.yaml")
    assert words in str(error.value)
    found = error.value.problems[0]
    assert found.line > 1
    assert "a" in found.expected or "ClusterQ" in found.expected


def test_limits_without_a_cohort_rings_and_lost_local_queues() -> None:
    text = two_queues().replace("  cohortName: all\n", "", 1)
    text = text.replace("nominalQuota: 8}", "nominalQuota: 8, lendingLimit: 4}", 1)
    for name, parent in (("x", "y"), ("y", "x")):
        text += f"kind: Cohort\nmetadata: {{name: {name}}}\nspec: {{parentName: {parent}}}\n---\n"
    text += "kind: LocalQueue\nmetadata: {name: lq}\nspec: {clusterQueue: nowhere}\n"
    with pytest.raises(InputError) as error:
        parse_kueue(text)
    words = str(error.value)
    for expected in ("needs a cohort", "ring of cohorts: x -> y -> x", "no such ClusterQueue"):
        assert expected in words


# -- on a fleet ---------------------------------------------------------------------------------------------


def run(tmp_path: Path, text: str, jobs: tuple[Job, ...], nodes: int = 2, **more: object) -> Log:
    path = tmp_path / "kueue.yaml"
    path.write_text(text)
    spec = FleetSpec(
        make_cluster(make_pool("h800", nodes, nodes_per_leaf=2)), Workload(jobs), **more
    )  # type: ignore[arg-type]
    return run_fleet(spec, make_scheduler(f"kueue:{path}"))


def starts(log: Log) -> dict[str, float]:
    return {r.job: r.time_s for r in log.records if r.event == "start"}


def test_quota_counts_before_devices(tmp_path: Path) -> None:
    """a has 8 of the cohort's 16 and borrows the other 8; its third job waits for the first's end."""
    jobs = tuple(Job(f"j{i}", i, 8, 100, "a") for i in range(3))
    log = run(tmp_path, two_queues(), jobs, nodes=4)
    assert starts(log) == {"j0": 0, "j1": 1, "j2": 100}
    assert judge(log).holds


def test_loans_are_reclaimed(tmp_path: Path) -> None:
    """b asks for its 8 at 50: the job that a admitted last makes way, and starts again where it stopped."""
    jobs = (Job("j0", 0, 8, 100, "a"), Job("j1", 1, 8, 100, "a"), Job("own", 50, 8, 30, "b"))
    log = run(tmp_path, two_queues(), jobs)
    evicted = [(r.time_s, r.job, r.detail) for r in log.records if r.event == "preempt"]
    assert evicted == [(50, "j1", "checkpoint for own")]
    assert starts(log) == {"j0": 0, "own": 50, "j1": 80}
    assert judge(log).holds


@pytest.mark.parametrize(("strategy", "small"), [("StrictFIFO", 100), ("BestEffortFIFO", 2)])
def test_who_may_overtake_the_head(strategy: str, small: float, tmp_path: Path) -> None:
    """8 of 16 are held until 100; the head asks for 16, the next for 8."""
    jobs = (Job("j0", 0, 8, 100, "a"), Job("head", 1, 16, 10, "a"), Job("small", 2, 8, 10, "a"))
    found = starts(run(tmp_path, two_queues(strategy), jobs))
    assert found["small"] == (110 if strategy == "StrictFIFO" else small)
    assert found["head"] == 100


def test_nodes_that_fail_give_their_quota_back(tmp_path: Path) -> None:
    jobs = (Job("j0", 0, 8, 100, "a"), Job("j1", 1, 8, 100, "a"))
    log = run(tmp_path, two_queues(), jobs, outages=(Maintenance(50, 20, (0,)),))
    assert judge(log).holds
    assert {r.job for r in log.records if r.event == "finish"} == {"j0", "j1"}


TOPOLOGY = """
kind: Topology
metadata: {name: net}
spec: {levels: [{nodeLabel: fabric/leaf}, {nodeLabel: kubernetes.io/hostname}]}
---
"""


def test_topology_keeps_a_gang_in_its_leaf(tmp_path: Path) -> None:
    """Two leaves of 2 x 8: beside a job of 8 a gang of 16 in one leaf takes the other leaf."""
    named = "{name: h800}\n"
    text = TOPOLOGY + two_queues(a=16, b=16).replace(
        named, f"{named}spec: {{topologyName: net}}\n", 1
    )
    jobs = (Job("x", 0, 8, 100, "a"), Job("gang", 1, 16, 50, "b", max_leaves=1))
    log = run(tmp_path, text, jobs, nodes=4)
    places = {r.job: [n // 2 for n, _ in r.placement] for r in log.records if r.event == "start"}
    assert len(set(places["gang"])) == 1
    assert places["gang"][0] != places["x"][0]
    assert judge(log).holds


def test_what_does_not_fit_the_fleet_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunEndedError, match="has no queue 'zz' for job j; expected one of a, b"):
        run(tmp_path, two_queues(), (Job("j", 0, 8, 100, "zz"),))
    text = two_queues().replace("h800", "h900")
    with pytest.raises(RunEndedError, match="flavor h900 is no pool of the fleet"):
        run(tmp_path, text, (Job("j", 0, 8, 100, "a"),))
    with pytest.raises(InputError, match=r"kueue: *.*cannot be read|cannot be read"):
        make_scheduler("kueue:nowhere.yaml")


@pytest.mark.heavy
def test_a_thousand_workloads_a_second(tmp_path: Path) -> None:
    """A whole run of 1,500 jobs of two queues on 64 nodes."""
    jobs = tuple(Job(f"j{i}", i * 2.0, 1 + i % 8, 600 + i % 7, "ab"[i % 2]) for i in range(1500))
    with within(1.5):
        log = run(tmp_path, two_queues(a=256, b=256), jobs, nodes=64)
    assert len(starts(log)) == 1500
