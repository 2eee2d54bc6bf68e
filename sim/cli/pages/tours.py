"""The tours: pages by hand whose commands are run and whose answers are filled in.

A block ```` ```console 2-6 ```` holds commands (`$ ersatz ...`), each followed by lines of what it
prints: here the second to the sixth (without a span, all). A comment `<!-- file: NAME -->` says that
the block after it is a file that the reader writes.
"""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from ersatz.sim.cli.output import captured

_BLOCK = re.compile(
    r"<!-- file: (?P<file>[\w.-]+) -->\n```\w*\n(?P<text>.*?)```"
    r"|```console(?: (?P<first>\d+)-(?P<last>\d+))?\n(?P<lines>.*?)```",
    re.S,
)


def tour_files(docs: Path) -> list[Path]:
    """Return the tours of a folder."""
    return sorted(docs.glob("tour-*.md"))


def run_pages(docs: Path) -> list[Path]:
    """Return all pages whose commands are run: the tours, and those on single verbs."""
    return [*tour_files(docs), docs / "plan.md"]


def refreshed(page: str) -> str:
    """Return a tour with what its commands print now; they run in an empty folder, in order."""
    with TemporaryDirectory() as folder, chdir(folder):
        return _BLOCK.sub(_block, page)


def _block(found: re.Match[str]) -> str:
    if found["file"]:
        Path(found["file"]).write_text(found["text"], "utf-8")
        return found[0]
    first, last = int(found["first"] or 1), int(found["last"] or 10**6)
    commands = [line for line in found["lines"].splitlines() if line.startswith("$ ")]
    filled = []
    for command in commands:
        program, *words = shlex.split(command[2:])
        assert program == "ersatz", f"a tour runs ersatz alone: {command}"
        filled += [command, *captured(words).splitlines()[first - 1 : last]]
    return "\n".join([found[0].splitlines()[0], *filled, "```"])
