"""Workloads drawn from a model of a trace: arrivals, sizes, run times, tenants; and large training.

* Arrivals: intervals are independent in operational time, in which the rate that changes with the hour
  of the day (of the week, where the trace is long enough) is always 1. Their quantiles are kept:
  arrivals of real traces come in bursts that no gamma or Weibull law fits.
* Sizes: as frequent as in the trace. Run times: the quantiles of the jobs of that size (of its class
  of sizes where there are few), straight lines between their logarithms. Tenants: as frequent as
  in the trace among jobs of that class.
* Large training: gangs of hundreds to thousands of devices, which public traces hardly have.

Not modelled: that a user's jobs come one after the other, and that sizes and arrivals go together.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ersatz.sim.fleet.workload.jobs import Job, Workload

HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 604800.0
FEW = 30  # jobs of a size, below which its class stands for it
# Positions of the quantiles that are kept: every twentieth, and the tail down to one in 20,000.
POSITIONS = (*(i / 20 for i in range(19)), *(1 - 0.1 * 10 ** (-i / 6) for i in range(1, 21)), 1.0)
LARGE = (512, 1024, 2048, 4096, 8192)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Jobs of one size, or of sizes between two powers of two. Run times in seconds."""

    quantiles_s: tuple[float, ...]  # at `POSITIONS`
    tenants: tuple[tuple[str, float], ...]  # with their shares


@dataclass(frozen=True, slots=True)
class TraceModel:
    """What is kept of a trace."""

    name: str
    rate: float  # jobs per second, on average
    gaps: tuple[float, ...]  # quantiles of intervals in operational time, in means, at `POSITIONS`
    hourly: tuple[float, ...]  # rate by hour of the day or week (or one for all), of mean 1
    sizes: tuple[tuple[int, float], ...]  # devices, with their shares
    classes: tuple[tuple[int, SizeClass], ...]  # by size


@dataclass(frozen=True, slots=True)
class LargeTraining:
    """Gangs added to a workload: their run times are log-normal, their checkpoints regular.

    The defaults are assumptions: no public trace of such gangs gives sizes and run times together.
    """

    jobs: int
    sizes: tuple[int, ...] = LARGE  # equally likely
    median_s: float = 2 * DAY_S
    sigma: float = 1.0  # of the logarithm: one in six runs longer than e times the median
    priority: int = 1
    checkpoint_s: float = 1800.0
    types: tuple[str, ...] = ()


def fit_trace(workload: Workload) -> TraceModel:
    """Return the model of a workload; raises `ValueError` for fewer than two jobs."""
    jobs = workload.jobs
    if len(jobs) < 2:
        raise ValueError(f"{workload.name} has {len(jobs)} jobs; expected at least two to fit")
    times = np.array([job.submit_s for job in jobs])
    span = float(times[-1] - times[0]) or 1.0
    hourly = _hourly(times - times[0], span)
    operational = _operational(times - times[0], hourly)
    gaps = np.diff(operational)
    counts = Counter(job.devices for job in jobs)
    return TraceModel(
        name=workload.name,
        rate=(len(jobs) - 1) / span,
        gaps=_quantiles(gaps / (gaps.mean() or 1.0)),
        hourly=hourly,
        sizes=tuple((size, counts[size] / len(jobs)) for size in sorted(counts)),
        classes=_classes(jobs, counts),
    )


def _hourly(times: Floats, span: float) -> tuple[float, ...]:
    """Return the relative rate by hour of the week, of the day, or one for all, by the trace's length.

    Hours of the first and last, incomplete period count by how often they occur.
    """
    period = WEEK_S if span >= 2 * WEEK_S else DAY_S if span >= 2 * DAY_S else 0.0
    if not period:
        return (1.0,)
    bins = int(period / HOUR_S)
    hits = np.bincount((times % period // HOUR_S).astype(int), minlength=bins)
    full, rest = divmod(span, period)
    seen = np.clip(rest - HOUR_S * np.arange(bins), 0.0, HOUR_S) + full * HOUR_S
    rates = (hits + 0.5) / seen  # half a job more: no hour without any
    return tuple(float(rate) for rate in rates / rates.mean())


def _operational(times: Floats, hourly: Sequence[float]) -> Floats:
    """Return the integral of the relative rate up to each time."""
    edges, sums = _profile(hourly)
    periods, rest = np.divmod(times, edges[-1])
    return np.asarray(periods * sums[-1] + np.interp(rest, edges, sums))


def _clock(operational: Floats, hourly: Sequence[float]) -> Floats:
    """Return the inverse of `_operational`."""
    edges, sums = _profile(hourly)
    periods, rest = np.divmod(operational, sums[-1])
    return np.asarray(periods * edges[-1] + np.interp(rest, sums, edges))


def _profile(hourly: Sequence[float]) -> tuple[Floats, Floats]:
    edges = HOUR_S * np.arange(len(hourly) + 1.0)
    return edges, np.concatenate([[0.0], np.cumsum(np.array(hourly) * HOUR_S)])


def _class_of(size: int) -> int:
    return max(size, 1).bit_length()


def _classes(jobs: Sequence[Job], counts: Counter[int]) -> tuple[tuple[int, SizeClass], ...]:
    """Return the class of each size: its own jobs where there are enough, else those like it."""
    alike: dict[int, list[Job]] = defaultdict(list)
    own: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        alike[_class_of(job.devices)].append(job)
        own[job.devices].append(job)
    return tuple(
        (size, _size_class(own[size] if counts[size] >= FEW else alike[_class_of(size)]))
        for size in sorted(counts)
    )


def _size_class(jobs: Sequence[Job]) -> SizeClass:
    tenants = Counter(job.tenant for job in jobs)
    durations = np.array([job.duration_s for job in jobs])
    shares = tuple((name, tenants[name] / len(jobs)) for name in sorted(tenants))
    return SizeClass(_quantiles(durations), shares)


def _quantiles(values: Floats) -> tuple[float, ...]:
    return tuple(float(q) for q in np.quantile(values, POSITIONS))


def generate(
    model: TraceModel, jobs: int, *, seed: int = 0, load: float = 1.0, limit_factor: float = 0.0,
    large: LargeTraining | None = None,
) -> Workload:  # fmt: skip
    """Return `jobs` drawn jobs, submitted `load` times as fast as in the trace, and large gangs.

    `limit_factor`: run-time limits are the run time times 1 + an exponential draw of this mean (0: no
    limits). Each cause has a stream of its own: more gangs do not change the other jobs.
    """
    seeds = np.random.SeedSequence(seed, spawn_key=(6,)).spawn(6)
    arrivals, sizes, runs, tenants, limits, gangs = map(np.random.default_rng, seeds)
    middle = float(np.trapezoid(model.gaps, POSITIONS)) or 1.0  # the mean between those quantiles
    gaps = np.interp(arrivals.random(jobs), POSITIONS, model.gaps) / (middle * model.rate)
    times = _clock(np.cumsum(gaps) - gaps[0], model.hourly) / load if jobs else np.zeros(0)
    values, shares = zip(*model.sizes, strict=True)
    chosen = sizes.choice(values, jobs, p=np.array(shares) / math.fsum(shares))
    classes = dict(model.classes)
    positions, picks = runs.random(jobs), tenants.random(jobs)
    factors = 1.0 + limits.exponential(max(limit_factor, 0.0), jobs)
    made = [
        _draw(f"{i}", float(times[i]), int(chosen[i]), classes[int(chosen[i])], positions[i],
              picks[i], factors[i] if limit_factor else math.inf)
        for i in range(jobs)
    ]  # fmt: skip
    source = f"drawn after {model.name} with seed {seed}, load x{load:g}"
    if large is not None and large.jobs:
        end = max((job.submit_s for job in made), default=large.median_s)
        made += _gangs(large, end, gangs, limit_factor)
        source += (f"; assumed: {large.jobs} gangs of {large.sizes[0]}-{large.sizes[-1]} devices,"
                   f" median run {large.median_s / DAY_S:g} days")  # fmt: skip
    return Workload(tuple(made), f"like-{model.name}", source)


def _draw(
    name: str, submit_s: float, size: int, kind: SizeClass, position: float, pick: float,
    factor: float,
) -> Job:  # fmt: skip
    """Return one job: run time and tenant by their positions in the class's distributions."""
    logs = np.log(np.maximum(kind.quantiles_s, 1e-3))
    run = math.exp(float(np.interp(position, POSITIONS, logs)))
    ends = np.cumsum([share for _, share in kind.tenants])
    tenant = kind.tenants[min(int(np.searchsorted(ends, pick)), len(ends) - 1)][0]
    return Job(name, submit_s, size, run, tenant=tenant, walltime_s=run * factor)


def _gangs(
    large: LargeTraining, end_s: float, rng: np.random.Generator, limit_factor: float
) -> list[Job]:
    """Return large gangs, submitted at any time of the workload."""
    times = np.sort(rng.uniform(0.0, end_s, large.jobs))
    sizes = rng.choice(large.sizes, large.jobs)
    runs = large.median_s * np.exp(rng.normal(0.0, large.sigma, large.jobs))
    return [
        Job(f"large-{i}", float(times[i]), int(sizes[i]), float(runs[i]), tenant="large",
            priority=large.priority, checkpoint_s=large.checkpoint_s, types=large.types,
            walltime_s=float(runs[i]) * (1.0 + limit_factor) if limit_factor else math.inf)
        for i in range(large.jobs)
    ]  # fmt: skip


def at_load(workload: Workload, devices: int, load: float) -> Workload:
    """Return the workload submitted faster or slower, so that it offers `load` to the devices.

    Offered load: device-seconds submitted per second, per device. Raises `ValueError` for jobs that
    all come at once.
    """
    span = workload.jobs[-1].submit_s if workload.jobs else 0.0
    if not span:
        raise ValueError(f"{workload.name} is submitted at once: it has no load per second")
    factor = workload.device_s / span / devices / load
    jobs = tuple(replace(job, submit_s=job.submit_s * factor) for job in workload.jobs)
    return Workload(jobs, workload.name, f"{workload.source}; offered load {load:g}")
