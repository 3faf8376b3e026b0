"""The conformance kit: on the local broker, with faults put in, ten times in parallel; and on wrong adapters."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tests import wrong_networks  # noqa: F401 (it registers)
from tests.harnesses import FileHarness, LocalHarness
from tests.support import run as run_limited
from tests.troubled import TROUBLE, TroubledAdapter, TroubledHarness
from tests.wrong_adapters import FAULTS, WrongAdapter
from tests.wrong_servers import WrongServer

from crossbus.adapter import Adapter
from crossbus.clock import Clock
from crossbus.conformance import GROUPS, VERSION, Faults, FaultyHarness, Report, all_cases, run

CASES = {case.name: case for case in all_cases()}
STARRED = {name for name, case in CASES.items() if case.starred and case.waits_for is None}
NOT_HERE = {"processes", "restarts", "network", "credentials"}
"""What the local broker does not have: no process, server, network or credential stands between."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def without_stress(case: Any) -> bool:
    return bool(case.group != "stress")


def check(report: Report) -> None:
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    for result in report.skipped:
        assert result.case.waits_for or NOT_HERE & set(result.case.requires), result.detail


# --- the local broker ---------------------------------------------------------------------------------------------


def test_local_broker_passes_every_case() -> None:
    check(run_limited(run(LocalHarness(), select=without_stress), limit=300))


def test_local_broker_in_a_file_passes_every_case(tmp_path: Path) -> None:
    check(run_limited(run(FileHarness(tmp_path), select=without_stress), limit=300))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_bus_survives_faults(seed: int) -> None:
    harness = FaultyHarness(LocalHarness(), Faults(seed=seed))
    check(run_limited(run(harness, select=without_stress), limit=300))
    struck = {name for adapter in harness.adapters for name in adapter.struck}
    wanted = {name for name in Faults.__slots__ if name not in ("seed", "weak_filters")}
    assert struck == wanted, f"these faults never struck: {wanted - struck}"


@pytest.mark.long
def test_ten_times_in_parallel() -> None:
    check(run_limited(run(LocalHarness(), select="stress", scale=0.25), limit=600))


# --- the list -----------------------------------------------------------------------------------------------------


def listed() -> dict[str, Any]:
    return {
        "version": VERSION,
        "cases": [
            {
                "name": case.name,
                "title": case.title,
                "starred": case.starred,
                "requires": list(case.requires),
                "waits_for": case.waits_for,
                "proved_by": [adapter.__name__ for adapter in FAULTS.get(case.name, [])],
            }
            for case in CASES.values()
        ],
    }


def test_list_of_cases_is_the_registry() -> None:
    text = resources.files("crossbus.conformance").joinpath("cases.json").read_text("utf-8")
    assert json.loads(text) == listed(), "write it anew: python -m tests.test_conformance"


def test_every_group_has_a_wrong_adapter() -> None:
    assert {case.group for case in CASES.values()} == set(GROUPS)
    assert {name.partition("/")[0] for name in FAULTS} == set(GROUPS)
    assert FAULTS.keys() <= CASES.keys()


def test_every_starred_case_has_a_wrong_adapter_or_server() -> None:
    assert FAULTS.keys() >= STARRED, f"starred, and nothing fails them: {STARRED - FAULTS.keys()}"


# --- a network, a server and credentials, before the local broker ---------------------------------------------------


def test_right_adapter_survives_each_trouble() -> None:
    report = run_limited(run(TroubledHarness(), select=lambda case: TROUBLE & set(case.requires)), limit=300)
    assert not report.failed, f"\n{report.table()}\n{report.failed[0].error}"
    assert not report.skipped, report.table()


# --- wrong adapters -----------------------------------------------------------------------------------------------


class WrongHarness(LocalHarness):
    scale = 0.1

    def __init__(self, wrong: type[WrongAdapter]) -> None:
        self.name = wrong.__name__
        self.wrong = wrong
        self.worlds_state: dict[str, dict[str, Any]] = {}

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        return self.wrong(super().make_adapter(world, clock), self.worlds_state.setdefault(world, {}))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param(name, wrong, id=f"{name}-{wrong.__name__}")
        for name, list_ in FAULTS.items()
        for wrong in list_
        if not issubclass(wrong, WrongServer)  # those are in test_conformance_servers.py
    ],
)
def test_wrong_adapter_fails_its_case(name: str, wrong: type[Any]) -> None:
    harness = TroubledHarness(wrong) if issubclass(wrong, TroubledAdapter) else WrongHarness(wrong)
    report = run_limited(run(harness, select=name, timeout=20), limit=300)
    assert [result.status for result in report.results] == ["failed"], f"{wrong.__name__} passes {name}"


if __name__ == "__main__":
    import crossbus.conformance

    path = Path(crossbus.conformance.__file__).parent / "cases.json"
    path.write_text(json.dumps(listed(), indent=2, ensure_ascii=False) + "\n", "utf-8")
