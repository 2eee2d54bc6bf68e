"""Purchases: build-outs, offers side by side, stockpiles and ramps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ersatz.sim.answers.answer import Answer, Overrides, Watch, by_name, override_texts, unwatched
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.purchase.reading.file import section_of
from ersatz.sim.scenario.shipped import find_scenario


def buy(
    scenario: str | Path, overrides: Overrides = (), seed: int | None = None, *,
    prices: Path | str | None = None, watch: Watch = unwatched,
) -> Answer[Any]:  # fmt: skip
    """Plan a purchase under rules, and live through it with embargoes, failures and chance.

    Takes the name of a shipped purchase file or a path. What a record is depends on the section
    that the file holds: `purchase` (planned and replayed), `compare` (offers side by side),
    `stockpile` or `ramp`. Raises `InputError` for a faulty file; a build-out without a plan is no
    error, its reasons stand in the answer. `prices` is a CSV of your own, on top of the shipped ones,
    for a build-out. `watch` is called with the number of lives to simulate.
    """
    path, texts = find_scenario(scenario), override_texts(overrides)
    kind = section_of(path, texts)
    own = None if prices is None else Path(prices)
    if kind == "purchase":
        return _purchase(path, texts, seed, own, watch)
    if own:
        expected = f"is for a file with a purchase section; this has {kind}"
        raise InputError([Problem(str(path), 0, 0, "--prices", "", expected)])
    return {"compare": _compare, "stockpile": _stockpile, "ramp": _ramp}[kind](path, texts, seed)


def _purchase(
    path: Path, overrides: Sequence[str], seed: int | None, prices: Path | None, watch: Watch
) -> Answer[Any]:
    from ersatz.sim.purchase.answer import answer
    from ersatz.sim.purchase.reading.file import load_inquiries
    from ersatz.sim.report.buying.buildout import render_buy
    from ersatz.sim.report.buying.record import buy_record
    from ersatz.sim.report.pictures.buy_pictures import buy_pictures

    inquiries = load_inquiries(path, overrides, seed, prices)
    with watch(sum(1 + inquiry.draws for inquiry in inquiries)) as advance:
        answers = [answer(inquiry, advance) for inquiry in inquiries]
    stuck = [a.inquiry.name for a in answers if a.plan is None]
    return Answer(
        "buy", by_name((a.inquiry.name, a) for a in answers),
        view=lambda: render_buy(answers), record=lambda: buy_record(answers),
        files=lambda: buy_pictures(answers),
        reasons=tuple(f"infeasible: {name} has no plan; see what would help" for name in stuck),
    )  # fmt: skip


def _compare(path: Path, overrides: Sequence[str], seed: int | None) -> Answer[Any]:
    from ersatz.sim.options.answer import answer_comparison
    from ersatz.sim.options.file import load_comparisons
    from ersatz.sim.report.buying.options import comparison_record, render_comparisons
    from ersatz.sim.report.pictures.buy_pictures import comparison_pictures

    cases = [(case, answer_comparison(case)) for case in load_comparisons(path, overrides, seed)]
    return Answer(
        "buy", by_name((case.name, told) for case, told in cases),
        view=lambda: render_comparisons(cases), record=lambda: comparison_record(cases),
        files=lambda: comparison_pictures(cases),
    )  # fmt: skip


def _stockpile(path: Path, overrides: Sequence[str], seed: int | None) -> Answer[Any]:
    from ersatz.sim.options.other_files import load_stockpiles
    from ersatz.sim.report.buying.other import render_stockpiles, stockpile_record
    from ersatz.sim.report.pictures.buy_pictures import stockpile_pictures

    cases = load_stockpiles(path, overrides, seed)
    return Answer(
        "buy", by_name((case.name, case) for case in cases),
        view=lambda: render_stockpiles(cases), record=lambda: stockpile_record(cases),
        files=lambda: stockpile_pictures(cases),
    )  # fmt: skip


def _ramp(path: Path, overrides: Sequence[str], seed: int | None) -> Answer[Any]:
    from ersatz.sim.options.other_files import load_ramps
    from ersatz.sim.report.buying.other import ramp_record, render_ramps
    from ersatz.sim.report.pictures.buy_pictures import ramp_pictures

    cases = load_ramps(path, overrides, seed)
    return Answer(
        "buy", by_name((case.name, case) for case in cases),
        view=lambda: render_ramps(cases), record=lambda: ramp_record(cases),
        files=lambda: ramp_pictures(cases),
    )  # fmt: skip
