"""The pytest plugin of crossbus: the fixture `bus`, and `local:` as the default of every Bus in tests.

It stands outside of the package `crossbus`, for pytest imports it in every project of an environment: only tests that
use it shall pay for importing crossbus.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crossbus import Bus, SyncBus
    from crossbus.testing import SyncTestBus

__all__ = ["bus", "crossbus_bus"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini options."""
    parser.addini(
        "crossbus_url",
        default="local:",
        help="CROSSBUS_URL of the tests, where neither it nor CROSSBUS_PROFILE is set; empty to leave it unset",
    )
    parser.addini(
        "crossbus_bus",
        default="",
        help="the program's Bus for the fixture `bus`, as MODULE:BUS; default: a new Bus for each test",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Keep every Bus of the program off a cloud: before any file is imported that may make one."""
    _stay_local(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Do so also where the plugin was loaded later, by a conftest.py."""
    _stay_local(config)


def _stay_local(config: pytest.Config) -> None:
    url = config.getini("crossbus_url")
    if url and not os.environ.get("CROSSBUS_URL") and not os.environ.get("CROSSBUS_PROFILE"):
        os.environ["CROSSBUS_URL"] = url
        config.add_cleanup(_unset)


def _unset() -> None:
    os.environ.pop("CROSSBUS_URL", None)


@pytest.fixture
def crossbus_bus(request: pytest.FixtureRequest) -> Bus | SyncBus:
    """The Bus that the fixture `bus` tests; override it to return the program's own.

    By default it is the one that the ini option `crossbus_bus` names, or else a new one.
    """
    from crossbus.testing.pytest_plugin import program_bus

    return program_bus(request.config.getini("crossbus_bus"))


@pytest.fixture
def bus(crossbus_bus: Bus | SyncBus) -> Iterator[SyncTestBus]:
    """The program's Bus on a broker that only this test sees: a `crossbus.testing.SyncTestBus`."""
    from crossbus.testing import SyncTestBus

    with SyncTestBus(crossbus_bus) as test_bus:
        yield test_bus
