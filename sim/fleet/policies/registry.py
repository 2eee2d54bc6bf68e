"""Schedulers by name: 'easy', 'easy:leaf:fastest' (with placement and order of types), or a file.

Kueue's rules are written `kueue:config.yaml`, with a configuration of Kueue. A file is written `path.py` or
`path.py:Name`; it defines the class or function `Name` (by default `Scheduler`), which is called without
arguments and returns the scheduler.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.kueue.reading import read_kueue
from ersatz.sim.fleet.policies.backfill import EasyScheduler
from ersatz.sim.fleet.policies.conservative import ConservativeScheduler
from ersatz.sim.fleet.policies.kueue import KueueScheduler
from ersatz.sim.fleet.policies.own.scheduler import FileScheduler
from ersatz.sim.fleet.policies.placement import KINDS, PLACEMENTS, Placer
from ersatz.sim.fleet.policies.preempt import (
    FairScheduler,
    LeastServiceScheduler,
    PriorityScheduler,
)
from ersatz.sim.fleet.policies.queue import FillScheduler, QueueScheduler, by_limit
from ersatz.sim.fleet.policies.score import (
    EVEN,
    ScoredPlacement,
    clustering,
    least_fragments,
    least_left,
    least_product,
    packing,
)
from ersatz.sim.fleet.policies.shares import ShareScheduler, blind
from ersatz.sim.fleet.protocol import Scheduler, SchedulerFault

POLICIES: dict[str, Callable[[Placer], Scheduler]] = {
    "fifo": lambda placer: QueueScheduler("fifo", placer),
    "fill": lambda placer: FillScheduler("fill", placer),
    "sjf": lambda placer: QueueScheduler("sjf", placer, by_limit),
    "easy": lambda placer: EasyScheduler("easy", placer),
    "easy-sjf": lambda placer: EasyScheduler("easy-sjf", placer, by_limit),
    "conservative": lambda placer: ConservativeScheduler("conservative", placer),
    "priority": PriorityScheduler,
    "fair": FairScheduler,
    "las": LeastServiceScheduler,
    "gavel": lambda placer: ShareScheduler("gavel", placer=placer),
    "gavel-blind": lambda placer: ShareScheduler("gavel-blind", blind, placer),
}

SCORED: dict[str, ScoredPlacement] = {  # the nodes of all types at once, unless types are named
    "fgd": ScoredPlacement(least_fragments(EVEN)), "packing": ScoredPlacement(packing),
    "clustering": ScoredPlacement(clustering), "dot-product": ScoredPlacement(least_product),
    "least-left": ScoredPlacement(least_left),
}  # fmt: skip


# What each name is: a policy, a placement or an order of types; what it does; where it is from.
WORDS: dict[str, tuple[str, str, str]] = {
    "fifo": ("policy", "in order of submission, nobody overtakes", ""),
    "fill": ("policy", "whatever fits, in order of submission", ""),
    "sjf": ("policy", "the shortest time limit first, nobody overtakes", ""),
    "easy": ("policy", "backfilling that keeps the reservation of the first in the queue",
             "Lifka, The ANL/IBM SP scheduling system, 1995; devices by identity as in batsched"),
    "easy-sjf": ("policy", "the same, the shortest time limit first", "Lifka 1995"),
    "conservative": ("policy", "backfilling that keeps the reservation of everyone",
                     "Mu'alem and Feitelson 2001; devices by identity as in batsched"),
    "priority": ("policy", "higher priorities interrupt lower ones", ""),
    "fair": ("policy", "quotas of tenants; what is lent is called back", ""),
    "las": ("policy", "the least device-time served so far first", "Tiresias, NSDI 2019"),
    "gavel": ("policy", "max-min shares of time on each accelerator type, in rounds",
              "Gavel, OSDI 2020"),
    "gavel-blind": ("policy", "the same without knowing how fast types are", "Gavel, OSDI 2020"),
    "first-fit": ("placement", "the first free devices, wherever they are", ""),
    "best-fit": ("placement", "the fewest nodes with the least left over (default)", ""),
    "worst-fit": ("placement", "the emptiest nodes first", ""),
    "leaf": ("placement", "the leaf switch that the job fills best", ""),
    "fgd": ("placement", "where the least fragments arise", "FGD, ATC 2023"),
    "packing": ("placement", "devices and nodes in use before idle ones", "as compared in FGD"),
    "clustering": ("placement", "beside jobs of the same size", "as compared in FGD"),
    "dot-product": ("placement", "the least product of what is left and asked", "as compared in FGD"),
    "least-left": ("placement", "the least left over of processors and devices", "as compared in FGD"),
    "any": ("types", "as the job or the fleet names them", ""),
    "fastest": ("types", "those on which the job runs fastest first (default)", ""),
    "roomiest": ("types", "those with most free devices first", ""),
}  # fmt: skip
_FILE = re.compile(r"\.py(:\w*)?$")
_KUEUE = re.compile(r"kueue:(.+\.ya?ml)$")


def make_scheduler(text: str) -> Scheduler:
    """Return a new scheduler for a name or a file; raises `InputError` for anything else."""
    if _FILE.search(text):
        return _from_file(text)
    if match := _KUEUE.match(text):
        return _kueue(text, match[1])
    if os.sep in text:
        there = os.path.exists(text)
        raise InputError(
            [_problem(text, "expected a file.py" if there else "there is no such file")]
        )
    if wrong := unknown_policy(text):
        raise InputError(_problem(text, expected) for expected in wrong)
    name, *options = text.split(":")
    place = (PLACEMENTS | SCORED)[options[0]] if options else PLACEMENTS["best-fit"]
    kinds = KINDS[options[1]] if len(options) > 1 else KINDS["fastest"]
    all_types = SCORED.get(options[0]) if len(options) == 1 else None
    scheduler = POLICIES[name](Placer(place, kinds, all_types and all_types.one_node))
    scheduler.name = text
    return scheduler


def unknown_policy(text: str) -> list[str]:
    """Say what is wrong with the name of a built-in policy, or return nothing.

    A file is none of these: what it holds is run, so only the user may name it.
    """
    if _FILE.search(text):
        return [f"is a file; ersatz runs a scheduler's file only where the command line names it:"
                f" --policy {text}"]  # fmt: skip
    if match := _KUEUE.match(text):
        return _kueue_faults(match[1])
    name, *options = text.split(":")
    found = []
    tables: list[Collection[str]] = [POLICIES, [*PLACEMENTS, *SCORED], KINDS]
    for word, known in zip((name, *options), tables, strict=False):
        if word not in known:
            hint = did_you_mean(word, known)
            found.append(f"{word!r} is unknown{hint}; expected one of {', '.join(known)}")
    if len(options) > 2:
        found.append("expected policy[:placement[:types]]")
    return found


def _kueue(text: str, path: str) -> Scheduler:
    """Return Kueue's rules with a configuration of its own."""
    scheduler = KueueScheduler(read_kueue(path), Placer(PLACEMENTS["best-fit"], KINDS["any"]))
    scheduler.name = label_of(text)
    return scheduler


def policy_notes(names: Iterable[str]) -> tuple[str, ...]:
    """Return what the configurations of policies leave out of account, for the report."""
    paths = [match[1] for name in names if (match := _KUEUE.match(name))]
    return tuple(f"kueue: {note}" for path in paths for note in read_kueue(path).assumptions)


def label_of(text: str) -> str:
    """Return a policy's name for reports and files: of a file its stem."""
    if match := _KUEUE.match(text):
        return f"kueue-{Path(match[1]).stem}"
    return Path(text.partition(".py")[0]).name if _FILE.search(text) else text


def _kueue_faults(path: str) -> list[str]:
    try:
        read_kueue(path)
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return []


def _problem(text: str, expected: str) -> Problem:
    return Problem("--policy", 0, 0, "", text, expected)


def check_policies(names: Sequence[str]) -> None:
    """Raise `InputError` for the first name or file that is no scheduler, or that stands twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError([_problem(name, "stands twice; a scheduler is compared with others")])
        scheduler = make_scheduler(name)
        if isinstance(scheduler, FileScheduler):
            scheduler.close()


def _from_file(text: str) -> Scheduler:
    """Start a scheduler of a Python file."""
    path, _, name = text.rpartition(".py")
    file = Path(path + ".py")
    if not os.path.isfile(file):
        raise InputError([_problem(text, "there is no such file")])
    try:
        return FileScheduler(file.resolve(), name.lstrip(":") or "Scheduler")
    except SchedulerFault as fault:
        expected = f"cannot be loaded: it {fault} (see docs/schedulers.md)"
        raise InputError([_problem(text, expected)]) from None
