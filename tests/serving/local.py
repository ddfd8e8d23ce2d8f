"""The service in this process: real slots, store and router, without Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from marketray.errors import TrafficError
from marketray.features.online import Refusal
from marketray.registry import UnknownVersionError
from marketray.serving.answers import Answer, Batch
from marketray.serving.http.api import create_api
from marketray.serving.http.auth import Token
from marketray.serving.rollouts.journal import Journal
from marketray.serving.rollouts.rollback import earlier, serving
from marketray.serving.rollouts.rollout import Plan, cancel, start
from marketray.serving.router import Ask, Attempt, Router
from marketray.serving.schemas import Problem
from marketray.serving.slot import Slot, SlotStatus
from marketray.serving.store import Store, open_store
from marketray.serving.traffic import SLOTS, WHOLE, Traffic
from marketray.settings import Settings

TOKEN = "local-token"
"""What callers of a `LocalService` must show."""


class LocalControl:
    """Changes the traffic as control does, of versions that are there."""

    def __init__(self, service: LocalService) -> None:
        self._service = service
        self._journal = Journal(service.store.database)

    async def change(self, who: str, *, models: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._journal.require_no_rollout()
        before = self._journal.current()
        found = {s: None if m is None else self._service.resolve(m) for s, m in (models or {}).items()}
        wanted = before.traffic.changed(models={**before.traffic.models, **found}, **more)
        entry = self._journal.put(wanted, who=who, action="set", reason="", seq=before.seq)
        self._service.router.traffic = entry.traffic
        await self.tell_slots()

    async def begin(self, who: str, slot: str, model: str | int, changes: dict[str, Any]) -> dict[str, Any]:
        self._journal.require_no_rollout()
        before = self._journal.current()
        plan = Plan.of(slot, self._service.resolve(model), self._service.settings.serving.rollout, changes)
        stored = self._journal.start(start(plan, before.traffic, datetime.now(UTC)), who=who, seq=before.seq)
        return self._journal.shown(stored)

    async def cancel(self, who: str, reason: str) -> dict[str, Any]:
        stored = self._journal.rollouts.active()
        if stored is None:
            msg = "no rollout is running; required: one"
            raise TrafficError(msg)
        now = datetime.now(UTC)
        ended = cancel(stored.rollout, now, reason or f"cancelled by {who}")
        return self._journal.shown(self._journal.move(stored, ended, now, seq=self._journal.current().seq))

    async def rollback(self, who: str) -> None:
        if self._journal.rollouts.active() is not None:
            await self.cancel(who, "rolled back")
            return
        entry = earlier(self._journal.traffic.history())[0]
        answered = {slot: version for slot, (_, version) in serving(entry.traffic).items()}
        await self.change(who, models=answered, weights=entry.traffic.weights)

    async def tell_slots(self) -> None:
        await asyncio.gather(*(slot.refresh() for slot in self._service.slots.values()))


class LocalService:
    """What the ingress does, for `marketray.serving.http.api.create_api`.

    Parameters
    ----------
    versions:
        Folders of the versions that can be served, by number, `champion` among them.
    models:
        Version by slot; all requests go to blue.
    """

    token: Token | None = Token(TOKEN.encode())

    def __init__(
        self,
        settings: Settings,
        versions: Mapping[int, str | Path],
        models: Mapping[str, int | None],
        champion: int,
    ) -> None:
        self.champion = champion
        self.settings = settings
        self.folders = {version: Path(folder) for version, folder in versions.items()}
        self.store: Store = open_store(settings.store_uri)
        traffic = Traffic({"blue": WHOLE, "green": 0}, models)
        self.store.traffic.declare(traffic, who="test")
        self.slots = {name: Slot(name, settings, self.folders.__getitem__) for name in SLOTS}
        self.attempts: list[Attempt] = []
        seconds = {"attempt_seconds": 5.0, "deadline_seconds": 10.0}
        self.router = Router(self.slots, traffic, self.attempts.append, lambda *_: None, **seconds)
        self.control = LocalControl(self)

    @property
    def unwell(self) -> dict[str, str]:
        return self.router.unwell

    def resolve(self, model: str | int) -> int:
        known = {str(version): version for version in self.folders} | {"champion": self.champion}
        if str(model) not in known:
            msg = f"no version or alias {model!r}"
            raise UnknownVersionError(msg)
        return known[str(model)]

    async def versions(self) -> dict[str, int | None]:
        return {name: await slot.version() for name, slot in self.slots.items()}

    async def status(self, slot: str | None = None) -> SlotStatus:
        return await self.slots[slot or "blue"].status()

    async def predict(self, ask: Ask) -> tuple[str, Answer | Problem]:
        return await self.router.predict(ask)

    async def predict_features(self, ask: Ask) -> tuple[str, Batch | Problem]:
        return await self.router.predict_features(ask)

    async def latest(self) -> Answer | Problem:
        return await self.slots["blue"].predict(None, None)

    async def refusals(self, bars: Sequence[Mapping[str, Any]]) -> list[Refusal | None] | Problem:
        return await self.slots["blue"].refusals(bars)


class Client:
    """A synchronous client of an application, with the token."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    @classmethod
    def of(cls, service: LocalService) -> Client:
        return cls(create_api(service))

    def __call__(self, method: str, path: str, *, token: str | None = TOKEN, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **more)

        if token is not None:
            more["headers"] = {"Authorization": f"Bearer {token}", **more.get("headers", {})}
        return asyncio.run(send())

    def refused(self, status: int, kind: str, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The problem that the call answers."""
        answer = self(method, path, **more)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        body: dict[str, Any] = answer.json()
        assert body["type"] == f"urn:marketray:problem:{kind}", body
        assert body["status"] == status
        return body
