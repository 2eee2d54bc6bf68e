"""The page's server: who gets an answer, what a form lets through, and that nothing else is read."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ersatz
from ersatz.device_models.shipped import DATA, SCENARIOS
from ersatz.device_models.text import files
from ersatz.sim.errors import InputError
from ersatz.sim.serve import guard as guard_module
from ersatz.sim.serve.asks import answered, overrides
from ersatz.sim.serve.forms import FORMS, SHRINKS
from ersatz.sim.serve.guard import MOST_BODY, Guard
from ersatz.sim.serve.pages import page
from ersatz.sim.serve.telling import Telling, forgotten, heard, told

HOST = "127.0.0.1:8000"
Pieces = list[tuple[bytes, float]]  # of a body: bytes, and seconds before them


def asked(
    app: Any, path: str, *, method: str = "GET", headers: dict[str, str] | None = None,
    body: Pieces | None = None, query: str = "",
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    """Ask an application as a server would; returns status, headers and body."""
    given = {"host": HOST, **(headers or {})}
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "scheme": "http",
             "query_string": query.encode(), "root_path": "", "http_version": "1.1",
             "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
             "headers": [(k.encode(), v.encode()) for k, v in given.items()]}  # fmt: skip
    left = list(body or [(b"", 0.0)])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        piece, wait = left.pop(0)
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    text = b"".join(m.get("body", b"") for m in sent[1:])
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, text


async def inner(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Says what it was given."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret " + message["body"]})


GUARDED = Guard(inner, "token", lambda: frozenset({HOST, "localhost:8000"}))


def test_the_page_itself_gets_its_answer_and_headers_that_shut_others_out() -> None:
    status, headers, text = asked(
        GUARDED, "/token/what-if", headers={"origin": f"http://{HOST}"}, body=[(b"x", 0)]
    )
    assert (status, text) == (200, b"secret x")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"  # the token stays here
    assert not [key for key in headers if key.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        ("/token/what-if", {"host": "evil.example:8000"}, 421),  # DNS rebinding
        ("/token/what-if", {"host": "127.0.0.1:9"}, 421),
        ("/token/what-if", {"origin": "https://evil.example"}, 403),
        ("/token/what-if", {"origin": "null"}, 403),
        ("/token/what-if", {"sec-fetch-site": "cross-site"}, 403),
        ("/token/what-if", {"content-length": "100000000"}, 413),
        ("/token/what-if", {"content-length": "-1"}, 413),
        ("/what-if", {}, 404),
        ("/Token/what-if", {}, 404),
        ("/", {}, 404),
        ("//token/what-if", {}, 404),
        ("/../token/what-if", {}, 404),
    ],
)
def test_who_is_not_the_page_gets_nothing(path: str, change: dict[str, str], status: int) -> None:
    found, headers, text = asked(GUARDED, path, headers=change, body=[(b"x", 0)])
    assert (found, text) == (status, b"")
    assert headers["connection"] == "close"


def test_large_slow_and_strange_requests_end(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [(b"x" * 500_000, 0.0)] * (MOST_BODY // 500_000)
    assert asked(GUARDED, "/token/x", body=whole)[0] == 200
    assert (
        asked(GUARDED, "/token/x", body=[*whole, (b"x", 0.0)])[0] == 413
    )  # without saying so before
    monkeypatch.setattr(guard_module, "BODY_S", 0.05)
    assert asked(GUARDED, "/token/x", body=[(b"x", 0.02)] * 9)[0] == 408  # piece by piece
    assert asked(GUARDED, "/token/x", method="DELETE")[0] == 405
    assert asked(GUARDED, "/token/x", query="a" * 70_000)[0] == 414
    closed: list[Any] = []

    async def send(message: Any) -> None:
        closed.append(message)

    asyncio.run(GUARDED({"type": "websocket", "path": "/token/x", "headers": []}, inner, send))  # type: ignore[arg-type]
    assert closed == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("form", "given", "words"),
    [
        ("what-if", {"scenario": "/etc/passwd"}, "expected one of those listed"),
        ("what-if", {"node": "../../x.yaml"}, "expected one of those listed"),
        ("what-if", {"nodes": "0"}, "expected 1 to 2048"),
        ("what-if", {"nodes": "1e3"}, "expected 1 to 2048"),
        ("what-if", {"rent": "-3"}, "expected 0.01 to 1000"),
        ("what-if", {"date": "2025-02-30"}, "expected a day such as"),
        ("law", {"devices": "h20,mine"}, "of those listed"),
        ("own", {"text": "x" * 20_001}, "expected at most 20,000"),
    ],
)
def test_only_what_is_listed_comes_through(form: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FORMS[form].values(given)


def test_every_fault_of_a_form_is_told_at_once() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FORMS["what-if"].values({"nodes": "x", "date": "y", "set": "unknown=1"})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["Nodes", "Date"]


@pytest.mark.parametrize("name", FORMS)
def test_every_field_has_a_label_and_what_was_chosen(name: str) -> None:
    form = FORMS[name]
    text = page(
        form,
        {f.name: f.choices()[-1] for f in form.fields if f.kind == "choice"} | {"set": '<b>"&'},
    )
    for field in form.fields:
        assert f'<label for="f-{field.name}">' in text
        assert text.count(f'id="f-{field.name}"') == 1
        if field.kind == "choice":
            assert f"<option selected>{field.choices()[-1]}</option>" in text
            assert field.default in ("", *field.choices())
    if any(field.name == "set" for field in form.fields):
        assert "&lt;b&gt;&quot;&amp;" in text
    assert '<b>"' not in text
    assert not re.search(r"(src|href)=\"https?:", text)
    assert 'aria-live="polite"' in text


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[Path]:
    """A worker's view: what is shipped, and a folder of its own."""
    files.confine([tmp_path, DATA, SCENARIOS])
    yield tmp_path
    files._only = ()


def say(form: str, folder: Path, *, exact: bool = True, **given: str) -> str:
    return answered(form, FORMS[form].values(given), exact, str(folder))


def test_a_what_if_is_quick_then_exact(confined: Path) -> None:
    quick = say("what-if", confined, exact=False, nodes="64", date="2022-01-01")
    exact = say("what-if", confined, nodes="64", date="2022-01-01")
    step = re.search(r"<dt>step</dt><dd><b>(\S+ s)</b>", quick)
    assert step
    assert f"<b>{step[1]}</b>" in exact  # the same step
    record = ersatz.run("ling-plus-substitution", ["cluster.nodes=64", "parallel.dp=null"])
    assert step[1] == f"{record['h800'].step.duration_s:.2f} s"
    dear = say("what-if", confined, exact=False, nodes="64", rent="55", date="2022-01-01")
    amounts = [re.findall(r"<b>([\d.]+) M CNY</b>", text)[0] for text in (quick, dear)]
    assert float(amounts[1]) == pytest.approx(
        2 * float(amounts[0]), rel=1e-3
    )  # 55 CNY are twice 27.5
    assert "free to CN" in quick  # nothing was ruled of it yet
    assert (
        "ersatz run ling-plus-substitution --set cluster.nodes=64 --set parallel.dp=null" in exact
    )
    assert "nodes: 64" in exact  # as a scenario
    assert overrides({"nodes": "", "set": " a=1 \n\n"}) == ["a=1"]


def test_a_scenario_taken_along_gives_the_same_answer(confined: Path) -> None:
    import html

    exact = say("what-if", confined, scenario="llama3-70b-mi300x", nodes="16", rent="3")
    text = html.unescape(
        exact.split('data-file="scenario.yaml"')[1].split("<pre>")[1].split("</pre>")[0]
    )
    file = confined / "mine.yaml"
    file.write_text(text)
    step = next(iter(ersatz.run(file).values())).step.duration_s
    assert f"<b>{step:.2f} s</b>" in exact


def test_the_date_moves_the_verdict_over_a_rule(confined: Path) -> None:
    before = say("law", confined, devices="h20", date="2025-04-08")
    after = say("law", confined, devices="h20", date="2025-04-09")
    assert "✓</span> <b>free</b>" in before
    assert "✗</span> <b>letter</b>" in after
    assert "US-2025-04-H20" in after


SCRIPT = """#!/bin/bash
source /etc/hostname
torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --num-layers 32 --hidden-size 4096 \\
  --ffn-hidden-size 14336 --num-attention-heads 32 --group-query-attention --num-query-groups 8 \\
  --seq-length 4096 --max-position-embeddings 4096 --swiglu --bf16 --micro-batch-size 1 \\
  --global-batch-size 128 --tensor-model-parallel-size 4 --pipeline-model-parallel-size 2 \\
  --padded-vocab-size 128256 --use-mcore-models --untie-embeddings-and-output-weights \\
  --sequence-parallel --use-distributed-optimizer
"""


def test_a_script_of_ones_own_is_read_and_simulated(confined: Path) -> None:
    text = say("own", confined, text=SCRIPT, node="h800-8", date="2025-03-24")
    assert "<dt>step</dt>" in text
    assert "16 x h800" in text
    assert "What was read" in text
    assert "denied to CN" in text
    assert str(confined) not in text
    assert list(confined.iterdir()) == []  # nothing stays
    open_ = say("own", confined, text=SCRIPT)
    assert "cluster.node" in open_  # what is still to be said
    assert "File name" in say("own", confined, text=SCRIPT, file="../x.sh")
    assert "starts no training that is known" in say(
        "own", confined, text="hello", file="x.sh", node="h800-8"
    )


@pytest.mark.parametrize(
    ("form", "given"),
    [
        ("what-if", {"set": "model=/etc/passwd"}),
        ("what-if", {"set": "stack=/proc/self/environ"}),
        ("what-if", {"set": "cluster.node=../../../../etc/hostname"}),
        ("compare", {"set": "cluster.network=/etc/hostname"}),
        ("fleet", {"set": "jobs.trace=/etc/passwd"}),
        (
            "own",
            {
                "text": "model: /etc/passwd\ncluster: {node: h800-8, nodes: 1}\ntraining: {}",
                "file": "x.yaml",
            },
        ),
    ],
)
def test_no_file_outside_is_read(form: str, given: dict[str, str], confined: Path) -> None:
    text = say(form, confined, **given)
    assert "root:" not in text
    assert "PATH=" not in text
    assert 'class="wrong"' in text


def test_confined_reading_names_no_folder(confined: Path) -> None:
    with pytest.raises(InputError, match=r"passwd: is a file of its own"):
        files.read_file("/etc/passwd")
    (confined / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError):
        files.read_file(confined / "link")
    assert files.read_file(SCENARIOS / "deepseek-v3-h800.yaml")


def test_routes_answer_behind_the_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the extra ui is not installed")
    from ersatz.sim.serve.app import Site, make_app

    site = Site(8000)
    try:

        async def answer(page: str, values: dict[str, str], *, exact: bool) -> str:
            return f"<p>{page} {values['devices']} {exact}</p>"

        monkeypatch.setattr(site.workers, "answer", answer)
        app, base = make_app(site), f"/{site.token}"
        assert len(site.token) >= 32
        status, _, text = asked(app, f"{base}/law", query="devices=h20&date=2025-04-09")
        assert (status, b'value="2025-04-09"' in text) == (200, True)
        given = json.dumps({"devices": "h20", "date": "2025-04-09"}).encode()
        assert (
            asked(app, f"{base}/answer/law", method="POST", body=[(given, 0)])[2]
            == b"<p>law h20 True</p>"
        )
        whole = asked(app, f"{base}/saved/law", method="POST", body=[(given, 0)])[2].decode()
        assert whole.startswith("<!doctype html>")
        assert "Content-Security-Policy" in whole
        wrong = asked(app, f"{base}/answer/law", method="POST", body=[(b'{"devices": "x"}', 0)])
        assert b"of those listed" in wrong[2]
        for bad in (b"", b"[]", b"{", b'{"devices": 1}', b"[" * 100_000):
            assert asked(app, f"{base}/answer/law", method="POST", body=[(bad, 0)])[0] == 400
        for name in ("app.js", "app.css", "page.js", "page.css"):
            assert asked(app, f"{base}/{name}")[0] == 200
        for away in (
            "app.py",
            "../app.py",
            "..%2fapp.py",
            "answer",
            "nothing",
            "page.css/../../x",
            "answer/nothing",
        ):
            assert asked(app, f"{base}/{away}")[0] in (404, 405, 307)
            assert b"import" not in asked(app, f"{base}/{away}")[2]
    finally:
        site.close()
    assert not site.folder.exists()


def test_two_kinds_of_device_an_embargo_and_prices(confined: Path) -> None:
    """The same job on 16 H800 nodes and 32 nodes of 910B2 at once, as the command line would say it."""
    given = {"scenario": "mixed-h800-910b", "node": "h800-8", "nodes": "16", "second": "ascend-910b2-8",
             "seconds": "32", "second_stack": "ling-ascend"}  # fmt: skip
    changes = overrides(FORMS["what-if"].values(given))
    assert changes[0] == (
        "cluster={pools: [{name: first, node: h800-8, nodes: 16, stack: ling},"
        " {name: second, node: ascend-910b2-8, nodes: 32, stack: ling-ascend}]}"
    )
    case = ersatz.load("mixed-h800-910b", changes)[0]
    assert [(p.nodes, p.stack.name) for p in case.pools] == [(16, "ling"), (32, "ling-ascend")]
    quick = say("what-if", confined, exact=False, **given)
    assert "law: h800" in quick
    assert "law: ascend-910b2" in quick
    wished = {"scenario": "ling-plus-substitution", "embargo": SHRINKS, "energy": "0.7"}
    spared = ersatz.load("ling-plus-substitution", overrides(wished))[0]
    assert spared.job.on_loss == "shrink"
    assert spared.job.spare_nodes == 0
    assert spared.cost is not None
    assert spared.cost.energy_price == pytest.approx(0.7 / 3.6e6)
    with pytest.raises(ValueError, match="expected one of those listed"):
        FORMS["what-if"].values({"embargo": "cluster.nodes=1"})


def test_a_search_says_how_far_it_has_come(confined: Path) -> None:
    text = say("plan", confined, scenario="llama3-70b-mi300x", devices="64")
    assert "no other can be better" in text
    heard_ = json.loads(heard(confined))
    assert re.fullmatch(
        r"[\d,]+ layouts priced, [\d,]+ of them fit(; the fastest so far takes .*)?",
        heard_["words"],
    )
    answers = iter([True, True, False])

    async def events() -> list[str]:
        return [event async for event in told(confined, lambda: next(answers))]

    first, last = asyncio.run(events())  # the same word is told once
    assert json.loads(first.removeprefix("data: "))["what"] == "plan of llama3-70b-mi300x"
    assert last.startswith("event: over")
    forgotten(confined)
    assert heard(confined) == ""
    telling = Telling(confined, "fleet")
    with telling.watch(2) as advance:
        advance("fifo")
        advance("easy")
    assert json.loads(heard(confined)) == {
        "what": "fleet",
        "words": "2 of 2: easy",
        "done": 2,
        "total": 2,
    }
    with Telling(confined / "nowhere", "x").watch(1) as advance:
        advance("silent")
