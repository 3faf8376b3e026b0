"""What a provider cannot hold: the same sentence when a program opens its bus, and in what `topology export` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import run
from tests.test_cli import crossbus, refused
from tests.test_cli_dlq import WORLDS

from crossbus import Bus, RetryPolicy, exact
from crossbus.errors import CrossbusError
from crossbus.exporting import export
from crossbus.topology import Topology

CLOUDS = ("eventbridge", "eventgrid", "pubsub")
DAY = 86_400.0


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """By cloud, the URL of what stands in for it."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield {
            cloud: stack.enter_context(WORLDS[cloud](tmp_path_factory.mktemp(cloud))).url for cloud in CLOUDS
        }


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("eventbridge", {"ordered": True}, "is ordered: eventbridge cannot do that; it has no ordering"),
    ("eventgrid", {"ordered": True}, "is ordered: eventgrid cannot do that; it has no ordering"),
    ("eventbridge", {"lease": 0.5}, "a lease of 0.5 s; eventbridge allows 1 to 43200 s"),
    ("eventgrid", {"lease": 301}, "a lease of 301 s; eventgrid allows 2 to 300 s"),
    ("eventgrid", {"lease": 60.5}, "a lease of 60.5 s; eventgrid takes whole seconds"),
    ("pubsub", {"lease": 9}, "a lease of 9 s; pubsub allows 10 to 600 s"),
    ("eventbridge", {"backstop": 1001}, "a backstop of 1001 receives; eventbridge allows 1 to 1000"),
    ("eventgrid", {"backstop": 11}, "a backstop of 11 receives; eventgrid allows 1 to 10"),
    ("pubsub", {"backstop": 4}, "a backstop of 4 receives; pubsub allows 5 to 100"),
    ("eventgrid", {"retry": RetryPolicy(attempts=11)}, "has a limit of 11 attempts; eventgrid drops an event after 10"),
    ("eventgrid", {"retry": RetryPolicy(attempts="unlimited")}, "has a limit of unlimited attempts; eventgrid drops"),
    ("eventbridge", {"retention": 15 * DAY}, "SQS keeps messages for 60 to 1209600 s (14 days)"),
    ("eventgrid", {"retention": 8 * DAY}, "a retention of 691200 s; eventgrid allows 60 to 604800 s (7 days)"),
    ("pubsub", {"retention": 599}, "a retention of 599 s; pubsub allows 600 to 2678400 s (31 days)"),
    ("pubsub", {"retention": 32 * DAY}, "pubsub allows 600 to 2678400 s (31 days)"),
    ("eventbridge", {"native_filter": {"eventbridge": "x"}}, "native_filter is no JSON"),
    ("eventgrid", {"native_filter": {"eventgrid": {"filtrs": []}}}, "unknown key 'filtrs'; did you mean 'filters'?"),
    ("pubsub", {"native_filter": {"pubsub": "x" * 257}}, "has 257 bytes; Pub/Sub takes 256"),
    ("eventbridge", {"names": "a.{name}"}, "would be called 'a.orders', which eventbridge does not allow"),
    ("eventgrid", {"names": "a_{name}"}, "would be called 'a_orders', which eventgrid does not allow"),
    ("pubsub", {"names": "goog{name}"}, "would be called 'googorders', which pubsub does not allow"),
]  # fmt: skip


def declared(url: str, names: str = "{name}", **settings: Any) -> Bus:
    settings = {"lease": 60, "filter": exact(type="a"), **settings}
    bus = Bus(profile="shop", config={"profiles": {"shop": {"url": url, "names": names}}})
    bus.subscribe("orders", "billing", **settings)
    return bus


@pytest.mark.parametrize(("cloud", "settings", "says"), CASES, ids=lambda value: str(value)[:40])
def test_program_and_export_say_the_same(
    urls: dict[str, str], cloud: str, settings: dict[str, Any], says: str
) -> None:
    bus = declared(urls[cloud], **settings)
    assert bus._configuration is not None
    refusals = export(bus.topology, bus._configuration.default).refused
    (sentence,) = {refusal.sentence for refusal in refusals}
    assert says in sentence
    for provision in ("auto", "never"):
        bus._connections._provision = provision  # type: ignore[assignment]
        with pytest.raises(CrossbusError) as caught:
            run(bus.open(), limit=60)
        assert " ".join(str(caught.value).split()) == sentence


def test_the_other_clouds_say_what_they_would_at_start(urls: dict[str, str]) -> None:
    """An export for one cloud has the sentences of the others: those of a profile of theirs."""
    settings: dict[str, Any] = {"lease": 700, "ordered": True, "retry": RetryPolicy(attempts=7)}
    bus = declared("local:", **settings)
    assert bus._configuration is not None
    found = export(bus.topology, bus._configuration.default).document["topology"]
    wanted = found["subscriptions"]["orders/billing"]["refused"]
    assert set(wanted) == set(CLOUDS)
    for cloud in CLOUDS:
        with pytest.raises(CrossbusError) as caught:
            run(declared(urls[cloud], **settings).open(), limit=60)
        assert " ".join(str(caught.value).split()) == wanted[cloud]


def test_nothing_is_made_of_what_is_refused(urls: dict[str, str]) -> None:
    """A retention that SQS has not used to be seen after the dead letter was made."""
    bus = declared(urls["eventbridge"], names="half-{name}", retention=15 * DAY)
    with pytest.raises(CrossbusError):
        run(bus.open(), limit=60)

    async def looked() -> list[str]:
        async with Bus(profile="shop", config=bus_config(urls["eventbridge"])) as other:
            return [change.name for change in await other.adapter_for().plan(Topology(), prune=True)]

    assert run(looked(), limit=60) == []


def bus_config(url: str) -> dict[str, Any]:
    return {"profiles": {"shop": {"url": url, "names": "half-{name}"}}}


def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from crossbus import Bus\nbus = Bus()\n"
        "@bus.subscribe('orders', 'billing', lease=9)\ndef bill(event): pass\n"
        "bus.subscribe('orders', 'audit', backstop=4)\n"
    )
    sentence = "subscription orders/billing: a lease of 9 s; pubsub allows 10 to 600 s"
    variables = {"CROSSBUS_URL": "pubsub:acme", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    done = crossbus("run", "shop:bus", cwd=tmp_path, **variables)
    assert done.stderr.splitlines()[-1] == f"error: {sentence}"
    done = crossbus("topology", "export", "shop:bus", "--check", cwd=tmp_path, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"error: {sentence}",
        "error: subscription orders/audit: a backstop of 4 receives; pubsub allows 5 to 100",
    ]
    refused(crossbus("provision", "shop:bus", "--yes", cwd=tmp_path, **variables), sentence)
