"""Score the lake's news articles as a Ray job, on GPUs where the cluster has any.

ray job submit --working-dir . -- python jobs/sentiment.py --config configs/quickstart.yaml
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("sentiment", __doc__)
