"""What the OpenAPI document says is what the service does, whatever it is asked."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from marketray.serving.http.api import create_api
from tests.serving.local import TOKEN, LocalService

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DECLARED = {501, 503, 504}
"""Answers above 499 that a document may promise."""


def explore(service: LocalService, cases: int) -> Counter[tuple[str, int]]:
    """Ask what the document allows and what it does not; how often each operation answered how."""
    app = create_api(service)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    any_case = schema.as_strategy(GenerationMode.POSITIVE) | schema.as_strategy(GenerationMode.NEGATIVE)
    seen: Counter[tuple[str, int]] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(any_case)
    def ask(case: Case) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"} if seen.total() % 8 else None
        response = case.call(headers=headers, timeout=120)
        seen[f"{case.method} {case.path}", response.status_code] += 1
        assert response.status_code < 500 or response.status_code in DECLARED, response.text
        case.validate_response(response, checks=CHECKS, excluded_checks=[not_a_server_error])

    ask()
    return seen


def operations(service: LocalService) -> set[str]:
    paths = create_api(service).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_answers_are_as_documented(service: LocalService) -> None:
    seen = explore(service, 200)
    assert seen.total() >= 200
    assert {name for name, _ in seen} <= operations(service)


@pytest.mark.slow
def test_answers_are_as_documented_over_thousands_of_requests(service: LocalService) -> None:
    seen = explore(service, 6_000)
    for (name, status), count in sorted(seen.items()):
        print(f"{name:40} {status} {count:6}")
    assert seen.total() >= 5_000
    assert {name for name, _ in seen} == operations(service)
