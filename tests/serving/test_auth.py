"""Bearer tokens, body limits and other sites, over small applications."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from marketray.serving.http.api import create_api
from marketray.serving.http.auth import TOKEN_VARIABLE, Token, guarded
from marketray.serving.http.limits import BodyLimit
from marketray.serving.problems import install
from marketray.serving.store import open_store
from marketray.settings import load_settings


def send(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)

    return asyncio.run(sent())


def with_token(token: Token | None) -> FastAPI:
    app = FastAPI()
    install(app)
    router = APIRouter(route_class=guarded(token))

    @router.put("/thing")
    async def thing(body: dict[str, int]) -> dict[str, int]:
        return body

    app.include_router(router)
    app.add_middleware(BodyLimit, most=100, more={"/large": 1_000})

    @app.post("/large")
    async def large(body: dict[str, str]) -> int:
        return len(str(body))

    return app


@pytest.mark.parametrize(
    ("header", "got"),
    [
        (None, "no Authorization header"),
        ("Bearer", "another token"),
        ("Bearer other", "another token"),
        ("Bearer secret-2 x", "another token"),
        ("Basic secret-2", "another scheme than Bearer"),
        ("secret-2", "another scheme than Bearer"),
        (b"Bearer \xff\xfe", "another token"),
    ],
)
def test_who_has_not_the_token_changes_nothing(header: str | bytes | None, got: str) -> None:
    headers = (
        {} if header is None else {b"Authorization": header if isinstance(header, bytes) else header.encode()}
    )
    answer = send(with_token(Token(b"secret-2")), "PUT", "/thing", content=b"{not even JSON", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["got"] == got
    assert answer.json()["type"] == "urn:marketray:problem:unauthorized"


@pytest.mark.parametrize("header", ["Bearer secret-2", "bearer secret-2", "Bearer  secret-2 "])
def test_who_has_the_token_may(header: str) -> None:
    answer = send(
        with_token(Token(b"secret-2")), "PUT", "/thing", json={"a": 1}, headers={"Authorization": header}
    )
    assert (answer.status_code, answer.json()) == (200, {"a": 1})


def test_without_a_token_nobody_may() -> None:
    answer = send(with_token(None), "PUT", "/thing", json={}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 403
    assert TOKEN_VARIABLE in answer.json()["detail"]
    assert answer.json()["type"] == "urn:marketray:problem:no-token"


def test_the_token_comes_from_the_environment_and_is_not_kept() -> None:
    assert Token.of({}) is Token.of({TOKEN_VARIABLE: " \n"}) is None
    token = Token.of({TOKEN_VARIABLE: " pässword\n"})
    assert token is not None
    assert token.allows("pässword".encode())
    assert not token.allows(b"password")
    assert "word" not in repr(token) + str(vars(token))
    travelled = pickle.dumps(token)
    assert b"word" not in travelled
    assert pickle.loads(travelled).allows("pässword".encode())


def test_settings_do_not_know_the_token(monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret-3")
    assert "secret-3" not in load_settings(None, {"home": str(home)}).model_dump_json()


@pytest.mark.parametrize(("path", "most"), [("/thing", 100), ("/large", 1_000)])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_refused(path: str, most: int, chunked: bool) -> None:
    app = with_token(Token(b"t"))
    method = "PUT" if path == "/thing" else "POST"
    headers = {"Authorization": "Bearer t", "Content-Type": "application/json"}

    async def parts(body: bytes) -> AsyncIterator[bytes]:
        for i in range(0, len(body), 10):
            yield body[i : i + 10]

    def status(size: int) -> tuple[int, httpx.Response]:
        body = b"{" + b" " * (size - 2) + b"}"
        answer = send(app, method, path, content=parts(body) if chunked else body, headers=headers)
        return answer.status_code, answer

    assert status(most)[0] == 200
    code, answer = status(most + 1)
    assert code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["required"] == f"at most {most / 1e6:g} MB"
    assert answer.json()["type"] == "urn:marketray:problem:too-large"


def test_a_content_length_that_is_none_is_left_to_the_server() -> None:
    answer = send(
        with_token(Token(b"t")), "POST", "/large", content=b"{}", headers={b"Content-Length": b"\xb2"}
    )
    assert answer.status_code != 413
    large = send(
        with_token(Token(b"t")), "POST", "/large", content=b"", headers={"Content-Length": "9" * 5_000}
    )
    assert large.status_code == 413


@pytest.mark.parametrize("origins", [[], ["https://desk.example"]])
def test_pages_of_other_sites_read_nothing_unless_they_are_named(home: Any, origins: list[str]) -> None:
    settings = load_settings(None, {"home": str(home), "serving": {"cors_origins": origins}})
    store = open_store(settings.store_uri)
    app = create_api(SimpleNamespace(settings=settings, store=store, token=None))  # type: ignore[arg-type]
    for origin in ("https://desk.example", "https://evil.example"):
        answer = send(app, "GET", "/", headers={"Origin": origin})
        assert answer.status_code == 200
        assert answer.headers.get("access-control-allow-origin") == (origin if origin in origins else None)
    asked = {"Origin": "https://desk.example", "Access-Control-Request-Method": "PUT"}
    assert send(app, "OPTIONS", "/predict", headers=asked).status_code == (200 if origins else 405)
