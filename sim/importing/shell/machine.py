"""Follow a script from top to bottom without running anything, and note the commands that it would start.

A branch is taken where its condition is known; otherwise every branch is followed, and what differs
afterwards is unknown with its choices. Loops over known words are followed turn by turn; a variable
that another loop changes is unknown. A branch that ends the script is not taken: it complains.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.digits import is_whole, whole
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.shell.conditions import decide_test, decide_words
from ersatz.sim.importing.shell.expand import Expander
from ersatz.sim.importing.shell.grammar import (
    Assign,
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
    word_assign,
)
from ersatz.sim.importing.shell.pieces import (
    Piece,
    Unknown,
    Value,
    broken,
    text_of,
    unknown_of,
)
from ersatz.sim.importing.shell.scan import Word, quoted_word
from ersatz.sim.importing.shell.state import Array, Held, State, merged, plain_variables, same

MOST_STEPS = 50_000
MOST_TURNS = 500
MOST_CALLS = 20
MOST_SOURCED = 100
_SETS = frozenset({"export", "declare", "local", "readonly", "typeset"})
_QUIET = frozenset({"set", "cd", "mkdir", "echo", "printf", "module", "ulimit", "trap", "wait", "sleep",
                    "rm", "cp", "mv", "ls", "pushd", "popd", "shopt", "hostname", "date", "chmod", "ln",
                    "touch", "pip", "conda", "which", "command", "tee", "grep", "sed", "awk", "unzip",
                    "wget", "curl", "git", "test", "env", "kill", "pkill", "exec", "nohup_"})  # fmt: skip


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

    def __init__(self, level: str) -> None:
        self.level = level


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
class _Machine:
    file: str
    state: State
    commands: list[Command] = field(default_factory=list)
    taken: list[tuple[str, str, int]] = field(default_factory=list)
    remarks: list[tuple[str, int]] = field(default_factory=list)
    functions: dict[str, Block] = field(default_factory=dict)
    maybe: str = ""
    steps: int = 0
    sourced: int = 0
    calls: int = 0

    @property
    def expander(self) -> Expander:
        return Expander(self.file, self.state, lambda *told: self.taken.append(told))

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
            self.state = kept

    def chain(self, node: Chain) -> bool | None:
        status = self.node(node.items[0][1])
        if node.negated and status is not None:
            status = not status
        for op, item in node.items[1:]:
            if op == "|":
                status = self.node(item)
            elif status is None:
                self._both([(item,), ()], "a condition that is not known", node.line)
            elif status == (op == "&&"):
                status = self._guarded(item)
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
            bodies = [body for _, body in node.branches]
            complete = any(self._pattern(p) == "*" for ps, _ in node.branches for p in ps)
            self._both(bodies if complete else [*bodies, ()], "a case that is not known", node.line)
            return None
        for patterns, body in node.branches:
            if any(fnmatch.fnmatchcase(text_of(value), self._pattern(p)) for p in patterns):
                return self._one(body)
        return True

    def _pattern(self, word: Word) -> str:
        return text_of(self.expander.value(word))

    def loop(self, node: Loop) -> bool | None:
        try:
            if node.words is not None:
                return self._over(node)
            if node.condition:
                return self._while(node)
        except _Exit as left:
            if left.level != "loop":
                raise
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
        return self._unclear(node)

    def _turn(self, body: Block) -> None:
        try:
            self.block(body)
        except _Exit as left:
            if left.level != "turn":
                raise

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
        for name, held in self.state.variables.items():
            if not same(held, before.variables.get(name)):
                self.state.variables[name] = (
                    Piece("", node.line, True, Unknown(f"{name} is set in {reason}", node.line)),
                )
        return None

    def simple(self, node: Simple) -> bool | None:
        if not node.words:
            for assign in node.assigns:
                self._assign(assign)
            return True
        kept = {a.name: self.state.variables.get(a.name) for a in node.assigns}
        for assign in node.assigns:  # they hold for the command only
            self._assign(assign)
        first = node.words[0][0].text if node.words[0] and node.words[0][0].kind == "text" else ""
        if first in _SETS:
            return self._declare(node)
        status = self._start(node, first)
        for name, held in kept.items():
            if held is None:
                self.state.variables.pop(name, None)
            else:
                self.state.variables[name] = held
        return status

    def _assign(self, assign: Assign) -> None:
        expander, variables = self.expander, self.state.variables
        old = variables.get(assign.name)
        if assign.elements is not None:
            before: tuple[Value, ...] = ()
            if assign.adds:
                before = old.elements if isinstance(old, Array) else ((old,) if old else ())
            new: Held = Array((*before, *expander.fields(assign.elements)))
        else:
            value = expander.value(assign.word)
            new = self._added(old, value, assign) if assign.adds else value
            if assign.index:
                new = self._indexed(old, value, assign)
        variables[assign.name] = new

    def _added(self, old: Held | None, value: Value, assign: Assign) -> Held:
        if isinstance(old, Array):
            first = (*old.elements[0], *value) if old.elements else value
            return Array((first, *old.elements[1:]))
        return (*(old or ()), *value)

    def _indexed(self, old: Held | None, value: Value, assign: Assign) -> Held:
        """`A[i]=value`; where i is no number that is known, the array is not either."""
        elements = list(old.elements) if isinstance(old, Array) else []
        if is_whole(assign.index) and int(assign.index) <= len(elements) + 1000:
            at = int(assign.index)
            elements += [()] * (at + 1 - len(elements))
            elements[at] = value
            return Array(tuple(elements))
        reason = f"{assign.name}[{assign.index}] is not followed"
        return Array((*elements, (Piece("", assign.line, True, Unknown(reason, assign.line)),)))

    def _declare(self, node: Simple) -> bool | None:
        for word in node.words[1:]:
            if assign := word_assign(word, node.line):
                self._assign(assign)
        return True

    def _start(self, node: Simple, first: str) -> bool | None:
        if first in ("[", "test"):
            words = node.words[1:-1] if first == "[" else node.words[1:]
            return decide_words(self.expander, words)
        fields = self.expander.fields(node.words)
        name = text_of(fields[0]) if fields else ""
        if name in ("true", ":", "false"):
            return name != "false"
        if name in self.functions:
            return self._call(name, fields[1:], node.line)
        if name in _BUILTINS:
            return _BUILTINS[name](self, fields, node)
        if node.here and node.writes:
            target = text_of(self.expander.value(node.writes))
            self.state.written[Path(target).name] = self._here(node)
            return True
        if name not in _QUIET or node.here:
            here = text_of(self._here(node)) if node.here else ""
            start = node.here[0].body_line if node.here else 0
            own = tuple((a.name, text_of(held)) for a in node.assigns
                        if isinstance(held := self.state.variables.get(a.name), tuple))  # fmt: skip
            self.commands.append(Command(tuple(fields), node.line, self.maybe, here, start, own))
        return True

    def _here(self, node: Simple) -> Value:
        token = node.here[0]
        if not token.expands:
            return (Piece(token.body, token.body_line),)
        return self.expander.value(quoted_word(token.body, self.file, token.body_line))

    def _call(self, name: str, arguments: Sequence[Value], line: int) -> bool | None:
        if self.calls >= MOST_CALLS:
            raise broken(self.file, line, f"the function {name} calls itself")
        outer, self.calls = self.state.arguments, self.calls + 1
        self.state.arguments = tuple(arguments)
        try:
            return self.block(self.functions[name])
        except _Exit as left:
            if left.level != "function":
                raise
            return None
        finally:
            self.state.arguments, self.calls = outer, self.calls - 1

    def leave(self, level: str) -> bool | None:
        raise _Exit(level)

    def shift(self, fields: Sequence[Value], node: Simple) -> bool | None:
        given = whole(text_of(fields[1])) if len(fields) > 1 else None
        count = 1 if given is None else given
        if self.state.arguments:
            self.state.arguments = self.state.arguments[count:]
        return True

    def unset(self, fields: Sequence[Value], node: Simple) -> bool | None:
        for name in fields[1:]:
            self.state.variables.pop(text_of(name), None)
        return True

    def take_in(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`read`, `mapfile`: what comes from outside."""
        for name in map(text_of, fields[1:]):
            if name.isidentifier():
                reason = f"{name} is read from outside"
                self.state.variables[name] = (
                    Piece("", node.line, True, Unknown(reason, node.line)),
                )
        return False if text_of(fields[0]) == "getopts" else None

    def positions(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`set -- words` names the positional parameters; other options of `set` change nothing."""
        if len(fields) > 1 and text_of(fields[1]) == "--":
            self.state.arguments = tuple(fields[2:])
        return True

    def evaluate(self, fields: Sequence[Value], node: Simple) -> bool | None:
        self.commands.append(Command(tuple(fields[1:]), node.line, self.maybe))
        return None

    def source(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """Follow a script that stands beside this one."""
        name = Path(text_of(fields[1])).name if len(fields) > 1 else ""
        path = Path(self.file).parent / name
        if not name or self.calls >= MOST_CALLS:
            return True
        self.sourced += 1
        if self.sourced > MOST_SOURCED:
            raise broken(self.file, node.line, f"sources more than {MOST_SOURCED} scripts")
        try:
            body = parse(read_text_file(path, "a shell script"), str(path))
        except InputError as error:
            words = f"{name} is not read: {error.problems[0].expected}"
            self.remarks.append((words, node.line))
            return True
        outer, self.file, self.calls = self.file, str(path), self.calls + 1
        try:
            self.block(body)
        except _Exit as left:
            if left.level != "function":
                raise
        finally:
            self.file, self.calls = outer, self.calls - 1
        return True


_BUILTINS: Mapping[str, Callable[[_Machine, Sequence[Value], Simple], bool | None]] = {
    "exit": lambda m, f, n: m.leave("script"), "return": lambda m, f, n: m.leave("function"),
    "break": lambda m, f, n: m.leave("loop"), "continue": lambda m, f, n: m.leave("turn"),
    "shift": _Machine.shift, "unset": _Machine.unset, "read": _Machine.take_in,
    "mapfile": _Machine.take_in, "readarray": _Machine.take_in, "getopts": _Machine.take_in,
    "set": _Machine.positions, "eval": _Machine.evaluate, "source": _Machine.source,
    ".": _Machine.source,
}  # fmt: skip
