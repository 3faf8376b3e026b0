"""`crossbus topology diff`: two documents, a document and a program, and a program and its provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli_here import here
from tests.declared import PROGRAM, alone, in_world, write
from tests.test_cli import refused
from tests.test_cli_dlq import World
from tests.test_topology_export import CONFIG, topology
from tests.test_topology_export import PROGRAM as SHOP

from crossbus_pubsub.naming import generation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "crossbus.toml").write_text(CONFIG)
    (tmp_path / "crossbus.generated.toml").write_text("")
    for name in ("before.json", "before.yaml"):
        form = "yaml" if name.endswith("yaml") else "tfvars"
        words = ("export", "shop:bus", "--profile", "google", "--format", form, "-o", name)
        assert topology(*words, cwd=tmp_path).returncode == 0
    return tmp_path


def change(folder: Path) -> None:
    text = SHOP.replace("com.acme.order.placed", "paid").replace("61.5", "70")
    text = text.replace('bus.topic("invoices")', 'bus.topic("notices")').replace(
        '"invoices", "ledger"', '"orders", "new"'
    )
    (folder / "shop.py").write_text(text)


LINES = """\
- topic invoices
+ topic notices
- subscription invoices/ledger
~ subscription orders/billing: eventbridge.pattern {"detail-type":["com.acme.order.placed"]} -> {"detail-type":["paid"]}
~ subscription orders/billing: eventgrid.included_event_types ["com.acme.order.placed"] -> ["paid"]
~ subscription orders/billing: filter {"exact":{"type":"com.acme.order.placed"}} -> {"exact":{"type":"paid"}}
~ subscription orders/billing: pubsub.filter attributes.ce-type = "com.acme.order.placed" -> attributes.ce-type = "paid"
~ subscription orders/billing: pubsub.older_generations.orders--billing--49c71bd5 (none) -> attributes.ce-type = \
"com.acme.order.placed"
~ subscription orders/billing: pubsub.subscription orders--billing--49c71bd5 -> orders--billing--NEW
+ subscription orders/new
"""


def test_a_document_and_the_program_as_it_is_now(folder: Path) -> None:
    for before in ("before.json", "before.yaml"):
        same = topology("diff", before, "shop:bus", "--profile", "google", cwd=folder)
        assert (same.returncode, same.stdout, same.stderr) == (0, "", "note: no difference\n")
    change(folder)
    done = topology("diff", "before.json", "shop:bus", "--profile", "google", cwd=folder)
    lines = [line for line in done.stdout.splitlines() if "orders/search" not in line]
    wanted = LINES.replace("NEW", generation('attributes.ce-type = "paid"'))
    assert (done.returncode, lines, done.stderr) == (1, wanted.splitlines(), "")
    assert "~ subscription orders/search: lease_seconds 62 -> 70" in done.stdout


def test_two_documents_and_json(folder: Path) -> None:
    change(folder)
    words = ("export", "shop:bus", "--profile", "google", "-o", "after.json", "--previous", "before.json")
    assert topology(*words, cwd=folder).returncode == 0
    shown = topology("diff", "before.yaml", "after.json", cwd=folder)
    assert (
        shown.stdout == topology("diff", "before.json", "shop:bus", "--profile", "google", cwd=folder).stdout
    )
    done = topology("diff", "before.json", "after.json", "-o", "json", cwd=folder)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(rows)) == (1, len(shown.stdout.splitlines()))
    assert rows[0] == {
        "change": "removed",
        "kind": "topic",
        "name": "invoices",
        "key": "",
        "before": None,
        "after": None,
        "detail": "",
    }
    assert {"key": "lease_seconds", "before": 62, "after": 70}.items() <= next(
        row for row in rows if row["key"] == "lease_seconds"
    ).items()
    same = topology("diff", "after.json", "after.json", "-o", "json", cwd=folder)
    assert (same.returncode, same.stdout) == (0, "")


def test_another_profile_is_a_difference(folder: Path) -> None:
    done = topology("diff", "before.json", "shop:bus", "--profile", "production", cwd=folder)
    assert done.returncode == 1
    assert done.stdout.startswith("~ topology: profile google -> production\n")


def test_what_cannot_be_compared_is_one_line(folder: Path) -> None:
    refused(topology("diff", "before.json", cwd=folder), "what to compare with is missing")
    refused(topology("diff", "none.json", "before.json", cwd=folder), "there is no file 'none.json'")
    refused(topology("diff", "before.json", "none.json", cwd=folder), "there is no file 'none.json'")
    refused(topology("diff", "shop:bus", "before.json", cwd=folder), "the document of before comes first")
    refused(
        topology("diff", "before.json", "shop:bus", "--cloud", cwd=folder), "--cloud compares one program"
    )
    refused(
        topology("diff", "shop:bus", "--cloud", "--profile", "desk", cwd=folder),
        "in the memory of one process",
    )


# --- with the provider ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "pubsub", "eventbridge", "eventgrid"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with alone(request.param, tmp_path) as made:
        yield made


def test_a_program_and_its_provider(world: World, tmp_path: Path) -> None:
    def diff() -> tuple[int, list[str]]:
        done = in_world(world, "topology", "diff", "shop:bus", "--cloud", cwd=tmp_path)
        return done.returncode, done.stdout.splitlines()

    code, lines = diff()
    assert code == 1
    assert [line.partition(":")[0] for line in lines] == [
        f"- topic {world.topic}-more",
        f"- topic {world.topic}",
        f"- subscription {world.where}",
        f"- subscription {world.topic}/audit",
    ]
    assert all(line.endswith(" is missing") for line in lines)

    assert in_world(world, "provision", "shop:bus", "--yes", cwd=tmp_path).returncode == 0
    assert diff() == (0, [])

    write(
        tmp_path,
        world,
        "\n".join(PROGRAM.splitlines()[:-1]).replace("lease={lease})", "lease={lease}, backstop=7)"),
    )
    code, lines = diff()
    assert code == 1
    assert lines[0].startswith(f"~ subscription {world.where}: ")
    assert "7" in lines[0]
    assert any(line.startswith("+ resource ") and "audit" in line for line in lines)
    assert all(line.endswith(": made by crossbus, and declared no more") for line in lines[1:])


def test_what_may_not_be_seen_is_said_and_is_no_agreement(tmp_path: Path) -> None:
    from tests import eventbridge_harness

    with eventbridge_harness.world(eventbridge_harness.server()) as aws:
        world = World("eventbridge", aws.url("cli"), dict(aws.env))
        write(tmp_path, world)
        assert in_world(world, "provision", "shop:bus", "--yes", cwd=tmp_path).returncode == 0
        denied = ["DescribeEventBus", "ListQueues", "ListRules", "ListEventBuses"]
        aws.server.set(aws.key("cli"), errors=[["AccessDeniedException", one] for one in denied])
        try:
            done = in_world(world, "topology", "diff", "shop:bus", "--cloud", cwd=tmp_path)
        finally:
            aws.server.set(aws.key("cli"), errors=[])
        assert done.returncode == 1
        assert f"? topic {world.topic}: " in done.stdout
        assert "? topology: whether there is more than is declared cannot be seen: " in done.stdout
        assert "~" not in done.stdout


def test_a_mistake_of_the_program_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from crossbus import Bus\nbus = Bus()\nbus.subscribe('orders', 'billing', lease=1)\n"
    )
    done = here(
        "topology",
        "diff",
        "shop:bus",
        "--cloud",
        cwd=tmp_path,
        CROSSBUS_URL="pubsub:acme",
        PUBSUB_EMULATOR_HOST="127.0.0.1:1",
    )
    refused(done, "a lease of 1 s; pubsub allows 10 to 600 s")
