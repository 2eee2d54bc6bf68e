"""What a scheduler promises of itself, as people write it: easy,preempts=lower,reclaim=10 min."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.units import parse_quantity
from ersatz.sim.fleet.log import Claims

WORDS: dict[str, dict[str, Any]] = {
    "easy": {"backfill": "easy"}, "conservative": {"backfill": "conservative"},
    "conserving": {"work_conserving": True},
}  # fmt: skip
TIMES = {"wait": "max_wait_s", "reclaim": "reclaim_s"}
RULES = ("never", "lower", "any")
KNOWN = (*WORDS, "preempts", *TIMES)


def read_claims(text: str) -> Claims:
    """Return the claims of a list of words; raises `InputError` with each that is none.

    `easy`, `conservative`: promised starts are kept; `conserving`: nothing idles beside a job that fits;
    `preempts=never|lower|any`: who may be interrupted; `wait=TIME`: for the first start at most;
    `reclaim=TIME`: until what is borrowed is back.
    """
    claims, problems = Claims(), []
    for part in (p.strip() for p in text.split(",") if p.strip()):
        word, equals, value = part.partition("=")
        try:
            claims = replace(claims, **_claim(word.strip(), value.strip(), bool(equals)))
        except ValueError as error:
            problems.append(Problem("--claims", 0, 0, "", part[:60], str(error)))
    if problems:
        raise InputError(problems)
    return claims


def _claim(word: str, value: str, given: bool) -> dict[str, Any]:
    if word in WORDS and not given:
        return WORDS[word]
    if word == "preempts" and value in RULES:
        return {"preempts": value}
    if word in TIMES and given:
        return {TIMES[word]: _seconds(word, value)}
    if word not in KNOWN:
        raise ValueError(
            f"is no claim; expected one of {', '.join(KNOWN)}{did_you_mean(word, KNOWN)}"
        )
    like = {"preempts": f"preempts={'|'.join(RULES)}"} | {
        t: f"{t}=TIME, like {t}=10 min" for t in TIMES
    }
    raise ValueError(f"expected {like.get(word, word)}")


def _seconds(word: str, value: str) -> float:
    try:
        seconds = parse_quantity(value, "time")
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise ValueError(f"expected a time above 0, like {word}=10 min")
    return seconds
