"""Runs one input in this process, as the command line would, and says what was wrong.

Allowed are exit status 0 (and what is printed is sound), 1, 2 and, where something is to be written, 3 (with
a complaint in words). A fault
has a signature: what kind of fault, and where in the program. Faults are

    crash          any other end: an exception, exit 70, a missing complaint, a traceback in the words
    overtime       more CPU time than the bound;  blocked: waits for something that never comes
    JSON, SVG, ET  that is none, NaN and infinity included;  foreign tag: an input's, in a page or picture
    escape         a file written, changed or left where none belongs; a process left behind
    control        escape sequences or bidirectional marks in what people see
    wide           lines over 100 columns;  nonsense: nan or inf in a report;  warning: of Python's
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from gzip import decompress
from html.parser import HTMLParser
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.cells import cell_len

from ersatz.device_models.text.problems import InputError
from ersatz.sim.cli import main
from ersatz.sim.cli.process.terminal import say
from ersatz.sim.emulate.foreign.chakra import read_chakra
from ersatz.sim.emulate.replaying.replay import read_recording
from ersatz.sim.errors import EXIT_CANNOT_WRITE, InfeasibleError
from tests.fuzz.words import OUTSIDE

MOST_BYTES = 2**26  # of an input: far beyond what is read, and what this process may write
ROOT = Path(__file__).resolve().parents[2]
WRITES = {"--json", "--out", "--svg", "--html", "--trace", "--timeline", "--journal"}
FOREIGN_TAG = "x-mark"  # of `words.FOREIGN`
MOST_WORDS = 100_000
PRODUCT = re.compile(r".*?/((?:sim|device_models)/.+)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PYTHON = re.compile(
    r"Traceback|NoneType|object has no attribute|index out of range|<class '|not subscriptable"
    r"|unsupported operand|positional argument|please report|object at 0x|[A-Z]\w+(?:Error|Exception): "
)
NONSENSE = re.compile(r"(?<![\w.'\"-])(?:nan|inf)(?![\w'\"-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Input:
    """Files by name, and the command line that reads them; `call` instead for a reader alone.

    In the command line `@/` stands for the folder of the files.
    """

    kind: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    call: Callable[[Path], None] | None = None

    def __post_init__(self) -> None:
        files = {name: raw[:MOST_BYTES] for name, raw in self.files.items()}
        object.__setattr__(self, "files", files)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an input ended; `signature` is empty where nothing was wrong."""

    status: int
    signature: str = ""
    detail: str = ""
    seconds: float = 0.0  # of CPU time


class Overtime(BaseException):
    """The bound was passed."""


class _Clock:
    """Raises `Overtime` after CPU seconds, or when told (SIGUSR1) that nothing goes on any more.

    The one who watches for that is the parent: with a thread here no run could safely fork.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.passed, self.stack = limit_s, "", ""
        self._on = True

    def __enter__(self) -> _Clock:
        signal.signal(signal.SIGPROF, lambda _, frame: self._pass("overtime", frame))
        signal.signal(signal.SIGUSR1, lambda _, frame: self._pass("blocked", frame))
        signal.setitimer(signal.ITIMER_PROF, self.limit_s, 0.5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        self._on = False

    def _pass(self, what: str, frame: FrameType | None) -> None:
        if self._on:
            self.passed = self.passed or what
            self.stack = self.stack or "".join(traceback.format_stack(frame))
            raise Overtime


def used_s(pid: int) -> float:
    """Return the CPU time of a process and of its children that still run."""
    found = 0.0
    for number in (str(pid), *_children(pid)):
        with suppress(OSError, IndexError, ValueError):
            parts = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            found += sum(map(int, parts[11:15])) / os.sysconf("SC_CLK_TCK")
    return found


def is_waiting(pid: int) -> bool:
    """Tell whether a process and its children sleep; one that would run, or writes to a disk, does not."""
    states = []
    for number in (str(pid), *_children(pid)):
        with suppress(OSError, IndexError):
            states.append(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "SZ" for state in states)


def _children(pid: int) -> list[str]:
    """Return the numbers of the processes that a process has started."""
    found: list[str] = []
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            found += place.read_text().split()
    return found


def run(given: Input, root: Path, limit_s: float = 8.0) -> Outcome:
    """Run an input in a new folder below `root` and judge it; the folder is removed."""
    place = (
        root / f"run{time.monotonic_ns()}"
    )  # new each time: nothing may come from a cache of paths
    folder = place / "in"
    before = time.process_time()
    try:
        write_files(given, folder)
        outcome = _judged(given, folder, limit_s)
    finally:
        os.chdir(root)
        shutil.rmtree(place, ignore_errors=True)
    return Outcome(outcome.status, outcome.signature, outcome.detail, time.process_time() - before)


def write_files(given: Input, folder: Path) -> None:
    """Write an input's files, with a folder and a pipe that wait to be named by mistake."""
    (folder / "folder").mkdir(parents=True)
    OUTSIDE.mkdir(exist_ok=True)
    os.mkfifo(folder / "pipe")
    for name, raw in given.files.items():
        (folder / name).write_bytes(raw)


def _judged(given: Input, folder: Path, limit_s: float) -> Outcome:
    os.chdir(folder)
    screen = {"stdout": "", "stderr": ""}
    argv = [word.replace("@/", f"{folder}/") for word in given.argv]
    clock = _Clock(limit_s)
    error: BaseException | None = None
    status = 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with clock, _screen(screen):
                status = _called(given.call, folder) if given.call else _main(argv)
        except Overtime:
            status = -1
        except BaseException as raised:
            status, error = -2, raised
    if clock.passed:
        return Outcome(-1, f"{clock.passed} {_frame_place(clock.stack)}", clock.stack[-3000:])
    if status not in (0, 1, 2, *([EXIT_CANNOT_WRITE] if WRITES.intersection(given.argv) else [])):
        signature, detail = _crash(given, argv, status, error, screen["stderr"])
        return Outcome(status, signature, detail)
    for check in (_words, _files, _printed, _left_behind):
        if found := check(given, folder, status, screen):
            return Outcome(status, *found)
    if warned:
        where = warned[0]
        return Outcome(
            status,
            f"warning {where.category.__name__} {_short(where.filename)}",
            str(where.message),
        )
    return Outcome(status)


@contextmanager
def _screen(texts: dict[str, str]) -> Iterator[None]:
    """Catch what is printed, by streams as strict as those of a terminal in UTF-8."""
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    caught = {name: TextIOWrapper(BytesIO(), "utf-8", "strict" if name == "stdout" else "backslashreplace",
                                  write_through=True) for name in streams}  # fmt: skip
    sys.stdout, sys.stderr = caught["stdout"], caught["stderr"]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams["stdout"], streams["stderr"]
        for name, stream in caught.items():
            if not stream.closed:
                texts[name] = stream.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def _main(argv: list[str]) -> int:
    """Run the command line; returns its exit status."""
    before, sys.argv = sys.argv, ["ersatz", *argv]
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
        for number, handler in usual.items():  # a run that has ended is deaf to both
            signal.signal(number, handler)
    return 0


def _called(call: Callable[[Path], None], folder: Path) -> int:
    """Run a reader alone; what it may raise are the complaints of the program."""
    try:
        call(folder)
    except InfeasibleError as error:
        say(f"infeasible: {error}")
        return 1
    except InputError as error:
        say(error)
        return 2
    return 0


def _crash(
    given: Input, argv: list[str], status: int, error: BaseException | None, words: str
) -> tuple[str, str]:  # fmt: skip
    """Name the exception that ended the program, running it once more with --debug to see it."""
    if error is None and not given.call:
        try:
            with _screen({}):
                _main(["--debug", *argv])
        except BaseException as raised:
            error = raised
    if error is None:
        return f"crash status {status}", words[-2000:]
    text = "".join(traceback.format_exception(error))
    return f"crash {type(error).__name__} {_error_place(error)}", text[-3000:]


def _error_place(error: BaseException) -> str:
    """Return file and function where an exception arose; of a recursion the commonest."""
    frames = [f"{_short(f.filename)}:{f.name}" for f in traceback.extract_tb(error.__traceback__)
              if PRODUCT.match(f.filename) and "/tests/" not in f.filename]  # fmt: skip
    if not frames:
        return "outside"
    return Counter(frames).most_common(1)[0][0] if isinstance(error, RecursionError) else frames[-1]


def _frame_place(stack: str) -> str:
    """Return the innermost file and function of ersatz in a printed stack."""
    found = re.findall(
        r'File "(?:[^"]*?)/((?:sim|device_models)/[^"]+)", line \d+, in (\S+)', stack
    )
    return ":".join(found[-1]) if found else "outside"


def _short(file: str) -> str:
    match = PRODUCT.match(file)
    return match[1] if match else Path(file).name


# -- what may be wrong with an allowed end -------------------------------------------------------------


def _words(
    given: Input, folder: Path, status: int, screen: Mapping[str, str]
) -> tuple[str, str] | None:
    text = screen["stderr"]
    if status and not (text.strip() or screen["stdout"].strip()):
        return f"crash status {status} without words", ""
    if match := PYTHON.search(text):
        return f"crash Python's words: {match[0]}", text[-2000:]
    if len(text) > MOST_WORDS:
        return "flood of words", text[:2000]
    return None


def _files(
    given: Input, folder: Path, status: int, screen: Mapping[str, str]
) -> tuple[str, str] | None:
    """Nothing was written but what was asked for, and inputs are as they were."""
    asked = {Path(word).name for word in given.argv}  # as the place of an answer
    around = [*folder.parent.iterdir(), *OUTSIDE.iterdir(), *folder.parents[1].glob("ESCAPE*")]
    if strange := [path for path in around if path != folder and path.name not in asked]:
        for path in strange:
            path.unlink() if path.is_file() else shutil.rmtree(path)
        return "escape from the folder", ", ".join(map(str, strange))
    journals = {Path(file).name for flag, file in pairwise(given.argv) if flag == "--journal"}
    for name, raw in given.files.items():
        begun = name in journals and not raw  # an empty file is a journal of nothing
        if not (folder / name).is_file() or (not begun and (folder / name).read_bytes() != raw):
            return "escape: an input was changed", name
    known = {"folder", "pipe", "o", *given.files, *asked}
    if "calibrate" in given.argv:  # where PyTorch is, it measures and draws (.part: not done yet)
        known |= {path.name for path in folder.glob("*.calibration.*")}
    strange = [
        path
        for path in folder.iterdir()
        if path.name not in known and not path.name.startswith(("o.", "o-"))
    ]
    if strange:
        return "escape: a file that nobody asked for", ", ".join(path.name for path in strange)
    return _artefacts(folder)


def _artefacts(folder: Path) -> tuple[str, str] | None:
    paths = [p for p in (folder / "o").rglob("*") if p.is_file()] if (folder / "o").is_dir() else []
    for path in [*paths, *folder.glob("o[.-]*")]:  # o-2.svg: of another case
        if path.name.endswith(".ranks.json") or path.name == "ranks.json":
            try:
                read_recording(path)
            except InputError as error:
                return "recording that is none", str(error)
        if found := _unsound(path.suffix, path.read_bytes()):
            return found[0], f"{path.name}: {found[1]}"
    return None


def _unsound(suffix: str, raw: bytes) -> tuple[str, str] | None:
    if suffix == ".et":
        return _trace_fault(raw)
    text = (decompress(raw) if suffix == ".gz" else raw).decode("utf-8", "replace")
    if suffix in (".json", ".gz"):
        return _json_fault(text)
    if suffix == ".svg":
        return svg_fault(text)
    if suffix == ".html" and (found := html_fault(text)):
        return found
    if match := CONTROL.search(text.replace("\r\n", "\n")):
        return f"control character in a {suffix} file", repr(
            text[max(match.start() - 60, 0) :][:200]
        )
    return None


def _trace_fault(raw: bytes) -> tuple[str, str] | None:
    try:
        read_chakra(raw, "o.et")
    except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
        return "ET that is none", f"{type(error).__name__}: {error}"
    return None


def svg_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a picture."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return "SVG that is none", str(error)
    if any(str(node.tag).endswith(FOREIGN_TAG) for node in root.iter()):
        return "foreign tag in a picture", ""
    return None


class _Tags(HTMLParser):
    """Looks for a tag that an input brought in."""

    found = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == FOREIGN_TAG or any(key == "onx" for key, _ in attrs):
            self.found = self.found or (self.get_starttag_text() or tag)


def html_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a page: that an input stands in it as more than words."""
    if FOREIGN_TAG not in text:
        return None
    tags = _Tags()
    tags.feed(text)
    return ("foreign tag in a page", tags.found[:300]) if tags.found else None


def _json_fault(text: str) -> tuple[str, str] | None:
    def refuse(word: str) -> Any:
        raise ValueError(word)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        return f"JSON with {error}" if str(error) in (
            "NaN",
            "Infinity",
            "-Infinity",
        ) else "JSON that is none", str(error)
    return None


def _printed(
    given: Input, folder: Path, status: int, screen: Mapping[str, str]
) -> tuple[str, str] | None:
    """The report is of 100 columns and of numbers; nothing that is printed steers a terminal."""
    text = screen["stdout"]
    for name, printed in screen.items():
        if match := CONTROL.search(printed):
            return f"control character on {name}", repr(printed[max(match.start() - 60, 0) :][:200])
    last = max(
        (i for i, word in enumerate(given.argv) if word == "--json"), default=len(given.argv)
    )
    if given.argv[last + 1 : last + 2] == ("-",):  # the last one counts, as everywhere
        told = {"--help", "--version"}.intersection(given.argv)
        return _json_fault(text) if text.strip() and status == 0 and not told else None
    if wide := next((line for line in text.splitlines() if cell_len(line) > 100), ""):
        return f"wide lines of {given.argv[0] if given.argv else given.kind}", wide[:300]
    words = b" ".join(given.files.values()).lower() + " ".join(given.argv).lower().encode(
        "utf-8", "replace"
    )
    if (match := NONSENSE.search(text)) and match[0].lower().encode() not in words:
        return "nonsense in a report", text[max(match.start() - 200, 0) :][:400]
    return None


def _left_behind(
    given: Input, folder: Path, status: int, screen: Mapping[str, str]
) -> tuple[str, str] | None:
    left = _children(os.getpid())
    for number in left:
        os.kill(int(number), signal.SIGKILL)
        with suppress(ChildProcessError):  # whoever began it has just seen it off
            os.waitpid(int(number), 0)
    return ("escape: a process was left behind", " ".join(left)) if left else None
