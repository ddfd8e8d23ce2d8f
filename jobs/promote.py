"""Choose the best family, weigh its evidence and register it as a Ray job.

ray job submit --working-dir . -- python jobs/promote.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("select", __doc__)
