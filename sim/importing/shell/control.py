"""Follow what holds commands together: lists, branches, cases, loops, functions and groups.

A branch is taken where its condition is known; otherwise every branch is followed, and what differs
afterwards is unknown with its choices. Loops over known words are followed turn by turn; a variable
that another loop changes is unknown. A branch that ends the script is not taken: it complains.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ersatz.sim.importing.shell.conditions import decide_test
from ersatz.sim.importing.shell.files import Files
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
)
from ersatz.sim.importing.shell.pieces import Piece, Unknown, broken, text_of, unknown_of
from ersatz.sim.importing.shell.scan import Word
from ersatz.sim.importing.shell.state import lost, merged, same

MOST_STEPS = 50_000
MOST_TURNS = 500


class Exit(Exception):
    """The script, or with `level` a function or a turn of a loop, ends here."""

    def __init__(self, level: str, status: bool | None = None, count: int = 1) -> None:
        self.level, self.status, self.count = level, status, count


@dataclass(slots=True)
class Control(Files, ABC):
    """Follows compound commands; a simple one is another's matter."""

    functions: dict[str, Block] = field(default_factory=dict)
    maybe: str = ""  # why what is followed may not be started
    steps: int = 0

    @abstractmethod
    def simple(self, node: Simple) -> bool | None:
        """Follow a simple command."""

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
        except Exit:
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
        except Exit as left:
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
            except Exit:
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
        except Exit as left:
            if left.level != "loop":
                raise
            if left.count > 1:  # `break 2`
                raise Exit(left.level, count=left.count - 1) from left
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
        except Exit as left:
            if left.level != "turn":
                raise
            if left.count > 1:  # `continue 2` ends this loop, and a turn of the one around it
                raise Exit("turn", count=left.count - 1) from left

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
        with suppress(Exit):
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


def _pipe(items: Sequence[Node]) -> tuple[tuple[str, Node], ...]:
    return tuple(("|" if i else "", item) for i, item in enumerate(items))
