"""Who gets the page, and how its files are sent."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from marketray.serving.http.routes import page
from tests.serving.local import Client

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.fixture
def get() -> TestClient:
    app = FastAPI()
    page.add(app)
    return TestClient(app)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/*", True),
        ("TEXT/HTML;q=0.2, application/json;q=0.1", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("text/html;q=0.5, */*", False),
        ("text/html;q=much", False),
        ("text/html;q=0", False),
    ],
)
def test_browsers_get_the_page_and_everybody_else_the_index(accept: str, html: bool) -> None:
    assert page.prefers_html(accept) is html


def test_the_service_answers_both(client: Client) -> None:
    index = client("GET", "/")
    assert index.json()["service"] == "marketray"
    document = client("GET", "/", headers={"Accept": BROWSER})
    assert document.headers["content-type"] == "text/html; charset=utf-8"
    assert document.text.startswith("<!doctype html>")
    assert index.headers["vary"] == document.headers["vary"] == "Accept"
    assert document.headers["cache-control"] == "no-cache"
    policy = document.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assets = re.findall(r'(?:src|href)="(static/[^"]+)"', document.text)
    assert {a.partition("?")[0] for a in assets} == {"static/page.js", "static/page.css", "static/icon.svg"}
    for address in assets:
        sent = client("GET", f"/{address}")
        assert sent.status_code == 200
        assert sent.headers["etag"].strip('"') == address.partition("?v=")[2]
        assert sent.headers["x-content-type-options"] == "nosniff"


def test_files_are_sent_once(get: httpx.Client) -> None:
    first = get.get("/static/page.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "max-age=60"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = get.get("/static/page.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert get.get("/static/page.js", headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize("name", ["index.html", "other.js", "..%2Froutes%2Fpage.py"])
def test_nothing_else_is_sent(get: httpx.Client, name: str) -> None:
    assert get.get(f"/static/{name}").status_code == 404


def test_it_is_small_and_loads_nothing_from_elsewhere() -> None:
    folder = files("marketray.serving.http") / "page"
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["icon.svg", "index.html", "page.css", "page.js"]
    assert len((folder / "page.js").read_bytes()) <= 25_000
    for name in ("index.html", "page.css", "page.js"):
        text = (folder / name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert "innerHTML" not in text
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
