"""Each law has a test file and a mutation that applies to the code as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.laws.mutate import LAWS, MUTATIONS, ROOT, apply, law_of

PATCHES = sorted(MUTATIONS.glob("*.patch"))


@pytest.mark.parametrize("law", [f"{n:02d}" for n in LAWS])
def test_every_law_has_a_test_file_and_a_mutation(law: str) -> None:
    assert list((ROOT / "tests/laws").glob(f"test_law_{law}_*.py"))
    assert law in {law_of(p) for p in PATCHES}


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.stem)
def test_every_mutation_still_applies_and_changes_product_code_only(patch: Path) -> None:
    changed = [line[6:] for line in patch.read_text().splitlines() if line.startswith("+++ b/")]
    assert changed
    assert all(name.startswith("marketray/") for name in changed)
    applied = apply(patch, ROOT, "--check")
    assert applied.returncode == 0, applied.stderr
