"""What `--out` and `--json` write: names that stay inside, runs that are whole, strangers left alone."""

import hashlib
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import ersatz

from ersatz.sim.report.artefacts import (
    MANIFEST,
    READY,
    ForeignFileError,
    safe_names,
    write_artefacts,
)

RAMP = """question: x
ramp: {production: ascend-910c, until: 2027-12}
cases: {"../ESC": {}, "ABS": {ramp: {level: low}}, "tp8/pp4": {}, "tp8-pp4": {}}
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}


@given(st.lists(st.text(max_size=300), max_size=8, unique=True))
def test_safe_names_stay_inside_and_are_never_alike(wanted: list[str]) -> None:
    names = list(safe_names(wanted).values())
    assert len({name.casefold() for name in names} | {MANIFEST}) == len(wanted) + 1
    for name in names:
        assert Path("o", name).resolve().parent == Path("o").resolve()
        assert not name.startswith((".", "-"))
        assert 0 < len(os.fsencode(name)) <= 255


def test_case_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    absolute = f"{tmp_path}/abs/ABS"
    (tmp_path / "r.yaml").write_text(RAMP.replace('"ABS"', f'"{absolute}"'))
    done = ersatz("buy", "r.yaml", "--out", "results", cwd=tmp_path)
    if done.returncode == 2:  # the reader refuses such names: then nothing may have been written
        assert not (tmp_path / "results").exists()
        return
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"r.yaml", "results"}
    names = set(files_of(tmp_path / "results"))
    assert {"ESC-ramp.svg", "tp8-pp4-ramp.svg", "tp8-pp4-ramp-2.svg"} <= names


def test_the_manifest_says_what_was_asked_and_what_is_there(tmp_path: Path) -> None:
    write_artefacts(tmp_path / "o", "buy", ["x.yaml", "--seed", "3"], {"a/b.svg": "<svg/>"})
    told = json.loads((tmp_path / "o" / MANIFEST).read_text())
    digest = hashlib.sha256(b"<svg/>").hexdigest()
    assert (told["verb"], told["arguments"]) == ("buy", ["x.yaml", "--seed", "3"])
    assert told["files"] == [{"name": "a-b.svg", "of": "a/b.svg", "bytes": 6, "sha256": digest}]


def test_a_page_may_lie_in_the_folder_that_the_same_run_makes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "o"
    for _ in range(2):  # the second finds the first's page and leaves nothing else
        done = ersatz("legal", "h20", "--date", "2025-03-24", "--out", str(out), "--html",
                      str(out / "memo.html"), "--json", str(out / "x.json"))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {"memo.html", "x.json", "manifest.json"} <= {p.name for p in out.iterdir()}


def test_stale_files_go_and_strangers_stay(tmp_path: Path) -> None:
    write_artefacts(tmp_path, "run", [], {"a": "1", "b": "2", "c": "3"})
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "c").write_text("changed by hand")
    write_artefacts(tmp_path, "run", [], {"a": "4"})
    assert files_of(tmp_path) == {"a": b"4", "c": b"changed by hand", "mine.txt": b"mine"}


@pytest.mark.parametrize("stranger", ["text", "link", "folder", "manifest"])
def test_what_ersatz_did_not_write_is_never_overwritten(tmp_path: Path, stranger: str) -> None:
    out, other = tmp_path / "o", tmp_path / "other"
    out.mkdir()
    other.write_text("other")
    place = out / (MANIFEST if stranger == "manifest" else "report.txt")
    if stranger == "link":
        place.symlink_to(other)
    elif stranger == "folder":
        place.mkdir()
    else:
        place.write_text("mine")
    with pytest.raises(ForeignFileError, match="not written by ersatz"):
        write_artefacts(out, "run", [], {"report.txt": "new", "result.json": "{}"})
    assert [p.name for p in out.iterdir()] == [place.name]
    assert other.read_text() == "other"
    assert stranger in ("link", "folder") or place.read_text() == "mine"


def test_a_manifest_cannot_name_files_outside(tmp_path: Path) -> None:
    out, victim = tmp_path / "o", tmp_path / "victim"
    victim.write_text("v")
    write_artefacts(out, "run", [], {"a": "1"})
    told = json.loads((out / MANIFEST).read_text())
    digest = hashlib.sha256(b"v").hexdigest()
    for name in ("../victim", str(victim)):
        told["files"].append({"name": name, "bytes": 1, "sha256": digest})
    (out / MANIFEST).write_text(json.dumps(told))
    write_artefacts(out, "run", [], {"b": "2"})
    assert victim.read_text() == "v"


def test_a_failing_write_leaves_the_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artefacts(tmp_path, "run", [], {"a": "old", "b": "old"})
    before = files_of(tmp_path)
    calls = iter(range(9))

    def full(_: int) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KeyboardInterrupt):
        write_artefacts(tmp_path, "run", [], {"a": "new", "b": "new"})
    assert files_of(tmp_path) == before


def test_a_run_killed_while_files_take_their_places_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artefacts(tmp_path, "run", ["one"], {"a": "1", "stale": "1"})
    moved, real = [], Path.replace

    def killed(self: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt  # as good as a kill: nothing tidies up
        moved.append(self)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_artefacts(tmp_path, "run", ["two"], {"a": "2", "b": "2"})
    assert (tmp_path / READY).is_dir()
    write_artefacts(tmp_path, "run", ["three"], {"a": "3"})
    assert files_of(tmp_path) == {"a": b"3"}


def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    def write(word: str) -> None:
        for _ in range(10):
            write_artefacts(tmp_path, "run", [word], {f"{i}": word for i in range(6)})

    threads = [threading.Thread(target=write, args=(word,)) for word in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(files_of(tmp_path).values())) == 1


def test_json_never_overwrites_what_the_run_was_made_from(tmp_path: Path) -> None:
    node = tmp_path / "mine.yaml"
    node.write_text("based_on: h100\ntitle: Mine\n")
    done = ersatz("devices", str(node), "--json", str(node))
    assert done.returncode == 2
    assert "the run was made from it" in done.stderr
    assert "Mine" in done.stdout
    assert node.read_text().startswith("based_on")


def test_json_replaces_json_alone_and_never_a_device(tmp_path: Path) -> None:
    notes, target = tmp_path / "notes.txt", tmp_path / "d.json"
    notes.write_text("mine")
    assert ersatz("devices", "h800", "--json", str(notes)).returncode == 2
    assert notes.read_text() == "mine"
    for _ in range(2):
        assert ersatz("devices", "h800", "--json", str(target)).returncode == 0
    assert json.loads(target.read_text())
    assert ersatz("devices", "h800", "--json", "/dev/null").returncode == 0
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_keeps_the_older_answer(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)],
                             capture_output=True, check=False)  # fmt: skip
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        first = ersatz("devices", "h800", "--json", str(disk / "d.json"))
        assert first.returncode == 0
        before = (disk / "d.json").read_bytes()
        done = ersatz("run", "ling-plus-substitution", "--out", str(disk / "o"), "--json",
                      str(disk / "d.json"))  # fmt: skip
        full = ersatz("devices", "--json", str(disk / "d.json"))
        statuses = {done.returncode, full.returncode}
        assert 3 in statuses
        assert "No space left on device" in done.stderr + full.stderr
        assert "What does it cost" in done.stdout
        left = [p.name for p in disk.rglob("*") if "ersatz" in p.name]
        assert left == []
        assert json.loads((disk / "d.json").read_bytes()) or before
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_scenario_is_copied_with_plain_line_ends(tmp_path: Path) -> None:
    """A carriage return is a line's end in YAML and a control character in what is written."""
    plain = Path(__file__).resolve().parents[1] / "scenarios" / "llama3-70b-mi300x.yaml"
    odd = tmp_path / "odd.yaml"
    odd.write_bytes(plain.read_bytes().replace(b"\n", b"\r"))
    assert ersatz("run", str(odd), "--out", str(tmp_path / "o")).returncode == 0
    assert (tmp_path / "o" / "scenario.yaml").read_bytes() == plain.read_bytes()
