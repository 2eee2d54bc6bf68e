"""Kills runs at random moments: nothing is torn, nothing is left after the next run, and a person is told.

Each verb first answers twice in peace, with two seeds: the older answer lies where the newer is to be
written when the signal comes. Afterwards every file holds one of the two, whole; no process of the run is
alive; and after the same command ran to its end, the folder for temporary files is empty and the answer
is the newer, without any further file. Every fourth kill is followed by an interrupt, by SIGINT or SIGTERM,
which ends with status 130 or 143 and a word, without a traceback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ersatz.sim.fleet.doors.slurm.daemons import missing

from . import launches, seeds

ROOT = Path(__file__).resolve().parents[2]
THEIRS = "torchinductor_"  # PyTorch keeps a cache of its own there, as for any script
MARK = "ERSATZ_KILLED_RUN"  # in the environment of a run and of what it starts
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
MEASURED = ("slurm", "calibrate", "captured", "emulate")  # whose answers are never twice the same
PATIENCE_S = 15.0  # for processes to notice
LONGEST_S = 300.0


@dataclass(slots=True)
class Victim:
    """A command with its answers of peace: files of `o`, by seed."""

    name: str
    argv: tuple[str, ...]  # SEED stands for the seed
    answers: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seconds: float = 0.0


def victims(folder: Path) -> list[Victim]:
    """Return what can be run here, with its files in `folder`."""
    texts = {
        "run.yaml": seeds.RUN,
        "buy.yaml": seeds.BUY,
        "fleet.yaml": seeds.FLEET,
        "traced.yaml": seeds.TRACED,
        "fabric.yaml": seeds.FABRIC,
        "legal.yaml": seeds.LEGAL,
        "data.yaml": seeds.RULES,
        "options.yaml": seeds.OPTIONS,
        "relative.yaml": seeds.path_of("calibrations", "cpu-epyc")
        .read_text("utf-8")
        .replace("device: cpu,", "device: h200, pretended: for the killer,"),
        "anchor.yaml": launches.ANCHOR,
        "train.sh": launches.SCRIPT,
        "trace.json": json.dumps(launches.CAPTURED),
        "itself.csv": "id,submit_s,devices,duration_s,walltime_s\na,0,8,100,200\nb,5,16,50,100\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    head, lines = seeds.rows("training_runs.csv", 12)
    (folder / "runs.csv").write_text("\n".join([head, *lines, ""]), "utf-8")
    out, peer = (
        ("--out", "o", "--seed", "SEED"),
        f"{sys.executable} {ROOT}/scenarios/schedulers/easy.py {{endpoint}}",
    )
    found = [
        Victim("run", ("run", "run.yaml", *out)),
        Victim("compare", ("compare", "run.yaml", "run.yaml", *out)),
        Victim("buy", ("buy", "buy.yaml", *out)),
        Victim("schedule", ("schedule", "fleet.yaml", *out)),
        Victim("options", ("buy", "options.yaml", *out)),
        Victim(
            "own",
            (
                "schedule",
                "fleet.yaml",
                *out,
                "--policy",
                f"fifo,{ROOT}/scenarios/schedulers/first_come.py",
            ),
        ),
        Victim("fabric", ("fabric", "fabric.yaml", *out, "--svg", "o/f.svg")),
        Victim("legal", ("legal", "legal.yaml", "--out", "o")),
        Victim("validate", ("validate", "runs.csv", "--out", "o")),
        Victim(
            "transfer",
            ("calibrate", "--from", "relative.yaml", "--as", "h800", "--out", "o/c.yaml"),
        ),
        Victim("devices", ("devices", "--json", "o/d.json")),
        Victim("list", ("list", "models", "--json", "o/l.json")),
        Victim("show", ("show", "h800-8", "--json", "o/s.json")),
        Victim("anchor", ("anchor", "anchor.yaml", "--out", "o/a.yaml", "--json", "o/a.json")),
        Victim("import", ("import", "train.sh", "--node", "h100-8", "--out", "o/i.yaml")),
        Victim("export", ("export", "run.yaml", "--as", "megatron", "--json", "o/e.json")),
    ]
    if importlib.util.find_spec("zmq"):
        door = ("--door", "batsim", "--scheduler", peer)
        found.append(
            Victim("batsim", ("schedule", "fleet.yaml", *door, *out, "--set", "on_impossible=drop"))
        )
    if not missing(200.0):
        found.append(
            Victim(
                "slurm",
                ("schedule", "traced.yaml", "--door", "slurm", "--speed", "200", "--out", "o"),
            )
        )
    if importlib.util.find_spec("torch"):
        found.append(
            Victim(
                "calibrate",
                ("calibrate", "--device", "cpu", "--minutes", "0.05", "--out", "o/c.yaml"),
            )
        )
        own = ("calibrate", "--device", "cpu", "--trace", "trace.json", "--out", "o/own.yaml")
        found.append(Victim("captured", own))
        script = (str(ROOT / "tests/emulated/gpt.py"), "--layers", "1", "--width", "64", "--heads", "1",
                  "--block", "32")  # fmt: skip
        found.append(
            Victim("emulate", ("emulate", "--node", "h800-8", "--out", "o", "--", *script))
        )
    return found


class Range:
    """Where runs are killed: a folder of their own, also for their temporary files."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ersatz-kill-"))
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.runs = 0

    def __enter__(self) -> Range:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def out(self) -> Path:
        """Where answers go."""
        return self.folder / "o"

    def start(self, argv: Sequence[str], seed: str) -> tuple[subprocess.Popen[str], str]:
        """Start a command; returns it with its mark."""
        self.runs += 1
        mark = f"{os.getpid()}-{self.runs}"
        words = [seed if word == "SEED" else word for word in argv]
        environment = {**os.environ, MARK: mark, "TMPDIR": str(self.temporary)}
        process = subprocess.Popen(
            [sys.executable, "-m", "ersatz", *words], cwd=self.folder, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        return process, mark

    def answer(self) -> dict[str, bytes]:
        """Return the files of the answer as they are."""
        paths = [p for p in self.out.rglob("*") if p.is_file()] if self.out.is_dir() else []
        return {str(path.relative_to(self.out)): path.read_bytes() for path in paths}

    def in_peace(self, victim: Victim, seed: str) -> str:
        """Run a command to its end; returns what was wrong with that."""
        began = time.monotonic()
        process, _ = self.start(victim.argv, seed)
        words = process.communicate(timeout=LONGEST_S)[1]
        victim.seconds = time.monotonic() - began
        return (
            "" if process.returncode in (0, 1) else f"status {process.returncode}: {words[-500:]}"
        )

    def prepare(self, victim: Victim) -> None:
        """Learn both answers of a command."""
        for seed in ("2", "1"):
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir()
            if words := self.in_peace(victim, seed):
                raise RuntimeError(f"{victim.name}: {words}")
            victim.answers[seed] = self.answer()

    def lay(self, answer: Mapping[str, bytes]) -> None:
        """Put an older answer where the newer one goes."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        for name, raw in answer.items():
            (self.out / name).write_bytes(raw)


def kill_once(
    ground: Range, victim: Victim, rng: random.Random, number: signal.Signals
) -> list[str]:
    """Kill one run at a random moment; returns what was wrong afterwards."""
    ground.lay(victim.answers["2"])
    process, mark = ground.start(victim.argv, "1")
    time.sleep(rng.uniform(0.0, 1.1) * victim.seconds)
    process.send_signal(number)
    words = process.communicate(timeout=LONGEST_S)[1]
    faults = _told(number, process.returncode, words)
    faults += [f"torn: {name}" for name, raw in ground.answer().items() if _torn(victim, name, raw)]
    faults += _alive(mark)
    if wrong := ground.in_peace(victim, "1"):
        return [*faults, f"the next run fails: {wrong}"]
    faults += [
        f"left in the folder for temporary files: {p.name}"
        for p in ground.temporary.iterdir()
        if not p.name.startswith(THEIRS)
    ]
    extra = sorted(set(ground.answer()) - set(victim.answers["1"]))
    return faults + [f"left beside the answer: {name}" for name in extra]


def _torn(victim: Victim, name: str, raw: bytes) -> bool:
    """Tell whether a file is neither the older nor the newer; what lies beside may be anything."""
    known = [answer[name] for answer in victim.answers.values() if name in answer]
    if not known or raw in known:
        return False
    return victim.name not in MEASURED or not _is_whole(name, raw)


def _is_whole(name: str, raw: bytes) -> bool:
    """Tell whether a file that is like no other ends where such files end."""
    try:
        return (
            yaml.safe_load(raw) is not None
            if name.endswith((".json", ".yaml"))
            else raw[-1:] in b"\n>"
        )
    except yaml.YAMLError:
        return False


def _told(number: int, status: int, words: str) -> list[str]:
    """Return what is wrong with how the run ended."""
    if "Traceback" in words:
        return [f"a traceback after {signal.Signals(number).name}: {words[-300:]}"]
    allowed = {signal.SIGINT: (130,), signal.SIGTERM: (-15, 143), signal.SIGKILL: (-9,)}[
        signal.Signals(number)
    ]
    if status not in (*allowed, 0, 1):
        return [f"status {status} after {signal.Signals(number).name}: {words[-300:]!r}"]
    if status == 130 and not words.strip():
        return ["no word after an interrupt"]
    return []


def _alive(mark: str) -> list[str]:
    """Return the processes of a run that live on, after some patience; they are ended."""
    end = time.monotonic() + PATIENCE_S
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return [f"a process lives on: {name}" for name in left.values()]


def _marked(mark: str) -> dict[int, str]:
    """Return the living processes with a mark in their environment, by number."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "environ").read_bytes().split(b"\0")
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in words and state != "Z":
                found[int(place.name)] = (
                    (place / "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode("utf-8", "replace")[:100]
                )
        except OSError:
            continue
    return found


def kill_many(count: int, seed: int, names: Sequence[str] = ()) -> int:
    """Kill runs of all verbs in turn; prints what was wrong, returns a status."""
    rng = random.Random(seed)
    faults: Counter[str] = Counter()
    with Range() as ground:
        chosen = [v for v in victims(ground.folder) if not names or v.name in names]
        for victim in chosen:
            ground.prepare(victim)
        for number in range(count):
            victim = chosen[number % len(chosen)]
            signals = [signal.SIGKILL, *([rng.choice(INTERRUPTS)] if number % 4 == 3 else [])]
            for fault in (f for s in signals for f in kill_once(ground, victim, rng, s)):
                faults[f"{victim.name}: {fault}"] += 1
            if number % 10 == 9:
                print(
                    f"{number + 1} of {count} kills, {faults.total()} faults",
                    file=sys.stderr,
                    flush=True,
                )
    print(f"{count} kills and {count // 4} interrupts of {', '.join(v.name for v in chosen)}")
    for fault, times in faults.most_common():
        print(f"{times:>6}  {fault}")
    return 1 if faults else 0
