"""From what a file says of a device to an offer: catalogue, planning defaults and assumptions."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ersatz.device_models.catalog.device import Device, Node
from ersatz.device_models.catalog.export import load_part
from ersatz.device_models.catalog.power import device_power
from ersatz.device_models.catalog.reading import load_device, load_node
from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.units import format_money
from ersatz.sim.job.cost import YEAR_S
from ersatz.sim.market.prices import Quote
from ersatz.sim.purchase.buildout import DAY_S, MONTH_DAYS, Offer
from ersatz.sim.purchase.reading.reading import Reading, dated
from ersatz.sim.purchase.reading.schema import DeviceSection

INF = math.inf


def resolve_offer(reading: Reading, name: str, section: DeviceSection) -> Offer | None:
    """Return the offer of one device, or None after noting what is wrong."""
    at: tuple[Any, ...] = ("devices", name)
    node: Node | None = None
    if section.node:
        node = reading.load(load_node, section.node, (*at, "node"))
        if node is None:
            return None
    elif section.per_node is None:
        reading.blame(at, "node", "key is missing; or give per_node, and power")
        return None
    device = node.device if node else None
    if section.device:
        found: Device | None = reading.load(load_device, section.device, (*at, "device"))
        if found and device and found.name != device.name:
            reading.assume(
                f"{name}: the rules are asked for {found.name}, the node has {device.name}"
            )
        device = found or device
    if node and section.per_node is not None and section.per_node != node.devices:
        reading.blame((*at, "per_node"), section.per_node, f"expected the {node.devices} of {section.node},"
                      " or no node of the catalogue")  # fmt: skip
    domestic = section.domestic
    if domestic is None:
        domestic = bool(device and load_part(device.name).designer == "CN")
    delays = _delays(reading, name, section, device, domestic)
    wear = _wear(reading, name, section, device, domestic)
    share = _network_share(reading, name, section, device, domestic)
    prices = _prices(reading, name, section, node)
    window = _window(reading, name, section, device)
    rent = reading.money(section.rent, (*at, "rent"))
    if rent is not None and "rentable" not in section.model_fields_set:
        words = "rent is given, rentable is not: none can be rented"
        reading.silent.setdefault(words, []).append(name)
    if section.for_sale and section.quota is not None and section.lot > section.quota:
        reading.blame((*at, "lot"), section.lot, f"expected at most the quota, {section.quota:g}: no lot"
                      " could be ordered")  # fmt: skip
    if section.standing and section.for_sale and section.rentable:
        words = (
            "standing, and for sale: those for rent are judged as exports, too; offer them apart"
        )
        reading.silent.setdefault(words, []).append(name)
    if section.lot > 1 and not section.for_sale:
        reading.silent.setdefault("lot is of orders, and it is not for sale", []).append(name)
    if section.for_sale and not any(window):
        words = "not for sale on any month's first day within the plan (sold_from, sold_until)"
        reading.silent.setdefault(words, []).append(name)
    return Offer(
        name=name, title=section.title or (device.title if device else name),
        device=device.name if device else "", per_node=node.devices if node else section.per_node or 1,
        price=tuple(p * (1.0 + share) if sold else INF
                    for p, sold in zip(prices, window, strict=True)),
        network_share=share, rent=rent * 3600.0 if rent is not None else INF,
        rentable=float(section.rentable),
        lead_s=delays["lead_s"], transit_s=delays["transit_s"],
        supply=(_supply(reading, name, section, node),) * reading.months,
        quota=section.quota if section.quota is not None else INF,
        failure_rate=wear["failure_rate"], repaired=wear["repaired"], repair_s=wear["repair_s"],
        repair_share=wear["repair_share"],
        watts=_watts(reading, name, section, node),
        porting_cost=_porting_cost(reading, name, section)
        + reading.family_cost, lot=section.lot, powered_rent=section.rent_with_power,
        standing=section.standing,
        porting_s=section.porting.delay, domestic=domestic, sites=section.sites,
    )  # fmt: skip


def _porting_cost(reading: Reading, name: str, section: DeviceSection) -> float:
    """Return what making the software run costs: an amount, people for months, or both."""
    cost = reading.money(section.porting.cost, ("devices", name, "porting", "cost")) or 0.0
    months = section.porting.person_months
    if not months:
        return cost
    wage = reading.quote("wage")
    if wage is None:
        reading.blame(
            ("devices", name, "porting"), "cost", f"no wages are known in {reading.region}"
        )
        return cost
    words = f"a month of an engineer: {format_money(wage.mid, reading.currency)} ({dated(wage)})"
    reading.silent.setdefault(words, []).append(name)
    return cost + months * wage.mid


def _watts(reading: Reading, name: str, section: DeviceSection, node: Node | None) -> float:
    """Return what a device draws in use, for jobs whose plans do not say."""
    if section.power is not None:
        return section.power
    if node is None:
        reading.blame(
            ("devices", name), "power", "key is missing; a node of the catalogue would have one"
        )
        return 0.0
    return device_power(node.device, 1.0) + node.host_power_w / node.devices


def _network_share(
    reading: Reading, name: str, section: DeviceSection, device: Device | None, domestic: bool
) -> float:  # fmt: skip
    """Return the network's share of the price: for a device whose price holds a network, its own."""
    found = reading.quote("network_share", device.name) if device else None
    own = found and found.device_pattern[:1] not in ("@", "*")
    if section.network_share is None and found and own and section.for_sale:
        words = (
            f"network share is not given: {100 * found.mid:g} % ({dated(found)}; {found.source})"
        )
        reading.silent.setdefault(words, []).append(name)
        return found.mid
    return reading.default("network_share", section.network_share, name, domestic=domestic)


def _delays(
    reading: Reading, name: str, section: DeviceSection, device: Device | None, domestic: bool
) -> dict[str, float]:
    if not section.for_sale:
        return {"lead_s": 0.0, "transit_s": 0.0}
    found = reading.quote("lead_time", device.name) if device else None
    if section.lead_time is None and found and not found.late:
        words = f"lead time is not given: {found.mid:.0f} days ({dated(found)})"
        reading.silent.setdefault(words, []).append(name)
        lead = found.mid * DAY_S
    else:
        lead = reading.default("lead_time", section.lead_time, name, domestic=domestic)
    return {"lead_s": lead, "transit_s": reading.default("transit", section.transit, name)}


def _supply(
    reading: Reading, name: str, section: DeviceSection, node: Node | None
) -> float:  # fmt: skip
    """Return the nodes that can be ordered in a month: at most all that reach the region."""
    if section.supply is not None or not section.for_sale or node is None:
        return section.supply if section.supply is not None else INF
    _say_filling(reading, name, node.device)
    found = reading.quote("delivery", node.device.name)
    if found is None or found.late:
        words = "supply is not given and not known: without limit"
        reading.silent.setdefault(words, []).append(name)
        return INF
    words = (
        f"supply is not given: at most all that reaches the region, {dated(found)} devices a month"
    )
    reading.silent.setdefault(words, []).append(name)
    return float(math.floor(found.mid / node.devices))


def _say_filling(reading: Reading, name: str, device: Device) -> None:
    """Say what share of the orders was filled, where reports know it: a plan counts on all of them."""
    found = reading.quote("fill_ratio", device.name)
    if found and not found.late and found.mid < 1.0:
        reading.assume(f"{name}: every order is taken as filled; reports had {100 * found.mid:.0f} %"
                       f" ({dated(found)}): an event of kind `supply` would say so")  # fmt: skip


def _wear(
    reading: Reading, name: str, section: DeviceSection, device: Device | None, domestic: bool
) -> dict[str, float]:
    if not section.for_sale:  # what is rented is the owner's to mend
        return {"failure_rate": 0.0, "repaired": 1.0, "repair_s": 0.0, "repair_share": 0.0}
    found: Quote | None = reading.quote("annual_failure", device.name) if device else None
    if section.failure_rate is None and found:
        words = f"failure rate is not given: {100 * found.mid:g} %/year ({dated(found)})"
        reading.silent.setdefault(words, []).append(name)
        rate = found.mid / YEAR_S
    else:
        rate = reading.default("failure_rate", section.failure_rate, name, domestic=domestic)
    return {"failure_rate": rate, "repaired": reading.default("repaired", section.repaired, name),
            "repair_s": reading.default("repair_time", section.repair_time, name),
            "repair_share": reading.default("repair_share", section.repair_share, name)}  # fmt: skip


def _window(
    reading: Reading, name: str, section: DeviceSection, device: Device | None
) -> list[bool]:  # fmt: skip
    """Return in which months the offer is sold: not before its device is released."""
    at = ("devices", name)
    first = reading.day(section.sold_from, (*at, "sold_from"))
    last = reading.day(section.sold_until, (*at, "sold_until"))
    if first is not None and last is not None and last < first:
        reading.blame((*at, "sold_until"), section.sold_until,
                      f"expected a day on or after sold_from, {section.sold_from}")  # fmt: skip
    sold = [section.for_sale and (first is None or t * MONTH_DAYS >= first)
            and (last is None or t * MONTH_DAYS <= last) for t in range(reading.months)]  # fmt: skip
    _say_grid(reading, name, first, last)
    if device is None or first is not None:
        return sold
    part = load_part(device.name)
    days = (reading.start + timedelta(days=t * MONTH_DAYS) for t in range(reading.months))
    released = [part.on_sale(day) for day in days]
    if section.for_sale and not all(released):
        reading.assume(f"{name}: not sold before it is released ({part.released or 'no day known'});"
                       f" else give devices.{name}.sold_from")  # fmt: skip
    return [a and b for a, b in zip(sold, released, strict=True)]


def _say_grid(reading: Reading, name: str, first: float | None, last: float | None) -> None:
    """Say what ordering once a month makes of days of sale within a month."""
    for day, words, near in ((first, "not before", math.ceil), (last, "last on", math.floor)):
        if day is None or not 0 < day < reading.months * MONTH_DAYS or day % MONTH_DAYS < 1:
            continue
        stated = reading.start + timedelta(days=day)
        order = reading.start + timedelta(days=near(day / MONTH_DAYS) * MONTH_DAYS)
        reading.assume(
            f"{name}: ordered once a month, for the day {stated} of its sale {words} {order}"
        )


def _prices(reading: Reading, name: str, section: DeviceSection, node: Node | None) -> list[float]:
    """Return the price of a node in each month, without its network."""
    at: tuple[Any, ...] = ("devices", name, "price")
    if not section.for_sale:
        return [INF] * reading.months
    if isinstance(section.price, dict):
        return _dated(reading, at, section.price)
    if section.price is not None:
        return [reading.money(section.price, at) or 0.0] * reading.months
    return [_market_price(reading, at[:-1], name, node)] * reading.months


def _market_price(reading: Reading, at: tuple[Any, ...], name: str, node: Node | None) -> float:
    """Return the price of a node on the day of planning."""
    if node is None:
        reading.blame(at, "price", "key is missing; a node of the catalogue would have one")
        return INF
    try:
        quote = reading.prices.quote("purchase", node.device.name, reading.region, reading.start,
                                      reading.currency, seen=reading.start)  # fmt: skip
    except InputError as error:
        reading.blame(at, "price", f"key is missing, and {error.problems[0].expected}")
        return INF
    per_node = replace(
        quote, **{k: getattr(quote, k) * node.devices for k in ("low", "mid", "high")}
    )
    reading.assume(
        f"{name}: price is not given: {format_money(per_node.mid, reading.currency)} a node"
        f" ({dated(per_node)})"
    )
    return per_node.mid


def _dated(reading: Reading, at: tuple[Any, ...], rows: dict[str, Any]) -> list[float]:
    steps = []
    for text, given in rows.items():
        day = reading.day(text, (*at, text))
        amount = reading.money(given, (*at, text))
        if day is not None and amount is not None:
            steps.append((day, amount))
    steps.sort()
    if not steps:
        return [INF] * reading.months
    if steps[0][0] > 0:
        first = reading.start + timedelta(days=steps[0][0])
        reading.assume(f"{at[1]}: no price is given before {first}: that of then is taken")
    prices = []
    for month in range(reading.months):
        held = [amount for day, amount in steps if day <= month * MONTH_DAYS + 1e-9]
        prices.append(held[-1] if held else steps[0][1])
    return prices
