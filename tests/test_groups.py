"""Two test processes: a group stays in one of them, and the long groups begin first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests.conftest import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from tests.groups import LONGEST, TOGETHER

ROOT = Path(__file__).parents[1]
TESTS = [f"tests/{name}" for name in ("a.py::test_1", "a.py::test_2", "a.py::test_3", "e2e/b.py::test_4")]
TESTS += [f"tests/{name}" for name in ("e2e/c.py::test_5", "e2e/c.py::test_6", "d.py::test_7[x::y]")]


class Process:
    """What the scheduler sees of a test process."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_a_group_stays_in_one_process() -> None:
    options = {"tx": ["2*popen"], "dist": "loadgroup"}
    option = SimpleNamespace(loadscopereorder=False)
    scheduler = pytest_xdist_make_scheduler(SimpleNamespace(getvalue=options.get, option=option), None)
    processes = [Process("1"), Process("2")]
    for process in processes:
        scheduler.add_node(process)
        scheduler.add_node_collection(process, TESTS)
    scheduler.schedule()
    assert [process.given for process in processes] == [[0, 1, 2], [3, 4, 5]]
    scheduler.mark_test_complete(processes[0], 0)
    assert processes[0].given == [0, 1, 2, 6]
    other = SimpleNamespace(getvalue={"dist": "load"}.get)
    assert pytest_xdist_make_scheduler(other, None) is None


def test_long_groups_begin_first_and_the_rest_keep_their_order() -> None:
    items = [SimpleNamespace(nodeid=nodeid) for nodeid in TESTS]
    pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [*TESTS[3:6], *TESTS[:3], TESTS[6]]


def test_every_named_path_exists() -> None:
    paths = [*TOGETHER, *(name for name in LONGEST if name not in TOGETHER.values())]
    assert [path for path in paths if not (ROOT / path).exists()] == []
