"""The conformance kit on real servers behind a network that can be cut, and on servers that are wrong on purpose."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.harnesses import MemoryHarness, SqliteHarness
from tests.served_faulty import FaultyServer
from tests.wrong_adapters import FAULTS
from tests.wrong_servers import WrongServer

from crossbus.conformance import Case, Report, ServerHarness, run

NOT_HERE = {"memory": {"restarts", "credentials"}, "sqlite": {"credentials"}}
"""By what is tested, the capabilities for want of which cases are skipped. No other case may be."""
SERVERS: dict[str, Callable[[Path], ServerHarness]] = {
    "memory": lambda folder: MemoryHarness(),
    "sqlite": SqliteHarness,
}
PATIENCE = 0.3
"""Of runs that must fail: what does not come is waited for so long. A right server passes with as little."""


def wrong_ones() -> dict[str, tuple[str, type[WrongServer]]]:
    return {
        f"{case}-{wrong.__name__}": (case, wrong)
        for case, list_ in FAULTS.items()
        for wrong in list_
        if issubclass(wrong, WrongServer)
    }


WRONG = wrong_ones()


# --- the runs -----------------------------------------------------------------------------------------------------


class ImpatientServer(FaultyServer):
    patience = PATIENCE
    scale = 0.1


def whole_kit(name: str, folder: Path) -> Report:
    def select(case: Case) -> bool:
        # What needs the server to itself is about networks and processes, which are the same before any storage.
        return case.group != "stress" and not (case.exclusive and name == "memory")

    with SERVERS[name](folder) as harness:
        report = asyncio.run(run(harness, select=select, parallel=16))
        for result in report.failed:
            print(f"{result.case.name}: {result.error}\nthe server said: {harness.server.said()}")
    return report


def one_case(name: str, folder: Path) -> Report:
    case, wrong = WRONG[name]
    with ImpatientServer(folder, wrong.__name__, durable=wrong.durable) as harness:
        return asyncio.run(run(harness, select=case))


def right_server(folder: Path) -> Report:
    with ImpatientServer(folder) as harness:
        return asyncio.run(run(harness, select=sorted({case for case, _ in WRONG.values()})))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)  # the cases provoke what would be logged
    faulthandler.cancel_dump_traceback_later()  # it does take long
    yield
    logging.disable(logging.NOTSET)


# --- right, and wrong ---------------------------------------------------------------------------------------------


@pytest.mark.long(5)
@pytest.mark.parametrize("name", SERVERS)
def test_server_passes_every_case(name: str, tmp_path: Path) -> None:
    report = whole_kit(name, tmp_path)
    assert not report.failed, f"\n{report.table()}"
    assert report.passed
    for result in report.skipped:
        assert result.case.waits_for or NOT_HERE[name] & set(result.case.requires), result.detail


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if "KeepsNothing" in name else ()) for name in WRONG]
)
def test_wrong_server_fails_its_case(name: str, tmp_path: Path) -> None:
    assert [result.status for result in one_case(name, tmp_path).results] == ["failed"], f"{name}: it passes"


@pytest.mark.long
def test_right_server_passes_what_wrong_ones_fail(tmp_path: Path) -> None:
    report = right_server(tmp_path)
    assert len(report.passed) == len(report.results), report.table()
