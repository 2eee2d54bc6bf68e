"""How long a run bears with a scheduler, or a fleet, under which nothing is ever done.

Each limit counts what happens without anything to show for it, is reset when something comes of it, and
ends the run with a sentence of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ersatz.sim.fleet.log import FINAL, STARVED

if TYPE_CHECKING:
    from ersatz.sim.fleet.engine.fleet import Fleet

MOST_DECISIONS = 1_000_000  # in answer to one call
MOST_CALLS = 10_000  # in a simulated second in which nothing happens
MOST_EMPTY_CALLS = 1_000_000  # in a row while nothing happens
MOST_TIMERS = 100_000  # calls that are asked for and have not come yet
MOST_MOVES = 5_000  # preemptions and resizes in a row while no job ends, and ...
MOVES_A_JOB = 100  # ... so many more for each job that runs or waits
MOST_STRIKES = 50_000  # failures in a row while no job ends and no time is set
MOST_IDLE_CALLS = 20_000  # while jobs wait, nothing runs and no job is to come
MOVES = frozenset({"preempt", "resize"})


class Patience:
    """Counts for one run; its methods raise `RunEndedError`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._second, self._calls, self._empty_calls = 0.0, 0, 0
        self._moves = 0
        self._idle_calls = 0

    def called(self, events: int) -> None:
        """Count a call of the scheduler, which is woken on and on while nothing happens."""
        now = self._fleet.now
        if events or now - self._second >= 1.0:
            self._second, self._calls = now, 0
        self._calls += 1
        self._empty_calls = 0 if events else self._empty_calls + 1
        if self._calls > MOST_CALLS or self._empty_calls > MOST_EMPTY_CALLS:
            raise self._ended("asks to be woken without letting time pass")

    def decided_too_often(self) -> Exception:
        """Return the error that ends a run with more decisions at once than `MOST_DECISIONS`."""
        return self._ended(f"made {MOST_DECISIONS:,} decisions at once")

    def timed(self) -> None:
        """Count the calls that the scheduler has asked for."""
        if len(self._fleet.timers) > MOST_TIMERS:
            raise self._ended(f"has asked for more than {MOST_TIMERS:,} calls")

    def moved(self, event: str) -> None:
        """Count a move or the end of a job: jobs may not move for ever while none is done."""
        fleet = self._fleet
        if event in FINAL:
            self._moves = fleet.nodes.strikes = 0
        elif event in MOVES:
            self._moves += 1
        if self._moves > MOST_MOVES + MOVES_A_JOB * (len(fleet.running) + len(fleet.waiting)):
            raise self._ended(f"preempted or moved jobs {self._moves:,} times while none ended")

    def answered(self) -> None:
        """Look whether jobs wait beside an idle fleet while nothing else will happen."""
        fleet = self._fleet
        if fleet.running or fleet.to_come or not fleet.waiting:
            self._idle_calls = 0
            return
        self._idle_calls += 1
        quiet = not (fleet.nodes.down or fleet.timers or fleet.nodes.drained or fleet.asked)
        if (quiet and not fleet.spec.outages) or self._idle_calls > MOST_IDLE_CALLS:
            raise self._ended(f"starts nothing, but {why_waiting(fleet)}", STARVED)

    def struck(self) -> None:
        """Look whether failures come for ever while no job ends and no time is set."""
        fleet = self._fleet
        if fleet.nodes.strikes > MOST_STRIKES:
            still = next(iter((*fleet.running, *fleet.waiting, *fleet.held)), "")
            raise fleet.ended(
                f"{MOST_STRIKES:,} failures came while no job ended (job {still} is still not done):"
                " see `until`, `rules.max_failures` and checkpoints"
            )

    def _ended(self, what: str, *how: int) -> Exception:
        return self._fleet.ended(f"{self._fleet.scheduler.name} {what}", *how)


def why_waiting(fleet: Fleet) -> str:
    """Say which jobs wait, and what the first of them asks for."""
    names = [*fleet.waiting, *fleet.held]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    job = fleet.jobs[names[0]] if names else None
    size = (
        f"; job {job.id} asks for {job.devices} devices, {fleet.free.free} are free" if job else ""
    )
    return f"{len(names)} {'job waits' if len(names) == 1 else 'jobs wait'} ({shown}){size}"
