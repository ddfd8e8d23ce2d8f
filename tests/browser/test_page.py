"""The service's page in a real browser: what it shows, what it says where there is nothing, the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.legible import CONTRAST
from tests.browser.stand_in import MINUTE, StandIn, example, forecast, problem, running, traffic

PHONE, DESKTOP = 380, 1_280
PATIENCE = 30_000
EXPECTED = "Failed to load resource"  # what Chromium says of every answer from 400 on

OUTSIDE = """() => [...document.querySelectorAll('main *, header *, footer *')]
  .filter(e => e.getClientRects().length && !e.closest('.scroll > *') && !e.closest('.skip, .unseen')
    && (e.getBoundingClientRect().left < -1 || e.getBoundingClientRect().right > innerWidth + 1))
  .map(e => e.outerHTML.slice(0, 80))"""

Show = Callable[..., Page]


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def service(now: datetime) -> StandIn:
    return StandIn(example(now))


@pytest.fixture
def show(browser: Browser, service: StandIn) -> Iterator[Show]:
    """Opens the page of `service`; fails on an error of it, and on a request that goes elsewhere."""
    noise: list[str] = []
    with ExitStack() as stack:
        address = stack.enter_context(running(service.app))

        def opened(width: int = DESKTOP, theme: Any = "light", at: str = address) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=theme,
                timezone_id="America/New_York",
                locale="en-GB",
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("console", lambda m: None if m.text.startswith(EXPECTED) else noise.append(m.text))
            page.on("pageerror", lambda error: noise.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith(at) else noise.append(r.url))
            page.goto(at)
            return page

        yield opened
    assert noise == []


def says(page: Page, where: str, *texts: str) -> None:
    """Wait until the part of the page has these texts."""
    for text in texts:
        expect(page.locator(where)).to_contain_text(text, timeout=PATIENCE)


def read(page: Page, part: str, times: int) -> None:
    """Wait until the page has asked for this part of the service so many times."""
    count = f"performance.getEntriesByType('resource').filter(e => e.name.includes('/{part}')).length"
    for _ in range(PATIENCE // 50):
        if page.evaluate(count) >= times:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{part} was not read {times} times")


def test_all_of_it_is_shown(show: Show, service: StandIn) -> None:
    page = show()
    says(page, "#link", "Live")
    said, close = service.answers["predict"][1], service.answers["bars/recent"][1]["bars"][-1]["close"]
    says(page, "h1", "SPX500_USD, 30 minutes ahead")
    says(page, "#evidence", "No skill over zero, p = 0.41", "no champion to beat", "−0.020 %", "0.148 %")
    low, high = said["interval"]["low"], said["interval"]["high"]
    numbers = f"{said['prediction']:,.2f}", f"{low:,.2f} – {high:,.2f}", f"{close:,.2f}", "▲ up +0.014 %"
    says(page, "#forecast", *numbers, "53 % sure", "version 7 in blue")
    says(page, "#traffic", "blue 90 % · version 7", "green 10 % · version 8", "by control: step 3 of 5")
    says(
        page, "#rollout", "Version 8 takes over in green", "waits for 100 requests, 64 so far", "212 requests"
    )
    assert page.locator("#rollout .steps [aria-current=step]").inner_text() == "10 %"
    says(page, "#drift", "Not watched yet.")
    says(page, "#model", "version 7 (xgboost)", "131, from 2,880 bars", "split-conformal", "finbert-mini")
    says(page, "#news", "Chipmakers slide as export rules tighten", "Reuters")
    assert page.locator("#news circle").count() == 24

    rows = service.answers["predictions/decisions"][1]["decisions"]
    assert page.locator("#record tbody tr").count() == len(rows)
    settled = [r for r in rows if r["actual_return"] is not None and r["slot"] == "blue"]
    right = sum((r["predicted_return"] > 0) == (r["actual_return"] > 0) for r in settled)
    zero = (sum(r["actual_return"] ** 2 for r in settled) / len(settled)) ** 0.5
    says(page, "#record", f"blue right in {right} of {len(settled)} directions", f"zero {100 * zero:.4f} %")
    actual = [r for r in rows if r["actual_return"] is not None]
    assert page.locator("#record circle.actual").count() == len(actual) > len(settled) > 90
    assert page.locator("#record circle.green").count() == sum(r["slot"] == "green" for r in rows)
    first = page.locator("#record tbody tr").first
    expect(first).to_contain_text("— due ")

    time = page.locator("#forecast .lead time")
    target = datetime.fromisoformat(said["target_at"])
    assert time.get_attribute("title") == target.strftime("%Y-%m-%d %H:%M UTC")
    page.locator("#price-chart svg").hover(position={"x": 100, "y": 60})
    expect(page.locator("#price-chart .readout")).to_contain_text(",0")


@pytest.mark.parametrize(
    ("width", "theme", "year"), [(PHONE, "light", None), (PHONE, "dark", 2019), (DESKTOP, "dark", None)]
)
def test_it_fits_is_legible_and_can_be_read_without_seeing_it(
    show: Show, service: StandIn, now: datetime, width: int, theme: str, year: int | None
) -> None:
    service.answers = example(now if year is None else datetime(year, 11, 5, 15, 30, tzinfo=UTC))
    page = show(width, theme)
    says(page, "#link", "Live")
    says(page, "#news", "Reuters")
    says(page, "#record", "right in")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    contrast = page.evaluate(CONTRAST)
    assert contrast["counted"] > 100
    assert contrast["texts"] >= 4.5  # WCAG 2.2, 1.4.3
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 17, 19)") == (theme == "dark")
    unnamed = "all => all.filter(e => !e.getAttribute('aria-label')).length"
    assert page.locator("svg, [role=region]").evaluate_all(unnamed) == 0
    sections = "all => all.map(e => document.getElementById(e.getAttribute('aria-labelledby')).textContent)"
    assert all(page.locator("section").evaluate_all(sections))
    assert page.locator("main, header, footer, h1").count() == 4
    assert page.locator("table").evaluate_all("all => all.every(e => e.caption.textContent)")


def test_what_is_not_known_is_said_to_be_so(show: Show, service: StandIn, now: datetime) -> None:
    nulls = dict.fromkeys(
        ["prediction", "predicted_return", "confidence", "probability_up", "interval", "intervals"]
    )
    service.answers["predict"] = 200, forecast(now - MINUTE, 5_000.0, **nulls, direction="down")
    info = service.answers["model-info"][1]
    nothing = {"verdict": "challenger", "r2_oos": None, "p_value": None}
    info.update(evidence=nothing, uncertainty=None, scorer=None, test_rmse_pct=None)
    service.answers["news/recent"] = 200, {"articles": []}
    service.answers["predictions/decisions"] = 200, {"decisions": []}
    service.answers["traffic"] = 200, traffic(now, rollout=None, answering={"blue": 7, "green": None},
                                              unwell={"green": "it holds no model"})  # fmt: skip
    page = show()
    says(page, "#forecast", "— this model forecasts the direction alone", "▼ down", "5,000.00")
    expect(page.locator("#forecast .facts .none")).to_have_text(["— this model is stored without it"] * 2)
    says(
        page, "#evidence", "Skill over zero is not known", "has not beaten", "— not measured", "— not tested"
    )
    says(page, "#model", "— stored without", "— it reads no news")
    says(page, "#news", "There is no scored news")
    says(page, "#record", "No forecast was given")
    says(page, "#rollout", "None was ever started")
    says(page, "#traffic .amiss", "it holds no model")
    assert page.locator("main").inner_text().count("NaN") == 0
    assert "undefined" not in page.locator("main").inner_text()


def test_what_others_wrote_is_text(show: Show, service: StandIn) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    article = {**service.answers["news/recent"][1]["articles"][0], "source": hostile}
    bad = [
        {**article, "title": hostile, "url": "javascript:alert(1)"},
        {**article, "title": "x" * 400, "url": None},
    ]
    good = {**article, "title": "Fine & <b>bold</b>", "url": "https://news.example/?a=1&b=2"}
    service.answers["news/recent"] = 200, {"articles": [*bad, good]}
    shown = service.answers["traffic"][1]
    shown["history"][0].update(who=hostile, reason=hostile)
    page = show(PHONE)
    says(page, "#news", hostile, "Fine & <b>bold</b>")
    says(page, "#traffic", hostile)
    assert page.locator("main img, main script, main b").count() == 0
    (link,) = page.locator("#news a").all()
    assert link.get_attribute("href") == good["url"]
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert page.title() == "SPX500_USD · marketray"
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_without_a_forecast_it_gives_the_reason_and_no_number(
    show: Show, service: StandIn, now: datetime
) -> None:
    stale = problem(
        503, "No fresh bar", "the last bar ended 40 minutes ago; required: at most 15", "post bars"
    )
    forecast_there = service.answers["predict"]
    service.answers["predict"] = stale
    service.answers["model-info"] = problem(503, "No model", "slot blue is empty")
    del service.answers["bars/recent"]
    page = show()
    says(page, "#link", "Stale", "No fresh bar")
    says(page, "#forecast", "the last bar ended 40 minutes ago; required: at most 15", "post bars")
    says(page, "#evidence", "No model", "slot blue is empty")
    says(page, "#price-chart", "No price line: no bars/recent")
    assert page.locator("#forecast .figure, #forecast svg").count() == 0

    service.answers["predict"] = forecast_there
    service.publish("forecast", forecast_there[1])
    says(page, "#link", "Live")
    says(page, "#forecast .figure", f"{forecast_there[1]['prediction']:,.2f}")


def test_the_stream_moves_it(show: Show, service: StandIn, now: datetime) -> None:
    page = show()
    says(page, "#link", "Live")
    says(page, "#traffic", "green 10 %")
    said = service.answers["predict"][1]
    ended = datetime.fromisoformat(said["timestamp"])
    service.answers["predict"] = 200, forecast(ended + MINUTE, 6_000.0)
    service.publish("forecast", forecast(ended + MINUTE, 6_000.0))
    says(page, "#forecast .figure", "6,000.85")
    read(page, "bars", 2)
    service.publish("forecast", forecast(ended - MINUTE, 4_000.0))  # late
    read(page, "bars", 3)
    assert page.locator("#forecast .figure").inner_text() == "6,000.85"
    changed = traffic(now, weights={"blue": 50.0, "green": 50.0})
    service.answers["traffic"] = 200, changed
    service.publish("traffic", {})
    says(page, "#traffic", "green 50 %")
    says(page, "#forecast .figure", "6,000.85")
    service.answers["news/recent"] = 200, {"articles": []}
    service.publish("gap", {"last_id": 1, "next_id": 9})
    says(page, "#news", "There is no scored news")


def test_it_reconnects_where_it_was(show: Show, service: StandIn) -> None:
    with running(service.app) as address:
        page = show(at=address)
        says(page, "#link", "Live")
        number = service.publish("traffic", {})
        read(page, "traffic", 2)
    says(page, "#link", "Offline", "next try in")
    says(page, "#traffic", "green 10 %")  # what is known stays
    missed = service.answers["predict"][1]
    latest = datetime.fromisoformat(missed["timestamp"]) + timedelta(minutes=2)
    service.answers["predict"] = 200, forecast(latest, 7_000.0)
    service.publish("forecast", forecast(latest, 7_000.0))
    port = int(address.rsplit(":", 1)[1].rstrip("/"))
    with running(service.app, port):
        says(page, "#link", "Live")
        says(page, "#forecast .figure", "7,000.99")
        assert service.joined[-1] == str(number)
        page.context.set_offline(True)
        says(page, "#link", "Offline", "this device has no network")
        page.context.set_offline(False)
        says(page, "#link", "Live")


def test_silence_shows(show: Show, service: StandIn) -> None:
    page = show()
    says(page, "#link", "Live")
    page.clock.install()
    page.reload()
    says(page, "#link", "Live")
    page.clock.fast_forward(45_000)
    says(page, "#link", "Stale", "nothing heard for 4")
    service.publish("heartbeat", {})
    says(page, "#link", "Live")
