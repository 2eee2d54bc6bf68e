"""The server: routes below a token, on the loopback address alone."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ersatz.device_models.shipped import DATA, SCENARIOS
from ersatz.sim.report.page.page import HERE as REPORT
from ersatz.sim.report.page.page import document
from ersatz.sim.serve.asks import wrong
from ersatz.sim.serve.forms import FORMS
from ersatz.sim.serve.guard import App, Guard
from ersatz.sim.serve.pages import page
from ersatz.sim.serve.telling import told
from ersatz.sim.serve.workers import Workers

HERE = Path(__file__).parent
HOST = "127.0.0.1"
ASSETS = {"page.css": REPORT / "page.css", "page.js": REPORT / "page.js", "app.css": HERE / "app.css",
          "app.js": HERE / "app.js"}  # fmt: skip
KINDS = {".css": "text/css", ".js": "text/javascript"}


class Site:
    """One running page: its token, its folder, its workers."""

    def __init__(self, port: int, quick: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="ersatz-serve-"))
        self.workers = Workers([str(self.folder), str(DATA), str(SCENARIOS)], quick)

    @property
    def address(self) -> str:
        """Return where the page is."""
        return f"http://{HOST}:{self.port}/{self.token}/what-if"

    def hosts(self) -> frozenset[str]:
        """Return the names under which this machine may be asked."""
        return frozenset({f"{HOST}:{self.port}", f"localhost:{self.port}"})

    def close(self) -> None:
        """End the workers and remove the folder."""
        self.workers.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_app(site: Site) -> App:
    """Return the application: pages, answers and their files, behind the guard."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import (
        HTMLResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Mount, Route

    async def home(request: Request) -> Response:
        return RedirectResponse(f"/{site.token}/what-if")

    async def form(request: Request) -> Response:
        found = FORMS.get(request.path_params["page"])
        if found is None:
            return PlainTextResponse("", 404)
        return HTMLResponse(page(found, {k: v[:20_000] for k, v in request.query_params.items()}))

    async def asset(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return Response(ASSETS[name].read_text("utf-8"), media_type=KINDS[ASSETS[name].suffix])

    async def answer(request: Request) -> Response:
        found, given = FORMS.get(request.path_params["page"]), _mapping(await request.body())
        if found is None or given is None:
            return PlainTextResponse("", 404 if found is None else 400)
        try:
            values = found.values(given)
        except ValueError as error:
            return HTMLResponse(wrong(str(error).splitlines()))
        alone = request.scope["route"].name == "saved"
        exact = bool(request.query_params.get("exact")) or not found.sliding or alone
        text = await site.workers.answer(found.name, values, exact=exact)
        return HTMLResponse(document(found.title, text) if alone else text)

    async def progress(request: Request) -> Response:
        events = told(site.folder, site.workers.busy)
        return StreamingResponse(events, media_type="text/event-stream")

    async def cancel(request: Request) -> Response:
        site.workers.cancel()
        return Response(status_code=204)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        site.workers.warm()
        yield
        site.close()

    inside = [Route("/", home), *(Route(f"/{name}", asset) for name in ASSETS),
              Route("/answer/{page}", answer, methods=["POST"]),
              Route("/progress", progress), Route("/cancel", cancel, methods=["POST"]),
              Route("/saved/{page}", answer, methods=["POST"], name="saved"), Route("/{page}", form)]  # fmt: skip
    app = Starlette(routes=[Mount(f"/{site.token}", routes=inside)], lifespan=lifespan)
    return Guard(app, site.token, site.hosts)


def _mapping(body: bytes) -> dict[str, str] | None:
    """Return the values of a request's body; None where it is no mapping of text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        return None
    return found


def serve(port: int, tell: Callable[[str], None]) -> None:
    """Serve until interrupted; `tell` hears the address once it answers. Port 0 takes a free one.

    Raises OSError where the port is taken.
    """
    import uvicorn

    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(2048)  # who has the address is heard from now on
        site = Site(sock.getsockname()[1])
        try:
            config = uvicorn.Config(
                make_app(site), log_level="error", access_log=False, server_header=False, date_header=False,
                limit_concurrency=300, timeout_keep_alive=20, h11_max_incomplete_event_size=70_000,
                timeout_graceful_shutdown=2, ws="none",
            )  # fmt: skip
            server = uvicorn.Server(config)
            tell(site.address)
            server.run(sockets=[sock])
        finally:
            site.close()
    finally:
        sock.close()
