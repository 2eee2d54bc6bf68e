"""What follows a file on a command line: overrides, a seed, where the answer goes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .words import NUMBERS, TEXTS, odd_value

SETTINGS = (
    "seed",
    "training.micro_batch",
    "parallel.tp",
    "cluster.nodes",
    "model.layers",
    "cost.rent",
    "cases",
    "cases.base.seed",
    "training.²",
    "a.b.c",
    "job.failures.scale",
    "pools[0].nodes",
    "rules.OWN.id",
    "purchase.budget",
    "jobs.drawn[0].count",
    "compare.options.a.mfu",
    "policies",
    "energy",
)


def delivery(rng: random.Random) -> tuple[str, ...]:
    """Return where the answer goes."""
    return rng.choice(
        (("--json", "@/o.json"), ("--json", "@/o.json"), ("--json", "-"), ("--out", "@/o"), ())
    )


def options(rng: random.Random) -> tuple[str, ...]:
    """Return overrides and a seed, mostly none."""
    words: list[str] = []
    if rng.random() < 0.15:
        words += ["--set", setting(rng)]
    if rng.random() < 0.05:
        words += ["--seed", str(rng.choice((0, 1, 2**63, 2**64, -1, "x", 10**30)))]
    return tuple(words)


def setting(rng: random.Random) -> str:
    """Return what may stand after --set."""
    value = rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), str(odd_value(rng))[:300]))
    return rng.choice(
        (f"{rng.choice(SETTINGS)}={value}", f"{rng.choice(TEXTS)}={value}", str(value))
    )


def maybe(rng: random.Random, share: float, *words: str) -> tuple[str, ...]:
    """Return words of a command line, or none."""
    return words if rng.random() < share else ()


def word(rng: random.Random, usual: Sequence[str], share: float = 0.15) -> str:
    """Return a value of an option: a usual one, now and then an odd one (no NUL, no surrogate)."""
    if rng.random() >= share:
        return rng.choice(usual)
    odd = str(rng.choice((rng.choice(TEXTS), rng.choice(NUMBERS), odd_value(rng))))[:300]
    return odd.replace("\0", "")
