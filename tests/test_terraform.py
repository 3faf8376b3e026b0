"""The terraform modules: layout, names, types and references, and each module's own tests, with mock providers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli_here import here
from tests.terraform_world import (
    EXAMPLES,
    MIRROR,
    MODULES,
    ROOT,
    TERRAFORM,
    Terraform,
    level,
    needs_aws_provider,
    needs_terraform,
    terraform,
)

PLAN = """
mock_provider "aws" {
  mock_resource "aws_cloudwatch_event_bus" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:event-bus/orders" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-west-1:123456789012:orders--billing" }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/example.com" }
  }
}
mock_provider "google" {}
mock_provider "azurerm" {
  mock_resource "azurerm_eventgrid_namespace" {
    defaults = { id = "/subscriptions/1/resourceGroups/shop/providers/Microsoft.EventGrid/namespaces/shop" }
  }
}
mock_provider "azapi" {
  mock_data "azapi_resource" {
    defaults = { output = { properties = { topicsConfiguration = { hostname = "shop.example.net" } } } }
  }
}
run "apply" {
  assert {
    condition     = strcontains(output.crossbus_toml, "[profiles.")
    error_message = "no profile: ${output.crossbus_toml}"
  }
}
"""
"""A test of an example, which has none of its own: with mocks it can be applied."""


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with terraform(tmp_path_factory.mktemp("stubbed") / "terraform", real_aws=False) as made:
        yield made


@needs_terraform
def test_layout(stubbed: Terraform) -> None:
    stubbed.ok("", "fmt", "-check", "-recursive", "-diff", "-no-color", ".")


def test_the_topology_is_the_same_in_all_modules() -> None:
    texts = {(TERRAFORM / "modules" / module / "topology.tf").read_text("utf-8") for module in MODULES}
    assert len(texts) == 1


@needs_terraform
@pytest.mark.parametrize("module", MODULES)
def test_modules(stubbed: Terraform, module: str) -> None:
    where = f"modules/{module}"
    stubbed.init(where)
    stubbed.ok(where, "validate", "-no-color")
    said = stubbed.ok(where, "test", "-no-color")
    assert re.search(r"^Success! ([5-9]|\d\d) passed, 0 failed\.$", said, re.M), said


@needs_terraform
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(stubbed: Terraform, example: str) -> None:
    used = (TERRAFORM / example / "main.tf").read_text("utf-8")
    blocks = re.split(r"^(?=mock_provider|run)", PLAN, flags=re.M)
    kept = [
        one
        for one in blocks
        if not (name := re.match(r'mock_provider "(\w+)"', one)) or f'"{name[1]}"' in used
    ]
    (stubbed.folder / example / "example.tftest.hcl").write_text("".join(kept), "utf-8")
    stubbed.init(example)
    said = stubbed.ok(example, "test", "-no-color")
    assert "Success! 1 passed, 0 failed." in said, said


def copies() -> list[Path]:
    """Where what `crossbus topology export` writes of examples/shop.py is committed."""
    files = [TERRAFORM / example / "crossbus.auto.tfvars.json" for example in EXAMPLES]
    return files + [TERRAFORM / "modules" / module / "tests" / "topology.json" for module in MODULES]


def exported(folder: Path) -> str:
    """What it writes now."""
    shutil.copy(TERRAFORM / "examples" / "shop.py", folder)
    return here("topology", "export", "shop:bus", "-o", "-", cwd=folder, CROSSBUS_URL="local:").stdout


def test_examples_and_tests_have_the_topology_of_the_program(tmp_path: Path) -> None:
    """Run `python -m tests.test_terraform` to write them anew."""
    wanted = exported(tmp_path)
    assert not [str(path) for path in copies() if path.read_text("utf-8") != wanted]


@needs_terraform
@needs_aws_provider
def test_the_aws_provider_itself(tmp_path: Path) -> None:
    where = "modules/eventbridge"
    with terraform(tmp_path / "terraform", real_aws=True) as real:
        real.init(where)
        said = real.ok(where, "test", "-no-color")
        assert re.search(r"^Success! \d+ passed, 0 failed\.$", said, re.M), said
        main = real.folder / where / "queues.tf"
        main.write_text(main.read_text("utf-8").replace("max_message_size ", "max_message_bytes "), "utf-8")
        ran = real.run(where, "validate", "-json")
        assert ran.code != 0
        assert "Unsupported argument" in ran.output


# --- what is wrong is noticed -------------------------------------------------------------------------------------


@needs_terraform
@pytest.mark.parametrize(
    ("module", "file", "right", "wrong", "said"),
    [
        (
            "eventbridge",
            "queues.tf",
            "visibility_timeout_seconds ",
            "visibility_timeout ",
            "Unsupported argument",
        ),
        ("eventbridge", "main.tf", "dead_letter_config {", "dead_letters {", "Unsupported block type"),
        ("eventbridge", "main.tf", "name               = each.key", 'nam = "x"', "Unsupported argument"),
        (
            "pubsub",
            "main.tf",
            "max_delivery_attempts =",
            "max_attempts =",
            "Missing required argument|Unsupported",
        ),
        ("pubsub", "main.tf", 'ttl = "" #', 'ttl = ["x"] #', "Incorrect attribute value type"),
        (
            "pubsub",
            "main.tf",
            "retain_acked_messages        =",
            'retain_acked_messages = "maybe" #',
            "Incorrect attr",
        ),
        (
            "pubsub",
            "main.tf",
            "local.dead_topics[each.value.key].id",
            "local.gone",
            "Reference",
        ),
        (
            "eventgrid",
            "main.tf",
            "capacity              =",
            'capacity = "much" #',
            "Incorrect attribute value type",
        ),
        ("eventgrid", "permissions.tf", "role_definition_name =", "role =", "Unsupported argument"),
        (
            "eventgrid",
            "main.tf",
            '"azapi_resource" "topic"',
            '"azapi_resourse" "topic"',
            "Invalid resource type|Refer",
        ),
    ],
)
def test_what_is_wrong_is_noticed(
    stubbed: Terraform, module: str, file: str, right: str, wrong: str, said: str
) -> None:
    where = f"modules/{module}"
    path = stubbed.folder / where / file
    text = path.read_text("utf-8")
    assert right in text
    try:
        path.write_text(text.replace(right, wrong, 1), "utf-8")
        ran = stubbed.run(where, "validate", "-json")
    finally:
        path.write_text(text, "utf-8")
    summaries = [one["summary"] for one in json.loads(ran.output)["diagnostics"]]
    assert ran.code != 0
    assert any(re.match(said, summary) for summary in summaries), summaries


# --- what is said about it ----------------------------------------------------------------------------------------


@needs_terraform
def test_it_is_said_against_what_each_provider_was_checked() -> None:
    lines = level()
    assert len(lines) == 5
    assert ("the provider itself" in lines[0]) is bool(MIRROR)
    assert all("without the provider" in line for line in lines[1:4])


def test_the_tables_of_the_modules_are_current() -> None:
    """Each README has what its module has: run python scripts/gen_terraform_docs.py."""
    done = subprocess.run(
        [sys.executable, "scripts/gen_terraform_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = exported(Path(folder))
    for path in copies():
        path.write_text(text, "utf-8")
