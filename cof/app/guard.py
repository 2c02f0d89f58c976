"""What the page refuses before Gradio sees it: other sites' requests, and addresses to fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Call = Callable[..., Awaitable[Any]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that a browser on it may use."""


_FETCHED = ("=http", "file/http")
"""In the path of Gradio's routes that fetch an address: file=, proxy=, and file/ of old."""


class Guard:
    """ASGI middleware: answers 403 to what comes from another site, or would be fetched elsewhere.

    A page that listens on this machine alone is still reached by every site that the visitor's
    browser shows: by a form that posts here, or by a name that is made to point here.
    """

    def __init__(self, app: Call, hosts: Collection[str] = ()) -> None:
        """Wrap an application.

        Args:
            app: what is asked if nothing is refused.
            hosts: names under which the page may be reached; () for any.
        """
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """Pass on, or refuse."""
        why = self.refused(scope) if scope["type"] == "http" else ""
        if not why:
            await self.app(scope, receive, send)
            return
        kind = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 403, "headers": kind})
        await send({"type": "http.response.body", "body": why.encode()})

    def refused(self, scope: Scope) -> str:
        """Why a request is refused; "" for one that is not."""
        path = scope["path"].lower()
        if any(mark in path for mark in _FETCHED):
            return "this page fetches nothing from the net\n"
        headers = dict(scope["headers"])
        named = [f"//{headers.get(b'host', b'').decode('latin-1')}"]
        named += [headers[b"origin"].decode("latin-1")] if b"origin" in headers else []
        if self.hosts and any(_host(one) not in self.hosts for one in named):
            return f"this page answers to {', '.join(self.hosts)} alone (cof app --host)\n"
        return ""


def _host(address: str) -> str | None:
    """The host in an address, None where there is none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def names_address(data: Any) -> bool:
    """Whether a call names a file by an http address, which Gradio would fetch.

    Args:
        data: what the browser says, of JSON.
    """
    if isinstance(data, dict):
        path = str(data.get("path", "")).strip().lower()
        return path.startswith(("http:", "https:")) or any(map(names_address, data.values()))
    return isinstance(data, list) and any(map(names_address, data))
