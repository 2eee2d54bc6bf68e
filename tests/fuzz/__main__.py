"""`python -m tests.fuzz`: many inputs of every kind, laws over random plans, kills at random moments."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .judge import Input, Outcome
from .kinds import CALLS, KINDS, WEIGHTS, make
from .pool import Bounds, Pool
from .shrink import shrunk

FOUND = Path(__file__).resolve().parents[1] / "data" / "found.jsonl"
MOST_KEPT = 4000  # characters of a stored input
PROGRESS_S = 20.0  # between lines where there is no terminal


@dataclass(slots=True)
class Tally:
    """What was found so far."""

    ends: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, tuple[float, int]] = field(default_factory=dict)
    faults: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, kind: str, number: int, outcome: Outcome) -> bool:
        """Count an outcome; tells whether its fault is a new one."""
        self.ends[kind][min(max(outcome.status, -1), 3)] += 1
        self.seconds[kind] += outcome.seconds  # type: ignore[assignment]
        self.slowest[kind] = max(self.slowest.get(kind, (0.0, 0)), (outcome.seconds, number))
        if not outcome.signature:
            return False
        self.faults[outcome.signature].append((kind, number))
        return len(self.faults[outcome.signature]) == 1


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything failed."""
    options = _options()
    if options.laws:
        from .laws import check_plans

        return check_plans(options.laws, options.seed)
    if options.kills:
        from .kill import kill_many

        return kill_many(
            options.kills, options.seed, options.verbs.split(",") if options.verbs else ()
        )
    if options.keep:
        return _keep(options.keep)
    if options.replay:
        return _replay(options.replay, Bounds(options.cpu))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    tally = attack(kinds, options.inputs, options.seed, options.out, Bounds(options.cpu), options.shrink,
                   first=options.first, tell=_teller(options.inputs))  # fmt: skip
    print(summary(tally))
    return 1 if tally.faults else 0


def _stop(number: int, frame: object) -> None:
    """End the attack at the first signal; further ones do not keep it from telling what it found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first input of each kind"
    )
    parser.add_argument("--kinds", default="", help=f"some of {', '.join(KINDS)}; by default all")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the smallest input of each fault"
    )
    parser.add_argument(
        "--cpu",
        type=float,
        default=20.0,
        help="seconds of CPU time that an input may take, of a quiet core",
    )
    parser.add_argument(
        "--shrink", type=float, default=30.0, help="seconds to make a failing input smaller"
    )
    parser.add_argument(
        "--replay", type=Path, default=None, help="run a stored input, or a folder of them, again"
    )
    parser.add_argument(
        "--keep", type=Path, default=None, help=f"add stored inputs to {FOUND.name}, for the tests"
    )
    parser.add_argument(
        "--laws", type=int, default=0, metavar="PLANS", help="check laws on random plans instead"
    )
    parser.add_argument(
        "--kills", type=int, default=0, metavar="N", help="kill runs at random moments instead"
    )
    parser.add_argument("--verbs", default="", help="to kill; by default all that can run here")
    return parser.parse_args()


def attack(
    kinds: Sequence[str], inputs: int, seed: int, out: Path | None, bounds: Bounds, shrink_s: float = 0.0, *,
    first: int = 0, tell: object = None,
) -> Tally:  # fmt: skip
    """Run the inputs, kinds in turn; the first of each fault is made smaller and stored in `out`."""
    tally = Tally()
    turn = [kind for kind in kinds for _ in range(WEIGHTS.get(kind, 1))]
    counts: Counter[str] = Counter()
    with Pool(bounds) as pool, suppress(KeyboardInterrupt):  # what was found until then is told
        for number in range(inputs):
            kind = turn[number % len(turn)]
            at = first + counts[kind]
            counts[kind] += 1
            outcome = pool.made(kind, seed, at)
            if tally.note(kind, at, outcome) and out:
                _store(out, pool, make(kind, seed, at), outcome, f"{kind} {seed} {at}", shrink_s)
            if callable(tell):
                tell(number + 1, kind, tally)
    return tally


def _store(
    out: Path, pool: Pool, given: Input, outcome: Outcome, origin: str, shrink_s: float
) -> None:
    """Write the smallest input with the same fault, and how it ended, into a folder of its own."""
    if shrink_s and not outcome.signature.startswith(("overtime", "blocked")):
        given = shrunk(
            given, lambda less: pool.given(less).signature == outcome.signature, shrink_s
        )
    folder = out / re.sub(r"\W+", "-", outcome.signature)[:90].strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in given.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    case = {"signature": outcome.signature, "kind": given.kind, "argv": list(given.argv), "origin": origin,
            "files": list(given.files), "detail": outcome.detail}  # fmt: skip
    (folder / "case.json").write_text(json.dumps(case, indent=1), "utf-8")


def _keep(where: Path) -> int:
    """Add the small ones of the stored inputs to those that the tests run again, each once."""
    known = set(FOUND.read_text("utf-8").splitlines())
    for path in sorted(where.rglob("case.json")):
        case = json.loads(path.read_text("utf-8"))
        files = {
            name: (path.parent / name).read_bytes().decode("latin-1") for name in case["files"]
        }
        line = json.dumps(
            {**{key: case[key] for key in ("signature", "kind", "argv")}, "files": files}
        )
        if len(line) <= MOST_KEPT:
            known.add(line)
    FOUND.write_text("".join(f"{line}\n" for line in sorted(known)), "utf-8")
    return 0


def _replay(where: Path, bounds: Bounds) -> int:
    """Run stored inputs again; says of each how it ends now."""
    failed = 0
    with Pool(bounds) as pool:
        for path in sorted(where.rglob("case.json")):
            case = json.loads(path.read_text("utf-8"))
            files = {name: (path.parent / name).read_bytes() for name in case["files"]}
            outcome = pool.given(
                Input(case["kind"], files, tuple(case["argv"]), CALLS.get(case["kind"]))
            )
            failed += bool(outcome.signature)
            print(outcome.signature or f"status {outcome.status}")
            print(f"    was: {case['signature']} ({path.parent.name})")
    return 1 if failed else 0


def _teller(total: int) -> object:
    """Return what shows the progress: a line in place on a terminal, else one now and then."""
    began = last = time.monotonic()

    def tell(done: int, kind: str, tally: Tally) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (0.2 if sys.stderr.isatty() else PROGRESS_S) and done < total:
            return
        last = now
        failures = sum(map(len, tally.faults.values()))
        line = (f"{done:,} of {total:,} inputs, {failures} failures of {len(tally.faults)} kinds,"
                f" {(now - began) / 60:.1f} min; now {kind}")  # fmt: skip
        sys.stderr.write(f"\r{line:<98}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    return tell


def summary(tally: Tally) -> str:
    """Return the tables: how the inputs of each kind ended, and every fault with its first input."""
    faulty: Counter[str] = Counter(kind for found in tally.faults.values() for kind, _ in found)
    lines = [
        f"{'kind':<18}{'inputs':>8}{'done':>8}{'infeas.':>8}{'refused':>8}{'failed':>8}{'CPU s':>8}  slowest"
    ]
    for kind, ends in tally.ends.items():
        slow, number = tally.slowest[kind]
        lines.append(f"{kind:<18}{ends.total():>8}{ends[0]:>8}{ends[1]:>8}{ends[2]:>8}{faulty[kind]:>8}"
                     f"{tally.seconds[kind]:>8.0f}  {slow:.1f} s ({number})")  # fmt: skip
    total: Counter[int] = sum(tally.ends.values(), Counter())
    lines.append(
        f"{'all':<18}{total.total():>8}{total[0]:>8}{total[1]:>8}{total[2]:>8}{faulty.total():>8}"
    )
    for signature, found in sorted(tally.faults.items(), key=lambda item: -len(item[1])):
        kinds = ", ".join(dict.fromkeys(kind for kind, _ in found))
        lines.append(f"{len(found):>6}  {signature}  [{kinds}; first {found[0][0]} {found[0][1]}]")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
