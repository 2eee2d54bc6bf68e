"""Jobs, events and uncertain inputs of a purchase file, resolved; see `ersatz.sim.purchase.reading.file`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.text.files import remembered
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.units import UnitError, parse_quantity
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.purchase.buildout import DAY_S, MONTH_S, Job, Offer
from ersatz.sim.purchase.events import INPUTS, KINDS, Event
from ersatz.sim.purchase.life.chance import Uncertain
from ersatz.sim.purchase.rates import Throughput, plan_throughputs
from ersatz.sim.purchase.reading.reading import Reading, dated
from ersatz.sim.purchase.reading.schema import BuyFile, EventSection, MarketJobSection
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.shipped import shipped_scenarios
from ersatz.sim.search.planned import planned

SHARES = frozenset({"repaired", "approval", "import_approval", "seizure"})  # uncertain inputs
MOST_DAYS = 36_525.0  # and the largest factor
MOST_CHANGE = 100.0


def resolve_job(
    reading: Reading, name: str, section: MarketJobSection, offers: Sequence[Offer],
    nodes: Mapping[str, str], folder: Path,
) -> Job:  # fmt: skip
    """Return a job with its throughputs; `nodes` names the node of each offer."""
    months = reading.months
    at: tuple[Any, ...] = ("jobs", name)
    deadline = float(months) if section.deadline is None else section.deadline / MONTH_S
    if not 0 < deadline <= months * (1 + 1e-9):
        words = f"expected at most the plan's {months} months from the start"
        reading.blame((*at, "deadline"), f"{deadline:.2f} months", words)
    deadline = min(deadline, float(months))
    rates = [
        *_simulated(reading, at, section, nodes, folder),
        *_stated(reading, at, section, offers),
    ]
    if not rates and not reading.case.problems:
        reading.blame(at, None, "no device on offer has a plan or a stated rate for this job")
    return Job(name, section.tokens, deadline, tuple(rates))


def _simulated(
    reading: Reading, at: tuple[Any, ...], section: MarketJobSection, nodes: Mapping[str, str],
    folder: Path,
) -> list[Throughput]:  # fmt: skip
    if section.plans is None:
        return []
    try:
        return list(_throughputs(str(_plans_file(section.plans, folder)), section.use,
                                 tuple(sorted(nodes.items()))))  # fmt: skip
    except InputError as error:
        for problem in error.problems:
            reading.blame((*at, "plans"), section.plans, str(problem))
        return []


def _plans_file(name: str, folder: Path) -> Path:
    """Return the path of a file beside the scenario, or of the shipped scenario of that name."""
    for path in (folder / name, folder / f"{name}.yaml"):
        if os.path.isfile(path):
            return path
    return shipped_scenarios().get(name, folder / name)


@remembered
def _throughputs(
    path: str, use: tuple[str, ...], nodes: tuple[tuple[str, str], ...]
) -> tuple[Throughput, ...]:
    try:
        cases = [planned(case) for case in load_cases(path, plans=True)]
    except InfeasibleError as error:
        raise InputError(
            [Problem(path, 0, 0, "parallel", "", f"is not given, and {error}")]
        ) from None
    names = [case.name for case in cases]
    unknown = [name for name in use if name not in names]
    if unknown:
        raise InputError([Problem(path, 0, 0, "cases", unknown[0], f"expected {', '.join(names)}")])
    return plan_throughputs([c for c in cases if not use or c.name in use], dict(nodes))


def _stated(
    reading: Reading, at: tuple[Any, ...], section: MarketJobSection, offers: Sequence[Offer]
) -> list[Throughput]:
    if section.rates and section.flop_per_token is None:
        reading.blame(at, "flop_per_token", "key is missing: stated rates need it")
        return []
    found: dict[str, Throughput] = {}
    by_name = {offer.name: offer for offer in offers}
    for name, rate in section.rates.items():
        if name not in by_name:
            reading.blame((*at, "rates", name), name, f"expected a device: {', '.join(by_name)}")
            continue
        speed = rate.peak * rate.mfu * rate.goodput / (section.flop_per_token or 1.0)
        found[name] = Throughput((name,), {name: speed}, 1.0, {name: by_name[name].watts}, 1.0, 1.0,
                                 "stated", by_name[name].per_node, rate.mfu, rate.goodput)  # fmt: skip
    mixes = []
    for i, mix in enumerate(section.mixes):
        if not set(mix.devices) <= set(found):
            reading.blame((*at, "mixes", i, "devices"), None, "expected devices with stated rates")
            continue
        alone = [found[name] for name in mix.devices]
        rates = {name: found[name].tokens_per_s[name] for name in mix.devices}
        watts = {name: found[name].watts[name] for name in mix.devices}
        mixes.append(Throughput(mix.devices, rates, mix.efficiency, watts, 1.0, 1.0, "stated", 0,
                                alone[0].mfu, alone[0].goodput))  # fmt: skip
    return [*found.values(), *mixes]


def resolve_event(reading: Reading, i: int, section: EventSection, spec: BuyFile) -> Event:
    """Return one event with all values of its kind."""
    at: tuple[Any, ...] = ("events", i)
    for key, known in (("devices", spec.devices), ("sites", spec.sites)):
        for name in getattr(section, key):
            if name not in known:
                reading.blame((*at, key), name, f"expected one of {', '.join(known)}")
    values: dict[str, float] = {}
    for key, default in KINDS[section.kind].items():
        given: Any = getattr(section, key.removesuffix("_days"))
        if key == "cost":
            given = reading.money(given, (*at, key))
        elif key == "change" and given is not None:
            given = _change(reading, (*at, key), given)
        elif key.endswith("_days") and given is not None:
            given /= DAY_S
        if given is None and section.kind == "smuggling":
            given = _of_smugglers(reading, key, section, spec)
        if given is None and default is None:
            reading.blame(at, key.removesuffix("_days"), f"key is missing: {section.kind} needs it")
        values[key] = float(given if given is not None else default or 0.0)
    day = reading.day(section.date, (*at, "date")) or 0.0
    return Event(
        section.kind, day, values, section.devices, section.sites, section.known, section.label
    )


def _of_smugglers(
    reading: Reading, key: str, section: EventSection, spec: BuyFile
) -> float | None:  # fmt: skip
    """Return what the prices know of a smuggler's premium or losses: the dearest device's."""
    item = {"premium": "grey_premium", "seizure": "seizure"}.get(key)
    if item is None:
        return None
    offers = {name: spec.devices[name] for name in section.devices or spec.devices
              if name in spec.devices}  # fmt: skip
    nodes = {name: load_node(offer.node) for name, offer in offers.items() if offer.node}
    known = {name: reading.quote(item, node.device.name) for name, node in nodes.items()}
    found = {name: quote for name, quote in known.items() if quote is not None}
    if not found:
        return None
    name = max(found, key=lambda n: found[n].mid)
    reading.assume(f"smuggling: {key} is not given: {100 * found[name].mid:g} %, that of {name}"
                   f" ({dated(found[name])})")  # fmt: skip
    return found[name].mid


def _change(reading: Reading, path: tuple[Any, ...], given: str | float) -> float | None:
    try:
        change = parse_quantity(given, "fraction")
    except UnitError as error:
        reading.blame(path, given, str(error))
        return None
    if not -1 <= change <= MOST_CHANGE:
        reading.blame(path, given, "expected a change of -100 % or more, at most 10,000 %")
        return None
    return change


def resolve_inputs(reading: Reading, spec: BuyFile, jobs: Sequence[Job]) -> tuple[Uncertain, ...]:
    """Return the uncertain inputs of the Monte Carlo section."""
    found = []
    for name, given in (spec.monte_carlo.inputs if spec.monte_carlo else {}).items():
        at = ("monte_carlo", "inputs", name)
        if name not in INPUTS:
            reading.blame(at, name, f"expected one of {', '.join(INPUTS)}")
            continue
        made = _uncertain(reading, at, name, given, jobs)
        if made:
            found.append(made)
    return tuple(found)


def _uncertain(
    reading: Reading, at: tuple[Any, ...], name: str, given: Any, jobs: Sequence[Job]
) -> Uncertain | None:
    if given == "interval" and name == "throughput":
        rates = [t for job in jobs for t in job.throughputs]
        low, high = (
            min((t.low for t in rates), default=1.0),
            max((t.high for t in rates), default=1.0),
        )
        return Uncertain(name, low, 1.0, high, "interval")
    choices = given.get("choice") if isinstance(given, dict) else None
    values = choices if choices is not None else given
    if (
        not isinstance(values, list)
        or not all(isinstance(v, int | float) for v in values)
        or not values
    ):
        reading.blame(at, given, "expected [low, middle, high] or {choice: [...]}")
        return None
    least, most = -MOST_DAYS if name == "embargo_shift" else 0.0, MOST_DAYS
    if name in SHARES:
        least, most = 0.0, 1.0
    if not all(least <= v <= most for v in values):
        reading.blame(at, None, f"expected numbers from {least:g} to {most:g}")
        return None
    numbers = [float(v) for v in values]
    if choices is not None:
        ordered = sorted(numbers)
        return Uncertain(
            name, ordered[0], ordered[len(ordered) // 2], ordered[-1], "choice", tuple(numbers)
        )
    if len(numbers) != 3 or numbers != sorted(numbers):
        reading.blame(at, given, "expected [low, middle, high] in this order")
        return None
    return Uncertain(name, numbers[0], numbers[1], numbers[2])
