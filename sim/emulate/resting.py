"""What the kernels of an emulated step rest on: which were measured, and which are modelled for want of it.

States are those of `sim/hil/trust.py`. An operator is *timed* where a calibration of a script's own ops
has it by its signature, or a live timer ran it; *fitted* where a calibration measured kernels of its
operation and number format; else it is modelled by the catalogue, and is named with its share of the step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ersatz.device_models.calibration.file import find_calibration, read_calibration
from ersatz.device_models.calibration.measured import Calibration, kernel_key, own_seconds
from ersatz.device_models.calibration.table_timer import tables_of
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.text.units import format_duration
from ersatz.sim.emulate.trace import Task, Trace
from ersatz.sim.hil.device.operators import key_of
from ersatz.sim.hil.trust import calibration_state

MOST_NAMED = 6  # operators, the longest first
TIMED, FITTED, MODELLED = "timed", "fitted", "modelled"
State = Callable[[Trace, int], str]  # of the task of that number


@dataclass(frozen=True, slots=True)
class Left:
    """Operators of a rank's last step that are in one state."""

    seconds: Counter[str]  # by the operator's name
    count: int
    share: float  # of the step

    def words(self, why: str, rank: str) -> str:
        """Say which they are and what they are worth."""
        longest = self.seconds.most_common(MOST_NAMED)
        names = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in longest)
        more = len(self.seconds) - len(longest)
        names += f" and {more:,} other operators" if more else ""
        total = format_duration(sum(self.seconds.values()))
        return f"{self.count:,} kernels{rank} {why}: {total}, {100 * self.share:.1f} % of the step ({names})"


def rests_on(
    timer: str,
    calibration: str,
    device: Device,
    traces: Sequence[Trace],
    *,
    one_by_one: bool = True,
) -> list[str]:
    """Say what the kernels of a step rest on, where a calibration or an attached device was asked for.

    `one_by_one`: operators that a calibration timed by their signatures count as they are. Of several
    ranks the one of which most is modelled tells which operators are.
    """
    if timer == "live":
        return _told(traces, _live, "measured here", "could not be timed live, and are modelled")
    if not calibration:
        return []
    if timer == "roofline":
        return [f"the timer roofline takes nothing of the calibration {calibration}"]
    measured = read_calibration(find_calibration(calibration))
    if measured.origin.device != device.name:
        return [f"the calibration {calibration} is of {measured.origin.device}: none of it holds for"
                f" {device.name}, all of whose kernels are modelled"]  # fmt: skip
    state = _of_calibration(timer, measured, one_by_one=one_by_one)
    why = "have shapes or operations that the calibration has not timed, and are modelled"
    return _told(traces, state, calibration_state(measured), why)


def _told(traces: Sequence[Trace], state: State, known: str, why: str) -> list[str]:
    """Return the shares of all kernels by state, and which operators are modelled."""
    found = [(_left(trace, state), trace.rank) for trace in traces]
    seconds: Counter[str] = Counter()
    for left, _ in found:
        for name, one in left.items():
            seconds[name] += sum(one.seconds.values())
    total = sum(seconds.values())
    if not total:
        return []
    shares = {TIMED: f"{known}, one by one", FITTED: f"by kernels {known}", MODELLED: MODELLED}
    parts = [f"{100 * seconds[name] / total:.1f} % {words}"
             for name, words in shares.items() if seconds[name]]  # fmt: skip
    lines = [f"kernels by their time: {', '.join(parts)}"]
    worst, rank = max(
        ((left[MODELLED], rank) for left, rank in found if MODELLED in left),
        key=lambda one: one[0].share, default=(None, 0),
    )  # fmt: skip
    if worst is not None:
        lines.append(worst.words(why, f" of rank {rank}" if len(traces) > 1 else ""))
    return lines


def _left(trace: Trace, state: State) -> dict[str, Left]:
    """Return the kernels of a rank's last step by state."""
    seconds: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for entry in trace.last_step():
        task = trace.table[entry.work] if entry.work >= 0 else None
        if task is None or task.kernel is None:
            continue
        found = state(trace, entry.work)
        seconds.setdefault(found, Counter())[task.name] += task.seconds  # type: ignore[assignment]
        counts[found] += 1
    step_s = trace.step_s[-1]
    return {
        name: Left(by_name, counts[name], sum(by_name.values()) / step_s if step_s else 0.0)
        for name, by_name in seconds.items()
    }


def _live(trace: Trace, number: int) -> str:
    return MODELLED if number in trace.facts.get("modelled", ()) else TIMED


def _of_calibration(timer: str, measured: Calibration, *, one_by_one: bool) -> State:
    """Return how the time of a task is known by a calibration of the device."""
    alone = measured.operators if one_by_one else {}
    exact = own_seconds(measured) if timer == "table" or measured.origin.scope else {}
    fitted = tables_of(measured.points) if timer == "table" else measured.fits

    def known(kernel: Kernel) -> bool:
        return kernel_key(kernel) in exact or (operation_of(kernel), kernel.dtype) in fitted

    def state(trace: Trace, number: int) -> str:
        task: Task = trace.table[number]
        if task.signature and key_of(task.signature) in alone:
            return TIMED
        return FITTED if task.kernel is not None and known(task.kernel) else MODELLED

    return state
