"""The conformance kit on the Event Grid adapter, with Azure's SDK, against the strict server of the tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from crossbus.conformance import GROUPS, run
from eventgrid_harness import StrictHarness
from support import run as run_limited

NOT_OF_EVENT_GRID = {"ordering", "replay_time", "replay_position", "backstop_listed", "foreign"}
"""What a namespace lacks. The cases that need it are skipped by these names."""
NOT_OF_THE_STRICT_SERVER = {"processes", "restarts", "network"}
"""What `crossbus serve` has, and its harness tries."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.long
@pytest.mark.parametrize(
    "groups",
    [
        ("envelope", "basic", "acknowledgement", "lease"),
        ("retry", "replay", "order"),
        ("batch", "filters", "flow", "lifecycle"),
        ("resilience", "trace", "errors"),
    ],
    ids=" ".join,
)
def test_the_strict_server_passes_every_case(groups: tuple[str, ...]) -> None:
    report = run_limited(run(StrictHarness(), select=groups, parallel=8), limit=900)
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        lacks = set(result.case.requires) & (NOT_OF_EVENT_GRID | NOT_OF_THE_STRICT_SERVER)
        assert result.case.waits_for or lacks, f"{result.case.name} was skipped: {result.detail}"


def test_no_group_is_forgotten() -> None:
    marks = test_the_strict_server_passes_every_case.pytestmark  # type: ignore[attr-defined]
    named = {group for groups in marks[0].args[1] for group in groups}
    assert named == set(GROUPS) - {"stress"}
