"""A scheduler of a file, as the fleet holds it: it runs in a process of its own.

So it can neither end nor hang ersatz, nor touch the fleet or the log, and what it starts ends with it.
It sees a mirror of the fleet; each of its decisions is carried out here before it goes on.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ersatz.device_models.text.private import private_folder
from ersatz.sim.fleet.log import Claims, Record
from ersatz.sim.fleet.policies.own.channel import Channel, ChannelError
from ersatz.sim.fleet.policies.own.kept import FAREWELL_S, Kept, environment
from ersatz.sim.fleet.policies.own.mirror import news
from ersatz.sim.fleet.protocol import (
    Decision,
    Drain,
    Preempt,
    Reject,
    Reserve,
    Resize,
    SchedulerFault,
    Start,
    View,
    WakeAt,
)
from ersatz.sim.fleet.workload.jobs import Job

LOAD_S = 30.0  # to load a file
ANSWER_S = 60.0  # for each decision; the fleet's own limit may be shorter
RELAY = 2**16  # bytes of its output that are shown
CHILD = "ersatz.sim.fleet.policies.own.child"
DECISIONS = {d.__name__: d for d in (Start, Preempt, Resize, Reserve, Reject, WakeAt, Drain)}


class FileScheduler:
    """Implements `ersatz.sim.fleet.protocol.Scheduler`; raises `SchedulerFault` from the start on."""

    def __init__(self, file: Path, name: str) -> None:
        ours, theirs = socket.socketpair()
        words = [sys.executable, "-P", "-m", CHILD, str(theirs.fileno()), str(file), name]
        with theirs:
            try:
                self._kept = Kept(words, private_folder("scheduler"), fds=(theirs.fileno(),),
                                  relay=RELAY, environment=_environment())  # fmt: skip
            except OSError as error:
                ours.close()
                raise SchedulerFault(f"cannot be started: {error.strerror}") from None
        self._channel = Channel(ours, LOAD_S)
        self._asked = True  # an answer is due
        self._seen = 0
        self._known: dict[str, Job] = {}  # jobs that it was told of
        self._view: View | None = None
        try:
            found = self._answer()
            if "missing" in found:
                raise SchedulerFault(f"lacks {', '.join(map(str, found['missing']))}")
            self.name = "".join(c for c in str(found.get("name")) if c.isprintable())[:60] or "?"
            self.claims = _claims(found)
        except BaseException:
            self.close()
            raise
        self._channel.limit_s = ANSWER_S

    def on_start(self, view: View) -> None:
        """Tell about the fleet."""
        self._view = view
        self.claims = _claims(self._ask("start", view.cluster, view.rules))

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Tell what has happened, and pass on what is decided, one by one."""
        answer = self._ask("event", self._news(view), list(events))
        while "done" not in answer:
            yield _decision(answer)
            answer = self._ask("next", self._news(view))

    def on_end(self, view: View) -> None:
        """Let it take its leave, if it still listens."""
        try:
            if not self._asked:
                self._channel.limit_s = FAREWELL_S
                self._ask("end")
        finally:
            self.close()

    def close(self) -> None:
        """End its process and all that it has started."""
        self._channel.end.close()
        self._kept.end()

    def _news(self, view: View) -> Any:
        told = news(view, self._seen, self._known)
        self._seen += len(told.records)
        return told

    def _ask(self, *message: object) -> dict[str, Any]:
        self._asked = True
        with suppress(ChannelError):  # who has ended has left an answer, or the reason
            self._channel.tell(message)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """Return the next answer; rates that it asks for on the way are told."""
        try:
            while "speed" in (answer := self._channel.answered()):
                self._channel.tell(("speed", self._speed(answer["speed"])))
        except ChannelError as error:
            raise SchedulerFault(f"{error}{self._end_text(str(error))}") from None
        self._asked = False
        if "crash" in answer:
            raise SchedulerFault(f"crashed: {str(answer['crash'])[:500]}")
        return answer

    def _end_text(self, why: str) -> str:
        if why != "ended":
            return ""
        return f": its process {self._kept.how_it_ended(FAREWELL_S) or 'closed its connection'}"

    def _speed(self, key: Any) -> float:
        try:
            name, kind, devices, nodes, leaves = key
            assert self._view is not None
            return self._view.speed(self._known[name], kind, devices, nodes, leaves)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise ChannelError(f"asked nonsense: {error}") from None


def _environment() -> Mapping[str, str]:
    """Return an environment in which ersatz is found as it was found here."""
    root = str(Path(str(sys.modules["ersatz"].__file__)).parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**environment(), "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _decision(answer: Mapping[str, Any]) -> Decision:
    kind, values = DECISIONS.get(str(answer.get("decision"))), answer.get("values")
    if kind is not None and isinstance(values, dict):
        with suppress(TypeError):
            return kind(**values)
    words = str(answer.get("nonsense", "its answer"))[:80]
    raise SchedulerFault(f"answered nonsense: {words!r} is no decision")


def _claims(found: Mapping[str, Any]) -> Claims:
    given, usual = found.get("claims"), Claims()
    kinds = {"backfill": str, "preempts": str, "work_conserving": bool, "own_rules": str}
    if not isinstance(given, dict) or not all(
        hasattr(usual, key) and isinstance(value, kinds.get(key, int | float))
        for key, value in given.items()
    ):
        raise SchedulerFault("claims what is no Claims(...)")
    if given.get("own_rules"):
        raise SchedulerFault("claims own_rules; these are for policies that are built in")
    return Claims(**given)
