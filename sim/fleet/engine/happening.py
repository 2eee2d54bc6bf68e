"""Events of the fleet's clock, and their order within one instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import simpy
from simpy.core import Environment
from simpy.events import EventPriority

FINISH, FAIL, REPAIR, SUBMIT, TIMER, DECIDE = range(1, 7)


class Happening(simpy.Event):
    """A timeout with a place among the events of its instant; it may call a function itself."""

    def __init__(
        self, env: Environment, priority: int, delay: float,
        act: Callable[[simpy.Event], None] | None = None,
    ) -> None:  # fmt: skip
        self.env = env
        self.callbacks = [act] if act else []
        self._value = None
        self._ok = True
        env.schedule(self, cast(EventPriority, priority), delay)
