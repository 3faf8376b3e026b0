"""One trace between processes, on each provider: exported over OTLP, decoded, and looked at."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from tests.trace_paths import PATHS, PROVIDERS, traced


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_trace_stays_one_on_every_path(provider: str) -> None:
    """One test for all paths: the processes are started once, and tests may be divided among several runners."""
    failed: dict[str, str] = {}
    with traced(provider) as world:
        for path, (_, check) in PATHS.items():
            try:
                check(world)
            except Exception:
                failed[path] = traceback.format_exc(limit=-2)
    assert not failed, "\n".join(f"{path}: {text}" for path, text in failed.items())


def test_the_matrix_has_every_path_and_no_hole() -> None:
    script = Path(__file__).parent.parent / "scripts" / "gen_trace_matrix.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
