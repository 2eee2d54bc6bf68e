"""Who gets an answer: a browser on this machine that was given the address, in small and whole requests.

The address holds a random token; without it there is nothing here. A page of another origin, or one that
reached this machine under another name (DNS rebinding), gets nothing, nor does a request that is large or
slow. Answers say that nobody may frame, embed or cache them, and that they load from here alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from secrets import compare_digest
from typing import Any

MOST_BODY = 2_000_000  # bytes
MOST_QUERY = 60_000
BODY_S = 10.0  # within which a body must be here
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cache-control": "no-store", "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin", "x-frame-options": "DENY",
}  # fmt: skip
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Guard:
    """Lets through what comes from the page itself; everything else ends here."""

    def __init__(self, app: App, token: str, hosts: Callable[[], frozenset[str]]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        status = self._refusal(scope)
        if status:
            return await _refuse(send, status)
        try:
            body = await asyncio.wait_for(_body(receive), BODY_S)
        except TimeoutError:
            return await _refuse(send, 408)
        if body is None:
            return await _refuse(send, 413)
        await self.app(scope, _once(body, receive), _with_headers(send))

    def _refusal(self, scope: MutableMapping[str, Any]) -> int:
        """Return the status with which a request is refused; 0 where it is not."""
        headers = {
            key.decode("latin-1").lower(): value.decode("latin-1")
            for key, value in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if host not in self.hosts():
            return 421
        if origin and origin != f"http://{host}":
            return 403
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403
        first = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else ""
        if not compare_digest(first.encode(), self.token.encode()):
            return 404
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY:
            return 413
        return 414 if len(scope.get("query_string", b"")) > MOST_QUERY else 0


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, or None for one that is too large; what has gone away is empty."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int) -> None:
    """Say no, and nothing else; the connection is not used again."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
