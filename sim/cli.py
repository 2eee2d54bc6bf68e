"""The command line: `ersatz VERB ...`.

Exit status 0 done, 1 infeasible (with the reason), 2 bad input (every problem, one line each).
Everything heavy is imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sim.records import RunResult
    from sim.scenario import Scenario
    from sim.validation.heldout import Judged

WIDTH = 100
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Simulate the training of large models on accelerators you cannot, or cannot yet, buy.",
)

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write the records as JSON.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write all artefacts.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a scenario value; repeatable."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all random draws.")]


class Failure(Exception):
    """Ends a verb with an exit status after the report was printed."""

    def __init__(self, status: int, lines: Sequence[str]) -> None:
        self.status, self.lines = status, tuple(lines)
        super().__init__("\n".join(lines))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Simulate the training of large models on accelerators you cannot, or cannot yet, buy."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"ersatz {installed('ersatz')}")
        raise typer.Exit


@app.command(epilog="Example: ersatz run ling-plus-substitution --set training.micro_batch=2")
def run(
    scenario: Annotated[str, typer.Argument(help="Scenario file, or name of a shipped one.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Simulate a training job, from operators to money."""
    from sim.report.text import render_run

    path = find_scenario(scenario)
    scenarios, results = simulate([path], set_ or [], seed)
    finish([path], scenarios, results, render_run(scenarios, results), json, out, set_ or [])


@app.command(epilog="Example: ersatz compare deepseek-v3-h800 pangu-ultra-moe-910b")
def compare(
    scenarios: Annotated[list[str], typer.Argument(help="Scenario files or names.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Show several scenarios, and their cases, side by side."""
    from dataclasses import replace

    from rich.console import Group
    from rich.text import Text

    from sim.report.text import NOTICE, render_answers

    paths = [find_scenario(name) for name in scenarios]
    cases, results = simulate(paths, set_ or [], seed)
    named = [replace(r, name=r.name if r.name == s.name else s.name)
             for s, r in zip(cases, results, strict=True)]  # fmt: skip
    view = Group(render_answers(cases, named), Text(""), Text(NOTICE, style="dim"))
    finish(paths, cases, named, view, json, out, set_ or [])


@app.command(epilog="Example: ersatz devices h800")
def devices(
    name: Annotated[str | None, typer.Argument(help="A device, or the path of its file.")] = None,
    json: JsonOption = None,
) -> None:
    """List the modelled accelerators, or explain one with its sources."""
    from sim.report import devices as view
    from sim.report.json_out import to_text

    record: Any = view.device_record(name) if name else view.device_list_records()
    if json != "-":
        console().print(view.render_device(name) if name else view.render_device_list())
    if json:
        write_text(json, to_text(record))


@app.command(epilog="Example: ersatz validate runs.csv --json -")
def validate(
    table: Annotated[
        str | None,
        typer.Argument(help="CSV of measured runs; without it, the table that travels along."),
    ] = None,
    json: JsonOption = None, out: OutOption = None,
    oddities: Annotated[
        bool, typer.Option("--oddities", help="Model known faults of single clusters, too.")
    ] = False,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Errors with model or source left out; doubles the time.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="TABLE", help="CSV of runs out of memory.")
    ] = None,
) -> None:  # fmt: skip
    """Predict every row of a table of measured runs, and report the errors."""
    from sim.report.json_out import plain, to_text
    from sim.report.validation import render_headline, render_validation
    from sim.validation.heldout import SHIPPED, headline, judge
    from sim.validation.predict import predict_table
    from sim.validation.summary import row_record, summarise
    from sim.validation.table import read_table

    if memory:
        return _validate_memory(memory, json, out)
    read = read_table(table or SHIPPED)
    with progress(len(read.runs)) as advance:
        predictions = list(predict_table(read.runs, advance, oddities=oddities))
    judged: list[Judged] = []
    if held_out or table is None:
        with progress(len(read.runs)) as advance:
            judged = judge(predictions, advance)
    summary = summarise(predictions)
    if judged:
        summary["held_out"] = headline(judged)
    view = _grouped(*([render_headline(summary["held_out"])] if judged else []),
                    render_validation(summary))  # fmt: skip
    held = {j.run.line: j for j in judged}
    rows = [row_record(p, held.get(p.run.line)) for p in predictions]
    _deliver({"rows": rows, "summary": plain(summary)}, view, json, out, to_text)
    for problem in read.problems:
        print(problem, file=sys.stderr)
    if not summary["predicted"]:
        raise Failure(2, [f"{read.file}: none of its rows can be predicted"])


def _validate_memory(table: str, json: str | None, out: Path | None) -> None:
    """Judge runs that ran out of memory, beside those that ran."""
    from sim.report.json_out import plain, to_text
    from sim.report.memory import render_memory
    from sim.validation.heldout import SHIPPED
    from sim.validation.memory_table import judge_memory

    verdicts = judge_memory(table, SHIPPED)
    _deliver(plain(verdicts), render_memory(verdicts), json, out, to_text)
    for problem in verdicts.problems:
        print(problem, file=sys.stderr)


def _grouped(*views: RenderableType) -> RenderableType:
    from rich.console import Group

    return Group(*views)


def _deliver(
    record: Any, view: RenderableType, json: str | None, out: Path | None,
    to_text: Callable[[Any], str],
) -> None:  # fmt: skip
    """Print a validation and write it where it is wanted."""
    if json != "-":
        console().print(view)
    if json:
        write_text(json, to_text(record))
    if out:
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "validation.json").write_text(to_text(record), "utf-8")
            (out / "report.txt").write_text(plain_text(view), "utf-8")
        except OSError as error:
            raise Failure(2, [f"{out}: cannot be written: {error.strerror}"]) from error


def find_scenario(name: str) -> Path:
    """Return the path of a scenario file, or of the shipped scenario of that name."""
    from importlib.resources import files

    path = Path(name)
    shipped = Path(str(files("scenarios"))) / f"{name}.yaml"
    if not path.exists() and shipped.is_file():
        return shipped
    if not path.exists() and path.parts[:1] == ("scenarios",):
        packaged = Path(str(files("scenarios"))) / path.name
        return packaged if packaged.is_file() else path
    return path


def simulate(
    paths: Sequence[Path], overrides: Sequence[str], seed: int | None
) -> tuple[list[Scenario], list[RunResult]]:
    """Load and run all cases of the scenarios; raises when one is faulty or infeasible."""
    from dataclasses import replace

    from sim.run import run_case
    from sim.scenario_file import load_cases

    cases = []
    for path in paths:
        found = load_cases(path, overrides, seed)
        several = len(paths) > 1 and len(found) > 1
        cases += [replace(c, name=f"{path.stem}/{c.name}") if several else c for c in found]
    with progress(len(cases)) as advance:
        results = []
        for case in cases:
            results.append(run_case(case))
            advance(case.name)
    return cases, results


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on a terminal's standard error while several things are simulated."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, width=WIDTH), transient=True) as bar:
        task = bar.add_task("simulating", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


def finish(
    paths: Sequence[Path], scenarios: Sequence[Scenario], results: Sequence[RunResult],
    view: RenderableType, json: str | None, out: Path | None, overrides: Sequence[str],
) -> None:  # fmt: skip
    """Print the report, write what was asked for, and fail when a plan does not fit."""
    from sim.report.json_out import result_json, to_text, write_out

    screen = console()
    if json != "-":
        screen.print(view)
    if json:
        write_text(json, to_text(result_json(scenarios, results)))
    if out:
        try:
            write_out(out, scenarios, results, plain_text(view), paths[0], overrides)
        except OSError as error:
            raise Failure(2, [f"{out}: cannot be written: {error.strerror}"]) from error
    tight = [r for r in results if not r.memory.fits]
    if tight:
        raise Failure(1, [f"infeasible: {r.name} does not fit into memory; would fit with:"
                          f" {'; '.join(r.memory.advice)}" for r in tight])  # fmt: skip


def console() -> Console:
    """Return the console of the report: 100 columns at most, colour on a terminal only."""
    import shutil

    from rich.console import Console

    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 50)).columns)
    return Console(width=width, highlight=False, markup=False, emoji=False)


def plain_text(view: RenderableType) -> str:
    """Return the report as text of 100 columns."""
    import io

    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDTH, highlight=False, markup=False, emoji=False).print(view)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def write_text(target: str, text: str) -> None:
    """Write to a path, or to standard output for '-'; raises `Failure`."""
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(2, [f"{target}: cannot be written: {error.strerror}"]) from error


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


def explain(error: Exception) -> tuple[Sequence[str], int]:
    """Return the lines and the exit status that an exception deserves."""
    from sim.errors import InfeasibleError, InputError

    if isinstance(error, InputError):
        return [str(problem) for problem in error.problems], 2
    if isinstance(error, InfeasibleError):
        return [f"infeasible: {error}"], 1
    kind = type(error).__name__
    return [f"ersatz failed: {kind}: {error} (please report this; --debug shows where)"], 70


def complain(lines: Sequence[str], status: int) -> None:
    """Print lines on standard error and end."""
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(status)
