"""Read a file of `ersatz buy`: what it says, resolved to a build-out, or all problems at once.

What the file leaves open is taken from the catalogue or from the planning defaults, and listed as an
assumption. Plans of jobs are cases of a `run` scenario, simulated once per process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.units import UnitError, parse_day
from ersatz.sim.job.cost import YEAR_S
from ersatz.sim.law.places import find_buyer, find_place
from ersatz.sim.law.rules import Rules, load_rules
from ersatz.sim.market.prices import Prices, load_prices, market_prices
from ersatz.sim.purchase.buildout import DAY_S, MONTH_S, BuildOut, Gate, Job, Offer, Site
from ersatz.sim.purchase.events import Event
from ersatz.sim.purchase.gate import known_rules, open_gate, rule_gate
from ersatz.sim.purchase.life.chance import Uncertain
from ersatz.sim.purchase.reading.offers import INF, resolve_offer
from ersatz.sim.purchase.reading.parts import resolve_event, resolve_inputs, resolve_job
from ersatz.sim.purchase.reading.reading import Reading, dated, region_of
from ersatz.sim.purchase.reading.schema import BuyFile, SiteSection
from ersatz.sim.scenario.case_file import Case, read_cases, resolved_cases, validated
from ersatz.sim.scenario.defaults import job_defaults

__all__ = ["Inquiry", "load_inquiries", "resolve_inquiry", "section_of"]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One case of a file, ready to be planned and lived through."""

    name: str
    buildout: BuildOut
    gate: Gate  # the rules as they come
    foreseen: Gate  # the rules as the planner knows them
    events: tuple[Event, ...]
    inputs: tuple[Uncertain, ...]
    draws: int
    outcome: str
    replan: bool
    rules: Rules | None
    changed: bool  # the shipped rules were changed or added to
    buyer: str
    assumptions: tuple[str, ...]
    saving: float = 0.2  # share of the money of the first case that is asked for
    home: str = ""  # code of the country where the buyer sits


def section_of(path: Path | str, overrides: Sequence[str] = ()) -> str:
    """Return which kind of question a file asks: the section that it holds.

    Raises `InputError` for a file that holds none.
    """
    cases = read_cases(path, overrides)
    for name in ("compare", "stockpile", "ramp", "purchase"):
        if name in cases[0].data:
            return name
    for case in cases[:1]:
        validated(case, BuyFile)
        case.blame((), "purchase", "key is missing: expected purchase, compare, stockpile or ramp")
    raise InputError(cases[0].problems)


def load_inquiries(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None,
    prices: Path | str | None = None,
) -> tuple[Inquiry, ...]:  # fmt: skip
    """Return the cases of a file with a `purchase` section; raises `InputError` with every fault.

    `prices` is a CSV file of your own, or a folder of them, on top of the shipped prices.
    """
    known = load_prices(prices) if prices else None
    resolve = partial(resolve_inquiry, folder=Path(path).parent, prices=known)
    found = resolved_cases(path, BuyFile, resolve, overrides, seed)
    said = (f"prices of {prices} are used where they say something",) if prices else ()
    return tuple(replace(inquiry, assumptions=(*said, *inquiry.assumptions)) for inquiry in found)


def resolve_inquiry(
    case: Case, spec: BuyFile, folder: Path, prices: Prices | None = None
) -> Inquiry | None:
    """Return one case resolved, or None after noting what is wrong with it.

    `prices` hold in place of the shipped ones.
    """
    for key in ("purchase", "devices", "jobs", "start"):
        if not getattr(spec, key):
            case.blame((), key, "key is missing: a build-out needs it")
    start = _date(case, spec.start)
    if start is None or spec.purchase is None or case.problems:
        return None
    _find(case, find_buyer, spec.buyer.kind, ("buyer", "kind"))
    _find(case, find_place, spec.buyer.country, ("buyer", "country"))
    for name, section in spec.sites.items():
        if section.country is not None:
            _find(case, find_place, section.country, ("sites", name, "country"))
    if case.problems:
        return None
    region = region_of(spec.buyer.country)
    reading = Reading(
        case, spec.currency, start, spec.purchase.months, region, prices or market_prices()
    )
    reading.family_cost = (
        reading.money(spec.purchase.family_cost, ("purchase", "family_cost")) or 0.0
    )
    offers = [resolve_offer(reading, name, section) for name, section in spec.devices.items()]
    sites = [_site(reading, name, section, spec) for name, section in
             (spec.sites or {"here": SiteSection()}).items()]  # fmt: skip
    known = [offer for offer in offers if offer]
    for offer in known:
        for name in offer.sites:
            if name not in spec.sites:
                case.blame(
                    ("devices", offer.name, "sites"), name, f"expected {', '.join(spec.sites)}"
                )
    rules, gates = _gates(reading, spec, folder, known, sites)
    if case.problems:
        return None
    nodes = {name: section.node for name, section in spec.devices.items() if section.node}
    jobs = [resolve_job(reading, name, section, known, nodes, folder)
            for name, section in spec.jobs.items()]  # fmt: skip
    events = tuple(
        resolve_event(reading, i, section, spec) for i, section in enumerate(spec.events)
    )
    inputs = resolve_inputs(reading, spec, jobs)
    if case.problems:
        return None
    known = [_within_quota(reading, gates[0], offer, sites) for offer in known]
    known, licences = _licences(reading, events, gates[0], known, sites)
    return Inquiry(
        case.name, _buildout(reading, spec, known, sites, jobs), gates[0], gates[1],
        (*events, *licences), inputs,
        spec.monte_carlo.draws if spec.monte_carlo else 0,
        spec.monte_carlo.outcome if spec.monte_carlo else "finish", spec.purchase.replan, rules,
        bool(spec.rules.set or spec.rules.file), spec.buyer.kind, reading.listed(),
        spec.monte_carlo.saving if spec.monte_carlo else 0.2, find_place(spec.buyer.country),
    )  # fmt: skip


def _find(case: Case, find: Callable[[str], Any], word: str, path: tuple[Any, ...]) -> None:
    """Look a word up, or note at its place that it is unknown."""
    try:
        find(word)
    except InputError as error:
        case.blame(path, word, error.problems[0].expected)


def _date(case: Case, text: str | None) -> date | None:
    try:
        return parse_day(text)
    except UnitError as error:
        case.blame(("start",), text, str(error))
        return None


def _buildout(
    reading: Reading, spec: BuyFile, offers: list[Offer], sites: list[Site], jobs: list[Job]
) -> BuildOut:
    section = spec.purchase
    assert section is not None
    whole = reading.money(section.budget, ("purchase", "budget"))
    if whole is not None and whole <= 0 and not section.monthly:
        words = "expected money above 0; leave it out where there is no limit"
        reading.blame(("purchase", "budget"), str(whole), words)
    monthly = reading.money(section.monthly, ("purchase", "monthly")) or 0.0
    base = whole if whole is not None else (0.0 if monthly else INF)
    budget = tuple(base + monthly * (t + 1) for t in range(section.months))
    worth = {item: reading.quote(item) for item in ("depreciation", "life")}
    loss, life = worth["depreciation"], worth["life"]
    if loss and section.count == "use":
        reading.assume(
            f"machines lose {100 * loss.mid:g} % of their worth in a year ({dated(loss)})"
        )
    known = {"value_decay": -math.log10(1.0 - loss.mid)} if loss else {}
    known |= {"device_life_s": life.mid * YEAR_S} if life else {}
    silent = {"embodied_per_device": True, "device_life": not life,
              "value_decay": not loss and section.count == "use"}  # fmt: skip
    for key in (key for key, holds in silent.items() if holds):
        reading.assume(f"{key.replace('_', ' ')} is {job_defaults()[key].words}")
    return BuildOut(
        question=spec.question, seed=spec.seed, currency=spec.currency, start=reading.start,
        months=section.months, budget=budget, count=section.count, objective=section.objective,
        offers=tuple(offers), sites=tuple(sites), jobs=tuple(jobs),
        count_on_licences=section.count_on_licences, gap=section.gap,
        time_limit_s=section.time_limit, **known,
    )  # fmt: skip


def _site(reading: Reading, name: str, section: SiteSection, spec: BuyFile) -> Site:
    """Return a site; what is not given of its electricity is that of its region."""
    country = section.country or spec.buyer.country
    region = region_of(country)
    price = reading.money(section.energy_price, ("sites", name, "energy_price"))
    pue, carbon = section.pue, section.carbon_intensity
    if region == "CN":
        if price is None and section.colocation is None:
            rate = reading.prices.rate("CNY", reading.currency, reading.start)
            price = reading.default("energy_price", None, name) * rate
        pue = reading.default("pue", pue, name)
        carbon = reading.default("carbon_intensity", carbon, name)
    else:
        price = (
            price
            if price is not None or section.colocation is not None
            else _per_joule(reading.regional("power", None, name, region))
        )
        pue = reading.regional("pue", pue, name, region)
        carbon = carbon if carbon is not None else _per_joule(
            reading.regional("carbon", None, name, region))  # fmt: skip
    price = _with_space(reading, name, section, region, pue or 1.0, price)
    for key, value in (("energy_price", price), ("pue", pue), ("carbon_intensity", carbon)):
        if value is None:
            words = f"key is missing: the prices know none in {region} on {reading.start}"
            reading.blame(("sites", name), key, words)
    return Site(
        name, country, section.power if section.power is not None else INF,
        section.nodes if section.nodes is not None else INF,
        price or 0.0, pue or 1.0, carbon or 0.0,
    )  # fmt: skip


def _with_space(
    reading: Reading, name: str, section: SiteSection, region: str, pue: float, price: float | None
) -> float | None:  # fmt: skip
    """Return the money per joule at the meter: of electricity, or of rented space that includes it."""
    at = ("sites", name, "colocation")
    space = reading.money(section.colocation, at)
    if space is None:
        known = reading.quote("colocation", region=region)
        cost = (
            f": {known.mid:.0f} {known.unit} where it is rented ({dated(known)})" if known else ""
        )
        words = f"space, cooling plant and people of the site are not counted{cost}"
        reading.silent.setdefault(words, []).append(name)
        return price
    if section.energy_price is not None:
        reading.blame(at, None, "includes electricity: give it or energy_price, not both")
    reading.assume(f"{name}: space is paid, with its electricity, for what machines in use draw")
    return space / 1e3 / pue


def _per_joule(per_kwh: float | None) -> float | None:
    return None if per_kwh is None else per_kwh / 3.6e6


def _gates(
    reading: Reading, spec: BuyFile, folder: Path, offers: list[Offer], sites: list[Site]
) -> tuple[Rules | None, tuple[Gate, Gate]]:
    """Return the rules, the gate as they come and the gate as the planner knows them."""
    if spec.rules.ignore:
        if others := sorted({"file", "set", "foresight"} & spec.rules.model_fields_set):
            reading.assume(
                f"rules.ignore: no rules at all; rules.{', rules.'.join(others)} says nothing then"
            )
        return None, (open_gate, open_gate)
    try:
        rules = load_rules(folder / spec.rules.file if spec.rules.file else None, spec.rules.set)
        home = find_place(spec.buyer.country)
        gate = known = rule_gate(rules, spec.buyer.kind, home)
        if not spec.rules.foresight:
            known = rule_gate(known_rules(rules, reading.start), spec.buyer.kind, home)
        for offer in offers:  # a first question, so that unknown names are told now
            for site in sites:
                gate(offer, site, reading.start)
    except InputError as error:
        reading.case.problems += [p for p in error.problems if p not in reading.case.problems]
        return None, (open_gate, open_gate)
    if reading.start < rules.known_from:
        reading.blame(("start",), reading.start, f"the rules are known from {rules.known_from} to"
                      f" {rules.known_until}")  # fmt: skip
    reading.assumptions += [*rules.assumptions, *_beyond(reading, rules)]
    return rules, (gate, known)


def _beyond(reading: Reading, rules: Rules) -> list[str]:
    last = reading.start + timedelta(seconds=reading.months * MONTH_S)
    if last <= rules.known_until:
        return []
    return [f"rules are known until {rules.known_until}; to the plan's end ({last}) they are taken as"
            " unchanged"]  # fmt: skip


LICENCES = {"presumed": "licences presumed to be approved", "case": "licences decided case by case"}


def _days(reading: Reading) -> list[date]:
    return [reading.start + timedelta(seconds=t * MONTH_S) for t in range(reading.months + 1)]


def _within_quota(reading: Reading, gate: Gate, offer: Offer, sites: list[Site]) -> Offer:
    """Return an offer held to the least quota of the rules under which it may leave without more."""
    said = [gate(offer, site, day) for site in sites if offer.is_at(site.name)
            for day in _days(reading)]  # fmt: skip
    least = min((a for a in said if a.policy in ("free", "notify")), key=lambda a: a.quota,
                default=None)  # fmt: skip
    if least is None or not least.quota < offer.quota * offer.per_node:
        return offer
    reading.assume(
        f"{offer.name}: at most {least.quota:,.0f} devices, the quota of {', '.join(least.rules)};"
        f" for more set devices.{offer.name}.quota, and the rules are asked for as many"
    )
    return replace(offer, quota=float(least.quota // offer.per_node))


def _licences(
    reading: Reading, events: tuple[Event, ...], gate: Gate, offers: list[Offer], sites: list[Site]
) -> tuple[list[Offer], list[Event]]:
    """Return the licence decisions that rules call for and no event describes, and who waits for them."""
    asked: dict[str, list[str]] = {kind: [] for kind in LICENCES}
    for offer in offers:
        if any(e.kind == "licence" and e.hits(offer.name) for e in events):
            continue
        said = {gate(offer, site, day) for site in sites if offer.is_at(site.name)
                for day in _days(reading)}  # fmt: skip
        for kind, presumed in (("presumed", True), ("case", False)):
            if any(a.policy == "case" and a.presumed == presumed for a in said):
                asked[kind].append(offer.name)
    found, waits = [], dict.fromkeys(LICENCES, 0.0)
    for kind, names in asked.items():
        if names:
            approval = "licence_approval_presumed" if kind == "presumed" else "licence_approval"
            waits[kind] = reading.default("licence_delay", None, LICENCES[kind])
            values = {"approval": reading.default(approval, None, LICENCES[kind]),
                      "delay_days": waits[kind] / DAY_S}  # fmt: skip
            found.append(Event("licence", 0.0, values, tuple(names), called_by=kind))
    waiting = {name for names in asked.values() for name in names}
    pair = (waits["presumed"], waits["case"])
    return [replace(o, licence_s=pair) if o.name in waiting else o for o in offers], found
