"""The page over the real routes, store and slots: what it reads is what they answer."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from playwright.sync_api import Browser, expect

from marketray.serving.http.api import create_api
from tests.browser.conftest import browser
from tests.browser.stand_in import running
from tests.serving.local import TOKEN, LocalService
from tests.serving.market import INSTRUMENT, Market, bars_json

__all__ = ["browser"]

PATIENCE = 30_000


def test_a_posted_bar_arrives_on_the_page(browser: Browser, service: LocalService, market: Market) -> None:
    noise: list[str] = []
    with running(create_api(service)) as address:
        page = browser.new_page(timezone_id="UTC", locale="en-GB")
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("response", lambda r: noise.append(r.url) if r.status not in (200, 101, 304, 501) else None)
        page.goto(address)
        expect(page.locator("#link")).to_have_text("Live ", timeout=PATIENCE)
        expect(page.locator("h1")).to_have_text(f"{INSTRUMENT}, 30 minutes ahead", timeout=PATIENCE)
        asked = httpx.post(f"{address}predict", json={}).json()
        figure = page.locator("#forecast .figure")
        expect(figure).to_have_text(f"{asked['prediction']:,.2f}", timeout=PATIENCE)
        expect(page.locator("#evidence-title")).to_have_text("Skill over zero, p = 0.020", timeout=PATIENCE)
        expect(page.locator("#traffic .slots")).to_contain_text("blue 100 % · version 7", timeout=PATIENCE)
        expect(page.locator("#drift")).to_contain_text("Not watched yet", timeout=PATIENCE)
        expect(page.locator("#news")).to_contain_text("There is no scored news", timeout=PATIENCE)
        label = "Price at 240 times"
        assert label in str(page.locator("#price-chart svg").get_attribute("aria-label"))

        (bar,) = bars_json(market.bars.tail(1))
        following = market.bars["time"][-1] + timedelta(minutes=1)
        moved = {name: bar[name] * 1.01 for name in ("open", "high", "low", "close", "bid", "ask")}  # type: ignore[operator]
        sent = {"bars": [{**bar, **moved, "time": following.isoformat()}]}
        taken = httpx.post(
            f"{address}bars", json=sent, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )
        assert taken.status_code == 200, taken.text
        forecast = taken.json()["forecast"]
        expect(figure).to_have_text(f"{forecast['prediction']:,.2f}", timeout=PATIENCE)
        expect(page.locator("#forecast .facts")).to_contain_text(f"{moved['close']:,.2f}")
        page.close()
    assert noise == []
    assert forecast["prediction"] == pytest.approx(asked["prediction"] * 1.01, rel=0.01)
