"""``make mutation-laws``: apply each committed patch to a copy of the project; its law's test must fail.

A patch ``mutations/law_NN_what.patch`` breaks law NN on purpose. The run copies the tracked files to a
temporary folder, applies one patch there and runs ``tests/laws/test_law_NN_*.py``. A mutation that no
test notices ends the run with exit code 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTATIONS = Path(__file__).parent / "mutations"
LAWS = range(1, 11)


def law_of(patch: Path) -> str:
    """The two digits of the law that a patch breaks."""
    return patch.name.split("_")[1]


def copy_project(target: Path) -> None:
    """Copy the tracked and new files of the working tree to `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def apply(patch: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``git apply`` on the files below `folder`."""
    return subprocess.run(
        ["git", "apply", *options, str(patch)], cwd=folder, capture_output=True, text=True, check=False
    )


def survives(patch: Path, folder: Path) -> str | None:
    """Apply `patch` in a copy below `folder` and run its law's tests; why it survived, or None."""
    copy = folder / patch.stem
    copy_project(copy)
    applied = apply(patch, copy)
    if applied.returncode:
        return f"does not apply: {applied.stderr.strip()}"
    tests = sorted(
        str(p.relative_to(copy)) for p in (copy / "tests/laws").glob(f"test_law_{law_of(patch)}_*.py")
    )
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("MARKETRAY_DATA", str(ROOT.parent / "shared" / "data"))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr.strip()
    if ran.returncode == 1 and " failed" in last and " error" not in last:
        return None
    return f"pytest ended with {ran.returncode}: {last}"


def main() -> None:
    """Run all mutations, or those whose names contain one of the arguments."""
    wanted = sys.argv[1:]
    patches = [p for p in sorted(MUTATIONS.glob("*.patch")) if not wanted or any(w in p.name for w in wanted)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for patch in patches:
            why = survives(patch, Path(folder))
            survivors += why is not None
            print(f"{patch.stem}: {'SURVIVED, ' + why if why else 'caught'}", flush=True)
    print(f"{len(patches) - survivors} caught, {survivors} survived")
    sys.exit(1 if survivors or not patches else 0)


if __name__ == "__main__":
    main()
