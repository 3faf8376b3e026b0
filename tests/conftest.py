"""For all tests: how much hypothesis tries, and which skips are allowed where skipping would hide something."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

CI = os.environ.get("CI", "").lower() == "true"

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=100,
    derandomize=True,  # the same commit gives the same answer; new examples are found at the desk
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if CI else "dev")

ALLOWED_SKIPS: dict[str, str] = {
    r"local lacks (processes|restarts|network|credentials)\b": "an adapter in one process has none of these",
    r"waits for ": "the case is listed, and named for what it waits for",
}
"""Reasons for which a test may be skipped where CI=true, as regular expressions, and why that hides nothing."""

SKIPPED = 9
"""What the run ends with if others were skipped, also if tests failed: running those once more would not tell of it."""

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _note(report.nodeid, reason.removeprefix("Skipped: "))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _note(report.nodeid, reason.removeprefix("Skipped: "))


def _note(nodeid: str, reason: str) -> None:
    if not any(re.match(allowed, reason) for allowed in ALLOWED_SKIPS):
        _skipped.append(f"{nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if CI and _skipped:
        session.exitstatus = SKIPPED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(
        "test_terraform" in getattr(one, "nodeid", "")
        for ones in terminalreporter.stats.values()
        for one in ones
    ):
        from terraform_world import level

        terminalreporter.section("terraform/")
        for line in level():
            terminalreporter.line(line)
    if CI and _skipped:
        terminalreporter.section("skipped, though nothing in tests/conftest.py allows it", red=True)
        for line in _skipped:
            terminalreporter.line(line, red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, the longest first, on half of the workers: none is left for the end.

    pytest-xdist gives each worker one run of the list, and lets those that are done take from the ends of the others'.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    takers = max(workers // 2, 1)
    long = sorted((item for item in items if _minutes(item)), key=_minutes, reverse=True)
    short = [item for item in items if not _minutes(item)]
    arranged: list[pytest.Item] = []
    for worker in range(workers):
        room = (len(items) - len(arranged)) // (workers - worker)
        mine = long[worker::takers] if worker < takers else []
        rest = max(room - len(mine), 0)
        arranged += mine + short[:rest]
        del short[:rest]
    items[:] = arranged + short


def _minutes(item: pytest.Item) -> int:
    """How many minutes a test takes, as its mark says; 0 for all that are quick."""
    mark = item.get_closest_marker("long")
    return 0 if mark is None else mark.args[0] if mark.args else 1


@pytest.fixture(scope="session")
def emulator() -> Any:
    """Google's Pub/Sub emulator: one for each process of the run, on a free port."""
    from pubsub_emulator import running

    return running()


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """The command line changes what is logged where; a test that runs it in this process must not tell on others."""
    loggers = [logging.getLogger(name) for name in ("crossbus", "crossbus.local")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.propagate = propagate
        logger.setLevel(level)
