"""What a row's free text says beyond its cells: a step of another kind, or what is not simulated.

Nothing of it is dropped in silence: rules (data/validation/reading.yaml, `notes_refused`, `notes_unread`)
name what refuses a row and what is taken otherwise, in words. A cell that the notes contradict stands, and
that is said.
"""

from __future__ import annotations

import re

from ersatz.sim.validation.reading.cells import check_cells
from ersatz.sim.validation.reading.rules import Filling, Refused, rules, said_of
from ersatz.sim.validation.reading.unread import list_unread
from ersatz.sim.validation.reading.words import DENIES, parts, says

STATED = ("tp", "pp", "cp", "ep", "vpp", "micro_batch", "global_batch_seqs", "seq_len", "n_devices")
NODES_ALONE = re.compile(
    r"\b(?:on|over|with|across|using|of) (\d{1,5}) nodes\b(?! ?(?:x|×|of|with) ?\d)", re.I
)
NODES = re.compile(
    r"\b(\d+) nodes? (?:x|×|of|with) (\d+) ?(?:GPU|NPU|device|card|chip|accelerator)", re.I
)


def check_notes(fill: Filling) -> None:
    """Note what the row's texts say that is not simulated; raises `Refused` for another kind of step."""
    notes = fill.run.text("notes")
    also = f"{notes} ; {fill.run.text('metric_unit')}"
    for rule in rules("notes_refused"):
        said = next((p for p in parts(also) if re.search(rule["pattern"], p, re.I)), "")
        if said and not re.search(rule.get("unless", "(?!)"), notes, re.I) and _affirms(rule, said):
            who = "the notes say" if said in notes else "the unit says"
            raise Refused(f"{who} {said!r}: {rule['why']}")
    where = " ; ".join(
        fill.run.text(column)
        for column in ("notes", "sharding", "recompute", "framework", "model_name")
    )
    for rule in rules("notes_unread"):
        found = re.search(rule["pattern"], where, re.I)
        denied = found and not DENIES.search(found[0]) and says(rule["pattern"], where) is False
        if found and not denied:
            fill.assumptions.append(f"the row says {found[0].strip()!r}: {rule['taken']}")
    for rule in rules("models_unread"):
        lacks = not re.search(rule["lacks"], fill.run.text("attention_kind"), re.I)
        if lacks and re.search(rule["model"], fill.run.text("model_name"), re.I):
            fill.assumptions.append(
                f"model {fill.run.text('model_name')!r} is known for {rule['taken']}"
            )
    metric = f"{fill.run.text('mfu_definition_note')} ; {fill.run.text('metric_unit')}"
    for rule in rules("metric_unread"):
        if found := re.search(rule["pattern"], metric, re.I):
            fill.assumptions.append(f"the metric's note says {found[0].strip()!r}: {rule['taken']}")
    check_cells(fill)
    _compare(fill)
    list_unread(fill)


def _affirms(rule: dict[str, str], part: str) -> bool:
    """Tell whether a part means what a rule looks for: its own words may deny ("no backward")."""
    found = re.search(rule["pattern"], part, re.I)
    return found is not None and not DENIES.search(part[: found.start()])


def _compare(fill: Filling) -> None:
    """Note where the notes state another number than a cell; raises `Refused` for other devices."""
    run = fill.run
    for key in STATED:
        said, who = said_of(run, key)
        if said and run.number(key) and said[0] != run.number(key):
            fill.assumptions.append(f"{key} is {run.numbers[key]:g} in its cell, which is taken;"
                                    f" {who} {said[1]!r}")  # fmt: skip
    alone, size = NODES_ALONE.search(run.text("notes")), run.count("devices_per_node") or 8
    if alone and int(alone[1]) * size != run.count("n_devices") and run.count("n_devices"):
        words = f"n_devices is {run.count('n_devices')} in its cell, which is taken"
        fill.assumptions.append(f"{words}; the notes say {alone[0]!r}")
    nodes = NODES.search(run.text("notes"))
    if nodes and run.count("n_devices") not in (0, int(nodes[1]) * int(nodes[2])):
        raise Refused(f"n_devices is {run.count('n_devices')} where the notes say {nodes[0]!r}")
