"""Send bars to a running service and print its forecast after each, as a Ray job.

ray job submit --working-dir . -- python jobs/online_inference.py --config FILE --bars new.csv
"""

from __future__ import annotations

from marketray.job import run_job

if __name__ == "__main__":
    run_job("online_inference", __doc__)
