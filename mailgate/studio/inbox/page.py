"""The page of the local inbox and its JSON interface.

Owns the routes. Never trusts a mail: its HTML goes into a sandboxed frame, its
files are downloads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mailgate.studio.guard import FILE_POLICY, FRAME_POLICY, Guard
from mailgate.studio.inbox import letter
from mailgate.studio.inbox.store import Mail, Store
from mailgate.studio.serving import page_routes

ASSETS = Path(__file__).parent / "assets"


class Page:
    """The handlers; ``ask`` takes each question to the store's own thread."""

    def __init__(self, ask: Callable[[Callable[[Store], Any]], Awaitable[Any]], smtp: str) -> None:
        self._ask = ask
        self._smtp = smtp

    async def mails(self, request: Request) -> Response:
        """The list, newest first; 304 when nothing has changed since the given ETag."""
        query = request.query_params.get("q", "")
        limit = _number(request.query_params.get("limit"), 100, 1000)
        before = _number(request.query_params.get("before"), 0, 2**62) or None

        def look(store: Store) -> tuple[int, list[Mail], int, int]:
            found = store.newest(query, limit, before)
            return store.version, found, store.count(query), store.count()

        version, items, matching, total = await self._ask(look)
        etag = f'"{version}-{id(self)}-{hash((query, limit, before))}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        body = {
            "items": [_plain(mail) for mail in items],
            "matching": matching,
            "total": total,
            "smtp": self._smtp,
        }
        return JSONResponse(body, headers={"etag": etag})

    async def mail(self, request: Request) -> Response:
        """One mail, taken apart."""

        def look(store: Store) -> tuple[Mail | None, bytes | None]:
            number = request.path_params["number"]
            return store.get(number), store.source(number)

        mail, source = await self._ask(look)
        if mail is None or source is None:
            return _absent()
        found = await self._ask(lambda _: letter.read(source))
        return JSONResponse(
            {
                **_plain(mail),
                "headers": found.headers,
                "html": found.html is not None,
                "text": found.text,
                "fault": found.fault,
                "attachments": [
                    {
                        "number": number,
                        "filename": part.filename,
                        "content_type": part.content_type,
                        "size": len(part.content),
                        "inline": part.content_id is not None,
                    }
                    for number, part in enumerate(found.attachments)
                ],
            }
        )

    async def source(self, request: Request) -> Response:
        """The mail as it came; with ``?download`` as a file."""
        number = request.path_params["number"]
        source = await self._ask(lambda store: store.source(number))
        if source is None:
            return _absent()
        headers = {"content-security-policy": FILE_POLICY}
        if "download" in request.query_params:
            headers["content-disposition"] = f'attachment; filename="mail-{number}.eml"'
            return Response(source, media_type="message/rfc822", headers=headers)
        return Response(source, media_type="text/plain; charset=utf-8", headers=headers)

    async def html(self, request: Request) -> Response:
        """The mail's HTML, for the frame."""
        found = await self._letter(request)
        if found is None or found.html is None:
            return _absent()
        return Response(
            # A lone surrogate has no UTF-8.
            letter.framed(found).encode("utf-8", "replace"),
            media_type="text/html; charset=utf-8",
            headers={"content-security-policy": FRAME_POLICY},
        )

    async def attachment(self, request: Request) -> Response:
        """An attachment, only ever as a download."""
        found = await self._letter(request)
        part = request.path_params["part"]
        if found is None or part >= len(found.attachments):
            return _absent()
        file = found.attachments[part]
        plain = file.filename.encode("ascii", "replace").decode().replace("?", "_")
        return Response(
            file.content,
            # Whatever the mail calls it, a browser gets nothing that it would open.
            media_type="application/octet-stream",
            headers={
                "content-security-policy": FILE_POLICY,
                "content-disposition": f'attachment; filename="{plain}"; '
                f"filename*=UTF-8''{quote(file.filename, safe='')}",
            },
        )

    async def delete(self, request: Request) -> Response:
        number = request.path_params["number"]
        gone = await self._ask(lambda store: store.delete(number))
        return Response(status_code=204) if gone else _absent()

    async def clear(self, _request: Request) -> Response:
        return JSONResponse({"deleted": await self._ask(lambda store: store.clear())})

    async def _letter(self, request: Request) -> letter.Letter | None:
        number = request.path_params["number"]

        def look(store: Store) -> letter.Letter | None:
            source = store.source(number)
            return None if source is None else letter.read(source)

        found: letter.Letter | None = await self._ask(look)
        return found


def application(page: Page, names: frozenset[str]) -> ASGIApp:
    """The routes behind their guard."""

    one = "/api/mails/{number:int}"
    routes = [
        *page_routes(ASSETS),
        Route("/api/mails", page.mails, methods=["GET"]),
        Route("/api/mails", page.clear, methods=["DELETE"]),
        Route(one, page.mail, methods=["GET"]),
        Route(one, page.delete, methods=["DELETE"]),
        Route(f"{one}/source", page.source),
        Route(f"{one}/html", page.html),
        Route(f"{one}/attachments/{{part:int}}", page.attachment),
    ]
    return Guard(Starlette(routes=routes), names)


def _plain(mail: Mail) -> dict[str, Any]:
    return {
        "id": mail.id,
        "received_at": mail.received_at,
        "mail_from": mail.mail_from,
        "rcpt_to": mail.rcpt_to,
        "subject": mail.subject,
        "from": mail.sender,
        "to": mail.recipients,
        "size": mail.size,
    }


def _number(text: str | None, default: int, most: int) -> int:
    return min(int(text), most) if text and text.isascii() and text.isdecimal() else default


def _absent() -> Response:
    return PlainTextResponse("There is no such mail.\n", status_code=404)
