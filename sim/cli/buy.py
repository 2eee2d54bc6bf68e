"""`ersatz buy`: what to buy, when and where, and what rules, shocks and chance do to the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import HtmlOption, JsonOption, OutOption, SeedOption, SetOption, app
from ersatz.sim.cli.cases import conclude
from ersatz.sim.cli.process.terminal import progress


@app.command(epilog="Example: ersatz buy embargo-story --set 'purchase.budget=400 M CNY'")
def buy(
    scenario: Annotated[str, typer.Argument(help="Purchase file, or name of a shipped one.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="CSV", help="Prices of your own, on top.")
    ] = None,
    html: HtmlOption = None,
) -> None:  # fmt: skip
    """Plan a purchase under rules, and live through it with embargoes, failures and chance.

    A file with a `purchase` section is planned and replayed; one with `compare` sets offers side by
    side; `stockpile` weighs buying ahead of a cut-off; `ramp` follows domestic production.
    """
    from ersatz.sim.answers.buy import buy as answer

    conclude(answer(scenario, set_ or (), seed, prices=prices, watch=progress), json, out, html)
