"""The page that browsers get: its files, as they are installed with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["add", "page", "prefers_html"]

_TYPES = {
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FRESH_SECONDS = 60


@dataclass(frozen=True)
class Asset:
    """One file with what tells it from another version of it."""

    content: bytes
    media_type: str
    tag: str


def add(app: FastAPI) -> None:
    """GET /static/…: what the page consists of."""

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        if name not in _TYPES:
            raise HTTPException(404, "Not Found")
        return _answer(request, _asset(name, _TYPES[name]), f"max-age={_FRESH_SECONDS}")


def page(request: Request) -> Response:
    """The page itself; its files are named with their versions, so that it never runs with other ones."""
    return _answer(request, _document(), "no-cache")


def prefers_html(accept: str) -> bool:
    """Whether an Accept header ranks HTML above JSON, as those of browsers do and ``*/*`` does not."""
    rank: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        try:
            rank[kind] = next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        except ValueError:
            continue  # a weight that is no number says nothing

    def of(kind: str) -> float:
        return next((rank[k] for k in (kind, kind.partition("/")[0] + "/*", "*/*") if k in rank), 0.0)

    return of("text/html") > of("application/json")


def _answer(request: Request, asset: Asset, caching: str) -> Response:
    headers = {**_HEADERS, "Cache-Control": caching, "ETag": asset.tag, "Vary": "Accept"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@cache
def _asset(name: str, media_type: str) -> Asset:
    return _tagged((files("marketray.serving.http") / "page" / name).read_bytes(), media_type)


@cache
def _document() -> Asset:
    text = (files("marketray.serving.http") / "page" / "index.html").read_text(encoding="utf-8")
    for name, media_type in _TYPES.items():
        version = _asset(name, media_type).tag.strip('"')
        text = text.replace(f'"static/{name}"', f'"static/{name}?v={version}"')
    return _tagged(text.encode(), "text/html; charset=utf-8")


def _tagged(content: bytes, media_type: str) -> Asset:
    return Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
