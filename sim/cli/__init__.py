"""The command line: `ersatz VERB ...`.

Exit status 0 done, 1 infeasible (with the reason), 2 bad input (every problem, one line each).
Everything heavy is imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module

from ersatz.sim.cli.app import Failure, app
from ersatz.sim.cli.output import complain, explain

__all__ = ["app", "main"]

VERBS = (
    "run",
    "fabric",
    "buy",
    "legal",
    "schedule",
    "validate",
    "calibrate",
    "devices",
    "find",
)  # modules, in the order of --help
for _verb in VERBS:
    import_module(f"ersatz.sim.cli.{_verb}")


def main() -> None:
    """Run the command line; never shows a traceback for bad input."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except Failure as failure:
        complain(failure.lines, failure.status)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        complain(*explain(error))
