"""`ersatz buy`: what to buy, when and where, and what rules, shocks and chance do to the plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, OutOption, SeedOption, SetOption, app
from ersatz.sim.cli.cases import find_scenario
from ersatz.sim.cli.output import deliver
from ersatz.sim.cli.process.terminal import progress


@app.command(epilog="Example: ersatz buy embargo-story --set 'purchase.budget=400 M CNY'")
def buy(
    scenario: Annotated[str, typer.Argument(help="Purchase file, or name of a shipped one.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="CSV", help="Prices of your own, on top.")
    ] = None,
) -> None:  # fmt: skip
    """Plan a purchase under rules, and live through it with embargoes, failures and chance.

    A file with a `purchase` section is planned and replayed; one with `compare` sets offers side by
    side; `stockpile` weighs buying ahead of a cut-off; `ramp` follows domestic production.
    """
    from ersatz.sim.purchase.reading.file import section_of

    path, overrides = find_scenario(scenario), set_ or []
    kind = section_of(path, overrides)
    verbs: dict[str, Callable[..., None]] = {
        "purchase": partial(_purchase, prices=prices), "compare": _compare,
        "stockpile": _stockpile, "ramp": _ramp,
    }  # fmt: skip
    if prices and kind != "purchase":
        raise Failure(
            2, [f"{path}: --prices is for a file with a purchase section; this has {kind}"]
        )
    verbs[kind](path, overrides, seed, json, out)


def _purchase(
    path: Path, overrides: list[str], seed: int | None, json: str | None, out: Path | None,
    prices: Path | None,
) -> None:  # fmt: skip
    from ersatz.sim.purchase.answer import answer
    from ersatz.sim.purchase.reading.file import load_inquiries
    from ersatz.sim.report.buying.buildout import render_buy
    from ersatz.sim.report.buying.record import buy_record
    from ersatz.sim.report.pictures.buy_pictures import buy_pictures

    inquiries = load_inquiries(path, overrides, seed, prices)
    with progress(sum(1 + inquiry.draws for inquiry in inquiries)) as advance:
        answers = [answer(inquiry, advance) for inquiry in inquiries]
    files = buy_pictures(answers) if out else {}
    deliver("buy", buy_record(answers), render_buy(answers), json, out, files)
    stuck = [a.inquiry.name for a in answers if a.plan is None]
    if stuck:
        raise Failure(1, [f"infeasible: {name} has no plan; see what would help" for name in stuck])


def _compare(
    path: Path, overrides: list[str], seed: int | None, json: str | None, out: Path | None
) -> None:
    from ersatz.sim.options.answer import answer_comparison
    from ersatz.sim.options.file import load_comparisons
    from ersatz.sim.report.buying.options import comparison_record, render_comparisons
    from ersatz.sim.report.pictures.buy_pictures import comparison_pictures

    answers = [(case, answer_comparison(case)) for case in load_comparisons(path, overrides, seed)]
    files = comparison_pictures(answers) if out else {}
    deliver("buy", comparison_record(answers), render_comparisons(answers), json, out, files)


def _stockpile(
    path: Path, overrides: list[str], seed: int | None, json: str | None, out: Path | None
) -> None:
    from ersatz.sim.options.other_files import load_stockpiles
    from ersatz.sim.report.buying.other import render_stockpiles, stockpile_record
    from ersatz.sim.report.pictures.buy_pictures import stockpile_pictures

    cases = load_stockpiles(path, overrides, seed)
    files = stockpile_pictures(cases) if out else {}
    deliver("buy", stockpile_record(cases), render_stockpiles(cases), json, out, files)


def _ramp(
    path: Path, overrides: list[str], seed: int | None, json: str | None, out: Path | None
) -> None:
    from ersatz.sim.options.other_files import load_ramps
    from ersatz.sim.report.buying.other import ramp_record, render_ramps
    from ersatz.sim.report.pictures.buy_pictures import ramp_pictures

    cases = load_ramps(path, overrides, seed)
    files = ramp_pictures(cases) if out else {}
    deliver("buy", ramp_record(cases), render_ramps(cases), json, out, files)
