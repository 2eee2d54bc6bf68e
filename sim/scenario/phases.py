"""The phases of a training in a scenario file, each as the file would say it of that phase alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.layout import PhaseSection, RampSection

Blame = Callable[..., None]
AT = ("training", "phases")
RAMP = ("training", "batch_ramp")
CHANGES = ("sequence_length", "global_batch", "micro_batch", "document_tokens")
MOST_SIZES = 256  # of a growing batch: each is a step to be simulated


@dataclass(frozen=True, slots=True)
class PhaseFile:
    """What a file says of one phase; what is wrong with it is blamed at the phase's own key."""

    name: str
    spec: ScenarioFile
    tokens: float  # of the phase; 0: a step study
    blame: Blame
    ramp: bool = False
    later: bool = False  # than another phase, whose assumptions hold here, too

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.spec.training.global_batch * self.spec.training.sequence_length


def phase_files(spec: ScenarioFile, blame: Blame) -> list[PhaseFile]:
    """Return the phases of a file in order, a growing batch as one for each size; at least one.

    What cannot be is told to `blame`; then nothing comes back.
    """
    training = spec.training
    if training.steps and (training.phases or training.batch_ramp):
        words = "steps differ between phases: expected tokens here, or steps in each phase"
        blame(("training", "steps"), training.steps, words)
        return []
    whole = _tokens(
        training.tokens, training.steps, training.global_batch * training.sequence_length
    )
    found = _phases(spec, whole, blame) if training.phases else [PhaseFile("", spec, whole, blame)]
    if found and training.batch_ramp and found[0].tokens:
        return [*_ramp(training.batch_ramp, found[0], blame), *found[1:]]
    return found


def _tokens(tokens: float | None, steps: int | None, each: int) -> float:
    return float(steps) * each if steps else tokens or 0.0


def _phases(spec: ScenarioFile, whole: float, blame: Blame) -> list[PhaseFile]:
    """Return the phases that a file names, each with its tokens."""
    phases = spec.training.phases
    files = [_file(spec, phase, i, blame) for i, phase in enumerate(phases)]
    amounts = [_amount(phase, file, i, whole, blame)
               for i, (phase, file) in enumerate(zip(phases, files, strict=True))]  # fmt: skip
    if -1.0 in amounts:
        return []
    silent = [i for i, amount in enumerate(amounts) if amount is None]
    known = sum(amount for amount in amounts if amount is not None)
    if silent and (len(silent) > 1 or whole <= known):
        words = (f"expected tokens, steps or share, as {len(silent)} phases have none" if len(silent) > 1
                 else f"no tokens are left for it: the others have {known:.6g}")  # fmt: skip
        blame((*AT, silent[-1]), None, words)
        return []
    if (
        not silent
        and whole
        and abs(known - whole) > 1e-3 * whole + max(f.step_tokens for f in files)
    ):
        blame(("training", "tokens"), f"{whole:g}", f"the phases add up to {known:.6g} tokens")
        return []
    tokens = [whole - known if amount is None else amount for amount in amounts]
    names = [file.name for file in files]
    for i, name in enumerate(names):
        if names.index(name) < i:
            blame((*AT, i, "name"), name, "two phases have the same name")
    return [replace(f, tokens=t) for f, t in zip(files, tokens, strict=True)]


def _amount(
    phase: PhaseSection, file: PhaseFile, i: int, whole: float, blame: Blame
) -> float | None:
    """Return the tokens of a phase, None where it leaves them to the others, -1 where that is wrong."""
    said = [key for key in ("tokens", "steps", "share") if getattr(phase, key)]
    if len(said) > 1:
        blame((*AT, i, said[1]), None, f"expected one of {' and '.join(said)}")
        return -1.0
    if phase.share and not whole:
        blame((*AT, i, "share"), phase.share, "a share of training.tokens, which is not given")
        return -1.0
    if phase.share:
        return phase.share * whole
    return _tokens(phase.tokens, phase.steps, file.step_tokens) or None


def _file(spec: ScenarioFile, phase: PhaseSection, i: int, blame: Blame) -> PhaseFile:
    """Return a file as it would be of one phase alone."""
    changes = {key: value for key in CHANGES if (value := getattr(phase, key))}
    training = spec.training.model_copy(update={**changes, "phases": (), "batch_ramp": None})
    update: dict[str, Any] = {"training": training}
    own = phase.parallel.model_fields_set
    if own:
        layout = {key: getattr(phase.parallel, key) for key in own}
        update["parallel"] = spec.parallel.model_copy(update=layout)
    alone = spec.model_copy(update=update)
    placed = _placed(
        {("training", key) for key in changes} | {("parallel", key) for key in own}, i, blame
    )
    return PhaseFile(phase.name or f"phase {i + 1}", alone, 0.0, placed, later=i > 0)


def _placed(own: set[tuple[str, str]], i: int, blame: Blame) -> Blame:
    """Return a `blame` that puts what a phase says itself at the phase."""

    def told(path: tuple[Any, ...], value: object, words: str, **how: Any) -> None:
        if tuple(path[:2]) not in own:
            blame(path, value, words, **how)
            return
        inside = path[1:] if path[0] == "training" else path
        blame((*AT, i, *inside), value, words, **how)

    return told


def _ramp(ramp: RampSection, full: PhaseFile, blame: Blame) -> list[PhaseFile]:
    """Return the sizes of a growing batch, then the phase in which it has grown."""
    training = full.spec.training
    rise = training.global_batch - ramp.start
    count, rest = divmod(rise, ramp.increment)
    if rise <= 0 or rest:
        words = f"expected a whole number of increments of {ramp.increment:,} up to {training.global_batch:,}"
        blame((*RAMP, "start"), ramp.start, words)
        return []
    if count > MOST_SIZES:
        blame(
            (*RAMP, "increment"), ramp.increment, f"{count:,} sizes; expected at most {MOST_SIZES}"
        )
        return []
    sizes = list(ramp_steps(ramp.start, ramp.increment, count, ramp.sequences))
    grown = sum(batch * steps for batch, steps in sizes) * training.sequence_length
    if grown >= full.tokens:
        words = f"the batch grows over {grown:.6g} tokens; the phase has {full.tokens:.6g}"
        blame((*RAMP, "sequences"), ramp.sequences, words)
        return []

    def at_ramp(path: tuple[Any, ...], value: object, words: str, **how: Any) -> None:
        if tuple(path[:2]) == ("training", "global_batch"):
            path = (*RAMP, "start")
        full.blame(path, value, words, **how)

    after = f", {full.name}" if full.name else ""
    found = []
    for batch, steps in sizes:
        own = full.spec.model_copy(
            update={"training": training.model_copy(update={"global_batch": batch})}
        )
        tokens = float(steps * batch * training.sequence_length)
        if steps:
            found.append(PhaseFile(f"batch {batch:,}{after}", own, tokens, at_ramp, ramp=True))
    name = full.name or f"batch {training.global_batch:,}"
    return [*found, replace(full, name=name, tokens=full.tokens - grown)]


def ramp_steps(start: int, increment: int, count: int, sequences: int) -> Iterator[tuple[int, int]]:
    """Yield each batch of a ramp with its steps: it grows whenever another share of `sequences` is done.

    So Megatron counts: `count` sizes have sequences / count each, and a step that was begun is ended.

    >>> list(ramp_steps(2, 2, 2, 8))
    [(2, 2), (4, 1)]
    >>> list(ramp_steps(2, 2, 2, 10))  # 5 are done after 6, the others after 10
    [(2, 3), (4, 1)]
    """
    done = 0
    for k in range(count):
        batch = start + k * increment
        steps = max(-((done * count - sequences * (k + 1)) // (batch * count)), 0)
        done += steps * batch
        yield batch, steps
