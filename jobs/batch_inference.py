"""Forecast every stored decision with a registered model, as a Ray job.

ray job submit --working-dir . -- python jobs/batch_inference.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("batch_inference", __doc__)
