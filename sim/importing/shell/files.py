"""The files that a script writes and then reads: here-documents, `echo >> FILE`, and who changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.sim.importing.shell.grammar import Simple
from ersatz.sim.importing.shell.pieces import Piece, Unknown, Value, text_of
from ersatz.sim.importing.shell.variables import Variables

_WRITERS = frozenset({"tee", "sed", "mv", "cp", "jq"})  # change files without a redirection


@dataclass(slots=True)
class Files(Variables):
    """Variables, and the texts of files that the script made."""

    def writes(self, name: str, fields: Sequence[Value], node: Simple) -> bool:
        """Note a file that a command writes; True where the command does nothing else."""
        words = [text_of(one) for one in fields[1:]]
        if node.writes:
            target = Path(text_of(self.expander.value(node.writes))).name
        elif name in _WRITERS:
            for one in words:
                self._changed(Path(one).name, name, node.line)
            target = Path(next((w for w in words if not w.startswith("-")), "")).name
        else:
            return False
        adds = node.adds or (name == "tee" and "-a" in words)
        if node.here and name in ("cat", "tee"):
            body = self.here(node)
        elif name == "echo" and node.writes:
            body = self._echoed(fields[1:], node.line)
        else:
            if node.writes:
                self._changed(target, name, node.line)
            return False
        before = self.state.written.get(target, ()) if adds else ()
        glue = (Piece("\n", node.line),) if before and not text_of(before).endswith("\n") else ()
        self.state.written[target] = (*before, *glue, *body)
        return True

    def _echoed(self, fields: Sequence[Value], line: int) -> Value:
        """Return what `echo` prints."""
        pieces: list[Piece] = []
        for field_ in fields:
            if text_of(field_) in ("-e", "-n", "-E"):
                continue
            pieces += [Piece(" ", line)] if pieces else []
            pieces += field_
        return (*pieces, Piece("\n", line))

    def _changed(self, name: str, by: str, line: int) -> None:
        """A file that the script wrote is changed by a command that is not run."""
        if name in self.state.written:
            reason = f"{name} is changed by {by} (line {line}), which is not run"
            self.state.written[name] = (Piece("", line, False, Unknown(reason, line)),)


_SHELLS = ("bash", "sh", "zsh", "ksh", "dash")
_AFAR = ("ssh", "pdsh", "clush")  # their last word is what the other machine does


def inner_script(fields: Sequence[Value]) -> tuple[Sequence[Value], Value] | None:
    """Return what starts another shell, and the commands for it: `srun bash -c "..."`, `ssh h "..."`."""
    names = [text_of(one).rsplit("/", 1)[-1] for one in fields]
    for i, name in enumerate(names):
        if name not in _SHELLS:
            continue
        for j in range(i + 1, len(names)):
            if not names[j].startswith(("-", "+")):
                break
            if "c" in names[j].lstrip("-") and not names[j].startswith("--") and j + 1 < len(names):
                return fields[:i], fields[j + 1]
    if names and names[0] in _AFAR and len(names) > 2 and " " in text_of(fields[-1]):
        return (), fields[-1]
    return None


def reads_commands(fields: Sequence[Value]) -> bool:
    """Tell whether a command does what its input says: `bash <<EOF`, `ssh host bash -s <<EOF`."""
    names = [text_of(one).rsplit("/", 1)[-1] for one in fields]
    shells = any(name in _SHELLS for name in names)
    scripts = any(name.endswith((".sh", ".py")) for name in names)
    return (shells or (bool(names) and names[0] in _AFAR)) and not scripts
