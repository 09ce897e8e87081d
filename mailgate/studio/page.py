"""The studio's page and its JSON interface.

Owns the routes. Never trusts a template: what it makes goes into a sandboxed frame.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mailgate.studio.guard import FILE_POLICY, FRAME_POLICY, Guard
from mailgate.studio.inbox import letter
from mailgate.studio.measure import measure
from mailgate.studio.sending import Counter, Sent, Way
from mailgate.studio.serving import page_routes
from mailgate.studio.workshop import SENDER, Made, Order, Workshop

ASSETS = Path(__file__).parent / "assets"
#: Of what a page may post (bytes).
_MOST = 2**20
#: A word on the line while nothing happens, so that a dead connection is noticed (seconds).
_KEEP_ALIVE = 15.0
#: The frame is as wide as it says: a bar beside it would take of a phone's width.
_NO_BAR = "<style>html{scrollbar-width:none}</style>"


class Bell:
    """Wakes every open page when the templates have changed, and lets them go at the end."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.closed = False

    def ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()

    def close(self) -> None:
        self.closed = True
        self.ring()

    async def wait(self, seconds: float) -> None:
        if self.closed:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return


class Page:
    """The handlers. What takes time runs in threads."""

    def __init__(self, workshop: Workshop, counter: Counter, bell: Bell) -> None:
        self._workshop = workshop
        self._counter = counter
        self._bell = bell

    async def catalogue(self, _request: Request) -> Response:
        return JSONResponse({**self._workshop.catalogue(), "send": _way(self._counter.way)})

    async def template(self, request: Request) -> Response:
        found = self._workshop.template(request.path_params["name"])
        return _absent() if found is None else JSONResponse(found)

    async def findings(self, request: Request) -> Response:
        """What the checks say; asked apart, since it takes longer than a picture."""
        name = request.path_params["name"]
        found = await asyncio.to_thread(self._workshop.findings, name)
        return JSONResponse({"items": [asdict(finding) for finding in found]})

    async def render(self, request: Request) -> Response:
        """Make a mail of what is posted; its HTML is then at ``renderings/ID/html``."""
        posted = await _posted(request)
        order = _order(posted)
        if order is None:
            return _malformed()
        sender = self._counter.way.sender or SENDER
        made = await asyncio.to_thread(self._workshop.make, order, sender)
        if made.content is None:
            return JSONResponse(_why_not(made))
        found = await asyncio.to_thread(letter.read, made.content)
        return JSONResponse(
            {
                "id": self._workshop.keep(made.content),
                "faults": [],
                "problem": "",
                "headers": found.headers,
                "html": found.html or "",
                "text": found.text or "",
                "source": made.content.decode("utf-8", "replace"),
                "size": measure(made.content),
            }
        )

    async def html(self, request: Request) -> Response:
        """A rendering's HTML, for the frame."""
        content = self._workshop.kept(request.path_params["id"])
        if content is None:
            return _absent()
        framed = letter.framed(letter.read(content), head=_NO_BAR)
        return Response(
            framed.encode("utf-8", "replace"),
            media_type="text/html; charset=utf-8",
            headers={"content-security-policy": FRAME_POLICY},
        )

    async def source(self, request: Request) -> Response:
        """A rendering as a file."""
        content = self._workshop.kept(request.path_params["id"])
        if content is None:
            return _absent()
        return Response(
            content,
            media_type="message/rfc822",
            headers={
                "content-security-policy": FILE_POLICY,
                "content-disposition": 'attachment; filename="template.eml"',
            },
        )

    async def send(self, request: Request) -> Response:
        """Send what is posted to an address that may get it; the answer has the relay's words."""
        posted = await _posted(request)
        order, to = _order(posted), posted.get("to") if posted else None
        if order is None or not isinstance(to, str):
            return _malformed()
        workshop = self._workshop
        sent = await self._counter.post(
            to, lambda sender, address: workshop.make(order, sender, address)
        )
        return JSONResponse(_said(sent, self._counter.way))

    async def changes(self, _request: Request) -> Response:
        """The version of the templates now and after each change, as server-sent events."""

        async def events() -> AsyncIterator[str]:
            told = ""
            while not self._bell.closed:
                now = self._workshop.version
                yield f"data: {now}\n\n" if now != told else ": still here\n\n"
                told = now
                # Nothing is awaited between this look and the wait: no ring is missed.
                if self._workshop.version == told:
                    await self._bell.wait(_KEEP_ALIVE)

        return StreamingResponse(events(), media_type="text/event-stream")


def application(page: Page, names: frozenset[str]) -> ASGIApp:
    """The routes behind their guard."""
    one, made = "/api/templates/{name}", "/api/renderings/{id}"
    routes = [
        *page_routes(ASSETS),
        Route("/api/catalogue", page.catalogue),
        Route("/api/changes", page.changes),
        Route(one, page.template),
        Route(f"{one}/findings", page.findings),
        Route("/api/renderings", page.render, methods=["POST"]),
        Route(f"{made}/html", page.html),
        Route(f"{made}/source", page.source),
        Route("/api/send", page.send, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), names)


async def _posted(request: Request) -> dict[str, Any] | None:
    """The JSON object of a request; ``None`` for anything else, and for too much."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST:
            return None
    try:
        document = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _order(posted: dict[str, Any] | None) -> Order | None:
    if posted is None:
        return None
    template, data = posted.get("template"), posted.get("data")
    locale, unsubscribe = posted.get("locale"), posted.get("unsubscribe", False)
    if not (isinstance(template, str) and isinstance(data, str)):
        return None
    if not (isinstance(locale, str | None) and isinstance(unsubscribe, bool)):
        return None
    return Order(template, data, locale, unsubscribe)


def _why_not(made: Made) -> dict[str, Any]:
    return {"faults": [asdict(fault) for fault in made.faults], "problem": made.problem}


def _way(way: Way) -> dict[str, Any]:
    return {
        "relay": way.relay,
        "host": way.host,
        "from": way.sender.email if way.sender else "",
        "allowed": way.allowed,
        "everybody": way.local,
        "why_not": way.why_not,
    }


def _said(sent: Sent, way: Way) -> dict[str, Any]:
    """An outcome in the words of the journal, with the relay's own beside them."""
    if sent.outcome is None:
        why = {} if sent.made is None else _why_not(sent.made)
        return {**why, "outcome": "refused", "reason": sent.refused}
    outcome = sent.outcome
    hint = ""
    if way.local and outcome.phase.value in ("connect", "greeting"):
        hint = "The local inbox is not there: start it with mailgate up, or mailgate inbox."
    return {
        "outcome": outcome.kind.value,
        "error_class": outcome.error_class,
        "phase": outcome.phase.value,
        "reply": str(outcome.reply),
        "relay": way.relay,
        "host": way.host,
        "seconds": round(sent.seconds, 3),
        "hint": hint,
    }


def _absent() -> Response:
    return PlainTextResponse("There is nothing of that name.\n", status_code=404)


def _malformed() -> Response:
    return PlainTextResponse("That is not what this page posts.\n", status_code=400)
