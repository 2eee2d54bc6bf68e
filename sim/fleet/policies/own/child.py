"""Runs a scheduler of a file: `python -m ersatz.sim.fleet.policies.own.child FD FILE NAME`.

Whatever it raises is told; what it prints goes wherever its process's output goes.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ersatz.sim.fleet.engine.view import FleetView
from ersatz.sim.fleet.log import Claims, Record
from ersatz.sim.fleet.policies.own.channel import Channel, ChannelError
from ersatz.sim.fleet.policies.own.mirror import Mirror, News
from ersatz.sim.fleet.protocol import crash_text

METHODS = ("name", "claims", "on_start", "on_event", "on_end")


class _Over(BaseException):
    """ersatz has ended the run while a decision was being made."""


class Child:
    """The scheduler and its end of the channel."""

    def __init__(self, channel: Channel, scheduler: Any) -> None:
        self.channel, self.scheduler = channel, scheduler

    def serve(self) -> None:
        """Answer until the end of the run."""
        while True:
            word, *rest = self.channel.hear()
            try:
                if word == "start":
                    self._begin(*rest)
                elif word == "event":
                    self._decide(*rest)
                else:
                    raise _Over
            except _Over:
                return self._done(lambda: self.scheduler.on_end(self.view))
            except ChannelError:
                raise
            except BaseException as error:  # somebody's code: sys.exit() in it is a crash, too
                self.channel.answer({"crash": crash_text(error)[:500]})

    def _done(self, act: Callable[[], object]) -> None:
        """Act, and tell that it is done, or what broke."""
        try:
            act()
        except BaseException as error:  # as in a decision
            self.channel.answer({"crash": crash_text(error)[:500]})
        else:
            self.channel.answer({"claims": claims_of(self.scheduler)})

    def _begin(self, cluster: Any, rules: Any) -> None:
        self.mirror = Mirror(cluster, rules, self._speed)
        self.view = FleetView(self.mirror)
        self.scheduler.on_start(self.view)
        self.channel.answer({"claims": claims_of(self.scheduler)})

    def _decide(self, told: News, events: list[Record]) -> None:
        self.mirror.learn(told)
        decisions: Iterator[object] = iter(
            self.scheduler.on_event(told.now, events, self.view) or ()
        )
        for decision in decisions:
            self.channel.answer(shown(decision))
            word, *rest = self.channel.hear()
            if word != "next":
                raise _Over
            self.mirror.learn(*rest)
        self.channel.answer({"done": True})

    def _speed(self, *key: object) -> float:
        self.channel.answer({"speed": key})
        word, *rest = self.channel.hear()
        if word != "speed":
            raise _Over
        return float(rest[0])


def shown(decision: object) -> dict[str, object]:
    """Return a decision as a message; what is none, as it is printed."""
    kind = type(decision)
    if is_dataclass(decision) and kind.__module__ == "ersatz.sim.fleet.protocol":
        values = {key: getattr(decision, key) for key in decision.__dataclass_fields__}
        try:
            if "placement" in values:
                values["placement"] = [[int(n), int(mask)] for n, mask in values["placement"]]
        except (TypeError, ValueError, OverflowError):
            values["placement"] = "nonsense"
        if all(isinstance(v, str | int | float | list) for v in values.values()):
            return {"decision": kind.__name__, "values": values}
    return {"nonsense": str(decision)[:80]}


def claims_of(scheduler: Any) -> object:
    """Return the claims as plain data; None where they are none."""
    return asdict(scheduler.claims) if isinstance(scheduler.claims, Claims) else None


def load(file: str, name: str) -> Any:
    """Return the scheduler of a file."""
    spec = importlib.util.spec_from_file_location(f"scheduler_{Path(file).stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError("is no Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def main(fd: str, file: str, name: str) -> None:
    """Load, tell what was found, serve."""
    channel = Channel(socket.socket(fileno=int(fd)))
    try:
        scheduler = load(file, name)
        missing = [m for m in METHODS if not hasattr(scheduler, m)]
        found: dict[str, object] = {"missing": missing} if missing else {
            "name": str(scheduler.name), "claims": claims_of(scheduler)}  # fmt: skip
    except BaseException as error:  # what stands in a file outside its class may exit as well
        found = {"crash": f"{type(error).__name__}: {error}"[:500]}
    with suppress(ChannelError):  # ersatz has let go
        channel.answer(found)
        if "name" in found:
            Child(channel, scheduler).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
