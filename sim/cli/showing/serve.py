"""`ersatz serve`: what-if, your own launch file, purchases, law and fleets in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, app


@app.command(epilog="Example: ersatz serve --port 8700; needs pip install 'ersatz[ui]'")
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: one that is free.")] = 0,
    json: JsonOption = None,
) -> None:  # fmt: skip
    """Serve the pages on this machine alone, until interrupted.

    The printed address holds a random token; who does not have it gets nothing. Nothing is asked of any
    other machine.
    """
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise Failure(2, [f"serve: needs {' and '.join(missing)}; pip install 'ersatz[ui]'"])
    from rich.text import Text

    from ersatz.sim.cli.output import cannot_be_written, deliver
    from ersatz.sim.serve.app import serve as run

    def tell(address: str) -> None:
        deliver("serve", {"address": address}, Text(f"{address}\nuntil Ctrl-C"), json)

    try:
        run(port, tell)
    except OSError as error:
        raise Failure(3, [cannot_be_written(f"port {port}", error)]) from error
