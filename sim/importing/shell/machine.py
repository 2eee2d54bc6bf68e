"""Follow a script from top to bottom without running anything, and note the commands that it would start.

A branch is taken where its condition is known; otherwise every branch is followed, and what differs
afterwards is unknown with its choices. Loops over known words are followed turn by turn; a variable
that another loop changes is unknown. A branch that ends the script is not taken: it complains.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.digits import whole
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.shell.conditions import decide_test, decide_words
from ersatz.sim.importing.shell.files import Files, inner_script, reads_commands
from ersatz.sim.importing.shell.grammar import (
    Block,
    Case,
    Chain,
    Function,
    Group,
    If,
    Loop,
    Node,
    Simple,
    Test,
    parse,
)
from ersatz.sim.importing.shell.pieces import (
    Piece,
    Unknown,
    Value,
    broken,
    line_of,
    shown,
    split_words,
    text_of,
    unknown_of,
)
from ersatz.sim.importing.shell.scan import Word
from ersatz.sim.importing.shell.state import State, lost, merged, plain_variables, same

MOST_STEPS = 50_000
MOST_TURNS = 500
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


class _Exit(Exception):
    """The script, or with `level` a function or a turn of a loop, ends here."""

    def __init__(self, level: str, status: bool | None = None, count: int = 1) -> None:
        self.level, self.status, self.count = level, status, count


def follow(
    text: str, file: str, defines: Mapping[str, str], arguments: Sequence[str] | None
) -> Followed:
    """Follow a script; raises `InputError` where it is none, or never ends."""
    given = None if arguments is None else tuple((Piece(a, 0),) for a in arguments)
    machine = _Machine(file, State(plain_variables(defines), given))
    try:
        with suppress(_Exit):
            machine.block(parse(text, file))
    except RecursionError as error:
        raise broken(file, 0, "is nested too deeply") from error
    return Followed(tuple(machine.commands), tuple(dict.fromkeys(machine.taken)), machine.state,
                    tuple(dict.fromkeys(machine.remarks)))  # fmt: skip


@dataclass(slots=True)
class _Machine(Files):
    commands: list[Command] = field(default_factory=list)
    functions: dict[str, Block] = field(default_factory=dict)
    maybe: str = ""
    steps: int = 0
    sourced: int = 0
    calls: int = 0
    prefix: tuple[Value, ...] = ()  # what starts the shell that is followed

    def block(self, nodes: Block) -> bool | None:
        """Follow commands in order; returns the status of the last."""
        status: bool | None = True
        for node in nodes:
            status = self.node(node)
        return status

    def node(self, node: Node) -> bool | None:
        """Follow one command; True where it succeeds, None where that is not known."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise broken(self.file, node.line, f"has more than {MOST_STEPS:,} steps")
        makers: dict[type, Callable[..., bool | None]] = {
            Simple: self.simple, Test: self.test, Chain: self.chain, If: self.branch,
            Loop: self.loop, Case: self.case, Function: self.define, Group: self.group,
        }  # fmt: skip
        return makers[type(node)](node)

    def test(self, node: Test) -> bool | None:
        return decide_test(self.expander, node)

    def define(self, node: Function) -> bool | None:
        self.functions[node.name] = node.body
        return True

    def group(self, node: Group) -> bool | None:
        if not node.apart:
            return self.block(node.body)
        kept = self.state.copy()
        try:
            return self.block(node.body)
        except _Exit:
            return None
        finally:
            kept.written |= self.state.written
            self.state = kept

    def chain(self, node: Chain) -> bool | None:
        rounds: list[tuple[str, list[Node]]] = []
        for op, item in node.items:
            if op == "|":
                rounds[-1][1].append(item)
            else:
                rounds.append((op, [item]))
        status = self._piped(rounds[0][1])
        if node.negated and status is not None:
            status = not status
        for op, items in rounds[1:]:
            one = items[0] if len(items) == 1 else Chain(node.line, _pipe(items))
            if status is None:
                self._both([(one,), ()], "a condition that is not known", node.line)
            elif status == (op == "&&"):
                status = self._guarded(one)
        return status

    def _piped(self, items: Sequence[Node]) -> bool | None:
        """Follow commands that hand on what they print; each is a shell of its own."""
        if len(items) == 1:
            return self.node(items[0])
        status: bool | None = True
        for item in items:
            status = self.group(Group(item.line, (item,), True))
        return status

    def _guarded(self, item: Node) -> bool | None:
        """Follow what depends on a condition; where it ends the script, it is not taken."""
        kept = self.state.copy()
        try:
            return self.node(item)
        except _Exit as left:
            if left.level != "script":
                raise
            self.state = kept
            return None

    def branch(self, node: If) -> bool | None:
        open_: list[Block] = []
        for condition, body in node.branches:
            status = self.block(condition)
            if status is False:
                continue
            open_.append(body)
            if status:
                break
        else:
            open_.append(node.otherwise)
        if len(open_) == 1:
            return self._one(open_[0])
        self._both(open_, "a condition that is not known", node.line)
        return None

    def _one(self, body: Block) -> bool | None:
        return self._guarded(Group(body[0].line, body, False)) if body else True

    def _both(self, bodies: Sequence[Block], why: str, line: int) -> None:
        """Follow every branch from the same state; what differs afterwards has choices."""
        before, ends, outer = self.state, [], self.maybe
        self.maybe = f"{why} (line {line})"
        for body in bodies:
            self.state = before.copy()
            try:
                self.block(body)
            except _Exit:
                continue
            ends.append(self.state)
        self.maybe = outer
        self.state = merged(before, ends, why, line)

    def case(self, node: Case) -> bool | None:
        value = self.expander.value(node.word)
        if unknown_of(value):
            bodies = [self._body(node, i) for i in range(len(node.branches))]
            complete = any(self._pattern(p) == "*" for ps, _ in node.branches for p in ps)
            self._both(bodies if complete else [*bodies, ()], "a case that is not known", node.line)
            return None
        status: bool | None = True
        for i, (patterns, _) in enumerate(node.branches):
            if any(fnmatch.fnmatchcase(text_of(value), self._pattern(p)) for p in patterns):
                status = self._one(self._body(node, i))
                if node.ends[i] != ";;&":
                    break
        return status

    def _body(self, node: Case, at: int) -> Block:
        """Return the commands of a branch, with those of the next where it ends in `;&`."""
        body = node.branches[at][1]
        falls = node.ends[at] == ";&" and at + 1 < len(node.branches)
        return (*body, *self._body(node, at + 1)) if falls else body

    def _pattern(self, word: Word) -> str:
        return text_of(self.expander.pattern(word))

    def loop(self, node: Loop) -> bool | None:
        try:
            if node.words is not None:
                return self._over(node)
            if node.condition:
                return self._while(node)
        except _Exit as left:
            if left.level != "loop":
                raise
            if left.count > 1:  # `break 2`
                raise _Exit(left.level, count=left.count - 1) from left
            return True
        return self._unclear(node)

    def _over(self, node: Loop) -> bool | None:
        words = self.expander.fields(node.words or ())
        if len(words) > MOST_TURNS or any(unknown_of(word) for word in words):
            return self._unclear(node)
        for word in words:
            self.state.variables[node.name] = word
            self._turn(node.body)
        return True

    def _while(self, node: Loop) -> bool | None:
        for _ in range(MOST_TURNS):
            status = self.block(node.condition)
            if status is None:
                return self._unclear(node)
            if status == node.negated:
                return True
            self._turn(node.body)
            self.block(node.after)
        return self._unclear(node)

    def _turn(self, body: Block) -> None:
        try:
            self.block(body)
        except _Exit as left:
            if left.level != "turn":
                raise
            if left.count > 1:  # `continue 2` ends this loop, and a turn of the one around it
                raise _Exit("turn", count=left.count - 1) from left

    def _unclear(self, node: Loop) -> bool | None:
        """Follow a loop once: what it changes is unknown, for nobody knows how often it turns."""
        before = self.state
        self.state, outer = before.copy(), self.maybe
        reason = f"a loop (line {node.line}) whose turns are not known"
        self.maybe = reason
        if node.name:
            self.state.variables[node.name] = (
                Piece("", node.line, True, Unknown(reason, node.line)),
            )
        with suppress(_Exit):
            self.block(node.body)
        self.maybe = outer
        self.remarks.append((reason, node.line))
        for file, text in self.state.written.items():
            if not same(text, before.written.get(file)):
                self.state.written[file] = lost(f"it is written in {reason}", node.line)
        for name, held in self.state.variables.items():
            if not same(held, before.variables.get(name)):
                self.state.variables[name] = (
                    Piece("", node.line, True, Unknown(f"{name} is set in {reason}", node.line)),
                )
        return None

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
        with suppress(_Exit):
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
        except _Exit as left:
            if left.level != "function":
                raise
            return left.status
        finally:
            self.state.arguments, self.calls = outer, self.calls - 1
            for own, held in self.scopes.pop().items():
                self.restore(own, held)

    def leave(self, level: str, fields: Sequence[Value] = ()) -> bool | None:
        given = whole(text_of(fields[1])) if len(fields) > 1 and not unknown_of(fields[1]) else None
        raise _Exit(level, None if given is None else given == 0, given or 1)

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
        except _Exit as left:
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


def _pipe(items: Sequence[Node]) -> tuple[tuple[str, Node], ...]:
    return tuple(("|" if i else "", item) for i, item in enumerate(items))
