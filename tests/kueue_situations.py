"""Situations of Kueue as JSON lines: built from the file's fields, asked, and compared with what is expected.

The fields are told in docs/models/kueue.md; our own situations are in tests/data/kueue_cases.jsonl.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from ersatz.sim.fleet.kueue.cycle import Cycle, Entry, place_in_cycle, reduce_pods
from ersatz.sim.fleet.kueue.flavors import (
    FIT,
    IMPOSSIBLE,
    NO_CANDIDATES,
    PREEMPT,
    RECLAIM,
    Assigner,
    Assignment,
    Choice,
)
from ersatz.sim.fleet.kueue.objects import (
    LONG_AGO,
    CohortSpec,
    Config,
    Flavor,
    Given,
    PodSet,
    QueueSpec,
    Quota,
    ResourceGroup,
    Settings,
    Wish,
    Workload,
)
from ersatz.sim.fleet.kueue.places import Places
from ersatz.sim.fleet.kueue.quota import Tree, dominant
from ersatz.sim.fleet.kueue.topology import Host
from ersatz.sim.fleet.kueue.victims import Ask, find_targets

UNIT = 1000 * 2**30  # thousandths of anything, and bytes of GiB, are whole
SAYS = {"no-candidates": NO_CANDIDATES, "preempt": PREEMPT, "reclaim": RECLAIM}
Data = dict[str, Any]


def read_cases(path: Path) -> list[Data]:
    """The situations of a file, one JSON object per line."""
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def amount(value: float) -> int:
    """An amount, exactly."""
    return round(Fraction(Decimal(str(value))) * UNIT)


def quota(data: Data) -> Quota:
    return Quota(amount(data["nominal"]), *(amount(data[k]) if data.get(k) is not None else None
                                            for k in ("borrow", "lend")))  # fmt: skip


def groups(found: list[Data]) -> tuple[ResourceGroup, ...]:
    return tuple(
        ResourceGroup(tuple(g["resources"]), tuple(f["flavor"] for f in g["flavors"]),
                      {(f["flavor"], r): quota(q) for f in g["flavors"] for r, q in f["quota"].items()})
        for g in found)  # fmt: skip


def queue(d: Data) -> QueueSpec:
    preempt, fungible = d.get("preempt", {}), d.get("fungible", {})
    borrow = preempt.get("borrow") or {}
    return QueueSpec(
        d["name"], d.get("cohort", ""), d.get("order") == "strict", groups(d.get("groups", [])),
        Fraction(str(d.get("weight", 1))), preempt.get("within", "never"), preempt.get("reclaim", "never"),
        borrow.get("policy") == "lower", borrow.get("max_priority"), fungible.get("borrow", "stop"),
        fungible.get("preempt", "next"), fungible.get("prefer") == "preemption")  # fmt: skip


def taints(found: list[Data]) -> tuple[tuple[str, str, str], ...]:
    return tuple((t.get("key", ""), t.get("value", ""), t.get("effect", "")) for t in found)


def wish(d: Data | None) -> Wish | None:
    if d is None:
        return None
    slices = [(s["level"], s["size"]) for s in d.get("slices", [])]
    if d.get("slice_size"):
        slices = [(d["slice_level"], d["slice_size"])]
    return Wish(d.get("required", ""), d.get("preferred", ""), bool(d.get("unconstrained")),
                tuple(slices), d.get("group", ""))  # fmt: skip


def podset(d: Data) -> PodSet:
    each = {r: amount(v) for r, v in d.get("each", {}).items()}
    selector = {k: (v,) for k, v in d.get("selector", {}).items()}
    return PodSet(d["name"], d["count"], each, d.get("min"), selector,
                  taints(d.get("tolerates", [])), wish(d.get("topology")))  # fmt: skip


def job(d: Data, stamp: str = "eviction") -> Workload:
    given = {
        name: Given(g["count"], {r: (u["flavor"], amount(u["amount"])) for r, u in g["use"].items()},
                    tuple((tuple(x["at"]), x["count"]) for x in g.get("domains", [])))
        for name, g in d.get("placed", {}).items()
    }  # fmt: skip
    created = d.get("created")
    late = d.get("ready_timeout_at") if stamp == "eviction" else None
    return Workload(
        d["job"], d.get("queue", ""), tuple(podset(p) for p in d.get("podsets", [])),
        d.get("priority", 0), LONG_AGO if created is None else created,
        (d.get("tie", 0), d["job"]) if "tie" in d else (0, d["job"]), d.get("reserved_at", 0), given,
        bool(d.get("evicting")), late)  # fmt: skip


def config(c: Data) -> Config:
    gates = c["options"].get("gates", {})
    strategies = tuple(c["options"].get("fair_strategies", ("final", "initial")))
    settings = Settings(
        strategies if c["options"].get("fair") else None, gates.get("PartialAdmission", True),
        gates.get("PrioritySortingWithinCohort", True),
        gates.get("RecomputeAssignmentUponPreemptionTargetsOverlap", True),
        gates.get("TASRecomputeAssignmentWithinSchedulingCycle", True),
        gates.get("TopologyAwareScheduling", True))  # fmt: skip
    flavors = {f["name"]: Flavor(f["name"], f.get("labels", {}), taints(f.get("taints", [])),
                                 taints(f.get("tolerates", [])), f.get("topology", ""))
               for f in c["flavors"]}  # fmt: skip
    cohorts = [CohortSpec(d["name"], d.get("parent") or "", groups(d.get("groups", [])),
                          Fraction(str(d.get("weight", 1)))) for d in c["cohorts"]]  # fmt: skip
    levels = {t["name"]: tuple(t["levels"]) for t in c.get("topologies", [])}
    return Config(
        tuple(queue(q) for q in c["queues"]), tuple(cohorts), flavors, levels, settings, UNIT
    )


def hosts(c: Data) -> list[Host]:
    return [Host(n["labels"], {r: amount(v) for r, v in n["capacity"].items()}, not n.get("down"),
                 tuple(n["flavors"]) if "flavors" in n else None) for n in c.get("nodes", [])]  # fmt: skip


def places(c: Data, conf: Config, tree: Tree) -> Places:
    found = Places(conf.flavors, conf.levels, hosts(c), UNIT)
    for node in tree.queues.values():
        for running in node.jobs.values():
            found.book(running)
    return found


def state(c: Data) -> tuple[Config, Tree]:
    conf = config(c)
    tree = Tree(conf.queues, conf.cohorts, [job(r) for r in c["running"]])
    for q in c["queues"]:
        for u in q.get("usage", []):
            tree.queues[q["name"]].add({(u["flavor"], u["resource"]): amount(u["amount"])})
    return conf, tree


def number(value: int) -> float | int:
    exact = Fraction(value, UNIT)
    return int(exact) if exact.denominator == 1 else float(exact)


def domains(found: Any) -> list[Data]:
    return [{"at": list(at), "count": n} for at, n in found]


# -- what is asked -----------------------------------------------------------------------------------------


def ask_cycle(c: Data) -> Data:
    conf, tree = state(c)
    cycle = Cycle(conf, tree, places(c, conf, tree))
    waiting: dict[str, list[Workload]] = {}
    for d in c["pending"]:
        waiting.setdefault(d["queue"], []).append(job(d))
    heads, behind = [], []
    for jobs in waiting.values():
        first, *others = sorted(jobs, key=lambda w: w.order)  # type: ignore[arg-type]
        heads.append(first)
        behind += [w.id for w in others]
    done = cycle.run(heads)
    admitted = {}
    for w in done.admitted:
        admitted[w.id] = {
            name: {"count": g.count,
                   "use": {r: {"flavor": f, "amount": number(v)} for r, (f, v) in g.use.items()},
                   **({"domains": domains(g.domains)} if g.domains else {})}
            for name, g in w.given.items()
        }  # fmt: skip
    return {"admitted": admitted, "preempted": told(done.preempted),
            "left": sorted([*done.waits, *behind]), "parked": sorted(done.parked)}  # fmt: skip


def told(targets: Any) -> list[Data]:
    return sorted(({"job": w.id, "why": why} for w, why in targets), key=lambda t: t["job"])


def ask_targets(c: Data) -> Data:
    conf, tree = state(c)
    d = c["pending"][0]
    usage: dict[tuple[str, str], int] = {}
    contested = set()
    for p in d["podsets"]:
        for resource, choice in d["assigned"].get(p["name"], {}).items():
            fr = choice["flavor"], resource
            each = amount(p["each"].get(resource, 0)) if resource != "pods" else UNIT
            usage[fr] = usage.get(fr, 0) + each * p["count"]
            if choice["mode"] == "preempt":
                contested.add(fr)
    ask = Ask(tree, job(d), usage, contested)
    return {"preempted": told(find_targets(ask, conf.settings.fair))}


def ask_assign(c: Data) -> Data:
    conf, tree = state(c)
    oracle = c["options"].get("oracle", {"default": ["preempt", 0], "answers": []})
    answers = {(a["flavor"], a["resource"]): a["says"] for a in oracle["answers"]}

    def says(fr: tuple[str, str], _: int) -> tuple[int, int]:
        word, level = answers.get(fr, oracle["default"])
        return SAYS[word], level

    wanted = job(c["pending"][0])
    found: Assignment = Assigner(tree.queues[wanted.queue], conf.flavors, says,
                                 fair=conf.settings.fair is not None, levels=conf.levels,
                                 unit=UNIT).assign(wanted)  # fmt: skip
    mode = "fit" if found.mode == FIT else "none" if found.mode == IMPOSSIBLE else "preempt"
    if found.mode == NO_CANDIDATES:
        mode = "preempt"
    return {
        "mode": mode, "borrow_level": found.level,
        "flavors": {name: {r: {"flavor": x.flavor, "mode": "fit" if x.mode == FIT else "preempt"}
                           for r, x in choices.items()} for name, choices in found.chosen.items()},
    }  # fmt: skip


def ask_available(c: Data) -> Data:
    _, tree = state(c)
    found: Data = {"available": {}, "potential": {}}
    for name, node in tree.queues.items():
        frs = sorted(node.quotas)
        for key, of in (("available", node.available), ("potential", node.potential)):
            found[key][name] = [
                {"flavor": f, "resource": r, "amount": number(of((f, r)))} for f, r in frs
            ]
    return found


def ask_share(c: Data) -> Data:
    _, tree = state(c)
    asking: dict[tuple[str, str], int] = {}
    for a in c["options"].get("asking", []):
        asking[a["flavor"], a["resource"]] = amount(a["amount"])
    found = {}
    for node in (*tree.queues.values(), *tree.cohorts.values()):
        part, resource = dominant(node, asking)
        value: object = "inf" if part and not node.weight else (
            math.ceil(part / node.weight) if part else 0)  # fmt: skip
        found[node.name] = {"share": value, "resource": resource or None, "borrowing": bool(part)}
    return {"shares": found}


def ask_place(c: Data) -> Data:
    conf = config(c)
    standing = Places(conf.flavors, conf.levels, hosts(c), UNIT)
    for r in c["running"]:
        standing.book(job(r))
    wanted = job(c["pending"][0])
    name = next(iter(standing.of))
    chosen = {p.name: {"chip": Choice(name, FIT, 0)} for p in wanted.podsets}
    assignment = Assignment(chosen, {p.name: p.count for p in wanted.podsets})
    got = standing.find(wanted, assignment)
    if got is None:
        return {"fits": False}
    return {"fits": True, "domains": {name: domains(found) for name, found in got.items()}}


def ask_order(c: Data) -> Data:
    gates, stamp = (
        c["options"].get("gates", {}),
        c["options"].get("ready_timeout_stamp", "eviction"),
    )
    by = gates.get("PrioritySortingWithinCohort", True)
    jobs = sorted(
        c["pending"], key=lambda d: place_in_cycle(d["borrow_level"], job(d, stamp), by_priority=by)
    )
    return {"order": [d["job"] for d in jobs]}


def ask_reduce(c: Data) -> Data:
    most = c["options"]["pods_that_fit"]
    wanted = job(c["pending"][0])
    node = Tree([QueueSpec("q")], []).queues["q"]

    def attempt(counts: Any) -> Entry | None:
        fits = sum(counts.values()) <= most
        return Entry(wanted, node, Assignment(counts=dict(counts)), []) if fits else None

    found = reduce_pods(wanted, attempt)
    return {"pods": sum(found.assignment.counts.values()) if found else None}


ASKS = {"cycle": ask_cycle, "targets": ask_targets, "assign": ask_assign, "available": ask_available,
        "share": ask_share, "place": ask_place, "order": ask_order, "reduce": ask_reduce}  # fmt: skip


def answer(case: Data) -> Data:
    """What comes out, as far as it is stated what should."""
    return ASKS[case["ask"]](case)


def differs(case: Data) -> str:
    """Where the answer is not the expected one; empty where it is."""
    found = answer(case)
    for key, value in case["expected"].items():
        if case["ask"] == "targets" and key != "preempted":
            continue
        mine = found.get(key)
        if key == "preempted":
            value = sorted(value, key=lambda t: t["job"])
        if key in ("left", "parked"):
            value = sorted(value)
        if key == "shares":
            mine = {n: s for n, s in found["shares"].items() if n in value}
        if key in ("available", "potential"):
            mine = {n: rows for n, rows in found[key].items() if n in value}
            value = {n: sorted(rows, key=lambda v: (v["flavor"], v["resource"]))
                     for n, rows in value.items()}  # fmt: skip
        if key == "flavors":
            mine = {n: {r: {k: x[k] for k in value[n].get(r, x)} for r, x in rows.items()}
                    for n, rows in found["flavors"].items() if n in value}  # fmt: skip
        if mine != value:
            return f"{case['id']}: {key} is {mine}, expected {value}"
    return ""
