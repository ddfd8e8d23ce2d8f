"""What docs/serving.md states is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from marketray.serving import router, slot
from marketray.serving.app import build
from marketray.serving.mode import FLAGS
from marketray.serving.router import SlotError
from marketray.serving.store.writer import PredictionWriter

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
SOURCES = {p: p.read_text() for p in (ROOT / "marketray" / "serving").glob("*.py")}


def table() -> dict[str, tuple[int, bool]]:
    """Status and whether another slot is asked, by kind of problem."""
    rows = re.findall(r"^\| [^|]+ \| (\d{3}) \| `([a-z-]+)` \| (.*)\|$", PAGE, re.M)
    return {kind: (int(status), "asks again" in more) for status, kind, more in rows}


def test_every_problem_of_a_slot_is_in_the_table_with_its_status() -> None:
    code = "\n".join(SOURCES[ROOT / "marketray" / "serving" / name] for name in ("live.py", "slot.py"))
    made = dict(re.findall(r'problem\(\s*"([a-z-]+)",\s*(\d{3})', code))
    made.pop("unusable-features")  # of /predict/batch
    documented = {kind: status for kind, (status, _) in table().items()}
    for kind, status in made.items():
        assert documented[kind] == int(status), kind
    slots = {f"slot-{e.kind}" for e in (SlotError.unavailable(""), SlotError.full(), SlotError.bug(""))}
    assert set(documented) - set(made) == slots | {"slot-late"}


@pytest.mark.parametrize("kind", list(table()))
def test_the_table_says_after_which_problems_another_slot_is_asked(kind: str) -> None:
    status, again = table()[kind]
    assert router._may_differ(router.problem(kind, status, "t", "d")) == again


def test_stated_numbers_and_variables() -> None:
    settings = PredictionWriter.__init__.__kwdefaults__
    assert (settings["capacity"], settings["every_seconds"]) == (20_000, 0.5)
    assert "20,000 answers wait in each ingress" in PAGE
    assert "the answers of the last 0.5 s" in PAGE
    assert slot._RETRY_SECONDS == 5
    exported = dict(word.split("=") for word in re.findall(r"RAY_\w+=\d+", PAGE) if "TLS" not in word)
    assert exported == FLAGS


def test_the_blue_green_file_is_what_the_builder_takes() -> None:
    described = yaml.safe_load((ROOT / "serve_configs" / "blue_green.yaml").read_text())
    (application,) = described["applications"]
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    assert set(application["args"]) <= {"config", "blue", "green", "weights"}
    assert application["args"]["weights"] == {"blue": 90, "green": 10}
    replicas = {d["name"]: d["num_replicas"] for d in application["deployments"]}
    assert replicas == {"ingress": 2, "slot-blue": 2, "slot-green": 2}
