"""What the benchmarks of fleets run: synthetic stand-ins of the sizes that the targets name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.engine.outages import Failures
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import DONE, Claims, Log, Record
from ersatz.sim.fleet.policies.registry import make_scheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload

YEAR = 365 * 86400.0
PHILLY_JOBS = 82_247  # and the shares of its sizes; the trace itself does not travel with ersatz
PHILLY_SIZES = {1: 0.931, 2: 0.018, 4: 0.023, 8: 0.022, 16: 0.005, 32: 0.0008, 64: 0.0001}


def philly_like() -> Workload:
    """As many jobs as Philly's trace, as long and as wide, over 109 days."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0.0, 109 * 86400.0, PHILLY_JOBS))
    shares = np.array(list(PHILLY_SIZES.values()))
    sizes = rng.choice(list(PHILLY_SIZES), PHILLY_JOBS, p=shares / shares.sum())
    runs = np.minimum(
        1144.0 * np.exp(rng.normal(0.0, 2.2, PHILLY_JOBS)), 30 * 86400.0
    )  # mean 3.6 h
    limits = runs * rng.uniform(1.0, 5.0, PHILLY_JOBS)
    return Workload(tuple(
        Job(str(i), float(t), int(n), float(r), walltime_s=float(w))
        for i, (t, n, r, w) in enumerate(zip(times, sizes, runs, limits, strict=True))))  # fmt: skip


def scheduled(policy: str) -> Callable[[], None]:
    """Such a trace on 20 nodes of 8: mostly more jobs than devices."""
    spec = FleetSpec(make_cluster(make_pool("v100", 20)), philly_like())
    return lambda: _drop(run_fleet(spec, make_scheduler(policy)))


def big_fleet(jobs: int) -> Callable[[], None]:
    """A year of 12,500 nodes that fail, with training jobs of 8 to 4,096 devices."""
    rng = np.random.default_rng(1)
    cluster = make_cluster(make_pool("h800", 12_500))
    sizes = rng.choice([8, 16, 64, 256, 1024, 4096], jobs, p=[0.4, 0.2, 0.2, 0.12, 0.06, 0.02])
    times, runs = np.sort(rng.uniform(0, 0.95 * YEAR, jobs)), rng.lognormal(11.5, 1.0, jobs)
    workload = Workload(tuple(
        Job(str(i), float(t), int(n), float(r), checkpoint_s=1800.0, restart_s=600.0)
        for i, (t, n, r) in enumerate(zip(times, sizes, runs, strict=True))))  # fmt: skip
    outages = (Failures("device", 0.09 / YEAR, 86400.0), Failures("node", 0.1 / YEAR, 86400.0))
    spec = FleetSpec(cluster, workload, outages=outages, until_s=YEAR)
    return lambda: _drop(run_fleet(spec, make_scheduler("fifo:best-fit:any")))


def million_events() -> Callable[[], None]:
    """A log of a million records: jobs of one device, each submitted, started, finished."""
    cluster = make_cluster(make_pool("h800", 1000))
    log = Log(cluster, claims=Claims(backfill="easy"))
    count = 333_333
    records = []
    for i in range(count):
        slot = i % cluster.devices
        placement = ((slot // 8, 1 << slot % 8),)
        log.jobs[str(i)] = Job(str(i), float(i), 1, 5000.0)
        records += [Record(float(i), "submit", str(i)), Record(float(i), "start", str(i), placement, -1, 1.0),
                    Record(i + 5000.0, "finish", str(i), placement, -1, 5000.0)]  # fmt: skip
    order = {"finish": 0, "submit": 1, "start": 2}
    records.sort(key=lambda r: (r.time_s, order[r.event]))
    log.records = [*records, ending(records[-1].time_s)]
    return lambda: _sound(judge(log).holds)


def ending(time_s: float) -> Record:
    """The last record of a log that is complete."""
    return Record(time_s, "end", value=float(DONE))


def _drop(log: Log) -> None:
    assert log.records


def _sound(holds: bool) -> None:
    assert holds
