"""Which tests one process runs, where several share the work (pytest-xdist), and which begin first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

__all__ = ["ByGroup", "group_of", "longest_first"]

TOGETHER = {
    "tests/e2e/": "pipeline",
    "tests/test_registry.py": "registry",
    "tests/test_promotion.py": "registry",
    "tests/test_cli_models.py": "registry",
    "tests/chaos/test_kill_promotion.py": "registry",
    "tests/serving/store/": "registry",
}
"""Paths whose tests share what takes long to make: a run of the pipeline, a registry's server."""

LONGEST = (
    "pipeline",
    "registry",
    "tests/chaos/test_serving.py",
    "tests/tuning/test_stage.py",
    "tests/serving/test_app.py",
    "tests/laws/test_law_03_online.py",
    "tests/serving/test_control.py",
    "tests/features/test_audit.py",
    "tests/benchmarks/test_pipeline.py",
    "tests/benchmarks/test_sentiment.py",
    "tests/chaos/test_kill_pipeline.py",
    "tests/acceptance/test_skill.py",
    "tests/sentiment/test_stage.py",
    "tests/evaluation/test_ablation.py",
    "tests/serving/test_openapi.py",
    "tests/benchmarks/test_features.py",
    "tests/laws/test_law_06_tuning.py",
    "tests/laws/test_law_04_partition_independence.py",
    "tests/evaluation/test_stage.py",
    "tests/test_cli_audit.py",
)
"""Groups of 20 seconds and more, the longest first: what begins last must be short, or a process waits."""


def group_of(nodeid: str) -> str:
    """The name of the group in `TOGETHER`, else the test's file."""
    file = nodeid.partition("::")[0]
    return next((name for path, name in TOGETHER.items() if file.startswith(path)), file)


def longest_first(nodeid: str) -> int:
    """Place of the test's group in `LONGEST`; all others come after them."""
    group = group_of(nodeid)
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


class ByGroup(LoadScopeScheduling):
    """Hands out whole groups in the order of the tests, so that what a group shares is made once."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
