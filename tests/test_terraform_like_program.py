"""What terraform makes is what the program would make: bodies, settings and permissions are held against its own."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest
from azure.core.credentials import AzureKeyCredential
from azure.mgmt.eventgrid import EventGridManagementClient, models
from tests.terraform_world import MODULES, ROOT, TERRAFORM, Terraform, needs_terraform, terraform

from crossbus.clock import SystemClock
from crossbus.config import load
from crossbus.exporting.files import schema
from crossbus.filters import all_, exact, prefix
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic
from crossbus_eventgrid.arm import ArmPlace, _model, _standing
from crossbus_eventgrid.settings import Owned, dead_settings, settings_of
from crossbus_pubsub.dead_letters import DEAD_LEASE
from crossbus_pubsub.wanted import DEAD_RETENTION, RETENTION

ORDERS = Topic("orders")
_PERMISSION = re.compile(r"`((?:sqs|events|iam|roles)[:/][\w./]+)`|(EventGrid Data \w+|Reader)")
STORAGE = "/subscriptions/1/resourceGroups/shop/providers/Microsoft.Storage/storageAccounts/shop"
DECLARED = [
    Subscription(topic=ORDERS, name="billing", filter=exact(type="com.acme.order.placed")),
    Subscription(
        topic=ORDERS,
        name="shipping",
        filter=all_(prefix(source="/shop/"), exact(type=["a", "b"])),
        lease=120,
        retention=93_784,
        backstop=7,
    ),
    Subscription(topic=ORDERS, name="books", retention=604_800),
    Subscription(
        topic=ORDERS,
        name="large",
        native_filter={
            "eventgrid": {
                "filters": [{"operatorType": "NumberGreaterThan", "key": "data.total", "value": 10.5}]
            }
        },
    ),
]


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with terraform(tmp_path_factory.mktemp("stubbed") / "terraform", real_aws=False) as made:
        yield made


# --- Event Grid: bodies of requests -------------------------------------------------------------------------------

SHOW = """
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
run "show" {
  variables {
    resource_group_name = "shop"
    location            = "westeurope"
    namespace           = { name = "shop" }
    backstop            = %(backstop)s
    topology            = jsondecode(file("tests/show.json"))
  }
  assert {
    condition     = length(azapi_resource.subscription) == 0 # it fails, and so tells
    error_message = "BODIES ${jsonencode({
      subscriptions = { for key, one in azapi_resource.subscription : key => one.body }
      dead          = { for key, one in azapi_resource.dead_subscription : key => one.body }
      topics        = { for key, one in azapi_resource.topic : key => one.body }
    })}"
  }
}
"""


def eventgrid_bodies(stubbed: Terraform, *, backstop: bool) -> dict[str, Any]:
    """Apply the module with mocks, and return the bodies of its requests."""
    where = stubbed.folder / "modules" / "eventgrid"
    parts = {}
    for one in DECLARED:
        settings = settings_of(one)
        parts[f"orders/{one.name}"] = {
            "topic": "orders",
            "name": one.name,
            "attempts": 5,
            "lease_seconds": one.lease,
            "retention_seconds": one.retention,
            "backstop": one.backstop,
            "eventgrid": {
                "subscription": one.name,
                "dead_letter_topic": f"orders--{one.name}--dead",
                "native": settings.native,
            },
        }
    topology = {
        "version": 1,
        "topics": {"orders": {"eventgrid": {"topic": "orders"}}},
        "subscriptions": parts,
    }
    (where / "tests" / "show.json").write_text(json.dumps(topology), "utf-8")
    blob = json.dumps({"storage_account_id": STORAGE, "container": "dropped"}) if backstop else "null"
    (where / "tests" / "show.tftest.hcl").write_text(SHOW % {"backstop": blob}, "utf-8")
    stubbed.init("modules/eventgrid")
    ran = stubbed.run("modules/eventgrid", "test", "-json", "-filter=tests/show.tftest.hcl")
    texts = [found[1] for message in ran.messages if (found := re.search(r"BODIES (\{.*\})", message))]
    assert texts, ran.output
    found: dict[str, Any] = json.loads(texts[0])
    return found


@needs_terraform
@pytest.mark.parametrize("backstop", [False, True])
def test_event_grid_gets_the_bodies_that_the_program_sends(stubbed: Terraform, backstop: bool) -> None:
    bodies = eventgrid_bodies(stubbed, backstop=backstop)
    place = ArmPlace("1", "shop", "shop", *((STORAGE, "dropped") if backstop else ()))
    for one in DECLARED:
        body = bodies["subscriptions"][f"orders/{one.name}"]
        sent = _model(settings_of(one), place, Owned.NO, None).serialize()
        assert as_azure_has_it(body) == as_azure_has_it(sent)
        dead = _model(dead_settings(60), place, Owned.NO, None).serialize()
        dead["properties"].pop("filtersConfiguration", None)
        assert as_azure_has_it(bodies["dead"][f"orders/{one.name}"]) == as_azure_has_it(dead)
        standing = _standing(models.Subscription.deserialize(body))
        assert not settings_of(one).differences(standing.settings)
        assert standing.owned is Owned.NO


@needs_terraform
def test_bodies_have_only_what_azure_knows(stubbed: Terraform) -> None:
    """Azure's models ignore what they do not know: what comes out again is compared with what went in."""
    bodies = eventgrid_bodies(stubbed, backstop=True)
    for body in [*bodies["subscriptions"].values(), *bodies["dead"].values()]:
        assert as_azure_has_it(models.Subscription.deserialize(body).serialize()) == as_azure_has_it(body)
    for body in bodies["topics"].values():
        assert models.NamespaceTopic.deserialize(body).serialize() == body
    wrong = json.loads(
        json.dumps(bodies["topics"]["orders"]).replace("eventRetentionInDays", "retentionInDays")
    )
    assert models.NamespaceTopic.deserialize(wrong).serialize() != wrong


def as_azure_has_it(body: dict[str, Any]) -> dict[str, Any]:
    """A body without what is empty."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: made for key, one in value.items() if (made := bare(one)) not in (None, {}, [])}
        return [bare(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = bare(body)
    return found


def test_the_api_is_that_of_the_program() -> None:
    """The version of the client that the program's own control plane uses."""
    text = (TERRAFORM / "modules" / "eventgrid" / "main.tf").read_text("utf-8")
    client = EventGridManagementClient(AzureKeyCredential("none"), "1", base_url="http://127.0.0.1:1")
    assert f'"{client._config.api_version}"' in text


# --- the document: its JSON Schema, and the variable that takes it -------------------------------------------------


def test_the_variable_takes_all_that_the_document_has() -> None:
    """Terraform leaves out without a word what a variable's type does not have."""
    variable = hcl2.loads((TERRAFORM / "modules" / "pubsub" / "topology.tf").read_text("utf-8"))["variable"][
        0
    ]
    (about,) = variable.values()
    taken = attributes(about["type"].removeprefix("${").removesuffix("}"))
    document = json.loads(schema())
    assert taken == described(document, document["properties"]["topology"])


def attributes(type_: str) -> Any:
    """The attributes of an object's type by name, those of maps and lists of objects included; else None."""
    text = re.sub(r"\s", "", type_)
    while (found := re.fullmatch(r"(?:optional|map|list)\((.*)\)", text)) is not None:
        text = parts(found[1])[0]
    if not text.startswith("object({"):
        return None
    pairs = [one.split("=", 1) for one in parts(text.removeprefix("object({").removesuffix("})"))]
    return {name: attributes(value) for name, value in pairs}


def parts(text: str) -> list[str]:
    """A text divided at its commas, but for those in brackets."""
    found, depth = [""], 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        if sign == "," and not depth:
            found.append("")
        else:
            found[-1] += sign
    return [one for one in found if one]


def described(document: dict[str, Any], part: dict[str, Any]) -> Any:
    """The properties of an object in a JSON Schema by name; else None."""
    while "$ref" in part:
        part = functools.reduce(operator.getitem, part["$ref"].removeprefix("#/").split("/"), document)
    if "items" in part:
        return described(document, part["items"])
    if "properties" in part:
        return {name: described(document, one) for name, one in part["properties"].items()}
    values = part.get("additionalProperties")
    return described(document, values) if isinstance(values, dict) else None


# --- Pub/Sub: what stands in the module as a number ---------------------------------------------------------------


def test_pubsub_has_the_program_s_own_times() -> None:
    text = (TERRAFORM / "modules" / "pubsub" / "main.tf").read_text("utf-8")
    assert f", {RETENTION}) # " in text
    assert f"dead_letter_retention_seconds, {DEAD_RETENTION})" in text
    assert re.search(rf"ack_deadline_seconds\s+= {DEAD_LEASE}$", text, re.M)


# --- permissions: one truth ---------------------------------------------------------------------------------------


@cache
def permissions(module: str) -> dict[str, dict[str, Any]]:
    """What the module's permissions.tf says, by who and on what."""
    parsed = hcl2.loads((TERRAFORM / "modules" / module / "permissions.tf").read_text("utf-8"))
    table = next(one["permissions"] for one in parsed["locals"] if "permissions" in one)
    return {
        plain(who): {plain(on): what for on, what in said.items() if not on.startswith("__")}
        for who, said in table.items()
        if not who.startswith("__")
    }


def plain(text: Any) -> Any:
    if isinstance(text, list):
        return [plain(one) for one in text]
    return text.strip('"') if isinstance(text, str) else text


def said(module: str, who: str) -> set[str]:
    """Everything that somebody may do."""
    found: set[str] = set()
    for what in permissions(module)[who].values():
        found |= set(plain(what)) if isinstance(what, list) else {plain(what)}
    return found


def documented(module: str, *rows: str) -> set[str]:
    """What the adapter's page names in rows of its table of permissions."""
    page = (ROOT / "docs" / "reference" / "adapters" / f"{module}.md").read_text("utf-8")
    table = page[page.index("## Permissions") :].partition("\n## ")[0].partition("## Permissions")[2]
    found: set[str] = set()
    for row in rows:
        (line,) = [one for one in table.splitlines() if one.startswith(f"| {row}")]
        found |= {one or other for one, other in _PERMISSION.findall(line)}
    return found


@pytest.mark.parametrize(
    ("module", "who", "rows"),
    [
        ("eventbridge", "publish", ["publisher"]),
        ("eventbridge", "consume", ["consumer |", "operator: backlog"]),
        ("eventbridge", "operate", ["operator: list", "operator: backlog"]),
        ("eventbridge", "inspect", ["looking when opening"]),
        ("eventbridge", "doctor", ["[`crossbus doctor`]"]),
        ("pubsub", "publish", ["publish "]),
        ("pubsub", "consume", ["consume:", "write dead letters"]),
        ("pubsub", "operate", ["look at and clear"]),
        ("pubsub", "inspect", ["look when opening"]),
        ("eventgrid", "publish", ["publish "]),
        ("eventgrid", "consume", ["consume:", "publish "]),
        ("eventgrid", "operate", ["write and read dead letters"]),
        ("eventgrid", "inspect", ["look when opening"]),
    ],
)
def test_permissions_are_those_of_the_adapter_s_page(module: str, who: str, rows: list[str]) -> None:
    assert said(module, who) == documented(module, *rows)
    assert said(module, who)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_allowed_on_everything(module: str) -> None:
    text = json.dumps(permissions(module))
    assert "*" not in text


@pytest.mark.parametrize(
    ("module", "target"),
    [("eventbridge", ""), ("pubsub", "my-project"), ("eventgrid", "shop.westeurope-1.eventgrid.azure.net")],
)
def test_the_profile_is_read_back(module: str, target: str, tmp_path: Path) -> None:
    """What the output `crossbus_toml` is, as the module's own test has it."""
    test = (TERRAFORM / "modules" / module / "tests" / "module.tftest.hcl").read_text("utf-8")
    text = re.search(r'output\.crossbus_toml == ("(?:[^"\\]|\\.)*")', test)
    assert text is not None
    file = tmp_path / "crossbus.toml"
    file.write_text(json.loads(text[1]), "utf-8")
    found = load(profile=module, config=file).default
    assert (found.adapter, found.target) == (module, target)
    adapter_class(found.scheme, found.origin)(found, clock=SystemClock())  # refuses what it does not know
