"""The variables of a script as its commands set them: assignments, declarations, and what `read` takes in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ersatz.device_models.text.digits import whole
from ersatz.sim.importing.shell.expand import Expander
from ersatz.sim.importing.shell.grammar import Assign, Simple, word_assign
from ersatz.sim.importing.shell.pieces import Piece, Unknown, Value, text_of, unknown_of
from ersatz.sim.importing.shell.scan import Word, quoted_word
from ersatz.sim.importing.shell.state import Array, Held, State

_ELEMENT = re.compile(r"([A-Za-z_]\w*)\[(.+)\]")
_GIVEN = re.compile(r"([A-Za-z_]\w*)=")
_KEYED = re.compile(r"\[(.*)\]\+?=")


@dataclass(slots=True)
class Variables:
    """A state with what is told of it: what was taken for granted, and what could not be followed."""

    file: str
    state: State
    taken: list[tuple[str, str, int]] = field(default_factory=list)
    remarks: list[tuple[str, int]] = field(default_factory=list)
    scopes: list[dict[str, Held | None]] = field(
        default_factory=list
    )  # of functions that are called
    integers: set[str] = field(default_factory=set)  # variables whose values are sums

    @property
    def expander(self) -> Expander:
        return Expander(self.file, self.state, lambda *told: self.taken.append(told))

    def restore(self, name: str, held: Held | None) -> None:
        if held is None:
            self.state.variables.pop(name, None)
        else:
            self.state.variables[name] = held

    def assign(self, assign: Assign) -> None:
        expander, variables = self.expander, self.state.variables
        old = variables.get(assign.name)
        if assign.elements is not None:
            variables[assign.name] = self._array(assign, old)
            return
        value = expander.value(assign.word)
        if assign.name in self.integers and not unknown_of(value):
            before = text_of(old) if assign.adds and isinstance(old, tuple) else ""
            value = expander.sum(f"{before or 0} + ({text_of(value)})", assign.line)
            variables[assign.name] = value
        elif assign.index is not None:
            variables[assign.name] = self._indexed(old, value, assign)
        else:
            variables[assign.name] = self._added(old, value, assign) if assign.adds else value
        if assign.name == "IFS":
            self.remarks.append(("IFS is set: words are cut at blanks all the same", assign.line))

    def _array(self, assign: Assign, old: Held | None) -> Array:
        """Return `NAME=( ... )`: words in order, or those of keys in brackets."""
        array = Array(named=isinstance(old, Array) and old.named)
        if assign.adds and old is not None:
            array = old if isinstance(old, Array) else Array((old,))
        words = assign.elements or ()
        if array.own_keys is None and not any(map(_keyed, words)):
            return Array((*array.elements, *self.expander.fields(words)), None, array.named)
        for word in words:
            key = _keyed(word)
            if key is None:
                for value in self.expander.fields([word]):
                    array = array.put(str(array.next_key), value)
                continue
            at, rest = key
            place = self.expander.key(array, at, assign.line)
            if place is None:
                array = self._lost(array, f"{assign.name}[{at}]", assign.line)
            else:
                array = array.put(place, self.expander.value(rest))
        return array

    def _lost(self, array: Array, what: str, line: int) -> Array:
        reason = f"{what} is not followed"
        return Array((*array.elements, (Piece("", line, True, Unknown(reason, line)),)))

    def _added(self, old: Held | None, value: Value, assign: Assign) -> Held:
        if isinstance(old, Array):
            return old.put("0", (*(old.get("0") or ()), *value))
        return (*(old or ()), *value)

    def _indexed(self, old: Held | None, value: Value, assign: Assign) -> Held:
        """`A[i]=value`; where i is not known, the array is not either."""
        array = old if isinstance(old, Array) else Array((old,) if old else ())
        key = self.expander.key(array, assign.index or "0", assign.line)
        if key is None or (key.startswith("-") and not array.named):
            return self._lost(array, f"{assign.name}[{assign.index}]", assign.line)
        return array.put(key, (*(array.get(key) or ()), *value) if assign.adds else value)

    def _scope(self, node: Simple, name: str) -> None:
        """Note what a name of a function's own is outside, and which kind of variable it is."""
        options = [part.text for word in node.words[1:] for part in word[:1]
                   if part.text[:1] in "-+" and part.kind == "text"]  # fmt: skip
        letters = "".join(one for one in options if one.startswith("-"))
        first = node.words[0][0].text
        own = first == "local" or (first in ("declare", "typeset") and "g" not in letters)
        if own and self.scopes:
            self.scopes[-1].setdefault(name, self.state.variables.get(name))
        if "A" in letters:
            self.state.variables[name] = Array(named=True)
        if "i" in letters:
            self.integers.add(name)

    def declare(self, node: Simple) -> bool | None:
        bare = node.words[0][0].text == "local"
        for word in node.words[1:]:
            plain = text_of(self.expander.value(word))
            if assign := word_assign(word, node.line):
                self._scope(node, assign.name)
                self.assign(assign)
            elif found := _GIVEN.match(plain):  # `export $NAME=value`
                self._scope(node, found[1])
                value = self.expander.value(word)
                known = (Piece(plain[found.end() :], node.line),)
                self.state.variables[found[1]] = value if unknown_of(value) else known
            elif unknown := unknown_of(self.expander.value(word)):
                said = f"a variable whose name is not known is set ({unknown.reason}): others stay as before"
                self.remarks.append((said, node.line))
            elif plain.isidentifier():
                self._scope(node, plain)
                if bare and self.scopes and not isinstance(self.state.variables.get(plain), Array):
                    self.state.variables.pop(plain, None)
        if any(text_of(self.expander.value(w)) == "-n" for w in node.words[1:2]):
            self._refer(node)
        return True

    def _refer(self, node: Simple) -> None:
        """`declare -n NAME=OTHER`: what is set by the one name is not followed to the other."""
        for word in node.words[2:]:
            if assign := word_assign(word, node.line):
                reason = f"{assign.name} is another name of it, which is not followed"
                for name in (assign.name, text_of(self.expander.value(assign.word))):
                    self.state.variables[name] = (
                        Piece("", node.line, True, Unknown(reason, node.line)),
                    )

    def lose(self, name: str, line: int) -> None:
        """Make an array unknown of which an element is set that cannot be told."""
        held = self.state.variables.get(name)
        array = held if isinstance(held, Array) else Array((held,) if held else ())
        self.state.variables[name] = self._lost(array, f"an element of {name}", line)

    def here(self, node: Simple) -> Value:
        """Return a here-document with its variables replaced."""
        token = node.here[0]
        if not token.expands:
            return (Piece(token.body, token.body_line),)
        return self.expander.value(quoted_word(token.body, self.file, token.body_line))

    def shift(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`shift n` drops the first arguments."""
        given = whole(text_of(fields[1])) if len(fields) > 1 else None
        count = 1 if given is None else given
        if self.state.arguments:
            self.state.arguments = self.state.arguments[count:]
        return True

    def unset(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`unset NAME`, or an element of an array."""
        for name in map(text_of, fields[1:]):
            element = _ELEMENT.fullmatch(name)
            if element is None:
                self.state.variables.pop(name, None)
                continue
            held = self.state.variables.get(element[1])
            if isinstance(held, Array):
                key = self.expander.key(held, element[2], node.line)
                if key is None:
                    self.lose(element[1], node.line)
                else:
                    self.state.variables[element[1]] = held.without(key)
        return True

    def let(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`let SUM ...`: each sets what it sets."""
        value: Value = ()
        for one in fields[1:]:
            value = self.expander.sum(text_of(one), node.line)
        return None if unknown_of(value) else text_of(value) != "0"

    def take_in(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`read`, `mapfile`: what a text of the script holds, or what comes from outside."""
        words = [*map(text_of, fields)]
        text = self._given(node)
        names = [one for one in words[1:] if one.isidentifier()]
        if text is not None and words[0] == "read" and not unknown_of(text):
            cut = self.state.variables.get("IFS")
            mark = text_of(cut) if isinstance(cut, tuple) else None
            flags = "".join(one for one in words[1:] if one.startswith("-"))
            whole_ = "d" in flags
            if self._read(names, text_of(text), mark, node.line, array="a" in flags, all_=whole_):
                return not whole_
        for name in names:
            self._unknown_of(name, f"{name} is read from outside", node.line)
        if words[0] == "getopts":  # without arguments there is nothing to take
            return None if self.state.arguments else False
        return None

    def _given(self, node: Simple) -> Value | None:
        if node.reads is not None:
            return self.expander.value(node.reads)
        return self.here(node) if node.here else None

    def _read(
        self, names: Sequence[str], text: str, mark: str | None, line: int, *, array: bool,
        all_: bool
    ) -> bool:  # fmt: skip
        """Give names the words of a line; False where what cuts it is not known."""
        row = text if all_ else text.split("\n", 1)[0]
        if mark is not None and (len(mark) != 1 or mark.isspace()) and mark.strip():
            return False
        if mark == "":
            words = [row]
        else:
            words = (
                [one.strip() for one in row.split(mark)] if mark and mark.strip() else row.split()
            )
        pieces: list[Value] = [(Piece(word, line),) for word in words]
        if array:
            for name in names[-1:]:
                self.state.variables[name] = Array(tuple(pieces))
            return bool(names)
        glue = mark if mark and mark.strip() else " "
        for i, name in enumerate(names):
            rest = words[i:] if i == len(names) - 1 else words[i : i + 1]
            self.state.variables[name] = (Piece(glue.join(rest), line),)
        return bool(names)

    def _unknown_of(self, name: str, reason: str, line: int) -> None:
        self.state.variables[name] = (Piece("", line, True, Unknown(reason, line)),)

    def printed(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`printf -v NAME ...` sets a variable; what it prints is nobody's business."""
        words = [*map(text_of, fields)]
        if words[1:2] == ["-v"] and len(words) > 2:
            self._unknown_of(words[2], f"{words[2]} is what printf makes of it", node.line)
        return True

    def positions(self, fields: Sequence[Value], node: Simple) -> bool | None:
        """`set -- words` names the positional parameters; other options of `set` change nothing."""
        if len(fields) > 1 and text_of(fields[1]) == "--":
            self.state.arguments = tuple(fields[2:])
        return True


def _keyed(word: Word) -> tuple[str, Word] | None:
    """Return key and value of an array's element `[key]=value`; None for a word."""
    found = (
        _KEYED.match(word[0].text)
        if word and word[0].kind == "text" and not word[0].quoted
        else None
    )
    if not found:
        return None
    return found[1], (word[0]._replace(text=word[0].text[found.end() :]), *word[1:])
