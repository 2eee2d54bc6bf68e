"""Simulated time for the script: time, datetime and whoever has taken their functions already.

Modules of the standard library that wait for threads, processes and sockets keep the real clock:
their timeouts would never end on one that stands still while they wait.
"""

from __future__ import annotations

import datetime
import sys
import time
import types
from typing import Any

from ersatz.sim.emulate.clock import Clock

EPOCH = 1_767_225_600.0  # 2026-01-01: every run begins at the same moment
YIELD_S = 1e-3  # what a simulated sleep really gives to other threads
_NAMES = ("time", "perf_counter", "monotonic", "process_time", "thread_time")
_WAITING = ("threading", "queue", "selectors", "select", "socket", "subprocess", "multiprocessing", "asyncio",
            "concurrent", "_pyio", "ssl", "http", "urllib", "tempfile", "random", "signal")  # fmt: skip


def install(clock: Clock) -> None:
    """Make the simulated clock the script's; needs what waits to be imported before."""
    import multiprocessing.connection
    import multiprocessing.managers
    import multiprocessing.pool
    import multiprocessing.queues  # noqa: F401

    real = types.ModuleType("time")
    real.__dict__.update(time.__dict__)
    replaced = {getattr(time, n): _reads(clock, n) for n in _names()}
    replaced[time.sleep] = _sleep(clock, time.sleep)
    _keep_real(real)
    for old, new in replaced.items():
        setattr(time, old.__name__, new)
    _datetime(clock)
    for module in list(sys.modules.values()):
        if module is not None and module is not time and not _waits(module.__name__):
            _replace(module, replaced)


def _names() -> list[str]:
    return [n for name in _NAMES for n in (name, f"{name}_ns")]


def _reads(clock: Clock, name: str) -> Any:
    begin = EPOCH if name.startswith("time") else 0.0
    if name.endswith("_ns"):
        return lambda: int((begin + clock.host) * 1e9)
    return lambda: begin + clock.host


def _sleep(clock: Clock, real: Any) -> Any:
    def sleep(seconds: float) -> None:
        clock.spend(seconds)
        real(min(seconds, YIELD_S))

    return sleep


def _waits(name: str) -> bool:
    return name.partition(".")[0] in _WAITING


def _keep_real(real: types.ModuleType) -> None:
    """Give modules that wait a `time` of their own, which is not replaced."""
    for module in list(sys.modules.values()):
        if module is not None and _waits(module.__name__) and getattr(module, "time", None) is time:
            module.time = real  # type: ignore[attr-defined]


def _replace(module: types.ModuleType, replaced: dict[Any, Any]) -> None:
    """Replace functions that a module has taken by name."""
    for name, value in list(vars(module).items()):
        try:
            new = replaced.get(value)
        except TypeError:  # what has no hash is no function of ours
            continue
        if new is not None:
            setattr(module, name, new)


def _datetime(clock: Clock) -> type:
    """Give the script a `datetime` with a simulated now; packages and what is compiled keep the real one."""
    real = datetime.datetime

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real)

    class simulated(real, metaclass=Meta):  # type: ignore[valid-type, misc]
        """The class `datetime` with simulated now, today and utcnow."""

        __slots__ = ()

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            """Return the simulated moment."""
            return real.fromtimestamp(EPOCH + clock.host, tz or datetime.UTC).replace(tzinfo=tz)

        @classmethod
        def utcnow(cls) -> Any:
            """Return the simulated moment in UTC."""
            return cls.now()

        @classmethod
        def today(cls) -> Any:
            """Return the simulated moment."""
            return cls.now()

    class Dates(types.ModuleType):
        @property
        def datetime(self) -> type:
            """Return the simulated class to scripts, the real one to packages."""
            asking = sys._getframe(1).f_code.co_filename
            return real if "-packages" in asking or asking.startswith("<") else simulated

    simulated.__name__ = simulated.__qualname__ = "datetime"
    datetime.__class__ = Dates
    return simulated
