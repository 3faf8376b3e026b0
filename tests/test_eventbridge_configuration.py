"""What can be wrong before anything is sent: URLs, names, declarations; and one line for each."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.eventbridge_harness import environment
from tests.support import run

from crossbus import (
    AdapterNotInstalled,
    Bus,
    BusClosedError,
    ConfigurationError,
    Unauthenticated,
    UnsupportedError,
)
from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.errors import DeclarationError
from crossbus.profiles import Profile
from crossbus.registry import capabilities_of
from crossbus.topology import Subscription, Topic
from crossbus_eventbridge import EventBridgeAdapter
from crossbus_eventbridge.errors import permission
from crossbus_eventbridge.naming import Names, Queue, queue_of
from crossbus_eventbridge.options import Options, is_loopback
from crossbus_eventbridge.settings import queue_attributes


def adapter(url: str, **more: Any) -> EventBridgeAdapter:
    return EventBridgeAdapter(load(url).default, clock=SystemClock(), **more)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("eventbridge:shop", "takes nothing after its colon but parameters"),
        ("eventbridge:?region=europe", "region 'europe' is none: write it as in eu-west-1"),
        ("eventbridge:?role_arn=admin", "role_arn must be as in arn:aws:iam::123456789012:role/NAME"),
        ("eventbridge:?external_id=x", "external_id belongs to a role: set role_arn too"),
        ("eventbridge:?endpoint=localhost:4566", "endpoint must be a URL such as http://127.0.0.1:5000"),
        (
            "eventbridge:?endpoint=http://aws.example.com",
            "endpoint is plain HTTP, which is for this machine only",
        ),
        ("eventbridge:?wait=21", "wait=21: it must be a whole number from 1 to 20"),
        ("eventbridge:?wait=0", "wait=0: it must be a whole number from 1 to 20"),
        ("eventbridge:?pollers=many", "pollers=many: it must be a whole number from 1 to 10"),
        ("eventbridge:?archive=-1", "archive=-1: it must be a whole number from 0"),
        ("eventbridge:?verify=no", "verify=no: it must be true or false"),
        ("eventbridge:?regoin=eu-west-1", "eventbridge has no parameter 'regoin'; did you mean 'region'?"),
        ("eventbridge:?secret_access_key=x", "'secret_access_key' is refused"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_region_comes_from_where_aws_has_it(tmp_path: Path) -> None:
    profile = load("eventbridge:").default
    assert Options.of(profile, {}).region is None
    assert Options.of(profile, {"AWS_DEFAULT_REGION": "eu-west-1"}).region == "eu-west-1"
    both = {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert Options.of(profile, both).region == "eu-north-1"
    given = load("eventbridge:?region=us-gov-west-1").default
    assert Options.of(given, both).region == "us-gov-west-1"

    (tmp_path / "config").write_text("[profile shop]\nregion = ap-southeast-2\n", "utf-8")
    (tmp_path / "credentials").write_text(
        "[shop]\naws_access_key_id = a\naws_secret_access_key = b\n", "utf-8"
    )
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }

    async def region(url: str) -> str:
        opened = adapter(url)
        await opened.open()
        try:
            return opened.connection.clients.region
        finally:
            await opened.close()

    with environment(files):
        assert run(region("eventbridge:?profile=shop")) == "ap-southeast-2"
    with environment({**files, "AWS_PROFILE": "shop"}):
        assert run(region("eventbridge:")) == "ap-southeast-2"
        assert run(region("eventbridge:?region=eu-west-1")) == "eu-west-1"


@pytest.mark.parametrize(
    ("env", "url", "kind", "says"),
    [
        (
            {},
            "eventbridge:",
            ConfigurationError,
            r"no AWS region: write it in the URL, eventbridge:\?region=eu-west-1",
        ),
        ({}, "eventbridge:?region=eu-west-1", Unauthenticated, "no AWS credentials: set AWS_PROFILE"),
        (
            {},
            "eventbridge:?region=eu-west-1&profile=nobody",
            ConfigurationError,
            r"\(nobody\) could not be found",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "a"},
            "eventbridge:?region=eu-west-1",
            Unauthenticated,
            "Partial credentials found.*set AWS_PROFILE",
        ),
    ],
)
def test_what_is_missing_is_said_at_open(
    env: dict[str, str], url: str, kind: type[Exception], says: str, tmp_path: Path
) -> None:
    nothing = {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    async def opened() -> None:
        async with Bus(url):
            raise AssertionError("it was opened")

    with environment({**nothing, **env}), pytest.raises(kind, match=says) as caught:
        run(opened())
    assert "\n" not in str(caught.value)


def test_endpoints_come_from_aws_own_variables() -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    async def endpoints(url: str = "eventbridge:") -> tuple[tuple[str, str], bool]:
        opened = adapter(url)
        await opened.open()
        try:
            return opened.connection.clients.endpoints(), opened.is_local
        finally:
            await opened.close()

    with environment(env):
        (events, sqs), local = run(endpoints())
        assert events == "https://events.eu-west-1.amazonaws.com"
        assert sqs == "https://sqs.eu-west-1.amazonaws.com"
        assert not local
    with environment({**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}):
        assert run(endpoints()) == (("http://127.0.0.1:5000",) * 2, True)
    with environment({**env, "AWS_ENDPOINT_URL_SQS": "http://localhost:5001"}):
        (events, sqs), local = run(endpoints())
        assert (events, sqs) == ("https://events.eu-west-1.amazonaws.com", "http://localhost:5001")
        assert not local, "half of it is AWS's: nothing is created there by itself"
    with environment({**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}):
        assert run(endpoints("eventbridge:?endpoint=http://[::1]:5002"))[0] == ("http://[::1]:5002",) * 2


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://localhost.localstack.cloud:4566", False),
        ("http://sqs.us-east-1.localhost.localstack.cloud:4566", True),
        ("https://events.eu-west-1.amazonaws.com", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_what_is_this_machine(url: str, local: bool) -> None:
    assert is_loopback(url) is local


# --- names --------------------------------------------------------------------------------------------------------


def names(**parameters: str) -> Names:
    return Names(Profile(adapter="eventbridge", scheme="eventbridge", parameters=parameters))


BUS_ARN = "arn:aws:events:eu-west-1:111122223333:event-bus/shop"
QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/111122223333/jobs"


def test_names_of_buses() -> None:
    assert names().bus(Topic("orders")) == "orders"
    assert names().bus(Topic("orders", resource="default")) == "default"
    assert names().bus(Topic("orders", resource=BUS_ARN)) == BUS_ARN
    assert names(bus="shop").bus(Topic("orders")) == "shop"
    assert names(bus="shop").bus(Topic("orders", resource="own")) == "own"
    assert names(bus="shop").is_shared(Topic("orders"))
    assert not names(bus="shop").is_shared(Topic("orders", resource="own"))
    assert not names().is_shared(Topic("orders"))
    assert names().is_shared(Topic("orders", resource="shop", options={"shared": True}))
    assert not names(bus="shop").is_shared(Topic("orders", options={"shared": False}))


@pytest.mark.parametrize(
    "resource", ["a bus", "arn:aws:sqs:eu-west-1:111122223333:q", "x" * 257, "arn:aws:events:x"]
)
def test_what_is_no_bus_is_refused(resource: str) -> None:
    with pytest.raises(ConfigurationError, match="topic 'orders'"):
        names().bus(Topic("orders", resource=resource))


def test_names_of_rules_and_queues_are_within_the_limits() -> None:
    long = Subscription(topic=Topic("t" + "o" * 39), name="s" + "u" * 39)
    assert len(names().rule(long)) == 64
    assert len(names().queue(long).name) == 80
    assert len(names().dead_queue(long.dead_letter).name) == 80
    short = Subscription(topic=Topic("orders"), name="billing")
    assert names().rule(short) == "orders--billing"
    assert names().queue(short) == Queue("orders--billing")
    assert names().dead_queue(short.dead_letter).name == "orders--billing--dead"
    assert names().rule(short.replace(options={"rule": "by-hand"})) == "by-hand"
    assert names().rule(short.replace(resource=QUEUE_URL)) == "orders--billing"


def test_queues_by_name_arn_and_url() -> None:
    assert queue_of("jobs", "x") == Queue("jobs")
    assert queue_of("arn:aws:sqs:eu-west-1:111122223333:jobs", "x") == Queue(
        "jobs", "111122223333", region="eu-west-1"
    )
    assert queue_of(QUEUE_URL, "x") == Queue("jobs", "111122223333", QUEUE_URL)
    moto = "http://127.0.0.1:5000/123456789012/jobs"
    assert queue_of(moto, "x") == Queue("jobs", "123456789012", moto)
    stack = "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/jobs"
    assert queue_of(stack, "x").name == "jobs"


@pytest.mark.parametrize("text", ["a queue", "https://example.com/jobs", BUS_ARN, "", "x" * 81])
def test_what_is_no_queue_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"x: resource .* is no queue: write its name, ARN"):
        queue_of(text, "x")


@pytest.mark.parametrize(
    "text", ["jobs.fifo", QUEUE_URL + ".fifo", "arn:aws:sqs:eu-west-1:111122223333:jobs.fifo"]
)
def test_fifo_queues_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FIFO queue.*one fixed message group"):
        queue_of(text, "subscription orders/billing")


# --- declarations ---------------------------------------------------------------------------------------------------


def test_order_is_refused_and_the_way_out_named() -> None:
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    async def opened() -> None:
        bus = Bus("eventbridge:?region=eu-west-1", provision="never")
        bus.subscribe("orders", "billing", ordered=True)
        async with bus:
            raise AssertionError("it was opened")

    with (
        environment(env),
        pytest.raises(UnsupportedError, match=r"is ordered.*profile that has ordering") as caught,
    ):
        run(opened())
    assert caught.value.capability == "ordering"


@pytest.mark.parametrize("retention", [59, 14 * 86_400 + 1])
def test_a_retention_that_sqs_does_not_have_is_refused(retention: float) -> None:
    subscription = Subscription(topic=Topic("orders"), name="billing", retention=retention)
    with pytest.raises(DeclarationError, match=r"60 to 1209600 s \(14 days\)"):
        queue_attributes(subscription, "arn")


def test_capabilities_are_read_and_urls_checked_without_boto3() -> None:
    program = (
        "import sys; sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        "import asyncio, crossbus\n"
        "from crossbus.registry import capabilities_of\n"
        "assert capabilities_of('eventbridge').publish_batch == 10\n"
        "bus = crossbus.Bus('eventbridge:?region=eu-west-1')\n"
        "try: asyncio.run(bus.open())\n"
        "except crossbus.AdapterNotInstalled as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "needs the module 'boto3', which is not installed: pip install 'crossbus[aws]'" in done.stdout, (
        done.stderr
    )
    assert issubclass(AdapterNotInstalled, ConfigurationError)
    assert capabilities_of("eventbridge").receive_batch == 100


def test_an_adapter_that_is_not_open_says_so() -> None:
    closed = adapter("eventbridge:?region=eu-west-1")
    for ask in (lambda: closed.connection, lambda: closed.queues):
        with pytest.raises(BusClosedError, match="is not open; open the bus first"):
            ask()
    assert closed.describe().system == "aws_eventbridge"
    asyncio.run(closed.close())


def test_permissions_are_named_as_iam_has_them() -> None:
    assert permission("PutEvents") == "events:PutEvents"
    assert permission("DeleteMessageBatch") == "sqs:DeleteMessage"
    assert permission("ChangeMessageVisibilityBatch") == "sqs:ChangeMessageVisibility"
    assert permission("GetQueueAttributes") == "sqs:GetQueueAttributes"
    assert permission("DescribeEventBus") == "events:DescribeEventBus"
    assert permission("AssumeRole") == "sts:AssumeRole"
