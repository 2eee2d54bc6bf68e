"""Random purchases, and what must hold of their optimum whichever way prices, money and time go."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.purchase.answer import answer
from ersatz.sim.purchase.reading.file import resolve_inquiry
from ersatz.sim.purchase.reading.schema import BuyFile
from ersatz.sim.scenario.case_file import Case, validated

GAP = 0.01  # by which a plan may miss the optimum


def optimum(data: dict[str, Any]) -> float | None:
    """Return the cost of the best plan of a purchase, None where there is none."""
    case = Case("drawn", YamlText("drawn", data, {}, {}), data, set())
    spec = validated(case, BuyFile)
    inquiry = resolve_inquiry(case, spec, Path()) if spec else None
    assert inquiry is not None, case.problems
    plan = answer(inquiry, lambda _: None).plan
    return None if plan is None else plan.cost


def drawn_purchase(rng: random.Random) -> dict[str, Any]:
    """Return a purchase of two kinds of device at stated rates, without rules."""
    return {
        "question": "?",
        "currency": "CNY",
        "start": "2025-03-24",
        "rules": {"ignore": True},
        "purchase": {
            "months": 8,
            "objective": "cost",
            "gap": f"{GAP * 100} %",
            "budget": "900 M CNY",
        },
        "devices": {
            "a": {
                "device": "h20",
                "per_node": 8,
                "price": f"{rng.uniform(0.5, 2):.3f} M CNY",
                "power": "900 W",
                "lead_time": "1 month",
                "transit": "1 week",
                "supply": rng.choice((20, 60, 200)),
                "failure_rate": "5 %/year",
            },
            "b": {
                "device": "ascend-910b2",
                "per_node": 8,
                "price": f"{rng.uniform(0.5, 2):.3f} M CNY",
                "power": "700 W",
                "lead_time": "2 weeks",
                "transit": "1 week",
                "supply": 40,
                "failure_rate": "9 %/year",
                "rent": "12 CNY/h",
                "rentable": rng.choice((0, 30)),
            },
        },
        "sites": {
            "here": {
                "power": "10 MW",
                "energy_price": f"{rng.uniform(0.3, 0.9):.3f} CNY/kWh",
                "pue": 1.25,
            }
        },
        "jobs": {
            "train": {
                "tokens": f"{rng.uniform(0.2, 2):.3f} T tokens",
                "deadline": f"{rng.choice((5, 6, 7))} months",
                "flop_per_token": 6.0e10,
                "rates": {
                    "a": {"peak": "148 TFLOP/s", "mfu": f"{rng.uniform(20, 45):.1f} %"},
                    "b": {"peak": "370 TFLOP/s", "mfu": f"{rng.uniform(10, 30):.1f} %"},
                },
            }
        },
    }


def _scaled(text: str, factor: float) -> str:
    number, _, unit = text.partition(" ")
    return f"{float(number) * factor:.12g} {unit}"


def _cheaper(data: dict[str, Any]) -> None:
    for device in data["devices"].values():
        device["price"] = _scaled(device["price"], 0.8)


def _cheap_power(data: dict[str, Any]) -> None:
    data["sites"]["here"]["energy_price"] = _scaled(data["sites"]["here"]["energy_price"], 0.5)


def _richer(data: dict[str, Any]) -> None:
    data["purchase"]["budget"] = "2000 M CNY"


def _more_supply(data: dict[str, Any]) -> None:
    for device in data["devices"].values():
        device["supply"] *= 2


def _later(data: dict[str, Any]) -> None:
    data["jobs"]["train"]["deadline"] = "8 months"


def _less_work(data: dict[str, Any]) -> None:
    data["jobs"]["train"]["tokens"] = _scaled(data["jobs"]["train"]["tokens"], 0.7)


def _one_more(data: dict[str, Any]) -> None:
    data["devices"]["c"] = {**data["devices"]["a"], "price": "3 M CNY"}
    data["jobs"]["train"]["rates"]["c"] = data["jobs"]["train"]["rates"]["a"]


EASIER: dict[str, Callable[[dict[str, Any]], None]] = {
    "cheaper machines never raise the optimum": _cheaper,
    "cheaper power never raises the optimum": _cheap_power,
    "a larger budget never raises the optimum": _richer,
    "more supply never raises the optimum": _more_supply,
    "a later deadline never raises the optimum": _later,
    "less work never raises the optimum": _less_work,
    "one more offer never raises the optimum": _one_more,
}  # each: the old plan is still possible, at no higher cost


def check_purchases(count: int, seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every law that a drawn purchase breaks, with the figures and the purchase."""
    for number in range(count):
        data = drawn_purchase(random.Random(f"{seed} purchase {number}"))
        before = optimum(data)
        for name, change in EASIER.items():
            easier = copy.deepcopy(data)
            change(easier)
            after = optimum(easier)
            if before is not None and (after is None or after > before * (1 + GAP + 1e-6)):
                yield name, f"{before:.6g} to {after}", data
