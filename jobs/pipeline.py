"""Run every stage as a Ray job: bars in, a registered model and its evidence out.

ray job submit --working-dir . -- python jobs/pipeline.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job(None, __doc__)
