"""Find in the commands of a script the one that trains, and take it apart: launcher, program, flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ersatz.sim.importing.flags import Given, key_of
from ersatz.sim.importing.shell.machine import Command
from ersatz.sim.importing.shell.pieces import (
    Piece,
    Unknown,
    Value,
    line_of,
    split_words,
    text_of,
    unknown_of,
)

_ENDS = frozenset({";", "&&", "||", "|", "&"})
_FLAG = re.compile(r"--?[A-Za-z]")
_ATTACHED = re.compile(r"-[NnG]\d+")
_SHORT = {
    "-N": "nodes",
    "-n": "ntasks",
    "-G": "gpus",
    "-C": "constraint",
    "-p": "partition",
    "-m": "module",
}
_MPI = frozenset({"mpirun", "mpiexec", "orterun", "mpiexec.hydra", "horovodrun", "aprun"})
_SLURM = frozenset({"srun", "salloc", "sbatch", "flux"})
_SHORT_OF_MPI = {"-N": "ntasks-per-node", "-npernode": "ntasks-per-node", "--npernode": "ntasks-per-node",
                 "-ppn": "ntasks-per-node", "-np": "np", "--np": "np", "-n": "np", "-H": "host",
                 "-host": "host", "-hosts": "host", "-f": "hostfile", "-hostfile": "hostfile",
                 "--machinefile": "hostfile", "-machinefile": "hostfile"}  # fmt: skip
_VERBS = {"megatron": ("pt", "sft", "rlhf"), "swift": ("pt", "sft", "rlhf"),
          "llamafactory-cli": ("train",), "primus-cli": ("train",), "axolotl": ("train",)}  # fmt: skip
_MODULE_LAUNCHERS = ("torch.distributed", "torch.distributed.launch", "torch.distributed.run",
                     "torch.distributed.torchrun", "deepspeed", "accelerate.commands.launch")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Argument:
    """A word of a command: what it is, where, and why it is not known."""

    text: str
    line: int
    unknown: Unknown | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that starts a program: the flags of its launcher, the program, and its flags."""

    program: str
    line: int
    flags: Mapping[str, Given]
    launcher: Mapping[str, Given]
    words: tuple[str, ...]  # that are no flags: files, subcommands
    tools: tuple[str, ...]  # torchrun, srun, ...
    twice: tuple[tuple[str, int, int], ...] = ()  # flag, lines
    loose: tuple[Unknown, ...] = ()  # words that are not known and may be flags
    maybe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def launches(commands: Sequence[Command], switches: Callable[[str], bool]) -> list[Launch]:
    """Return the commands that start a program with flags, in order.

    `switches` tells whether a flag is known to stand alone: an unknown word after it is no value.
    """
    found = (_launch(command, switches) for command in commands)
    return [launch for launch in found if launch and (launch.flags or launch.words)]


def _launch(command: Command, switches: Callable[[str], bool]) -> Launch | None:
    words = list(_arguments(command))
    at = _program(words)
    if at is None:
        return None
    before, after = words[:at], words[at + 1 :]
    parsed = _Parsed(switches)
    parsed.read(after)
    head = _Parsed(lambda name: False, single=True)
    names = {word.text.rsplit("/", 1)[-1] for word in before}
    short = _SHORT_OF_MPI if names & _MPI else _SHORT if names & _SLURM else {"-m": "module"}
    head.read([_written_out(word, short) for word in before])
    tools = tuple(
        w.text.rsplit("/", 1)[-1] for w in before if w.text and not w.text.startswith("-")
    )
    return Launch(words[at].text, words[at].line or command.line, parsed.given, head.given,
                  tuple(parsed.words), tools, tuple(parsed.twice), tuple(parsed.loose),
                  command.maybe, dict(command.environment))  # fmt: skip


def _written_out(word: Argument, short: Mapping[str, str]) -> Argument:
    """Return a short option in full: `-N 4` and `-N4` are `--nodes`."""
    if word.text in short:
        return replace(word, text=f"--{short[word.text]}")
    if word.text[:2] in short and _ATTACHED.fullmatch(word.text):
        return replace(word, text=f"--{short[word.text[:2]]}={word.text[2:]}")
    return word


def _arguments(command: Command) -> Iterator[Argument]:
    """Yield the words of a command up to its end; a command in quotes is opened."""
    for value in command.fields:
        text = text_of(value)
        inside = " " in text and (".py" in text or "--" in text)
        opened = [*_opened(value)] if inside else [value]
        for word in opened:
            plain = text_of(word)
            if plain in _ENDS:
                return
            unknown = unknown_of(word)
            if "$" in plain and not unknown:
                unknown = Unknown(f"{plain[:40]} is filled in elsewhere", line_of(word))
            yield Argument(
                plain.strip("\"'") if inside else plain, line_of(word, command.line), unknown
            )
            if plain.endswith(";") and inside:
                return


def _opened(value: Value) -> Iterator[Value]:
    yield from split_words(p if p.unknown else p._replace(splits=True) for p in value)


def _program(words: Sequence[Argument]) -> int | None:
    """Return where the program stands: the first Python file, module or known subcommand."""
    for i, word in enumerate(words):
        name = word.text.rsplit("/", 1)[-1]
        if name.endswith(".py"):
            return i
        if word.text in ("-m", "--module") and i + 1 < len(words):
            module = words[i + 1].text
            if module and module not in _MODULE_LAUNCHERS:
                return i + 1
        if name in _VERBS and i + 1 < len(words) and words[i + 1].text in _VERBS[name]:
            return i + 1
    return None


@dataclass(slots=True)
class _Parsed:
    """Flags with their values, read from left to right; the last of a name wins."""

    switches: Callable[[str], bool]
    single: bool = False  # a flag has one value at most: those of launchers
    given: dict[str, Given] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    twice: list[tuple[str, int, int]] = field(default_factory=list)
    loose: list[Unknown] = field(default_factory=list)
    name: str = ""
    line: int = 0
    values: list[Argument] = field(default_factory=list)

    def read(self, words: Sequence[Argument]) -> None:
        for word in words:
            self._word(word)
        self._close()

    def _word(self, word: Argument) -> None:
        if (
            word.unknown
            and not word.text
            and word.unknown.choices
            and self._may_be_flags(word.unknown)
        ):
            self._close()
            self._branches(word.unknown)
            return
        if _FLAG.match(word.text) and not re.fullmatch(r"-[\d.]+(e-?\d+)?", word.text):
            self._close()
            name, equals, value = word.text.partition("=")
            self.name, self.line = name, word.line
            if equals:
                self.values.append(replace(word, text=value))
                self._close()
            return
        takes = (
            self.name
            and not (self.single and self.values)
            and not (word.unknown and (self.values or self.switches(key_of(self.name))))
        )
        if takes:
            self.values.append(word)
        elif word.unknown:
            self.loose.append(word.unknown)
        elif word.text:
            self.words.append(word.text)

    def _may_be_flags(self, unknown: Unknown) -> bool:
        firsts = [text_of(words[0]) for c in unknown.choices if (words := [*split_words(c)])]
        return any(_FLAG.match(first) for first in firsts) or not (self.name and not self.values)

    def _branches(self, unknown: Unknown) -> None:
        """Flags of which only some of the branches have them: their values are choices."""
        branches = []
        for choice in unknown.choices:
            inner = _Parsed(self.switches)
            inner.read([Argument(text_of(w), line_of(w, unknown.line), unknown_of(w))
                        for w in split_words(choice)])  # fmt: skip
            branches.append(inner)
        for key in sorted({key for branch in branches for key in branch.given}):
            found = [branch.given.get(key) for branch in branches]
            first = next(one for one in found if one)
            if all(one and one.words == first.words and not one.unknown for one in found):
                self._keep(first)
                continue
            choices = tuple(
                dict.fromkeys(one.value or "given" if one else "absent" for one in found)
            )
            self._keep(replace(first, unknown=f"depends on {unknown.reason} (line {unknown.line})",
                               choices=choices))  # fmt: skip

    def _close(self) -> None:
        if not self.name:
            return
        values, self.values = self.values, []
        unknown = next((v.unknown for v in values if v.unknown), None)
        words = tuple(
            w for v in values for w in (v.text.split() if len(values) == 1 else [v.text]) if w
        )
        choices = (
            tuple(dict.fromkeys(text_of(c).strip() or "absent" for c in unknown.choices))
            if unknown
            else ()
        )
        reason = f"{unknown.reason}" if unknown else ""
        if unknown and unknown.choices:
            reason = f"depends on {unknown.reason} (line {unknown.line})"
        self._keep(
            Given(key_of(self.name), self.name, words, self.line, unknown=reason, choices=choices)
        )
        self.name = ""

    def _keep(self, given: Given) -> None:
        old = self.given.get(given.key)
        if old and old.words != given.words:
            self.twice.append((given.shown, old.line, given.line))
        self.given[given.key] = given


def merge_launches(found: Sequence[Launch]) -> Launch:
    """Return launches of which one is started as one: flags that differ have choices."""
    first, *others = found
    if not others:
        return first
    keys = dict.fromkeys(key for launch in found for key in launch.flags)
    flags = {key: _agreed([launch.flags.get(key) for launch in found]) for key in keys}
    heads = dict.fromkeys(key for launch in found for key in launch.launcher)
    head = {key: _agreed([launch.launcher.get(key) for launch in found]) for key in heads}
    return replace(first, flags=flags, launcher=head)


def _agreed(found: Sequence[Given | None]) -> Given:
    first = next(one for one in found if one)
    if all(one and one.words == first.words and one.unknown == first.unknown for one in found):
        return first
    lines = ", ".join(str(one.line) for one in found if one)
    choices = tuple(dict.fromkeys((one.value or "given") if one else "absent" for one in found))
    return replace(first, unknown=f"the script starts several trainings that differ in it (lines {lines})",
                   choices=choices)  # fmt: skip


__all__ = ["Argument", "Launch", "Piece", "launches", "merge_launches"]
