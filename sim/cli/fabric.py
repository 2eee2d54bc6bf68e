"""`ersatz fabric`: a network in figures and as a drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, OutOption, SeedOption, SetOption, app
from ersatz.sim.cli.output import deliver
from ersatz.sim.scenario.shipped import find_scenario


@app.command(
    epilog="Example: ersatz fabric --node h800-8 --nodes 256 --network hpn7 --svg hpn7.svg"
)
def fabric(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario file, or name of a shipped one; or give --node.")
    ] = None,
    json: JsonOption = None, out: OutOption = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="PATH", help="Draw it; one file per case and pool.")
    ] = None,
    set_: SetOption = None, seed: SeedOption = None,
    node: Annotated[str | None, typer.Option("--node", help="Node, without a scenario.")] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="How many, with --node.")] = 1,
    network: Annotated[
        str | None, typer.Option("--network", help="Network in place of the node's, with --node.")
    ] = None,
) -> None:  # fmt: skip
    """Describe the network of a scenario: parts, ports, bisection, faults, what each group gets."""
    from ersatz.sim.report.fabric import fabric_record, infeasible, render_fabric, view_pools
    from ersatz.sim.report.pictures.fabric_svg import drawings
    from ersatz.sim.scenario.fabric_file import describe_nodes, load_fabric_cases

    if bool(scenario) == bool(node):
        raise Failure(2, ["fabric: expected a scenario, or --node with --nodes"])
    if scenario:
        if network or nodes != 1:
            raise Failure(
                2, ["fabric: --nodes and --network go with --node; with a scenario use --set"]
            )
        cases = load_fabric_cases(find_scenario(scenario), set_ or [], seed)
    else:
        cases = describe_nodes(str(node), nodes, network, set_ or [], seed)
    views = [view_pools(case) for case in cases]
    drawn = drawings(cases) if svg or out else {}
    record = fabric_record(cases, views)
    files = {f"{name}.svg": text for name, text in drawn.items()}
    wanted = {svg.with_stem(f"{svg.stem}-{i + 1}") if i else svg: text
              for i, text in enumerate(drawn.values())} if svg else {}  # fmt: skip
    deliver("fabric", record, render_fabric(cases, views), json, out, files, wanted)
    reasons = [
        line for case, seen in zip(cases, views, strict=True) for line in infeasible(case, seen)
    ]
    if reasons:
        raise Failure(1, reasons)
