"""With CI=true a skip that is not on the list fails the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"


def outcome(folder: Path, reason: str, ci: str, *, fails: bool = False) -> tuple[int, str]:
    shutil.copy(CONFTEST, folder)
    (folder / "test_it.py").write_text(
        f"import pytest\n\n@pytest.mark.skip(reason={reason!r})\ndef test_it(): ...\n\n"
        f"def test_other(): assert {not fails}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**os.environ, "CI": ci},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no time today", "true", 9),
        ("no time today", "", 0),
        ("local lacks processes (several processes share the broker)", "true", 0),
    ],
)
def test_only_listed_skips_pass(tmp_path: Path, reason: str, ci: str, code: int) -> None:
    returned, text = outcome(tmp_path, reason, ci)
    assert returned == code, text
    assert ("nothing in tests/conftest.py allows it" in text) == bool(code)


def test_a_skip_is_told_from_a_failure(tmp_path: Path) -> None:
    """What failed is run once more; what was skipped would not be."""
    returned, text = outcome(tmp_path, "no time today", "true", fails=True)
    assert returned == 9, text
    assert "nothing in tests/conftest.py allows it" in text
