"""Kinds of input of pages: results that a report lays out, and requests to the page that is served.

A request goes through the whole server in this process: guard, routes, forms and what answers; only the
worker processes are left out, and the files that these may read are bounded as there.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from ersatz.device_models.shipped import DATA, SCENARIOS
from ersatz.device_models.text import files as reading
from ersatz.sim.answers.buy import buy
from ersatz.sim.answers.cases import compare, run
from ersatz.sim.answers.legal import legal
from ersatz.sim.answers.plan import plan
from ersatz.sim.answers.schedule import schedule
from ersatz.sim.report.artefacts import write_artefacts
from ersatz.sim.report.json_out import plain
from ersatz.sim.serve.app import make_app
from ersatz.sim.serve.asks import answered
from ersatz.sim.serve.forms import FORMS, RUNS, Field

from . import launches, seeds, trainings
from .judge import NONSENSE, PYTHON, Input, html_fault
from .mutate import mutated, mutated_bytes, to_json
from .orders import maybe, setting, word
from .words import NUMBERS, TEXTS

# -- results ---------------------------------------------------------------------------------------------

_ANSWERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "run": (trainings.SHARES, lambda path: run(path)),
    "compare": (seeds.RUN, lambda path: compare(path)),
    "plan": (trainings.PLAN, lambda path: plan(path)),
    "buy": (seeds.STOCKPILE, lambda path: buy(path)),
    "purchase": (seeds.BUY, lambda path: buy(path)),
    "options": (seeds.OPTIONS, lambda path: buy(path)),
    "legal": ("", lambda _: legal("h20", "ascend-910b2", dates="2025-04-15")),
    "schedule": (seeds.FLEET, lambda path: schedule(path, ["fifo", "easy"], {"draws": 1})),
}
NAMES = {"run": "result", "compare": "result", "purchase": "buy", "options": "buy"}  # of its record


@cache
def results(kind: str) -> Mapping[str, bytes]:
    """Return the folder that a small run writes: its record, its pictures, its manifest."""
    text, ask = _ANSWERS[kind]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "question.yaml"
        file.write_text(text, "utf-8")
        answer = ask(str(file))
        verb, record = answer.verb, plain(answer.to_dict())
        small = {n: t for n, t in {**answer.pictures(), **answer.files()}.items() if len(t) < 6000}
        made = {**dict(list(small.items())[:4]), "report.txt": str(answer)[:2000],
                f"{NAMES.get(kind, kind)}.json": to_json(record)}  # fmt: skip
        write_artefacts(Path(place) / "o", verb, ["question.yaml"], made)
        return {path.name: path.read_bytes() for path in sorted((Path(place) / "o").iterdir())}


def reported(rng: random.Random) -> Input:
    """A result, or a folder of one, changed before it is laid out."""
    kind = rng.choice(list(_ANSWERS))
    folder = results(kind)
    record = f"{NAMES.get(kind, kind)}.json"
    more = (*maybe(rng, 0.1, "--date", word(rng, ("2025-03-24", "2023-01-01"))),
            *maybe(rng, 0.1, "--to", word(rng, ("US", "China"))))  # fmt: skip
    where = rng.choice(
        (("--html", "@/o.html"), ("--html", "@/o.html"), ("--html", "@/o.html", "--json", "-"))
    )
    if rng.random() < 0.6:
        raw = _changed(folder[record], rng)
        return Input("report", {"itself.json": raw}, ("report", "@/itself.json", *more, *where))
    name = rng.choice([record, "manifest.json", *(n for n in folder if n.endswith(".svg"))])
    files = {f"folder/{key}": raw for key, raw in folder.items()}
    raw = files[f"folder/{name}"]
    files[f"folder/{name}"] = _changed(raw, rng) if name.endswith(".json") else _drawn_on(raw, rng)
    return Input("report", files, ("report", "@/folder", *more, *where))


def _changed(raw: bytes, rng: random.Random) -> bytes:
    tree = json.loads(raw)
    new = to_json(mutated(tree, [tree], rng))
    return mutated_bytes(new, rng) if rng.random() < 0.05 else new


SVG_PARTS = (b"<script>x</script>", b'<image href="http://x/"/>', b"<!DOCTYPE x>", b"<!ENTITY a 'b'>", b"&a;",
             b' onload="x"', b' style="x"', b"<x-mark/>", b"url(http://x)", b"<foreignObject/>",
             b"<a href='x'>", b"<g>" * 2000, b"]]>", b'<rect width="1e999"/>', b"<style>x</style>",
             b"&#0;", b"&#27;")  # fmt: skip


def _drawn_on(raw: bytes, rng: random.Random) -> bytes:
    """Put a foreign part into a picture, at the end of a tag or within one."""
    ends = [m.start() for m in re.finditer(rb"[<>\"]", raw)] or [0]
    at = rng.choice(ends) + rng.choice((0, 1))
    if rng.random() < 0.3:
        return mutated_bytes(raw, rng)
    return raw[:at] + rng.choice(SVG_PARTS) + raw[at:]


# -- requests --------------------------------------------------------------------------------------------

LONG = ("plan", "buy", "fleet", "compare")
LIGHT = (
    "small-llama-cpu",
    "ling-lite-ppu",
    "qwen2.5-72b-16x80",
    "mixed-h800-910b",
    "llama3-70b-mi300x",
)
LINES = ("draws=1", "training.tokens=1 T tokens", "model=llama3-8b", "cost.currency=USD", "parallel.tp=4",
         "cluster.nodes=2", "training.phases=[{steps: 10}, {steps: 10, global_batch: 2048}]", "a=b", "=", "x",
         "stack=../../../../etc/passwd", "model=/etc/hostname", "model={name: <b>, layers: 1}", "cases={}",
         "question=<script>alert(1)</script>", "policies=[fifo]", "parallel=null",
         "training.recipe=mxfp8")  # fmt: skip


def _chosen(field: Field, rng: random.Random) -> str:
    """Return what a browser sends for a field, or what only another program does."""
    if rng.random() < 0.07:
        return str(rng.choice((rng.choice(TEXTS), rng.choice(NUMBERS))))
    if field.kind == "choice":
        return rng.choice(("", *field.choices()))
    if field.kind == "several":
        found = list(field.choices())
        return ",".join(rng.choice(found) for _ in range(rng.choice((0, 1, 2, 3))))
    if field.kind in ("number", "range"):
        return rng.choice(
            ("1", "2", "4", "8", "64", "0.5", str(field.ends[1]), f"{field.ends[0]:g}")
        )
    if field.kind == "date":
        return rng.choice(
            ("2025-03-24", "2023-10-17", "2099-01-01", "0001-01-01", "9999-12-31", "20250324")
        )
    if field.kind == "file":
        return _pasted(rng)
    if field.kind == "lines":
        return "\n".join(
            rng.choice((rng.choice(LINES), setting(rng))) for _ in range(rng.choice((1, 1, 2)))
        )
    return rng.choice(
        ("8", "16,32", "512", "x.sh", "run.yaml", "c.json", "../x.sh", "", "a.toml", "run.log")
    )


def _pasted(rng: random.Random) -> str:
    text = rng.choice((launches.SCRIPT, launches.TITAN, launches.MEGATRON_LOG, seeds.NAMED, trainings.PHASES,
                       json.dumps(launches.DEEPSPEED), launches.PRIMUS))  # fmt: skip
    raw = mutated_bytes(text.encode(), rng) if rng.random() < 0.5 else text.encode()
    return raw.decode("utf-8", "replace")


def served(rng: random.Random) -> Input:
    """A request to the served page: mostly an answer asked for, now and then anything."""
    page = rng.choice(("what-if", "what-if", "what-if", "own", "own", "law", "law", *LONG))
    form = FORMS[page]
    body: Any = {f.name: _chosen(f, rng) for f in form.fields if rng.random() < 0.35}
    if (
        page in ("what-if", "plan")
        and body.get("scenario") not in (None, *LIGHT)
        and rng.random() < 0.9
    ):
        body["scenario"] = rng.choice(LIGHT)
    if page == "plan":
        body.pop("by", None)  # any number of devices: longer than an input may take here
    if page == "compare":
        body |= {"one": rng.choice(LIGHT), "other": rng.choice(LIGHT)}
    if page == "own":
        names = ("pretrain.sh", "x.yaml", "train.toml", "ds.json", "run.log")
        body |= {"text": _pasted(rng), "file": word(rng, names, 0.1), "node": "h800-8"}
    if rng.random() < 0.05:
        body = mutated(body, [body], rng)
    way = rng.choice(("/answer", "/answer", "/saved")) if rng.random() < 0.92 else ""
    request = {"method": "POST" if way else "GET", "path": f"{way}/{page}", "query": "exact=1", "headers": {},
               "body": to_json(body).decode()}  # fmt: skip
    if not way:
        found = body if isinstance(body, dict) else {}
        request["query"] = urlencode({k: str(v) for k, v in found.items()}, errors="replace")
    if rng.random() < 0.08:
        request = mutated(request, [request], rng)
    raw = to_json(request)
    return Input("serve", {"itself.json": raw}, call=requested)


class _Here:
    """Answers in this process what the worker processes answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.busy = lambda: False

    async def answer(self, page: str, values: Mapping[str, str], *, exact: bool) -> str:
        """Return an answer as HTML."""
        usual, reading._only = reading._only, ()
        try:
            reading.confine([self.folder, DATA, SCENARIOS])
            return answered(page, values, exact, str(self.folder))
        finally:
            reading._only = usual

    def cancel(self) -> None:
        """Nothing is under way."""


def requested(folder: Path) -> None:
    """Send a request; what comes back must be sound, tell no traceback, nor where files lie."""
    try:
        request = json.loads((folder / "itself.json").read_text("utf-8"))
    except RecursionError:  # deeper than Python reads: no request of ours to send
        return
    if not isinstance(request, dict):
        return
    with tempfile.TemporaryDirectory(dir=folder / "folder") as place:
        site = SimpleNamespace(token="token", folder=Path(place), workers=_Here(Path(place)),
                               hosts=lambda: frozenset({"127.0.0.1:8000"}))  # fmt: skip
        status, text = _asked(make_app(site), request)
        assert status in range(200, 500), status
        said = re.sub(
            r"<pre>.*?</pre>|<textarea.*?</textarea>|value=\"[^\"]*\"", "", text, flags=re.S
        )
        given = str(request.get("body", ""))
        if (match := PYTHON.search(said)) and match[0] not in given:
            raise AssertionError(f"{match[0]}: {said[max(match.start() - 200, 0) :][:400]}")
        assert place not in text, "tells where it works"
        assert not (fault := html_fault(text)), fault
        bare = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", said, flags=re.S)
        if (match := NONSENSE.search(bare)) and match[0].lower() not in given.lower():
            raise AssertionError(f"nonsense: {bare[max(match.start() - 200, 0) :][:400]}")


def _asked(app: Any, request: Mapping[str, Any]) -> tuple[int, str]:
    """Ask the application as a server would."""
    headers = request.get("headers")
    given = {"host": "127.0.0.1:8000", **(headers if isinstance(headers, dict) else {})}
    path = f"/token{request.get('path', '')}".encode("utf-8", "replace").decode()
    scope = {"type": "http", "method": str(request.get("method", "")), "path": path, "root_path": "",
             "raw_path": path.encode(), "scheme": "http", "http_version": "1.1",
             "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
             "query_string": str(request.get("query", "")).encode("utf-8", "replace"),
             "headers": [(str(k).lower().encode("latin-1", "replace"), str(v).encode("latin-1", "replace"))
                         for k, v in given.items()]}  # fmt: skip
    sent: list[dict[str, Any]] = []
    body = [str(request.get("body", "")).encode("utf-8", "replace")]

    async def receive() -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode()


KINDS = {"report": reported, "serve": served}
CALLS = {"serve": requested}
WEIGHTS = {"serve": 2}
assert set(LIGHT) <= set(RUNS())
