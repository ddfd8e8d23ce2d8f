"""Trade the best family's forecasts, after costs, as a Ray job; `backtest.walk_forward` refits through time.

ray job submit --working-dir . -- python jobs/backtest.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("backtest", __doc__)
