"""A headless Chromium, driven by the Chrome DevTools protocol: what it asks for and what it complains of."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--disable-dev-shm-usage", "--enable-unsafe-swiftshader", "--remote-debugging-port=0",
)  # fmt: skip


class Browser:
    """One page of a browser that has nothing but a folder of its own.

    Attributes:
        requests: addresses it asked for.
        complaints: errors of its console, and exceptions nobody caught.
    """

    def __init__(
        self, home: Path, width: int = 1280, height: int = 900, dark: bool = False, flags: Sequence[str] = ()
    ) -> None:
        assert CHROMIUM is not None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number = 0
        self._session: str | None = None
        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={home}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.nice(15),
        )
        port = home / "DevToolsActivePort"
        while not (port.is_file() and port.read_text().count("\n")):
            assert self._process.poll() is None, "chromium does not start here"
            time.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        self._socket = connect(f"ws://127.0.0.1:{number}{path}", max_size=None, ping_interval=None)
        page = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask for something, and note what else is told meanwhile."""
        self._number += 1
        about = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params, **about}))
        while (told := json.loads(self._socket.recv(timeout=240))).get("id") != self._number:
            self._note(told)
        assert "error" not in told, told
        return told["result"]

    def _note(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(
                " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
            )
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def open(self, path: Path) -> None:
        self.visit(path.resolve().as_uri())

    def visit(self, url: str) -> None:
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What an expression comes to; a promise is waited for."""
        said = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait(self, script: str, seconds: float = 240.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.1)

    def picture(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page, all of it or what the window shows."""
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)
