"""The examples run, end by themselves, and print what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_cli import LIMIT, environment

EXAMPLES = Path(__file__).parent.parent / "examples"

OUTPUT = {
    "shop": """
        published e-1 to orders
        published e-2 to orders
        billed o-1: 12.50 (event e-1 from /shop)
        billed o-2: 80.00 (event e-2 from /shop)
    """,
    "filters": """
        placed       1 2
        orders       1 2 3
        endings      3
        europe       1 3
        not-europe   2 4
        either       3 4
        everything   1 2 3 4
        crossbus evaluates  nothing
    """,
    "retries_and_dead_letters": """
        o-1 attempt 1: billed
        o-2 attempt 1: the payment service does not answer
        o-2 attempt 2: billed
        o-3 attempt 1: the payment service asks us to come back later
        o-3 attempt 2: billed
        o-4 attempt 3: a mistake in the handler
        o-5 attempt 1: unknown currency
        dead: e-4 after 3: failed KeyError: 'price'
        dead: e-5 after 1: unknown currency CHF
        redriven: 1
        o-5 attempt 1: billed
        purged: 1
    """,
    "batches": """
        published 120
        handled 120, dead letters: 1
        published
        refused: EventTooLarge
        published
    """,
    "ordering": """
        o-1 placed: fails, and is retried; o-2 does not wait for it
        o-1 placed paid shipped
        o-2 placed paid shipped
    """,
    "sync_program": """
        billed o-1 o-2
    """,
    "pull": """
        total: 4
        waiting: 1
        dead: e-2 a test order
    """,
    "deduplicate": """
        e-1 handled
        e-2 handled
        published 4, handled 2, dropped 2
    """,
}


def run(*words: str, cwd: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=cwd,
        env=environment(CROSSBUS_URL="local:"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.parametrize("name", OUTPUT)
def test_example(name: str) -> None:
    done = run(f"{name}.py")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    printed = done.stdout.splitlines()
    for line in OUTPUT[name].strip().splitlines():  # in any order: handlers run side by side
        assert line.strip() in printed, done.stdout


def test_the_example_of_a_test_passes_and_would_fail(tmp_path: Path) -> None:
    for file in (EXAMPLES / "testing_a_handler").glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
    program = tmp_path / "shop.py"
    # Not "1.3": of the same size and in the same second, Python would take the cached bytecode for current.
    program.write_text(program.read_text().replace("* 1.2", "* 1.25"))
    assert run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path).returncode == 1


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(OUTPUT)


def test_the_program_of_the_demo_is_the_first_example() -> None:
    shipped = EXAMPLES.parent / "src" / "crossbus" / "demo" / "program.py"
    assert (EXAMPLES / "shop.py").read_text() == shipped.read_text()
