"""docs/gallery.md: every shipped scenario with its question, its command, its answer and its picture.

The answers are quoted from the stored outputs, so that the page costs no simulation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from ersatz.sim.finding.texts import question_of, scenario_words

ROOMS = {
    "": "Training jobs",
    "market": "What to buy, when and where",
    "legal": "What is legal",
    "network": "Jobs and their network",
    "fabric": "Networks",
    "fleet": "Fleets and their schedulers",
    "hil": "From measured kernels",
}
MOST_LINES = 6
ANSWERS = ("step", "80 % interval", "wall time", "cost", "per 1e12 tokens")  # rows worth quoting


def gallery_markdown(folder: Path) -> str:
    """Return docs/gallery.md of the repository at `folder`."""
    scenarios = folder / "scenarios"
    lines = [
        "# Gallery",
        "",
        "Generated from `scenarios/` and the outputs stored there. Every command runs as it stands; where an",
        "answer is cut, the link leads to the whole report. `ersatz list scenarios` names them all.",
    ]
    rooms: dict[str, list[Path]] = {room: [] for room in ROOMS}
    for path in sorted(scenarios.rglob("*.yaml")):
        rooms.setdefault(str(path.parent.relative_to(scenarios)).strip("."), []).append(path)
    for room, paths in rooms.items():
        lines += ["", f"## {ROOMS.get(room, room)}"] if paths else []
        for path in paths:
            lines += _entry(path, folder)
    return "\n".join([*lines, ""])


def _entry(path: Path, folder: Path) -> Iterator[str]:
    report = path.with_suffix(".out")
    command = shlex.join(["ersatz", *scenario_words(path)])
    links = f"[scenario]({_from_docs(path, folder)}), [whole answer]({_from_docs(report, folder)})"
    yield from ("", f"### {path.stem}", "", f"**{question_of(path)}**", "")
    yield f"`{command}` ({links})"
    yield from ("", "```text", *quoted_answer(report.read_text("utf-8")), "```")
    for picture in pictures_of(path, folder):
        yield from ("", f"![{path.stem}]({_from_docs(picture, folder)})")


def quoted_answer(report: str) -> list[str]:
    """Return the lines of a report that answer its question: what stands first, at most six lines.

    Of a longer table the header and the rows of time and money are taken.
    """
    _, *lines = report.splitlines()
    while lines and not lines[0].strip():
        lines = lines[1:]
    block = lines[: lines.index("")] if "" in lines else lines
    if len(block) <= MOST_LINES:
        return block
    rows = [line for line in block if line.strip().startswith(ANSWERS)]
    head = [] if block[0].startswith("cluster") else block[:1]
    return [*head, *rows][:MOST_LINES] if rows else [*block[: MOST_LINES - 1], "..."]


def pictures_of(path: Path, folder: Path) -> list[Path]:
    """Return the stored pictures of a scenario: the drawings beside it, and one for this page."""
    beside = sorted(path.parent.glob(f"{path.stem}-*.svg"))
    stored = picture_file(path, folder)
    return [*beside, *([stored] if picture_name(path) else [])]


def picture_name(path: Path) -> str:
    """Return which picture of `--out` is stored for the gallery: the line `# pictured: NAME`."""
    given = re.search(r"^# pictured: (.+)$", path.read_text("utf-8"), re.M)
    return given[1].strip() if given else ""


def picture_file(path: Path, folder: Path) -> Path:
    """Return where the picture of a scenario is stored."""
    return folder / "docs" / "gallery" / f"{path.stem}.svg"


def _from_docs(path: Path, folder: Path) -> str:
    """Return the link from docs/ to a file."""
    inside = path.relative_to(folder)
    return (
        inside.relative_to("docs").as_posix()
        if inside.parts[0] == "docs"
        else f"../{inside.as_posix()}"
    )
