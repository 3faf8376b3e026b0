"""`crossbus config show`: each value and where it came from; and no secret, wherever it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_cli import crossbus, environment, refused

FILE = """
default_profile = "desk"

[profiles.desk]
url = "local:shop?history=10"

[profiles.production]
adapter = "eventbridge"
region = "eu-west-1"
names = "{env}-{name}"
variables = { env = "prod" }

[profiles.production.subscriptions."orders/billing"]
resource = "https://queue.example/billing?sig=hunter2"
external = true
on_mismatch = "release"

[profiles.finance]
url = "pubsub:acme-finance"

[topics.orders]
wire = "detail-data"

[topics.invoices]
validate = "provider"
profile = "finance"
options = { api_key = "hunter2", auth = { name = "hunter2" }, list = [{ token = "hunter2", size = 5 }] }

[subscriptions."orders/billing"]
concurrency = 20
retry = { attempts = 8 }
filter = { exact = { type = "com.acme.order.placed" } }
"""

PROGRAM = """
from crossbus import Breaker, Bus, RetryPolicy
bus = Bus(source="/shop", drain_limit=10)
bus.subscribe("orders", "billing", lease=30, retry=RetryPolicy(first_delay=2), breaker=Breaker(rejected=3, of=4))
bus.subscribe("orders", "audit")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crossbus.toml").write_text(FILE)
    (tmp_path / "shop.py").write_text(PROGRAM)
    return tmp_path


def shown(folder: Path, *words: str, **variables: str) -> dict[str, tuple[str, str]]:
    """By key, the value and where it came from."""
    done = crossbus("config", "show", *words, cwd=folder, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "hunter2" not in done.stdout
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return {key: (value, origin) for key, value, origin in rows}


def test_what_the_file_says_and_where(folder: Path) -> None:
    rows = shown(folder)
    assert rows["file"] == (str(folder / "crossbus.toml"), "the current directory")
    assert rows["profile"] == ("desk", "crossbus.toml: default_profile")
    assert rows["profiles.desk.adapter"] == ("local", "crossbus.toml: profiles.desk")
    assert rows["profiles.desk.target"] == ("shop", "crossbus.toml: profiles.desk")
    assert rows["profiles.desk.history"] == ("10", "crossbus.toml: profiles.desk (its url)")
    assert rows["profiles.desk.names"] == ("{name}", "default")
    assert rows["profiles.finance.target"] == ("acme-finance", "crossbus.toml: profiles.finance")
    assert "profiles.production.adapter" not in rows
    assert rows["topics.invoices.validate"] == ("provider", "crossbus.toml: topics.invoices.validate")
    key = 'subscriptions."orders/billing"'
    assert rows[f"{key}.retry.attempts"] == ("8", f"crossbus.toml: {key}.retry.attempts")
    assert rows[f"{key}.filter"] == ('type = "com.acme.order.placed"', f"crossbus.toml: {key}.filter")
    assert f"{key}.lease" not in rows


def test_a_profile_counts_before_the_top_level(folder: Path) -> None:
    rows = shown(folder, "--profile", "production", CROSSBUS_URL="local:hunter2", AWS_REGION="eu-west-2")
    assert rows["profile"] == ("production", "--profile")
    assert rows["CROSSBUS_URL"] == ("(hidden)", "environment; overruled by --profile")
    assert rows["AWS_REGION"] == ("eu-west-2", "environment")
    assert rows["profiles.production.region"] == ("eu-west-1", "crossbus.toml: profiles.production.region")
    assert rows["profiles.production.names"] == ("{env}-{name}", "crossbus.toml: profiles.production.names")
    assert rows["profiles.production.variables.env"][0] == "prod"
    key = 'subscriptions."orders/billing"'
    assert rows[f"{key}.external"] == ("true", f"crossbus.toml: profiles.production.{key}.external")
    assert rows[f"{key}.concurrency"] == ("20", f"crossbus.toml: {key}.concurrency")


def test_a_program_adds_what_it_says_and_the_defaults(folder: Path) -> None:
    rows = shown(folder, "shop:bus")
    assert rows["bus.source"] == ("/shop", "the program")
    assert rows["bus.drain_limit"] == ("10", "the program")
    assert rows["bus.publish_timeout"] == ("60", "default")
    assert rows["topics.orders.options.wire"] == ("detail-data", "crossbus.toml: topics.orders.wire")
    billing, audit = 'subscriptions."orders/billing"', 'subscriptions."orders/audit"'
    assert rows[f"{billing}.lease"] == ("30", "the program")
    assert rows[f"{billing}.concurrency"] == ("20", f"crossbus.toml: {billing}.concurrency")
    assert rows[f"{billing}.timeout"] == ("900", "default")
    assert rows[f"{billing}.retry.attempts"] == ("8", f"crossbus.toml: {billing}.retry.attempts")
    assert rows[f"{billing}.retry.first_delay"] == ("2", "the program")
    assert rows[f"{billing}.retry.factor"] == ("2", "default")
    assert rows[f"{billing}.breaker.rejected"] == ("3", "the program")
    assert rows[f"{audit}.concurrency"] == ("10", "default")
    assert "topics.invoices.validate" not in rows


def test_every_way_to_choose_is_named(folder: Path) -> None:
    assert shown(folder, "--url", "local:other")["profile"] == ("(a URL)", "--url")
    assert shown(folder, "shop:bus", "--url", "local:other")["profile"] == ("(a URL)", "--url")
    assert shown(folder, "shop:bus", "--profile", "desk")["profile"] == ("desk", "--profile")
    rows = shown(folder, CROSSBUS_URL="local:other", CROSSBUS_PROFILE="desk")
    assert rows["profile"] == ("(a URL)", "CROSSBUS_URL")
    assert rows["connection.target"] == ("other", "the URL")
    assert rows["CROSSBUS_URL"] == ("(as connection)", "environment")
    assert rows["CROSSBUS_PROFILE"] == ("desk", "environment; overruled by CROSSBUS_URL")
    assert shown(folder, CROSSBUS_PROFILE="desk")["profile"] == ("desk", "CROSSBUS_PROFILE")
    (folder / "other.toml").write_text('default_profile = "x"\n[profiles.x]\nurl = "local:"\n')
    assert shown(folder, "--config", "other.toml")["file"] == (str(folder / "other.toml"), "--config")
    rows = shown(folder, CROSSBUS_CONFIG="other.toml")
    assert rows["file"] == (str(folder / "other.toml"), "CROSSBUS_CONFIG")
    (folder / "own.py").write_text(
        "from crossbus import Bus\nbus = Bus(profile='desk', config='crossbus.toml')\n"
    )
    assert shown(folder, "own:bus")["profile"] == ("desk", "the program's argument profile")
    (folder / "given.py").write_text(
        "from crossbus import Bus\nbus = Bus('local:', config={'topics': {'a-topic': {}}})\n"
    )
    assert shown(folder, "given:bus")["file"] == ("(none)", "the argument config")


def test_secrets_are_hidden(folder: Path) -> None:
    rows = shown(
        folder,
        "--profile",
        "production",
        CROSSBUS_KEY="hunter2",
        AWS_SECRET_ACCESS_KEY="hunter2",
        AWS_SESSION_TOKEN="hunter2",
        AWS_ACCESS_KEY_ID="hunter2",
        AWS_ENDPOINT_URL="http://user:hunter2@proxy.example",
    )
    hidden = {key for key, (value, _) in rows.items() if value == "(hidden)"}
    assert hidden == {
        "CROSSBUS_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "topics.invoices.options.api_key",
        "topics.invoices.options.auth.name",
        "topics.invoices.options.list.0.token",
        'subscriptions."orders/billing".resource',
    }
    assert rows["topics.invoices.options.list.0.size"][0] == "5"


def test_without_a_file(tmp_path: Path) -> None:
    rows = shown(tmp_path, "--url", "local:")
    assert rows["file"] == ("(none)", f"there is no crossbus.toml in {tmp_path}")
    refused(crossbus("config", "show", cwd=tmp_path), "no bus is configured", "CROSSBUS_URL")


def test_as_json(folder: Path) -> None:
    done = crossbus("config", "show", "--output", "json", cwd=folder)
    rows = json.loads(done.stdout)
    assert {"key": "profile", "value": "desk", "from": "crossbus.toml: default_profile"} in rows


@pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")
def test_on_a_terminal_it_is_a_table(folder: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "crossbus", "config", "show"]
    subprocess.run(command, stdout=theirs, cwd=folder, env=environment(NO_COLOR="1"), check=True)
    os.close(theirs)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 100_000).decode())
    os.close(ours)
    assert plain.split()[:3] == ["key", "value", "from"]
    assert "\t" not in plain


def test_config_alone_is_help_and_a_mistake_is_one_line(folder: Path) -> None:
    done = crossbus("config")
    assert done.returncode == 0
    assert "show" in done.stdout
    assert done.stderr == ""
    refused(crossbus("config", "shwo"), "shwo")
    refused(crossbus("config", "show", "--profile", "desc", cwd=folder), "did you mean 'desk'?")
    (folder / "made.py").write_text(
        "from crossbus import Bus\nfrom tests.scripted import ScriptedAdapter\nbus = Bus(adapter=ScriptedAdapter())\n"
    )
    root = str(Path(__file__).parent.parent)
    refused(crossbus("config", "show", "made:bus", cwd=folder, PYTHONPATH=root), "an adapter of its own")
