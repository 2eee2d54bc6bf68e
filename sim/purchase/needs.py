"""What would have to be true for a case to save exactly a given share per token against another.

By the plans as things came, each cause alone: the price of the case's devices (rents, machines and what
is a share of them), their speed where all of them are rented, or how much dearer the other would have to
be. Not modelled: two causes at once, another plan at the other price (see `decide`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# what a life costs that is a price of devices, or a share of one
PRICED = ("machines", "network", "fees and duty", "rent", "repair", "smuggler's premium")
TIMED = ("rent", "electricity", "repair")  # what costs as long as a job runs


@dataclass(frozen=True, slots=True)
class Spent:
    """What a case costs per token, by cause, less what its machines are worth at the end."""

    case: str
    cost: Mapping[str, float]
    left: float = 0.0
    prices: Mapping[str, float] | None = None  # of the devices it uses, as the file has them

    @property
    def total(self) -> float:
        """All of it."""
        return math.fsum(self.cost.values()) - self.left

    def of(self, causes: tuple[str, ...]) -> float:
        """The sum of some causes."""
        return math.fsum(self.cost.get(cause, 0.0) for cause in causes)


@dataclass(frozen=True, slots=True)
class Need:
    """What makes a case save a share against another, each factor alone; None where none does."""

    case: str
    against: str
    share: float  # to be saved
    saves: float  # by the plans as they are
    price: float | None  # factor on all prices of the case's devices
    prices: Mapping[str, float]  # of each device then
    speed: float | None  # factor on the speed of its devices
    dearer: float  # factor on what the other costs


def needed(base: Spent, case: Spent, share: float) -> Need:
    """Return what a case needs to cost a `share` less per token than the base.

    >>> a, b = Spent("a", {"rent": 10.0}), Spent("b", {"rent": 8.0, "porting": 1.0}, 0.0, {"x": 4.0})
    >>> need = needed(a, b, 0.2)
    >>> round(need.saves, 9), need.price, need.prices, round(need.speed, 3), need.dearer
    (0.1, 0.875, {'x': 3.5}, 1.143, 1.125)
    """
    target = (1.0 - share) * base.total
    priced, timed = case.of(PRICED) - case.left, case.of(TIMED)
    price = (target - (case.total - priced)) / priced if priced > 0 else -1.0
    rented = timed > 0 and not case.of(("machines",))
    room = target - (case.total - timed)
    return Need(
        case.case, base.case, share, 1.0 - case.total / base.total, price if price > 0 else None,
        {name: price * value for name, value in (case.prices or {}).items()} if price > 0 else {},
        timed / room if rented and room > 0 else None, case.total / target,
    )  # fmt: skip
