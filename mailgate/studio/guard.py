"""What protects a local page from other web pages.

Owns the checks on each request (DNS rebinding, cross-site writes) and the headers
of each answer. Never looks at what is asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The page itself: its own files and nothing else, no inline script or style.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: A mail's HTML: no script, no form, no origin, nothing from elsewhere; its own images
#: are inside it as data. Links may open a tab of their own, as in a mail program.
FRAME_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
#: Everything else that came with a mail: only ever a file.
FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-dns-prefetch-control": "off",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
    "content-security-policy": PAGE_POLICY,
}
_SAFE = frozenset({"GET", "HEAD"})


def local_names(host: str) -> frozenset[str]:
    """The names by which a browser may ask for a page that listens on ``host``."""
    own = {host} if host not in ("0.0.0.0", "::", "") else set()  # noqa: S104
    return frozenset({"127.0.0.1", "localhost", "::1"} | own)


def refusal(method: str, headers: Headers, names: Collection[str]) -> str | None:
    """Why a request is not answered, or None when it is. Pure."""
    host = headers.get("host", "")
    if _name(f"http://{host}") not in names:
        # A page elsewhere has pointed its own name at this address (DNS rebinding).
        return "This page answers to localhost only."
    if method in _SAFE:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return "Another site may not do this."
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "Another site may not do this."
    return None


def _name(url: str) -> str | None:
    try:
        part = urlsplit(url)
        _ = part.port
    except ValueError:
        return None
    plain = part.username is None and not part.path and not part.query and not part.fragment
    return part.hostname if plain else None


class Guard:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        why = refusal(scope["method"], Headers(scope=scope), self._names)
        app = self._app if why is None else PlainTextResponse(f"{why}\n", status_code=403)
        await app(scope, receive, answer)
