"""Follow a script from top to bottom without running anything, and note the commands that it would start."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.digits import whole
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.shell.conditions import decide_words
from ersatz.sim.importing.shell.control import Control, Exit
from ersatz.sim.importing.shell.files import inner_script, reads_commands
from ersatz.sim.importing.shell.grammar import Simple, parse
from ersatz.sim.importing.shell.pieces import (
    Piece,
    Value,
    broken,
    line_of,
    shown,
    split_words,
    text_of,
    unknown_of,
)
from ersatz.sim.importing.shell.state import State, plain_variables

MOST_CALLS = 20
MOST_SOURCED = 100
_SETS = frozenset({"export", "declare", "local", "readonly", "typeset"})
_BEFORE = frozenset(
    {"time", "exec", "command", "builtin"}
)  # words before a command that change nothing
_MARKS = re.compile(r"[\"'$`;&|<>()\\=\n]")  # with these, text is more than words
_SET_THERE = re.compile(r"(?:^|[;&|\s])([A-Za-z_]\w*)\+?=")
_BROKEN = re.compile(r"[A-Za-z_]\w*\[")
_ASKS = frozenset(
    {"grep", "which", "ls", "kill", "pkill", "git", "awk"}
)  # whose status is an answer
_QUIET = frozenset({"set", "cd", "mkdir", "echo", "printf", "module", "ulimit", "trap", "wait", "sleep",
                    "rm", "cp", "mv", "ls", "pushd", "popd", "shopt", "hostname", "date", "chmod", "ln",
                    "touch", "pip", "which", "tee", "grep", "sed", "awk", "unzip",
                    "wget", "curl", "git", "test", "kill", "pkill"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """A command that the script would start: its fields, and why it may not be (`maybe`)."""

    fields: tuple[Value, ...]
    line: int
    maybe: str = ""
    here: str = ""  # what it reads from a here-document
    here_line: int = 0
    environment: tuple[tuple[str, str], ...] = ()  # variables set for it alone


@dataclass(frozen=True, slots=True)
class Followed:
    """What following a script found."""

    commands: tuple[Command, ...]
    taken: tuple[tuple[str, str, int], ...]  # variable, what it was taken as, line
    state: State
    remarks: tuple[tuple[str, int], ...]  # what could not be followed


def follow(
    text: str, file: str, defines: Mapping[str, str], arguments: Sequence[str] | None
) -> Followed:
    """Follow a script; raises `InputError` where it is none, or never ends."""
    given = None if arguments is None else tuple((Piece(a, 0),) for a in arguments)
    machine = _Machine(file, State(plain_variables(defines), given))
    try:
        with suppress(Exit):
            machine.block(parse(text, file))
    except RecursionError as error:
        raise broken(file, 0, "is nested too deeply") from error
    return Followed(tuple(machine.commands), tuple(dict.fromkeys(machine.taken)), machine.state,
                    tuple(dict.fromkeys(machine.remarks)))  # fmt: skip


@dataclass(slots=True)
class _Machine(Control):
    commands: list[Command] = field(default_factory=list)
    sourced: int = 0
    calls: int = 0
    prefix: tuple[Value, ...] = ()  # what starts the shell that is followed

    def simple(self, node: Simple) -> bool | None:
        if not node.words:
            for assign in node.assigns:
                self.assign(assign)
            return True
        first = node.words[0][0].text if node.words[0] and node.words[0][0].kind == "text" else ""
        if first in _SETS:
            for assign in node.assigns:  # arrays, which stand after the word that declares them
                self._scope(node, assign.name)
                self.assign(assign)
            return self.declare(node)
        fields = self.expander.fields(node.words)  # before what holds for the command alone is set
        kept = {a.name: self.state.variables.get(a.name) for a in node.assigns}
        for assign in node.assigns:
            self.assign(assign)
        status = self._start(node, first, fields)
        for name, held in kept.items():
            self.restore(name, held)
        return status

    def _start(self, node: Simple, first: str, fields: Sequence[Value]) -> bool | None:
        if first in ("[", "test"):
            words = node.words[1:-1] if first == "[" else node.words[1:]
            return decide_words(self.expander, words)
        while fields and text_of(fields[0]) in _BEFORE:
            fields = fields[1:]
        name = text_of(fields[0]) if fields else ""
        if name.startswith("-") and first in _BEFORE:  # `command -v NAME`
            return None
        if name in ("true", ":", "false"):
            return name != "false"
        if name in self.functions:
            return self._call(name, fields[1:], node.line)
        if name in _BUILTINS and not (name == "printf" and node.writes):
            return _BUILTINS[name](self, fields, node)
        if name.startswith("-"):
            said = f"{name[:40]} begins a line of its own: the one before does not go on to it"
            self.remarks.append((f"{said}, and a shell leaves it out", node.line))
        if _BROKEN.match(name):
            self.lose(name.partition("[")[0], node.line)
        if self.writes(name, fields, node):
            return True
        if (inner := inner_script(fields)) and self._inside(*inner, node.line):
            return None
        if node.here and reads_commands(fields) and self._inside((), self.here(node), node.line):
            return None
        if name not in _QUIET or node.here:
            here = shown(self.here(node)) if node.here else ""
            start = node.here[0].body_line if node.here else 0
            own = tuple((a.name, text_of(held)) for a in node.assigns
                        if isinstance(held := self.state.variables.get(a.name), tuple))  # fmt: skip
            whole_ = (*self.prefix, *fields)
            self.commands.append(Command(whole_, node.line, self.maybe, here, start, own))
        return True if not fields or (name in _QUIET and name not in _ASKS) else None

    def _inside(self, before: Sequence[Value], script: Value, line: int) -> bool:
        """Follow the commands that another shell is handed; False where they start nothing."""
        kept, found, outer = self.state.copy(), len(self.commands), self.prefix
        try:
            body = parse(shown(script), self.file, line_of(script, line))
        except InputError:
            return False
        self.prefix = (*outer, *before)
        with suppress(Exit):
            self.block(body)
        self.prefix = outer
        kept.written |= self.state.written
        self.state = kept
        return len(self.commands) > found

    def _call(self, name: str, arguments: Sequence[Value], line: int) -> bool | None:
        if self.calls >= MOST_CALLS:
            raise broken(self.file, line, f"the function {name} calls itself")
        outer, self.calls = self.state.arguments, self.calls + 1
        self.state.arguments = tuple(arguments)
        self.scopes.append({})
        try:
            return self.block(self.functions[name])
        except Exit as left:
            if left.level != "function":
                raise
            return left.status
        finally:
            self.state.arguments, self.calls = outer, self.calls - 1
            for own, held in self.scopes.pop().items():
                self.restore(own, held)

    def leave(self, level: str, fields: Sequence[Value] = ()) -> bool | None:
        given = whole(text_of(fields[1])) if len(fields) > 1 and not unknown_of(fields[1]) else None
        raise Exit(level, None if given is None else given == 0, given or 1)

    def evaluate(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`eval words`: the words are read once more as commands."""
        words = [*fields[1:]]
        text = " ".join(map(text_of, words))
        if any(unknown_of(one) for one in words) or not _MARKS.search(text):
            opened = [
                one for word in words for one in split_words(p._replace(splits=True) for p in word)
            ]
            self.commands.append(Command(tuple(opened), node.line, self.maybe))
            if unknown := next((u for one in words if (u := unknown_of(one))), None):
                said = f"eval of what is not known ({unknown.reason}): variables are as they were before"
                self.remarks.append((said, node.line))
            for name in _SET_THERE.findall(text):
                self._unknown_of(name, f"{name} is set by eval", node.line)
            return None
        if self.calls >= MOST_CALLS:
            raise broken(self.file, node.line, "eval calls itself")
        self.calls += 1
        try:
            return self.block(parse(text, self.file, node.line))
        finally:
            self.calls -= 1

    def source(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """Follow a script that stands beside this one."""
        name = Path(text_of(fields[1])).name if len(fields) > 1 else ""
        path = Path(self.file).parent / name
        text = self.state.written.get(name)
        unknown = unknown_of(fields[1]) if len(fields) > 1 else None
        if unknown and not name:
            said = (
                f"a script that is not known is sourced ({unknown.reason}): variables are as before"
            )
            self.remarks.append((said, node.line))
        if not name or self.calls >= MOST_CALLS:
            return True
        self.sourced += 1
        if self.sourced > MOST_SOURCED:
            raise broken(self.file, node.line, f"sources more than {MOST_SOURCED} scripts")
        try:
            if text is None:
                body = parse(read_text_file(path, "a shell script"), str(path))
            else:  # this script wrote it
                body, path = parse(shown(text), self.file, line_of(text, 1)), Path(self.file)
        except InputError as error:
            words = f"{name} is not read: {error.problems[0].expected}"
            self.remarks.append((words, node.line))
            return None
        outer, self.file, self.calls = self.file, str(path), self.calls + 1
        arguments = self.state.arguments
        if len(fields) > 2:
            self.state.arguments = tuple(fields[2:])
        try:
            self.block(body)
        except Exit as left:
            if left.level != "function":
                raise
        finally:
            self.file, self.calls, self.state.arguments = outer, self.calls - 1, arguments
        return True


_BUILTINS: Mapping[str, Callable[[_Machine, Sequence[Value], Simple], bool | None]] = {
    "exit": lambda m, f, n: m.leave("script"), "return": lambda m, f, n: m.leave("function", f),
    "break": lambda m, f, n: m.leave("loop", f), "continue": lambda m, f, n: m.leave("turn", f),
    "shift": _Machine.shift, "unset": _Machine.unset, "read": _Machine.take_in, "let": _Machine.let,
    "mapfile": _Machine.take_in, "readarray": _Machine.take_in, "getopts": _Machine.take_in,
    "printf": _Machine.printed, "set": _Machine.positions, "eval": _Machine.evaluate,
    "source": _Machine.source, ".": _Machine.source,
}  # fmt: skip
