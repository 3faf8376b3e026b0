"""From an empty folder to a program that runs: export, apply, doctor. The cloud is moto's server, and the AWS provider
itself applies the module for EventBridge.

It takes more than a minute, nearly all of which the provider waits for SQS, as it would have to on AWS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.cli_here import here
from tests.moto_world import MotoServer, moto_server
from tests.terraform_world import TERRAFORM, Terraform, needs_aws_provider, needs_terraform, terraform

from crossbus import Bus, Event, Reject, exact, prefix
from crossbus.deadletter import DeadLetter

pytestmark = [needs_terraform, needs_aws_provider]
WHERE = "examples/eventbridge/complete"
TFVARS = "crossbus.auto.tfvars.json"
REGION = "eu-west-1"
OVERRIDE = """
module "events" {
  restrict_dlq_sources = false # moto forgets it, and the provider would wait for it
}
"""
SIZE = "-var=max_message_bytes=262144"
"""What this release of the provider takes."""
PROGRAM, TERRAFORM_KEY = "AKIAPROGRAM", "AKIATERRAFORM"


def client(server: MotoServer, service: str) -> Any:
    session = boto3.Session("AKIATESTS", "secret", region_name=REGION)
    return session.client(service, endpoint_url=server.url)


def declared(folder: Path) -> tuple[Bus, dict[str, list[str]]]:
    """What examples/shop.py declares, with handlers that note what they are given; a poison order is rejected."""
    bus = Bus(profile="production", config=folder / "crossbus.toml", provision="never")
    handled: dict[str, list[str]] = {"billing": [], "shipping": [], "books": []}

    @bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
    async def bill(event: Event) -> None:
        if event.subject == "poison":
            raise Reject("no such customer")
        handled["billing"].append(event.id)

    @bus.subscribe("orders", "shipping", filter=prefix(type="com.acme.order."), lease=120, retention=86400)
    async def ship(event: Event) -> None:
        handled["shipping"].append(event.id)

    @bus.subscribe("payments", "books")
    async def book(event: Event) -> None:
        handled["books"].append(event.id)

    return bus, handled


def event(type: str, id: str, subject: str | None = None) -> Event:
    return Event(type=type, source="/shop", id=id, subject=subject, data={"order": id})


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def run_program(folder: Path) -> None:
    bus, handled = declared(folder)
    async with bus, bus.running():
        await bus.publish("orders", event("com.acme.order.placed", "o-1"))
        await bus.publish("orders", event("com.acme.order.paid", "o-2"))
        await bus.publish("orders", event("com.acme.customer.moved", "c-1"))
        await bus.publish("payments", event("com.acme.payment.received", "p-1"))
        await bus.publish("orders", event("com.acme.order.placed", "o-3", subject="poison"))
        wanted = {"billing": ["o-1"], "shipping": ["o-1", "o-2", "o-3"], "books": ["p-1"]}
        letters: list[DeadLetter] = []

        async def all_is_handled() -> bool:
            letters[:] = await bus.dead_letters("orders", "billing").list()
            return len(letters) == 1 and {name: sorted(ids) for name, ids in handled.items()} == wanted

        await until(all_is_handled)
        assert letters[0].reason == "no such customer"
        assert letters[0].event is not None
        assert letters[0].event.id == "o-3"


async def differences(folder: Path) -> list[str]:
    """What the program would change."""
    bus, _ = declared(folder)
    async with bus:
        return [
            f"{one.action} {one.kind} {one.name}: {one.detail}" for one in await bus.provision(dry_run=True)
        ]


def doctor(folder: Path, server: MotoServer) -> set[str]:
    """The checks that `crossbus doctor` warns of, permissions apart: moto has no IAM to ask. It finds nothing wrong."""
    variables = {**credentials(server, PROGRAM), "CROSSBUS_PROFILE": "production"}
    done = here("doctor", "shop:bus", "-o", "json", cwd=folder, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len([one for one in found if one["state"] == "ok"]) > 10
    return {one["check"] for one in found if one["state"] == "warning"}


@pytest.mark.long
def test_from_an_empty_folder_to_a_program_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with moto_server() as server, terraform(tmp_path / "terraform", real_aws=True) as tool:
        folder = tmp_path / "program"
        folder.mkdir()
        shutil.copy(TERRAFORM / "examples" / "shop.py", folder)
        exported = here("topology", "export", "shop:bus", cwd=folder, CROSSBUS_URL="local:")
        assert exported.returncode == 0, exported.stderr
        apply(tool, server, folder / TFVARS)
        (folder / "crossbus.aws.toml").write_text(tool.ok(WHERE, "output", "-raw", "crossbus_toml"), "utf-8")
        (folder / "crossbus.toml").write_text('include = ["crossbus.aws.toml"]\n', "utf-8")

        for name, value in credentials(server, PROGRAM).items():
            monkeypatch.setenv(name, value)
        # All is as the program would make it, but for the size that this release of the provider cannot say.
        changes = asyncio.run(differences(folder))
        size = "maximum message size 262144, declared 1048576"
        assert [re.sub(r" \S+: ", ": ", one) for one in changes] == [f"update queue: {size}"] * 6
        assert doctor(folder, server) == {"message-size"}
        enlarge(client(server, "sqs"))
        assert asyncio.run(differences(folder)) == []
        assert doctor(folder, server) == set()

        caplog.clear()
        with caplog.at_level(logging.WARNING, "crossbus"):
            asyncio.run(run_program(folder))
        assert not [one.getMessage() for one in caplog.records if "differs" in one.getMessage()]
        counts = server.counts(PROGRAM)
        assert counts["PutEvents"] == 5
        made = ("Create", "Put", "Set", "Tag", "Delete")
        assert {name for name in counts if name.startswith(made)} <= {"PutEvents", "DeleteMessageBatch"}


def enlarge(sqs: Any) -> None:
    """Let queues take what they should, as a newer release of the provider would."""
    for url in sqs.list_queues()["QueueUrls"]:
        has = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
        # moto forgets the policy of a queue whose attributes are set without it.
        sqs.set_queue_attributes(QueueUrl=url, Attributes={**has, "MaximumMessageSize": "1048576"})


def apply(tool: Terraform, server: MotoServer, topology: Path) -> None:
    """Apply the example with a topology, and with what moto and this release of the provider want otherwise."""
    shutil.copy(topology, tool.folder / WHERE / TFVARS)
    (tool.folder / WHERE / "override.tf").write_text(OVERRIDE, "utf-8")
    tool.environment |= credentials(server, TERRAFORM_KEY)
    tool.init(WHERE)
    tool.ok(WHERE, "apply", "-no-color", "-input=false", "-auto-approve", "-parallelism=30", SIZE, limit=600)
    state = json.loads(tool.ok(WHERE, "show", "-json"))
    (module,) = state["values"]["root_module"]["child_modules"]
    assert len([one for one in module["resources"] if one["mode"] == "managed"]) == 39


def credentials(server: MotoServer, key: str) -> dict[str, str]:
    """The environment with which terraform's provider, and boto3, speak to moto."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
