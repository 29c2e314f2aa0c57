"""A headless Chromium as a person's browser: a page, what it runs, and all that it asked for.

Spoken to over its DevTools protocol. Nothing of the machine's own browser profile is used.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.lib.process import Program
from tests.lib.tetrad import until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install --no-install-recommends chromium"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # containers have little of it
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)


class Page:
    """One page. `events` are those of the network, the console and the security policy."""

    def __init__(self, socket: ClientConnection) -> None:
        self.events: list[Any] = []
        self._socket = socket
        self._last = 0

    async def command(self, method: str, **given: Any) -> Any:
        """The result of a command of the protocol; events that come before it are kept."""
        self._last += 1
        await self._socket.send(json.dumps({"id": self._last, "method": method, "params": given}))
        async with asyncio.timeout(60):
            while True:
                told = json.loads(await self._socket.recv())
                if told.get("id") == self._last:
                    assert "error" not in told, told
                    return told["result"]
                self.events.append(told)

    async def run(self, script: str) -> Any:
        """What an expression is, awaited if it is a promise."""
        told = await self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, within: float = 60.0) -> Any:
        """What an expression is once it is something."""
        found = None

        async def holds() -> bool:
            nonlocal found
            found = await self.run(script)
            return bool(found)

        await until(holds, within)
        return found

    def asked_for(self) -> set[str]:
        """Addresses of all requests, but for data URLs."""
        sent = [
            one["params"] for one in self.events if one["method"] == "Network.requestWillBeSent"
        ]
        urls = {one["request"]["url"] for one in sent}
        return {url for url in urls if not url.startswith("data:")}

    def complaints(self) -> list[str]:
        """What the browser has against the page: errors, and what its policy forbade."""
        found = []
        for event in self.events:
            told = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
                found.append(told["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
                found.append(str(told["args"]))
        return found


@dataclass(frozen=True)
class Browser:
    """A browser that runs. `address` is that of its DevTools."""

    address: str

    @asynccontextmanager
    async def page(self, url: str, *, dark: bool = False) -> AsyncIterator[Page]:
        """A page of its own that has begun to load."""
        async with httpx.AsyncClient(base_url=f"http://{self.address}") as client:
            target = (await client.put("/json/new?about:blank")).json()
            async with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                opened = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await opened.command(f"{domain}.enable")
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                await opened.command("Emulation.setEmulatedMedia", features=[scheme])
                await opened.command("Page.navigate", url=url)
                yield opened
            await client.get(f"/json/close/{target['id']}")


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser for several pages; its profile is in `folder`."""
    assert CHROMIUM is not None, "these tests need chromium (Debian: apt-get install chromium)"
    async with Program(CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank") as program:
        listening = await program.line(r"DevTools listening on ws://(\S+?)/", 40)
        yield Browser(listening[1])


@asynccontextmanager
async def page(folder: Path, url: str, *, dark: bool = False) -> AsyncIterator[Page]:
    """A page that has begun to load, alone in a browser; its profile is in `folder`."""
    async with browser(folder) as alone, alone.page(url, dark=dark) as opened:
        yield opened
