"""``make demo``: bars to a served forecast in one command, leaving nothing running."""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
import time
from typing import Any

from marketray.errors import MarketrayError

__all__ = ["main", "run_demo"]

logger = logging.getLogger(__name__)


def run_demo(config: str) -> dict[str, Any]:
    """Run the pipeline of `config`, serve the champion, ask it once over HTTP, stop everything.

    Returns
    -------
    dict
        prediction (price), predicted_return (fraction), interval, model_version, model_type, verdict,
        r2_oos, p_value, seconds (wall clock of the whole demo).
    """
    import ray

    from marketray.cluster import connect
    from marketray.console import show_pipeline
    from marketray.pipeline import run_pipeline
    from marketray.serving import run as serving
    from marketray.serving.client import predict
    from marketray.serving.mode import prepare
    from marketray.settings import load_settings

    started = time.perf_counter()
    settings = load_settings(config, {"serving": {"port": _free_port()}})
    prepare(settings)
    logger.info("Ray dashboard: %s", connect(settings))
    try:
        done = run_pipeline(settings)
        url = serving.start(settings)
        answer = predict(url, instrument=settings.instrument)
        show_pipeline(settings, done)
        sys.stdout.write(f"\nPOST {url}/predict answered:\n{json.dumps(answer, indent=2)}\n")
        serving.stop()
    finally:
        ray.shutdown()
    sys.stdout.write(_next_commands(config))
    evidence = answer["evidence"]
    return {
        **{k: answer[k] for k in ("prediction", "predicted_return", "interval")},
        **{k: answer[k] for k in ("model_version", "model_type")},
        **{k: evidence[k] for k in ("verdict", "r2_oos", "p_value")},
        "seconds": round(time.perf_counter() - started, 1),
    }


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _next_commands(config: str) -> str:
    return f"""
Next:
  .venv/bin/marketray models list --config {config}
  .venv/bin/marketray serve --config {config}      # then, in another shell:
  .venv/bin/marketray predict --config {config}
  .venv/bin/marketray run --bars my.csv --timezone America/New_York --stamp open
"""


def main() -> None:
    """Command line of ``make demo``; the last line printed is the JSON of `run_demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("marketray").setLevel(logging.INFO)
    try:
        line = run_demo(arguments.config)
    except MarketrayError as e:
        sys.stderr.write(f"error: {e}\n")
        sys.exit(e.exit_code)
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
