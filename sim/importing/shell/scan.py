"""Cut a script into words and operators, as bash does: quotes, comments, line joins, here-documents.

A word is a tuple of parts: text, a variable, a sum `$(( ))` or a command `$( )`, each with its line and
whether it stands in quotes. Nothing is expanded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.shell.pieces import broken

OPERATORS = ("<<<", "<<-", "&>>", ";;&", "&&", "||", ";;", ";&", "<<", ">>", ">&", "<&", "&>", ">|",
             "|&", "|", "&", ";", "<", ">", "(", ")")  # fmt: skip
_OPERATOR = re.compile("|".join(map(re.escape, OPERATORS)))
_PLAIN = re.compile(r"""[^\s'"\\$`;&|<>()#]+|\#+""")
_IN_QUOTES = re.compile(r'[^"\\$`\n]+')
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
_ARRAY = re.compile(r"([A-Za-z_]\w*)(\+?)=$")
_INDEXED = re.compile(r"(?:[A-Za-z_]\w*)\[[^\]\n]*\]\+?=")
_KEYED = re.compile(r"\[[^\]\n]*\]\+?=")
_BRACES = re.compile(r"([#!]?)([A-Za-z_]\w*|[0-9]+|[@*#?$!-])(\[[^\]]*\])?", re.S)
_ESCAPED = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.S)
_LETTERS = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "e": "\x1b",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_NEST = 50  # of quotes in commands in quotes


class Part(NamedTuple):
    """A part of a word: `kind` is text, variable, sum or command.

    A variable has its name in `text`, its `item` ("[@]", "[0]"), the operator after it (":-", "%") and
    the `word` after that. `quoted` parts are not split.
    """

    kind: str
    text: str
    line: int
    quoted: bool = False
    item: str = ""
    op: str = ""
    word: tuple[Part, ...] = ()
    prefix: str = ""  # "#" length, "!" indirection


Word = tuple[Part, ...]


@dataclass(slots=True)
class Token:
    """A word, an operator, the end of a line, or an array `NAME=( ... )` with its elements."""

    kind: str  # word, operator, newline, array
    line: int
    word: Word = ()
    op: str = ""
    elements: tuple[Word, ...] = ()
    body: str = ""  # of a here-document
    body_line: int = 0
    expands: bool = True  # its variables are replaced
    blank_after: bool = False

    @property
    def plain(self) -> str:
        """The text of a word without expansions or quotes, else an empty text."""
        one = self.kind == "word" and len(self.word) == 1
        return self.word[0].text if one and self.word[0][0] == "text" else ""

    @property
    def reserved(self) -> str:
        """The word where it may be one of the shell's own: bare, without quotes."""
        return self.plain if self.plain and not self.word[0].quoted else self.op


def tokens(text: str, file: str, line: int = 1) -> list[Token]:
    """Return the tokens of a script; raises `InputError` where a quote or brace never ends."""
    return _Scanner(text, file, line).all()


def quoted_word(text: str, file: str, line: int) -> Word:
    """Return text as the inside of double quotes: a here-document."""
    scanner = _Scanner(text, file, line)
    return tuple(scanner.inside_quotes(""))


def _closes_last(inside: str) -> bool:
    """Tell whether the bracket that a text begins with is closed by its last letter."""
    depth = 0
    for at, char in enumerate(inside):
        depth += (char == "(") - (char == ")")
        if not depth:
            return at == len(inside) - 1
    return False


def bare_word(text: str, file: str, line: int) -> Word:
    """Return text as one word whose blanks belong to it: the key of an array's element."""
    return tuple(_Scanner(text, file, line).value())


def arithmetic_names(text: str) -> str:
    """Return a sum without the dollars and braces of its variables."""
    return re.sub(r"\$(?:\{([A-Za-z_]\w*|\d+)\}|([A-Za-z_]\w*|\d+))", r"\1\2", text)


@dataclass(slots=True)
class _Scanner:
    text: str
    file: str
    line: int
    at: int = 0
    waiting: list[tuple[Token, str, bool]] = field(default_factory=list)
    depth: int = 0

    def all(self) -> list[Token]:
        found: list[Token] = []
        while True:
            token = self.next()
            if token is None:
                return found
            if token.op in ("<<", "<<-") and token.kind == "operator":
                self._here(token)
            found.append(token)

    def next(self) -> Token | None:
        """Return the next token, or None at the end."""
        self._blanks()
        if self.at >= len(self.text):
            return None
        char = self.text[self.at]
        if char == "\n":
            token = Token("newline", self.line)
            self.at, self.line = self.at + 1, self.line + 1
            self._bodies()
            return token
        if char in "<>" and self.text[self.at + 1 : self.at + 2] == "(":
            line, inside = self.line, self._balanced(self.at + 1)
            return Token("word", line, (Part("command", inside, line),))
        if self.text.startswith("((", self.at) and (sum_ := self._sum()):
            return sum_
        if found := _OPERATOR.match(self.text, self.at):
            self.at = found.end()
            return Token("operator", self.line, op=found[0], blank_after=self._at_blank())
        return self._word_token()

    def _sum(self) -> Token | None:
        """Read `(( sum ))` as text; None where the brackets are those of shells in shells."""
        at, line = self.at, self.line
        try:
            inside = self._balanced(self.at)
        except InputError:
            inside = ""
        if inside.endswith(")") and _closes_last(inside):
            return Token("sum", line, op="((", body=inside[1:-1], body_line=line)
        self.at, self.line = at, line
        return None

    def _at_blank(self) -> bool:
        return self.text[self.at : self.at + 1] in ("", " ", "\t", "\n", "\r")

    def _word_token(self) -> Token:
        line = self.line
        word = self._word(_INDEXED)
        last = word[-1] if word else None
        named = _ARRAY.match(last.text) if last and last.kind == "text" and len(word) == 1 else None
        if named and last and not last.quoted and self.text[self.at : self.at + 1] == "(":
            return Token("array", line, word, elements=self._elements())
        return Token("word", line, word, blank_after=self._at_blank())

    def _blanks(self) -> None:
        """Pass over blanks, joined lines and comments."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\r":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at, self.line = self.at + 2, self.line + 1
            elif self.text.startswith("\\\r\n", self.at):
                self.at, self.line = self.at + 3, self.line + 1
            elif char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def _elements(self) -> tuple[Word, ...]:
        """Read `( word ... )` after an array's name."""
        start = self.line
        words: list[Word] = []
        self.at += 1
        while True:
            self._blanks()
            if _KEYED.match(self.text, self.at):
                words.append(self._word(_KEYED))
                continue
            token = self.next()
            if token is None:
                raise broken(self.file, start, "an array that begins here never ends")
            if token.op == ")":
                return tuple(words)
            if token.kind == "word":
                words.append(token.word)

    def _word(self, indexed: re.Pattern[str] | None = None) -> Word:
        """Read a word; the key of an element that is set (`NAME[key]=`) stays as it stands."""
        parts: list[Part] = []
        if indexed and (key := indexed.match(self.text, self.at)):
            parts.append(Part("text", key[0], self.line))
            self.at = key.end()
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\r\n;&|<>()":
                break
            if char == "\\":
                parts += self._escape()
            elif char == "'":
                parts += self._single()
            elif char == '"':
                self.at += 1
                parts += self.inside_quotes('"')
                self.at += 1
            elif self.text.startswith("$'", self.at):
                parts.append(self._escaped())
            elif self.text.startswith('$"', self.at):
                self.at += 1  # a text that is translated: here it is itself
            elif char in "$`":
                parts.append(self._dollar(quoted=False))
            else:
                found = _PLAIN.match(self.text, self.at)
                chunk = found[0] if found else char
                parts.append(Part("text", chunk, self.line))
                self.at += len(chunk)
        return _joined(parts)

    def _escape(self) -> list[Part]:
        follows = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if follows == "\n":
            self.line += 1
            return []
        return [Part("text", follows, self.line, True)]

    def _single(self) -> list[Part]:
        end, start = self.text.find("'", self.at + 1), self.line
        if end < 0:
            raise broken(self.file, start, "a quote ' that begins here never ends")
        inside = self.text[self.at + 1 : end]
        self.at, self.line = end + 1, self.line + inside.count("\n")
        return [Part("text", row, start + i, True)
                for i, row in enumerate(inside.splitlines(keepends=True) or [""])]  # fmt: skip

    def _escaped(self) -> Part:
        """Read `$'...'`, where a backslash writes a letter that has none of its own."""
        found = _ESCAPED.match(self.text, self.at)
        if not found:
            raise broken(self.file, self.line, "a quote $' that begins here never ends")
        line, self.at = self.line, found.end()
        self.line += found[0].count("\n")
        text = re.sub(r"\\(.)", lambda m: _LETTERS.get(m[1], m[1]), found[1], flags=re.S)
        return Part("text", text, line, True)

    def inside_quotes(self, end: str) -> list[Part]:
        """Read to the closing quote, or to the end of the text where there is none."""
        parts: list[Part] = [Part("text", "", self.line, True)]
        start = self.line
        while True:
            if self.at >= len(self.text):
                if end:
                    raise broken(self.file, start, f"a quote {end} that begins here never ends")
                return parts
            char = self.text[self.at]
            if char == '"' and end:
                return parts
            if char == "\\":
                parts += self._escape_in_quotes()
            elif char in "$`":
                parts.append(self._dollar(quoted=True))
            elif char in '\n"':
                parts.append(Part("text", char, self.line, True))
                self.at, self.line = self.at + 1, self.line + (char == "\n")
            else:
                found = _IN_QUOTES.match(self.text, self.at)
                chunk = found[0] if found else char
                parts.append(Part("text", chunk, self.line, True))
                self.at += len(chunk)

    def _escape_in_quotes(self) -> list[Part]:
        follows = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if follows == "\n":
            self.line += 1
            return []
        return [Part("text", follows if follows in '$`"\\' else f"\\{follows}", self.line, True)]

    def _dollar(self, *, quoted: bool) -> Part:
        line, text = self.line, self.text
        if text[self.at] == "`":
            end = text.find("`", self.at + 1)
            if end < 0:
                raise broken(self.file, line, "a quote ` that begins here never ends")
            inside = text[self.at + 1 : end]
            self.at, self.line = end + 1, line + inside.count("\n")
            return Part("command", inside, line, quoted)
        if text.startswith("$((", self.at):
            inside = self._balanced(self.at + 1)
            if inside.endswith(")"):
                return Part("sum", inside[1:-1], line, quoted)
            return Part("command", inside, line, quoted)
        if text.startswith("$(", self.at):
            return Part("command", self._balanced(self.at + 1), line, quoted)
        if text.startswith("$[", self.at):
            return Part("sum", self._balanced(self.at + 1, "[", "]"), line, quoted)
        if text.startswith("${", self.at):
            return self._braces(line, quoted=quoted)
        name = _NAME.match(text, self.at + 1)
        if not name:
            self.at += 1
            return Part("text", "$", line, quoted)
        self.at = name.end()
        return Part("variable", name[0], line, quoted)

    def _braces(self, line: int, *, quoted: bool) -> Part:
        inside = self._balanced(self.at + 1, "{", "}")
        found = _BRACES.match(inside)
        if not found:
            return Part("command", inside, line, quoted)  # no form that is known: never guessed
        rest = inside[found.end() :]
        op = re.match(r":[-=+?]|[-=+?]|##?|%%?|//?|\^\^?|,,?|:|@", rest)
        word: Word = ()
        if op:
            self.depth += 1
            if self.depth > _NEST:
                raise broken(self.file, line, "is nested too deeply")
            inner = _Scanner(rest[op.end() :], self.file, line, depth=self.depth)
            word = tuple(p._replace(quoted=quoted or p.quoted) for p in inner.value())
            self.depth -= 1
        elif rest:
            return Part("command", inside, line, quoted)
        return Part("variable", found[2], line, quoted, found[3] or "", op[0] if op else "", word,
                    found[1])  # fmt: skip

    def value(self) -> list[Part]:
        """Read all of the text as the word after an operator in `${ }`: blanks belong to it."""
        parts: list[Part] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                parts += self.inside_quotes('"')
                self.at += 1
            elif char in "$`":
                parts.append(self._dollar(quoted=False))
            elif char == "'":
                parts += self._single()
            elif char == "\\":
                parts += self._escape()
            else:
                parts.append(Part("text", char, self.line))
                self.at, self.line = self.at + 1, self.line + (char == "\n")
        return list(_joined(parts))

    def _balanced(self, start: int, opens: str = "(", closes: str = ")") -> str:
        """Return what stands between brackets, and pass over it; quotes hide brackets."""
        depth, at, text, begun = 0, start, self.text, self.line
        while at < len(text):
            char = text[at]
            if char == "\\":
                at += 1
            elif char == "'" and opens == "(":
                at = text.find("'", at + 1)
                at = len(text) if at < 0 else at
            elif char == opens:
                depth += 1
            elif char == closes:
                depth -= 1
                if not depth:
                    inside = text[start + 1 : at]
                    self.at, self.line = at + 1, self.line + inside.count("\n")
                    return inside
            at += 1
        raise broken(self.file, begun, f"a {opens} that begins here never ends")

    def _here(self, token: Token) -> None:
        """Remember that the lines after this one are a here-document."""
        self._blanks()
        word = self._word()
        end = "".join(part.text for part in word)
        token.expands = not any(part.quoted for part in word)
        self.waiting.append((token, end, token.op == "<<-"))

    def _bodies(self) -> None:
        for token, end, tabs in self.waiting:
            lines, token.body_line = [], self.line
            while self.at < len(self.text):
                stop = self.text.find("\n", self.at)
                stop = len(self.text) if stop < 0 else stop
                row = self.text[self.at : stop]
                self.at, self.line = stop + 1, self.line + 1
                row = row.lstrip("\t") if tabs else row
                if row.rstrip("\r") == end:
                    break
                lines.append(row)
            token.body = "\n".join(lines)
        self.waiting.clear()


def _joined(parts: list[Part]) -> Word:
    """Join neighbouring texts of a line that are quoted alike."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if (last and last.kind == part.kind == "text" and last.quoted == part.quoted
                and last.line == part.line):  # fmt: skip
            joined[-1] = last._replace(text=last.text + part.text)
        else:
            joined.append(part)
    return tuple(joined)
