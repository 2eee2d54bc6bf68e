"""The commands of a script as a tree: simple commands, branches, loops, functions.

Only the shape is read; what a command would do is the business of `machine`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ersatz.sim.importing.shell.pieces import broken
from ersatz.sim.importing.shell.scan import Token, Word, tokens

MOST_NESTED = 60
_ASSIGN = re.compile(r"([A-Za-z_]\w*)(?:\[([^\n]*?)\])?(\+?)=")
_REDIRECTS = {"<", ">", ">>", "<<", "<<-", "<<<", ">&", "<&", "&>", "&>>", ">|"}
_ENDS = {";", "&", "newline"}
_STOPS = frozenset(
    {"then", "else", "elif", "fi", "do", "done", "esac", ";;", ";&", ";;&", "}", ")"}
)


@dataclass(frozen=True, slots=True)
class Assign:
    """`NAME=value`, `NAME+=value`, `NAME=( ... )`, `NAME[i]=value` (then `index`)."""

    name: str
    adds: bool
    line: int
    word: Word = ()
    elements: tuple[Word, ...] | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Simple:
    """Assignments before a command, its words and what it reads from here-documents."""

    line: int
    assigns: tuple[Assign, ...]
    words: tuple[Word, ...]
    here: tuple[Token, ...] = ()
    writes: Word = ()  # the file that it writes
    adds: bool = False  # to its end
    reads: Word | None = None  # the text of `<<<`


@dataclass(frozen=True, slots=True)
class Test:
    """`[[ ... ]]` by its words, or `(( ... ))` as text."""

    line: int
    words: tuple[Token, ...] = ()
    sum: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """Commands joined by `&&`, `||`, `|`; `!` turns the first round."""

    line: int
    items: tuple[tuple[str, Node], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class If:
    """Branches, each with its condition; the last may have none."""

    line: int
    branches: tuple[tuple[Block, Block], ...]
    otherwise: Block


@dataclass(frozen=True, slots=True)
class Loop:
    """`for NAME in words`, or `while condition` (`until`: negated); `after` is a counted one's step."""

    line: int
    name: str
    words: tuple[Word, ...] | None
    body: Block
    condition: Block = ()
    negated: bool = False
    after: Block = ()


@dataclass(frozen=True, slots=True)
class Case:
    """`case word in patterns) ... esac`; `ends` are what ends each branch: `;;`, `;&` or `;;&`."""

    line: int
    word: Word
    branches: tuple[tuple[tuple[Word, ...], Block], ...]
    ends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its body is looked at where it is called."""

    line: int
    name: str
    body: Block


@dataclass(frozen=True, slots=True)
class Group:
    """Commands in braces or, `apart`, in a shell of their own."""

    line: int
    body: Block
    apart: bool


Node = Simple | Test | Chain | If | Loop | Case | Function | Group
Block = tuple[Node, ...]


def parse(text: str, file: str, line: int = 1) -> Block:
    """Return the commands of a script; raises `InputError` where it is none."""
    parser = _Parser(tokens(text, file, line), file)
    block = parser.block(())
    if parser.token:
        raise broken(file, parser.token.line, f"unexpected {parser.token.reserved or 'word'!r}")
    return block


class _Parser:
    def __init__(self, found: Sequence[Token], file: str) -> None:
        self.tokens, self.file, self.at, self.depth = found, file, 0, 0
        # What each token is as a word of the shell; an empty text where it is none, and at the end.
        words = ("newline" if t.kind == "newline" else t.reserved for t in found)
        self.words = [*words, ""]

    @property
    def token(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    @property
    def word(self) -> str:
        """The next token where it may be a word of the shell."""
        return self.words[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, *words: str) -> None:
        if self.word not in words:
            line = self.tokens[-1].line if self.token is None else self.token.line
            raise broken(self.file, line, f"expected {' or '.join(words)} before this line ends")
        self.at += 1

    def skip(self, *words: str) -> None:
        while self.token and self.word in words:
            self.at += 1

    def block(self, stops: Collection[str]) -> Block:
        """Read commands up to one of the words in `stops`, or to the end."""
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise broken(self.file, self.token.line if self.token else 0, "is nested too deeply")
        found: list[Node] = []
        while True:
            self.skip("newline", ";", "&")
            if self.token is None or self.word in stops:
                self.depth -= 1
                return tuple(found)
            if self.word in _STOPS:
                raise broken(self.file, self.token.line, f"unexpected {self.word!r}")
            node = self.chain()
            # what runs in the background is a shell of its own
            found.append(Group(node.line, (node,), True) if self.word == "&" else node)

    def chain(self) -> Node:
        line = self.token.line if self.token else 0
        negated = self.word == "!"
        if negated:
            self.take()
        items: list[tuple[str, Node]] = [("", self.command())]
        while self.word in ("&&", "||", "|", "|&"):
            op = self.take().op
            self.skip("newline")
            items.append((op.rstrip("&") if op == "|&" else op, self.command()))
        return (
            items[0][1] if len(items) == 1 and not negated else Chain(line, tuple(items), negated)
        )

    def command(self) -> Node:
        word, token = self.word, self.token
        if token is None:
            raise broken(self.file, self.tokens[-1].line if self.tokens else 0, "ends too early")
        makers = {"if": self.branch, "for": self.loop, "while": self.turns, "until": self.turns,
                  "select": self.loop, "case": self.case, "function": self.function}  # fmt: skip
        if word in makers:
            return makers[word]()
        if token.op == "((":
            self.take()
            return Test(token.line, sum=token.body)
        if word == "{" or token.op == "(":
            return self.group()
        if word == "[[":
            return self.test()
        if token.plain and self._is_function():
            name = self.take().plain
            self.at += 2
            return self._body(token.line, name)
        return self.simple()

    def _is_function(self) -> bool:
        after = [t.op for t in self.tokens[self.at + 1 : self.at + 3]]
        return after == ["(", ")"]

    def function(self) -> Node:
        line = self.take().line
        name = self.take().plain if self.token else ""
        if self.word == "(":
            self.at += 2
        return self._body(line, name)

    def _body(self, line: int, name: str) -> Node:
        self.skip("newline")
        body = self.command()
        return Function(
            line, name, body.body if isinstance(body, Group) and not body.apart else (body,)
        )

    def group(self) -> Node:
        token = self.take()
        apart = token.op == "("
        end = ")" if apart else "}"
        body = self.block((end,))
        self.expect(end)
        self._redirects()
        return Group(token.line, body, apart)

    def test(self) -> Test:
        line, words = self.take().line, []
        while self.word != "]]":
            if self.token is None:
                raise broken(self.file, line, "[[ that begins here never ends")
            token = self.take()
            if token.kind != "newline":
                words.append(token)
        self.take()
        return Test(line, tuple(words))

    def branch(self) -> Node:
        line, branches = self.take().line, []
        while True:
            condition = self.block(("then",))
            self.expect("then")
            branches.append((condition, self.block(("elif", "else", "fi"))))
            if self.word != "elif":
                break
            self.take()
        otherwise: Block = ()
        if self.word == "else":
            self.take()
            otherwise = self.block(("fi",))
        self.expect("fi")
        self._redirects()
        return If(line, tuple(branches), otherwise)

    def loop(self) -> Node:
        line = self.take().line
        if self.token and self.token.op == "((":
            return self._counted(line, self.take().body)
        name = self.take().plain if self.token else ""
        words: list[Word] = []
        if self.word == "in":
            self.take()
            while self.token and self.token.kind == "word":
                words.append(self.take().word)
        return Loop(line, name, tuple(words), self._done())

    def _counted(self, line: int, text: str) -> Node:
        """`for ((start; condition; step))`: none of the three need be there."""
        start, condition, step = (*text.split(";"), "", "")[:3]
        if text.count(";") != 2:
            raise broken(self.file, line, "expected: for ((start; condition; step))")
        turns = (Test(line, sum=condition.strip() or "1"),)
        after = (Test(line, sum=step),) if step.strip() else ()
        loop = Loop(line, "", None, self._done(), turns, after=after)
        return Group(line, (Test(line, sum=start.strip() or "1"), loop), False)

    def turns(self) -> Node:
        token = self.take()
        condition = self.block(("do",))
        return Loop(token.line, "", None, self._done(), condition, token.plain == "until")

    def _done(self) -> Block:
        self.skip(";", "newline")
        self.expect("do")
        body = self.block(("done",))
        self.expect("done")
        self._redirects()
        return body

    def case(self) -> Node:
        line = self.take().line
        if not (self.token and self.token.kind == "word"):
            raise broken(self.file, line, "expected: case WORD in")
        word = self.take().word
        self.skip("newline")
        self.expect("in")
        branches, ends = [], []
        while True:
            self.skip("newline", ";;", ";&", ";;&")
            if self.word == "esac" or self.token is None:
                break
            branches.append(self._pattern())
            ends.append(self.word)
        self.expect("esac")
        return Case(line, word, tuple(branches), tuple(ends))

    def _pattern(self) -> tuple[tuple[Word, ...], Block]:
        if self.token and self.token.op == "(":
            self.take()
        patterns = []
        while self.token and self.token.op != ")":
            token = self.take()
            if token.kind == "word":
                patterns.append(token.word)
        self.expect(")")
        return tuple(patterns), self.block((";;", ";&", ";;&", "esac"))

    def simple(self) -> Node:
        line = self.token.line if self.token else 0
        assigns: list[Assign] = []
        words: list[Word] = []
        here: list[Token] = []
        writes: Word = ()
        reads: Word | None = None
        adds = False
        while token := self.token:
            if token.kind in ("newline", "sum") or (
                token.kind == "operator" and token.op not in _REDIRECTS
            ):
                break
            self.take()
            if self._is_descriptor(token):
                continue  # `2>&1`: the number belongs to the redirection
            if token.kind == "operator":
                target = self._redirect(token, here)
                if token.op == "<<<":
                    reads = target
                elif target:
                    writes, adds = target, token.op == ">>"
            elif token.kind == "array" or (not words and _assigns(token)):
                assigns.append(_assign(token))
            else:
                words.append(token.word)
        if token and token.op == "(" and words:
            raise broken(self.file, token.line, "unexpected '('")
        return Simple(line, tuple(assigns), tuple(words), tuple(here), writes, adds, reads)

    def _is_descriptor(self, token: Token) -> bool:
        number = token.reserved.isdigit() and token.kind == "word" and not token.blank_after
        return bool(number and self.token and self.token.op in _REDIRECTS)

    def _redirect(self, token: Token, here: list[Token]) -> Word:
        if token.op in ("<<", "<<-"):
            here.append(token)
            return ()
        target = self.take().word if self.token and self.token.kind == "word" else ()
        return target if token.op in (">", ">>", ">|", "<<<") else ()

    def _redirects(self) -> None:
        while self.token and self.token.op in _REDIRECTS:
            self._redirect(self.take(), [])


def _assigns(token: Token) -> bool:
    """Tell whether a word is `NAME=...`."""
    first = token.word[0] if token.word else None
    if first is None or first.kind != "text" or first.quoted:
        return False
    return bool(_ASSIGN.match(first.text))


def word_assign(word: Word, line: int) -> Assign | None:
    """Return the assignment that a word of `export` or `local` is, or None."""
    token = Token("word", line, word)
    return _assign(token) if _assigns(token) else None


def _assign(token: Token) -> Assign:
    first = token.word[0]
    found = _ASSIGN.match(first.text)
    name, index, plus = (found[1], found[2], found[3]) if found else (first.text, None, "")
    if token.kind == "array":
        return Assign(name, bool(plus), token.line, elements=token.elements)
    rest = first.text[found.end() :] if found else ""
    word = (first._replace(text=rest), *token.word[1:])
    return Assign(name, bool(plus), token.line, word, index=index)
