"""The best layout of a job as sections of a page: what it reaches, what proves it, what comes next."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.device_models.text.units import format_bytes, format_duration
from ersatz.sim.report.page import run_page
from ersatz.sim.report.page.markup import Fact, card, cards, picture, section, sentences, table
from ersatz.sim.report.page.material import Material, Record


def first(m: Material) -> str:
    """Return the best layout, what it reaches, and what proves it."""
    best = m.record["best"]
    if best is None:
        return cards([card("", [Fact("plan", "none", "nothing keeps to what was asked", "bad")])])
    found = [Fact("devices", f"{best['devices']:,} on {best['node']}"), Fact("layout", _layout(best)),
             *run_page.facts(m, best["result"]), *_proof(m.record)]  # fmt: skip
    return cards([card(f"best for {m.record['objective']}", found)])


def _layout(plan: Record) -> str:
    degrees = ", ".join(f"{axis} {value}" for axis, value in plan["parallel"].items())
    return f"{degrees}, micro-batch {plan['micro_batch']}"


def _proof(record: Record) -> Iterator[Fact]:
    search = record["best"]["search"]
    if "left" in search:
        yield Fact("searched", f"{search['timed']:,} layouts were timed exactly",
                   f"another could be {100 * search['left']:.0f} % faster at most")  # fmt: skip
        return
    yield Fact("proved", f"of {search['layouts']:,} layouts {search['may_fit']:,} may fit",
               f"{search['timed']:,} were timed exactly, and no other can be better")  # fmt: skip
    given, step = record.get("given_step_s"), record["best"]["result"]["step"]["duration_s"]
    if given:
        yield Fact(
            "the file's own",
            format_duration(given),
            f"{100 * (given / step - 1):+.0f} % against the best",
        )
    if record.get("given_remark"):
        yield Fact("the file's own", "", record["given_remark"])


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    rows = [(n, _layout(p), format_duration(p["step_s"]), format_bytes(p["memory_bytes"]), p["memory"])
            for n, p in enumerate(m.record["plans"], start=1)]  # fmt: skip
    head = ("", "layout", "step", "memory", "")
    yield section("Layouts, each of another kind", table(head, rows, right=(2, 3)) if rows else "")
    yield section("Pictures", *(picture(svg) for svg in m.pictures.values()))
    others = [(o["node"], f"{o['devices']:,}", _layout(o), format_duration(o["result"]["step"]["duration_s"]))
              for o in (*m.record["options"], *m.record["others"])]  # fmt: skip
    yield section("Choices of devices", table(("node", "devices", "layout", "step"), others, right=(1, 3))
                  if len(others) > 1 else "")  # fmt: skip
    yield section("What cannot be", sentences(m.record["failed"], numbered=False))
    if m.record["best"]:
        yield from run_page.case_sections(m, "", m.record["best"]["result"], "The best: ")
