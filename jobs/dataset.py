"""Join features with labels and cut the splits as a Ray job.

ray job submit --working-dir . -- python jobs/dataset.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("dataset", __doc__)
