"""The pytest plugin: its fixtures and ini options, what it does to the environment, and what it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "testing_a_handler"

SHOP = """
from dataclasses import dataclass
from crossbus import Bus

bus = Bus()
made = 0


@dataclass
class OrderPlaced:
    order: str
    total: float


@bus.subscribe("orders", "billing")
async def bill(order: OrderPlaced) -> None: ...


def make_bus():
    global made
    made += 1
    other = Bus()
    other.subscribe("orders", "made")(bill)
    return other


def make_nothing():
    return 3
"""

FIVE_LINES = """
from crossbus import Event

def test_bill(bus):
    bus.publish("orders", Event(type="com.acme.order.placed", source="/shop", data={"order": "o-1", "total": 10.0}))
    bus.wait_idle()
    assert bus.handled("orders", "billing")[0].outcome == "ack"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a shop, in which pytest runs in a process of its own, warnings being errors."""
    for variable in ("CROSSBUS_URL", "CROSSBUS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile(shop=SHOP)
    configure(pytester)
    return pytester


def configure(pytester: pytest.Pytester, *lines: str) -> None:
    text = "\n".join(("[pytest]", "filterwarnings = error", "pythonpath = .", *lines))
    pytester.makefile(".ini", pytest=f"{text}\n")


def outcome(pytester: pytest.Pytester, **expected: int) -> pytest.RunResult:
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**expected)
    return result


def test_a_test_of_a_handler_is_five_lines(project: pytest.Pytester) -> None:
    configure(project, "crossbus_bus = shop:bus")
    project.makepyfile(FIVE_LINES)
    outcome(project, passed=1)


def test_a_failing_assertion_shows_what_happened(project: pytest.Pytester) -> None:
    configure(project, "crossbus_bus = shop:bus")
    project.makepyfile(
        FIVE_LINES.replace('"ack"', '"retry"').replace("10.0", "'ten'").replace("[0].outcome ==", "==")
    )
    result = outcome(project, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*assert [[]<Handled com.acme.order.placed * of orders/billing by bill, attempt 1: reject (DataError: *"
        ]
    )


def test_the_bus_may_be_given_by_a_fixture(project: pytest.Pytester) -> None:
    project.makeconftest("import pytest, shop\n\n@pytest.fixture\ndef crossbus_bus():\n    return shop.bus\n")
    project.makepyfile(FIVE_LINES)
    outcome(project, passed=1)


def test_a_function_may_make_the_bus_for_each_test(project: pytest.Pytester) -> None:
    configure(project, "crossbus_bus = shop:make_bus")
    project.makepyfile(
        """
        import shop

        def test_one(bus):
            assert [str(one.declaration) for one in bus.bus.subscriptions] == ["orders/made"]
            assert shop.made == 1

        def test_two(bus):
            assert shop.made == 2
        """
    )
    outcome(project, passed=2)


def test_without_any_of_it_each_test_has_a_new_bus(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from crossbus import Event

        @pytest.mark.parametrize("index", [1, 2])
        def test_it(bus, index):
            @bus.subscribe("orders", "billing")
            async def bill(event: Event) -> None: ...

            bus.publish("orders", Event(type="com.acme.order.placed"))
            bus.wait_idle()
            assert [one.event.source for one in bus.handled("orders", "billing")] == ["/test"]
        """
    )
    outcome(project, passed=2)


def test_an_exception_in_the_loop_fails_the_test_at_its_end(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio

        def fail():
            raise ValueError("in the loop")

        def test_it(bus):
            @bus.bus.on_stop
            async def stop(bus) -> None:
                asyncio.get_running_loop().call_soon(fail)

        def test_next(bus): ...
        """
    )
    result = outcome(project, passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ValueError: in the loop"])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "shop",
            "*ConfigurationError: the ini option crossbus_bus = 'shop' must be MODULE:BUS, such as shop:bus",
        ),
        ("shopp:bus", "*there is no module 'shopp' on the import path; the ini option pythonpath of pytest*"),
        (
            "shop:buss",
            "*ConfigurationError: the ini option crossbus_bus = 'shop:buss': *has no attribute 'buss'",
        ),
        ("shop:make_nothing", "*'shop:make_nothing' is int, no Bus; name a Bus, or a function*"),
        ("broken:bus", "*ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_place_without_a_bus_is_named(project: pytest.Pytester, place: str, message: str) -> None:
    configure(project, f"crossbus_bus = {place}")
    project.makepyfile("def test_it(bus): ...", broken="import nowhere\n")
    outcome(project, errors=1).stdout.fnmatch_lines([message])


# --- the environment ----------------------------------------------------------------------------------------------

SHOW = """
import os

def test_it():
    assert (os.environ.get('CROSSBUS_URL'), os.environ.get('CROSSBUS_PROFILE')) == {}
"""


@pytest.mark.parametrize(
    ("lines", "environ", "seen"),
    [
        ([], {}, ("local:", None)),
        (["crossbus_url = local:mine"], {}, ("local:mine", None)),
        (["crossbus_url ="], {}, (None, None)),
        ([], {"CROSSBUS_URL": "local:theirs"}, ("local:theirs", None)),
        ([], {"CROSSBUS_PROFILE": "staging"}, (None, "staging")),
    ],
)
def test_a_bus_of_the_program_is_local_where_nothing_says_otherwise(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    environ: dict[str, str],
    seen: tuple[str | None, str | None],
) -> None:
    configure(project, *lines)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    project.makepyfile(SHOW.format(seen))
    outcome(project, passed=1)


def test_the_default_profile_of_the_file_is_not_reached(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml", crossbus='default_profile = "production"\n\n[profiles.production]\nurl = "local:cloud"\n'
    )
    project.makepyfile(
        "import shop\n\ndef test_it():\n    assert shop.bus._configuration.default.target == ''\n"
    )
    outcome(project, passed=1)


def test_the_environment_is_restored(project: pytest.Pytester) -> None:
    project.makepyfile(SHOW.format(("local:", None)))
    assert "CROSSBUS_URL" not in os.environ
    project.inline_run("-p", "no:cacheprovider", plugins=[]).assertoutcome(passed=1)
    assert "CROSSBUS_URL" not in os.environ


# --- what it costs ------------------------------------------------------------------------------------------------


def test_a_project_that_does_not_use_it_does_not_import_crossbus(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_it():
            assert "crossbus_pytest" in sys.modules
            assert "crossbus" not in sys.modules
        """
    )
    outcome(project, passed=1)


def test_the_example_passes_its_tests(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CROSSBUS_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path / "example",
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
