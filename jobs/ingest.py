"""Read bars and news into the lake as a Ray job.

ray job submit --working-dir . -- python jobs/ingest.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("ingest", __doc__)
