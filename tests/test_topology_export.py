"""`crossbus topology export`: names, filters and limits of three clouds, without one of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli_here import here
from tests.test_cli import LIMIT, crossbus, environment, refused

from crossbus import Bus, RetryPolicy, exact, prefix, suffix
from crossbus.exporting import PROVIDERS, export
from crossbus.exporting.files import as_json, read, schema
from crossbus.topology import Topology

PROGRAM = """
from crossbus import Bus, RetryPolicy, exact, prefix, suffix
bus = Bus()
bus.topic("invoices")
bus.subscribe("orders", "billing", filter=exact(type="com.acme.order.placed"))
bus.subscribe("orders", "search", filter=prefix(type="com.acme.order.") & suffix(subject=".new"), lease=61.5)
bus.subscribe("invoices", "ledger", ordered=True, retry=RetryPolicy(attempts="unlimited"))
"""
CONFIG = """
include = ["crossbus.generated.toml"]

[profiles.production]
adapter = "eventbridge"
region = "eu-west-1"
names = "{env}-{name}"
variables = { env = "prod" }

[profiles.google]
url = "pubsub:acme-shop"

[profiles.desk]
url = "local:"
"""
TFVARS = "crossbus.auto.tfvars.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "crossbus.toml").write_text(CONFIG)
    (tmp_path / "crossbus.generated.toml").write_text("")
    return tmp_path


def topology(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return here("topology", *words, cwd=cwd, **variables)


def exported(folder: Path, profile: str = "production", *words: str) -> dict[str, Any]:
    done = topology("export", "shop:bus", "--profile", profile, *words, cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    document = read(folder / TFVARS)
    VALIDATOR.validate(document)
    found: dict[str, Any] = document["topology"]
    return found


def made(bus: Bus) -> dict[str, Any]:
    assert bus._configuration is not None
    found = export(bus.topology, bus._configuration.default)
    VALIDATOR.validate(found.document)
    parts: dict[str, Any] = found.document["topology"]
    return parts


# --- what is in it --------------------------------------------------------------------------------------------------


def test_the_document_has_the_names_and_filters_of_each_provider(folder: Path) -> None:
    found = exported(folder)
    assert (found["version"], found["profile"], found["names"]) == (1, "production", "prod-{name}")
    assert found["topics"]["orders"] == {
        "external": False,
        "eventbridge": {"bus": "prod-orders", "shared": False, "archive_days": None},
        "eventgrid": {"topic": "prod-orders"},
        "pubsub": {"topic": "prod-orders", "retention_seconds": None},
        "refused": {},
    }
    assert found["subscriptions"]["orders/billing"] == {
        "topic": "orders",
        "name": "billing",
        "ordered": False,
        "lease_seconds": 60,
        "retention_seconds": None,
        "attempts": 5,
        "retry": {"first_delay_seconds": 1.0, "factor": 2.0, "max_delay_seconds": 300.0},
        "backstop": None,
        "filter": '{"exact":{"type":"com.acme.order.placed"}}',
        "eventbridge": {
            "rule": "prod-orders--billing",
            "queue": "prod-orders--billing",
            "pattern": '{"detail-type":["com.acme.order.placed"]}',
            "exact": True,
            "retention_seconds": None,
            "backstop": 100,
            "kms_key": None,
            "dead_letter_queue": "prod-orders--billing--dead",
            "dead_letter_retention_seconds": 1_209_600,
        },
        "eventgrid": {
            "subscription": "billing",
            "included_event_types": ["com.acme.order.placed"],
            "filters": [],
            "exact": False,
            "retention_seconds": None,
            "backstop": 10,
            "dead_letter_topic": "prod-orders--billing--dead",
            "dead_letter_subscription": "dead-letters",
        },
        "pubsub": {
            "subscription": "prod-orders--billing--49c71bd5",
            "filter": 'attributes.ce-type = "com.acme.order.placed"',
            "exact": True,
            "retention_seconds": 604_800,
            "retain_acked": True,
            "exactly_once": False,
            "backstop": 100,
            "dead_letter_topic": "prod-orders--billing--dead",
            "dead_letter_subscription": "prod-orders--billing--dead",
            "dead_letter_retention_seconds": 2_678_400,
            "older_generations": {},
        },
        "refused": {},
    }
    search = found["subscriptions"]["orders/search"]
    assert search["lease_seconds"] == 62, "rounded up"
    assert (search["eventbridge"]["exact"], search["pubsub"]["exact"]) == (True, False)
    assert "takes whole seconds" in search["refused"]["eventgrid"]
    ledger = found["subscriptions"]["invoices/ledger"]
    assert set(ledger["refused"]) == {"eventbridge", "eventgrid"}
    assert not {"eventbridge", "eventgrid"} & set(ledger)
    assert ledger["attempts"] is None


def test_event_grids_filters_are_written_as_terraform_has_them() -> None:
    bus = Bus("local:")
    bus.subscribe("orders", "search", filter=prefix(type="com.acme.") & suffix(subject=".new"))
    assert made(bus)["subscriptions"]["orders/search"]["eventgrid"]["filters"] == [
        {"operator_type": "StringBeginsWith", "key": "eventtype", "values": ["com.acme."]},
        {"operator_type": "StringEndsWith", "key": "subject", "values": [".new"]},
    ]


def test_what_belongs_to_the_profiles_provider_is_only_its_own(folder: Path) -> None:
    (folder / "crossbus.toml").write_text(
        CONFIG
        + """
[profiles.production.topics.orders]
resource = "arn:aws:events:eu-west-1:123456789012:event-bus/shop"
options = { shared = true }

[topics.orders]
[topics.invoices]

[profiles.production.subscriptions."orders/billing"]
resource = "billing-queue"
dead_letter_resource = "billing-dead"
options = { rule = "billing-rule", kms_key = "alias/shop" }
"""
    )
    found = exported(folder)
    orders = found["topics"]["orders"]
    assert orders["external"] is True, "who writes an ARN means a bus that is there"
    assert orders["eventbridge"] == {
        "bus": "arn:aws:events:eu-west-1:123456789012:event-bus/shop",
        "shared": True,
        "archive_days": None,
    }
    assert orders["pubsub"]["topic"] == "prod-orders"
    billing = found["subscriptions"]["orders/billing"]
    assert billing["refused"] == {}
    ours = billing["eventbridge"]
    assert (ours["rule"], ours["queue"], ours["dead_letter_queue"], ours["kms_key"]) == (
        "billing-rule",
        "billing-queue",
        "billing-dead",
        "alias/shop",
    )
    assert '"crossbustopic":["orders"]' in ours["pattern"]
    assert billing["pubsub"]["dead_letter_topic"] == "prod-orders--billing--dead"


def test_names_of_another_project_are_whole() -> None:
    bus = Bus(
        profile="google",
        config={
            "profiles": {"google": {"url": "pubsub:acme-shop"}},
            "topics": {
                "orders": {"resource": "projects/acme-shared/topics/all-orders"},
                "invoices": {
                    "resource": "projects/acme-shop/topics/all-invoices",
                    "options": {"retention": 3600},
                },
            },
        },
    )
    bus.topic("orders")
    bus.topic("invoices")
    topics = made(bus)["topics"]
    assert topics["orders"]["pubsub"]["topic"] == "projects/acme-shared/topics/all-orders"
    assert topics["invoices"]["pubsub"] == {"topic": "all-invoices", "retention_seconds": 3600}


def test_what_is_external_is_not_exported_but_for_a_topic_that_is_needed() -> None:
    bus = Bus("eventbridge:?region=eu-west-1")
    bus.topic("theirs", external=True)
    bus.topic("foreign", external=True)
    bus.subscribe("theirs", "ours")
    bus.subscribe("foreign", "also-theirs", external=True)
    found = made(bus)
    assert set(found["topics"]) == {"theirs"}
    assert found["topics"]["theirs"]["external"] is True
    assert set(found["subscriptions"]) == {"theirs/ours"}


def test_topics_of_other_profiles_are_exported_when_asked_for(folder: Path) -> None:
    (folder / "crossbus.toml").write_text(
        CONFIG
        + '[topics]\norders = {}\ninvoices = {}\n[profiles.production.topics.invoices]\nprofile = "google"\n'
    )
    done = topology("export", "shop:bus", "--profile", "production", cwd=folder)
    assert "it lives in profile google (--of google): invoices" in done.stderr
    assert set(read(folder / TFVARS)["topology"]["topics"]) == {"orders"}
    found = exported(folder, "production", "--of", "google")
    assert (found["profile"], set(found["topics"])) == ("google", {"invoices"})
    assert found["subscriptions"]["invoices/ledger"]["pubsub"]["subscription"] == "invoices--ledger"
    refused(
        topology("export", "shop:bus", "--profile", "production", "--of", "goggle", cwd=folder),
        "did you mean 'google'",
    )


def test_a_profile_without_a_cloud_exports_all_three(folder: Path) -> None:
    found = exported(folder, "desk")
    assert all(provider in found["subscriptions"]["orders/billing"] for provider in PROVIDERS)
    assert "local" not in found["subscriptions"]["orders/billing"]
    assert topology("export", "shop:bus", "--profile", "desk", "--check", cwd=folder).returncode == 0


def test_a_profile_may_name_no_place_yet(folder: Path) -> None:
    """Terraform makes the namespace from the document, and only then there is an endpoint."""
    profiles = '[profiles.azure]\nadapter = "eventgrid"\n[profiles.nowhere]\nadapter = "pubsub"\n'
    (folder / "crossbus.toml").write_text(CONFIG + profiles)
    for profile in ("azure", "nowhere"):
        found = exported(folder, profile)
        assert found["topics"]["orders"]["eventgrid"] == {"topic": "orders"}
        assert (
            found["subscriptions"]["orders/billing"]["pubsub"]["subscription"] == "orders--billing--49c71bd5"
        )


def test_the_newer_eventbridge_is_left_to_provision() -> None:
    bus = Bus("eventbridge:?region=eu-west-1&api=v2")
    bus.subscribe("orders", "billing", ordered=True)
    found = made(bus)
    assert "crossbus provision" in found["subscriptions"]["orders/billing"]["refused"]["eventbridge"]
    assert "crossbus provision" in found["topics"]["orders"]["refused"]["eventbridge"]


FILTERS = st.sampled_from(
    [
        None,
        exact(type="a"),
        prefix(source="/x"),
        suffix(subject="z"),
        ~exact(type="b"),
        exact(tenant="1") | exact(id="2"),
    ]
)


@given(
    filter=FILTERS,
    ordered=st.booleans(),
    lease=st.floats(0.5, 100_000),
    retention=st.none() | st.floats(1, 3_000_000),
    backstop=st.none() | st.integers(1, 2000),
    attempts=st.just("unlimited") | st.integers(1, 200),
    name=st.sampled_from(["abc", "a" * 40]),
    template=st.sampled_from(["{name}", "x.{name}", "x_{name}", "a" * 90 + "{name}"]),
    scheme=st.sampled_from(
        ["local:", "pubsub:acme-shop", "eventbridge:", "eventgrid://n.westeurope-1.eventgrid.azure.net"]
    ),
)
def test_any_declaration_is_held_or_refused(
    filter: Any,
    ordered: bool,
    lease: float,
    retention: Any,
    backstop: Any,
    attempts: Any,
    name: str,
    template: str,
    scheme: str,
) -> None:
    bus = Bus(profile="p", config={"profiles": {"p": {"url": scheme, "names": template}}})
    bus.subscribe(
        name, name, filter=filter, ordered=ordered, lease=lease, retention=retention, backstop=backstop,
        retry=RetryPolicy(attempts=attempts),
    )  # fmt: skip
    found = made(bus)
    for each in (found["topics"][name], found["subscriptions"][f"{name}/{name}"]):
        assert set(PROVIDERS) == (set(each) | set(each["refused"])) & set(PROVIDERS)
        assert not set(each) & set(each["refused"])
        assert all("\n" not in sentence for sentence in each["refused"].values())


# --- how it is written ----------------------------------------------------------------------------------------------


def test_the_same_bytes_each_time(folder: Path) -> None:
    words = ("topology", "export", "shop:bus", "--profile", "production", "-o", "-")
    texts = {
        crossbus(
            *words,
            cwd=folder,
            PYTHONHASHSEED=str(seed),
            PUBSUB_EMULATOR_HOST=host,
            GOOGLE_CLOUD_PROJECT=project,
            AWS_REGION=region,
        ).stdout
        for seed, host, project, region in (
            (1, "127.0.0.1:1", "one-one", "us-east-1"),
            (2, "", "", "eu-west-1"),
        )
    }
    (text,) = texts
    assert json.loads(text)
    assert text == as_json(json.loads(text)), "sorted, indented, and with an end of line"


def test_it_needs_no_sdk_and_no_credentials(folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('boto3', 'botocore', 'google.cloud', 'google.auth', 'grpc', 'azure', 'aiohttp'):\n"
        "    sys.modules[name] = None\n"
        "from crossbus.cli import main\n"
        "sys.argv = ['crossbus', 'topology', 'export', 'shop:bus', '--profile', 'production', '-o', '-']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    VALIDATOR.validate(json.loads(done.stdout))


def test_yaml_and_a_graph(folder: Path) -> None:
    document = {"topology": exported(folder)}
    assert topology(
        "export", "shop:bus", "--profile", "production", "--format", "yaml", "-o", "t.yaml", cwd=folder
    )
    assert read(folder / "t.yaml") == document
    graph = topology(
        "export", "shop:bus", "--profile", "production", "--format", "mermaid", cwd=folder
    ).stdout
    assert graph.splitlines()[:7] == [
        "flowchart LR",
        '  t0(["invoices"])',
        '  t1(["orders"])',
        '  t0 --> s0["invoices/ledger<br/>ordered<br/>without limit"]',
        '  s0 -.-> d0[("invoices/ledger dead letter")]',
        "  class s0 refused",
        '  t1 -->|"type = #34;com.acme.order.placed#34;"| s1["orders/billing<br/>5 attempts"]',
    ]


def test_the_schema_is_printed_and_is_the_one_in_the_documentation() -> None:
    assert topology("schema", cwd=Path.cwd()).stdout == schema()
    page = Path(__file__).resolve().parent.parent / "docs" / "reference" / "topology.schema.json"
    assert page.read_text("utf-8") == schema(), "copy src/crossbus/exporting/schema.json there"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(
            {
                "topology": {
                    "version": 1,
                    "profile": "",
                    "names": "{name}",
                    "topics": {"orders": {}},
                    "subscriptions": {},
                }
            }
        )


def test_a_file_is_written_only_if_it_is_another(folder: Path) -> None:
    exported(folder)
    before = (folder / TFVARS).stat().st_mtime_ns
    done = topology("export", "shop:bus", "--profile", "production", cwd=folder)
    assert f"{TFVARS} is as it was: 2 topics, 3 subscriptions" in done.stderr
    assert (folder / TFVARS).stat().st_mtime_ns == before


def test_another_profile_in_the_same_file_is_said(folder: Path) -> None:
    exported(folder, "google")
    done = topology("export", "shop:bus", "--profile", "production", cwd=folder)
    assert f"{TFVARS} was of profile google, and is of profile production now" in done.stderr
    assert (
        "was of profile" not in topology("export", "shop:bus", "--profile", "production", cwd=folder).stderr
    )


def test_check_writes_nothing_and_says_what_the_provider_cannot_hold(folder: Path) -> None:
    done = topology("export", "shop:bus", "--profile", "production", "--check", cwd=folder)
    refused(done, "subscription invoices/ledger is ordered: eventbridge cannot do that", code=1)
    assert not (folder / TFVARS).exists()
    done = topology("export", "shop:bus", "--profile", "google", "--check", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- generations ----------------------------------------------------------------------------------------------------


def with_type(folder: Path, type: str) -> None:
    (folder / "shop.py").write_text(PROGRAM.replace("com.acme.order.placed", type))


def generations(found: dict[str, Any]) -> tuple[str, dict[str, str]]:
    part = found["subscriptions"]["orders/billing"]["pubsub"]
    return part["subscription"], part["older_generations"]


def test_a_changed_filter_keeps_its_predecessors_until_they_are_pruned(folder: Path) -> None:
    names = {}
    for type in ("one", "two", "three"):
        with_type(folder, type)
        names[type], older = generations(exported(folder, "google"))
    assert older == {names[type]: f'attributes.ce-type = "{type}"' for type in ("one", "two")}
    generated = (folder / "crossbus.generated.toml").read_text()
    assert '[profiles.google.subscriptions."orders/billing".options]' in generated
    assert json.dumps(sorted((names["one"], names["two"]))) in generated

    assert generations(exported(folder, "google")) == (names["three"], older), "again is the same"
    shown = here("config", "show", "--profile", "google", cwd=folder).stdout
    assert (
        len(
            re.findall(
                r"options\.generations\.\d\torders--billing--[0-9a-f]{8}\tcrossbus.generated.toml", shown
            )
        )
        == 2
    )

    with_type(folder, "one")
    current, older = generations(exported(folder, "google"))
    assert (current, set(older)) == (names["one"], {names["two"], names["three"]}), "back is back"

    current, older = generations(exported(folder, "google", "--prune-generations"))
    assert (current, older) == (names["one"], {})
    assert "generations =" not in (folder / "crossbus.generated.toml").read_text()


def test_the_document_of_before_may_be_another_file(folder: Path) -> None:
    with_type(folder, "one")
    before, _ = generations(exported(folder, "google"))
    (folder / TFVARS).rename(folder / "before.json")
    with_type(folder, "two")
    assert generations(exported(folder, "google"))[1] == {}
    assert set(generations(exported(folder, "google", "--previous", "before.json"))[1]) == {before}
    done = topology("export", "shop:bus", "--profile", "google", "--previous", "none.json", cwd=folder)
    refused(done, "there is no file 'none.json'")


def test_what_another_template_made_is_no_predecessor(folder: Path) -> None:
    exported(folder, "google")
    (folder / "crossbus.toml").write_text(
        CONFIG.replace('"pubsub:acme-shop"', '"pubsub:acme-shop"\nnames = "x-{name}"')
    )
    assert generations(exported(folder, "google"))[1] == {}


def test_what_people_say_of_generations_is_left_to_them(folder: Path) -> None:
    said = '[profiles.google.subscriptions."orders/billing".options]\ngenerations = ["by-hand"]\n'
    (folder / "crossbus.toml").write_text(CONFIG + said)
    with_type(folder, "one")
    exported(folder, "google")
    with_type(folder, "two")
    done = topology("export", "shop:bus", "--profile", "google", cwd=folder)
    assert "crossbus.toml says options.generations of orders/billing itself; it should be" in done.stderr
    assert (folder / "crossbus.generated.toml").read_text() == ""


def test_a_generated_file_of_somebody_else_is_not_overwritten(folder: Path) -> None:
    with_type(folder, "one")
    exported(folder, "google")
    (folder / "crossbus.generated.toml").write_text("[topics.orders]\n[topics.invoices]\n")
    with_type(folder, "two")
    done = topology("export", "shop:bus", "--profile", "google", cwd=folder)
    assert done.returncode == 2
    assert "holds what crossbus did not write there" in done.stderr


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("{}", "is no topology document"),
        ('{"topology": {"version": 1}}', "is no topology document"),
        ('{"topology": {"version": 1, "topics": {}, "subscriptions": {"a": 1}}}', "is no topology document"),
        ('{"topology": {"version": 2, "topics": {}, "subscriptions": {}}}', "has version 2"),
    ],
)
def test_a_file_that_is_no_document_is_not_overwritten(folder: Path, text: str, says: str) -> None:
    (folder / TFVARS).write_text(text)
    refused(topology("export", "shop:bus", "--profile", "google", cwd=folder), says)
    assert (folder / TFVARS).read_text() == text


def test_mistakes_are_one_line(folder: Path) -> None:
    refused(topology("export", "shop:zzz", "--profile", "google", cwd=folder), "has no 'zzz'")
    done = topology("export", "shop:bus", "--profile", "google", "-o", "none/t.json", cwd=folder)
    refused(done, "none/t.json", "cannot be written")
    (folder / "shop.py").write_text(PROGRAM.replace("Bus()", 'Bus("local:")'))
    refused(topology("export", "shop:bus", "--profile", "google", cwd=folder), "does not reach shop:bus")


def test_nothing_declared_is_an_empty_document() -> None:
    found = export(Topology(), Bus("local:")._connections.profile_of(None))
    VALIDATOR.validate(found.document)
    assert found.document["topology"]["profile"] == ""


def test_filters_of_numbers_are_a_text() -> None:
    """Terraform's types hold lists of texts; what is otherwise is handed over as Azure writes it."""
    native = {"filters": [{"key": "data.total", "operatorType": "NumberInRange", "values": [[1, 2.5]]}]}
    bus = Bus("local:")
    bus.subscribe("orders", "billing", native_filter={"eventgrid": native})
    part = made(bus)["subscriptions"]["orders/billing"]["eventgrid"]
    assert json.loads(part["native"]) == native
    assert (part["filters"], part["included_event_types"]) == ([], [])
