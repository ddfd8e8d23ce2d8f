"""What is set before Ray starts, and where the fast mode gives way."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from marketray.errors import ServingError, SettingsError
from marketray.serving import mode
from marketray.serving.mode import FLAGS, choose_mode, prepare
from marketray.settings import Settings, load_settings

SINGLE_PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """HAProxy's folders are removed after the test."""
    made: list[Path] = []

    def register(function: object, folder: Path, **_: object) -> None:
        assert function is shutil.rmtree
        made.append(folder)

    monkeypatch.setattr(mode, "atexit", SimpleNamespace(register=register))
    yield
    for folder in made:
        shutil.rmtree(folder)


def test_auto_is_fast_with_files_and_ports_of_its_own() -> None:
    first, second = choose_mode("auto", {}), choose_mode("fast", {})
    assert FLAGS.items() <= first.items()
    assert first["RAY_SERVE_ENABLE_HA_PROXY"] == first["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    own = {name for name in first if name not in FLAGS}
    assert {n.removeprefix("RAY_SERVE_HAPROXY_") for n in own} >= {
        *("CONFIG_FILE_LOC", "SOCKET_PATH", "STATS_PORT", "METRICS_PORT", "SERVER_STATE_FILE")
    }
    for name in own:
        value = first[name]
        if name.startswith("RAY_SERVE_HAPROXY_") and value.startswith("/"):
            assert len(value) < 97  # the longest path of a socket that HAProxy takes
            assert Path(value).parent.is_dir()
            assert value != second[name]
    served = {int(first[name]) for name in SINGLE_PORTS} | {int(second[name]) for name in SINGLE_PORTS}
    assert len(served) == 2 * len(SINGLE_PORTS)
    with socket.socket() as s:
        s.bind(("127.0.0.1", int(first["RAY_SERVE_HAPROXY_STATS_PORT"])))  # it is free
    low, high = (int(first[f"RAY_SERVE_DIRECT_INGRESS_{end}_HTTP_PORT"]) for end in ("MIN", "MAX"))
    assert (low % 100, high - low) == (1, 98)  # the port before them is claimed
    assert 20_000 <= low < high < 32_768


def is_free(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("", port))
        except OSError:
            return False
        return True


def test_no_two_processes_have_the_same_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    own = mode._own_ports.__wrapped__  # as another process would
    first = next(n for n in range(12_000, 19_000, 300) if all(is_free(n + k) for k in (0, 100, 200)))
    monkeypatch.setattr(mode, "_REPLICA_PORTS", range(first, first + 300))
    code = f"""
import socket, sys
s = socket.socket()
s.bind(("", {first}))
print("bound", flush=True)
sys.stdin.read()
"""
    other = [sys.executable, "-c", code]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "bound\n"
        spans = {own(), own()}
        assert spans == {range(first + n + 1, first + n + 100) for n in (100, 200)}
        with pytest.raises(ServingError, match=f"ports {first} to {first + 299}: other services hold all 3"):
            own()
        process.communicate("")
    assert choose_mode("fast", {})["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == str(mode._own_ports().start)


def test_the_users_own_span_of_ports_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_span() -> range:
        raise ServingError("other services hold all spans")

    monkeypatch.setattr(mode, "_own_ports", no_span)
    lowest, highest = (f"RAY_SERVE_DIRECT_INGRESS_{end}_HTTP_PORT" for end in ("MIN", "MAX"))
    for given in ({lowest: "40000", highest: "40100"}, {lowest: "30000"}, {highest: "30500"}):
        chosen = choose_mode("fast", given)
        assert chosen["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert not {lowest, highest} & set(chosen)
    with pytest.raises(ServingError, match="hold all spans"):
        choose_mode("fast", {})


@pytest.mark.parametrize(
    ("chosen", "environment"),
    [
        ("plain", {}),
        ("auto", {"RAY_USE_TLS": "1"}),
        ("plain", {"RAY_USE_TLS": "1"}),
        ("auto", {"RAY_SERVE_ENABLE_HA_PROXY": "0"}),
    ],
)
def test_plain_where_it_is_asked_for_or_needed(chosen: str, environment: dict[str, str]) -> None:
    assert choose_mode(chosen, environment) == {}


def test_fast_and_tls_contradict_each_other() -> None:
    with pytest.raises(
        SettingsError, match=r"serving\.mode='fast', but RAY_USE_TLS=1, .*; required: auto or"
    ):
        choose_mode("fast", {"RAY_USE_TLS": "1"})


def test_without_haproxy_auto_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_program = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(tmp_path / "gone")}
    assert choose_mode("auto", no_program) == {}
    with pytest.raises(SettingsError, match="'fast', but there is no HAProxy"):
        choose_mode("fast", no_program)
    assert choose_mode("auto", {"RAY_SERVE_HAPROXY_BINARY_PATH": sys.executable})
    monkeypatch.setattr(mode, "find_spec", lambda name: None)
    monkeypatch.setattr(mode.shutil, "which", lambda name: None)
    assert choose_mode("auto", {}) == {}
    monkeypatch.setattr(mode.shutil, "which", lambda name: "/usr/sbin/haproxy")
    assert FLAGS.items() <= choose_mode("auto", {}).items()


def test_what_the_user_has_set_stays() -> None:
    given = {"RAY_SERVE_HAPROXY_STATS_PORT": "8404", "RAY_worker_niceness": "5"}
    assert not given.keys() & choose_mode("auto", given).keys()


def test_a_ray_that_runs_has_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_ADDRESS": "127.0.0.1:1"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(mode, "choose_mode", lambda mode: {"CHOSEN": mode})
    prepare(Settings())
    assert environment == {"RAY_ADDRESS": "127.0.0.1:1"}
    del environment["RAY_ADDRESS"]
    prepare(load_settings(None, {"serving": {"mode": "plain"}}))
    assert environment == {"CHOSEN": "plain"}
