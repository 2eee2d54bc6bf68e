"""A headless Chromium, driven through its own debugging pipe: nothing but the browser is needed.

The protocol: chromedevtools.github.io/devtools-protocol; messages are JSON, each ended by a zero byte. Every
request, every line of the console and every exception of the pages is kept.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-extensions",
         "--disable-dev-shm-usage", "--mute-audio", "--remote-debugging-pipe")  # fmt: skip


class Browser:
    """One page of a browser that knows nothing and is thrown away."""

    def __init__(self, width: int = 1200, height: int = 900) -> None:
        assert CHROMIUM
        self.folder = tempfile.mkdtemp(prefix="browser-")
        self.number, self.rest = 0, b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        out_read, self.out = os.pipe()
        self.into, in_write = os.pipe()
        words = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={self.folder}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        line = " ".join(f"'{word}'" for word in words)
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {line} 3<&{out_read} 4>&{in_write}"], pass_fds=(out_read, in_write),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(out_read)
        os.close(in_write)
        self.session = ""
        targets = self("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser and return its answer."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next(40.0)
            if found.get("id") == self.number:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.into], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser says nothing"
            piece = os.read(self.into, 1 << 20)
            assert piece, "the browser has ended"
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:400])
        elif method == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.complaints.append(json.dumps(params["args"])[:400])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(
                f"{params['entry']['text']} {params['entry'].get('url', '')}"[:400]
            )

    def js(self, text: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        found = self("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, address: str) -> None:
        """Open a page and wait until it is there."""
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Wait until an expression holds in the page."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({text})"):
            assert time.monotonic() < end, f"never: {text}; {self.complaints}"
            time.sleep(0.05)

    def choose(self, name: str, value: str) -> None:
        """Set a field of the form as a person would: by its name, and its events follow."""
        self.js(f"""(() => {{ const f = document.querySelector('form').elements[{json.dumps(name)}];
            f.focus(); f.value = {json.dumps(value)};
            f.dispatchEvent(new Event('input', {{bubbles: true}})); }})()""")

    def offline(self) -> None:
        """Take the network away."""
        self(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )

    def look(
        self, file: Path | str, *, dark: bool = False, width: int = 0, whole: bool = False
    ) -> None:
        """Write what is seen as PNG."""
        if width:
            self(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=844,
                deviceScaleFactor=1,
                mobile=True,
            )
        scheme = "dark" if dark else "light"
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.folder, ignore_errors=True)
