"""The command line: `ersatz VERB ...`.

Exit status 0 done, 1 infeasible (with the reason), 2 bad input (every problem, one line each), 3
something cannot be written, 70 a fault of ersatz, 130 interrupted, 141 the reader of a pipe went
away, 143 terminated. Everything heavy is imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import atexit
import errno
import sys
from collections.abc import Sequence
from importlib import import_module

from ersatz.sim.cli.app import Failure, app, invoke
from ersatz.sim.cli.output import cannot_be_written, explain
from ersatz.sim.cli.process.inputs import note_inputs, unusable_words
from ersatz.sim.cli.process.streams import give_up_stdout, open_streams
from ersatz.sim.cli.process.terminal import say
from ersatz.sim.signals import (
    Stopped,
    ignore_signals,
    leave_on_signals,
    raise_on_signals,
    stopped,
)

__all__ = ["app", "main"]

VERBS = (
    "run",
    "plan",
    "launch.importing",
    "launch.exporting",
    "emulate",
    "fabric",
    "buy",
    "legal",
    "schedule",
    "measured.validate",
    "measured.anchor",
    "measured.calibrate",
    "showing.report",
    "showing.serve",
    "devices",
    "find",
)  # modules, in the order of --help
_STREAM_FAULTS = {errno.EBADF, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT}
for _verb in VERBS:
    import_module(f"ersatz.sim.cli.{_verb}")


def main() -> None:
    """Run the command line and end the process; bad input never shows a traceback."""
    atexit.register(ignore_signals)  # the first to be registered is the last to run
    open_streams()
    note_inputs()
    words = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        raise_on_signals()
        status = _status(words, debug="--debug" in sys.argv[1:])
        leave_on_signals()
    except Stopped as stopped:
        say(f"interrupted by {stopped}: what was finished is whole")
        status = stopped.status
    if status in (3, 130, 141, 143):
        give_up_stdout()
    sys.exit(status)


def _status(words: Sequence[str], *, debug: bool) -> int:
    """Answer the words, say what is wrong, and return the exit status."""
    try:
        if faults := unusable_words(words):
            raise Failure(2, faults)
        status = invoke(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return 141
    except SystemExit as left:
        if asked := stopped():
            raise asked from left
        if isinstance(left.__context__, BrokenPipeError):  # Click makes it 1: infeasible
            return 141
        return _complain(["something that ersatz called ended the process before the answer"], 70)
    except Exception as error:
        if asked := stopped():
            raise asked from error
        if isinstance(error, OSError) and error.errno in _STREAM_FAULTS and not error.filename:
            return _complain([cannot_be_written("standard output", error)], 3)
        if _is_usage(error):
            return _usage(error)
        if debug and not isinstance(error, Failure):
            raise
        return _complain(*explain(error))


def _complain(lines: Sequence[str], status: int) -> int:
    for line in lines:
        say(line)
    return status


def _is_usage(error: Exception) -> bool:
    """Tell whether the command line could not be understood: Typer keeps that class to itself."""
    return hasattr(error, "show") and hasattr(error, "exit_code")


def _usage(error: Exception) -> int:
    """Say how a verb is called."""
    import io

    text = io.StringIO()
    error.show(file=text)  # type: ignore[attr-defined]
    return _complain([text.getvalue().rstrip("\n")], error.exit_code)  # type: ignore[attr-defined]
