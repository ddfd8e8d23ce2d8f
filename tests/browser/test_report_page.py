"""report.html in a real browser: nothing else is loaded, and all of it can be read, on a phone too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from marketray.evaluation.report import write_report
from marketray.settings import load_settings
from tests.browser.legible import CONTRAST
from tests.evaluation.report_example import full_report, plain_report

PHONE, DESKTOP = 390, 1_280

OUTSIDE = """() => [...document.querySelectorAll('.ytick, .word, .legend li, td, th, dd, h2, h3, .note')]
  .filter(e => e.offsetParent && !e.closest('.scroll')
    && (e.getBoundingClientRect().left < -1 || e.getBoundingClientRect().right > innerWidth + 1))
  .map(e => e.textContent)"""


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    settings = load_settings()
    return {"full": full_report(settings), "plain": plain_report(settings)}


@pytest.fixture
def show(browser: Browser, documents: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a report at a width and in a theme; fails on a message, an error or a request of the page."""
    noise: list[str] = []
    contexts = []

    def opened(name: str, width: int = DESKTOP, theme: Any = "light") -> Page:
        path = tmp_path / f"{name}.html"
        write_report(path, *documents[name])
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on(
            "request", lambda request: noise.append(request.url) if request.url != path.as_uri() else None
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert noise == []


def test_every_section_and_its_numbers_are_visible(show: Callable[..., Page]) -> None:
    page = show("full")
    assert page.title().startswith("SPX500_USD, 30 minutes ahead")
    visible = [h.inner_text() for h in page.locator("h2").all() if h.is_visible()]
    assert len(visible) == page.locator("section").count() == 17
    assert visible[0].startswith("No skill over zero: R² −1.114 %, p = 0.99 on plain squared errors")
    text = page.locator("main").inner_text()
    for number in ("1.69 %", "p = 0.47 at 0.05", "80.30", "0.24991", "−1.37", "1.731 ms"):
        assert number in text, number
    verdict, skill = (page.locator(f"#{key}").bounding_box() for key in ("verdict", "skill"))
    assert verdict is not None
    assert skill is not None
    assert verdict["y"] < 200  # before any scrolling
    assert verdict["y"] + verdict["height"] <= skill["y"]


def test_charts_have_a_mark_for_everything_they_show(show: Callable[..., Page]) -> None:
    page = show("full")
    counts = {
        "#over-time .frame .line": 3,
        "#actual .frame .dot": 3 * 20,
        "#reliability .frame .dot": 4 * 2,
        "#backtest .frame .line": 2,
        "#trials .frame .dot": 2 * 20,
        "#trials .frame .line:not(.best)": 2 * (20 - 1),
        "#trials .frame .line.best": 2 * 2,  # best so far, and the best trial
        "#splits .box:not(.gap)": 5,
        "#splits .gap": 4,
        "#importance .bar": 2 * 21,
        "#skill .cell .dot": 4 * (2 + 2),  # models, zero, training mean
        "#breakdown .cell .dot": 4 * (3 + 7 + 3),
    }
    assert {key: page.locator(key).count() for key in counts} == counts
    frames = page.locator(".frame")
    assert frames.count() == 3 + 3 + 4 + 1 + 2 * 2 + 1
    for frame in frames.all():
        box = frame.bounding_box()
        assert box is not None
        assert box["width"] > 150
        for mark in frame.locator(".mark.dot").all()[:3]:
            inner = mark.bounding_box()
            assert inner is not None
            assert box["x"] - 5 <= inner["x"] <= box["x"] + box["width"] + 5
            assert box["y"] - 5 <= inner["y"] <= box["y"] + box["height"] + 5


def test_folded_parts_open_without_a_script(show: Callable[..., Page]) -> None:
    page = show("full")
    table = page.get_by_role("region", name="xgboost: mean share by feature")
    assert not table.is_visible()
    page.locator("#importance summary", has_text="xgboost").click()
    assert table.is_visible()
    page.get_by_role("link", name="Lineage").click()
    assert page.locator("#lineage h2").evaluate("e => e.getBoundingClientRect().top < innerHeight")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["plain", "full"])
def test_it_fits_and_is_legible(show: Callable[..., Page], name: str, width: int, theme: str) -> None:
    page = show(name, width, theme)
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    contrast = page.evaluate(CONTRAST)
    assert contrast["counted"] > 100
    assert contrast["texts"] >= 4.5  # WCAG 2.2, 1.4.3
    assert contrast["marks"] >= 3  # 1.4.11


def test_it_can_be_read_without_seeing_it(show: Callable[..., Page]) -> None:
    page = show("full")
    unnamed = "all => all.filter(e => !e.getAttribute('aria-label')).length"
    assert page.locator("svg[role=img], [role=region]").evaluate_all(unnamed) == 0
    assert page.locator("table").evaluate_all("all => all.filter(e => !e.caption.textContent).length") == 0
    assert (
        page.locator("tbody tr").evaluate_all(
            "all => all.filter(e => !e.querySelector('th[scope=row]')).length"
        )
        == 0
    )
    assert page.locator("thead th:not([scope=col])").count() == 0
    names = page.locator("svg[role=img]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert "Return of the strategy after costs and of buy and hold over time" in names
