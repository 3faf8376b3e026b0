"""`crossbus publish --template`: an event made of a file, in this process; and its mistakes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.test_cli import crossbus, refused

from crossbus import Event
from crossbus.cli.templates import event_of_template
from crossbus.config import load
from crossbus.errors import ConfigurationError

TEMPLATE = {
    "specversion": "1.0",
    "id": "seen-before",
    "time": "2020-01-01T00:00:00Z",
    "type": "com.acme.order.placed",
    "source": "/shop",
    "tenant": "t-1",
    "data": {
        "order": "o-1",
        "total": 12.5,
        "vip": False,
        "note": None,
        "items": [{"sku": "x", "count": 1}],
        "to": {},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "com.acme.order.placed", TEMPLATE)
    return tmp_path


def write(folder: Path, type: str, content: object) -> None:
    (folder / "events").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "events" / f"{type}.json").write_text(text)


def made(*changes: str, name: str = "com.acme.order.placed", **attributes: Any) -> Event:
    return event_of_template(name, changes, load("local:"), **attributes)


def test_each_has_an_id_and_a_time_of_its_own(folder: Path) -> None:
    one, other = made(), made()
    assert len({one.id, other.id, "seen-before"}) == 3
    assert one.time is not None
    assert abs(datetime.now(UTC) - one.time) < timedelta(minutes=5)
    assert (one.type, one.source, one.extensions["tenant"]) == ("com.acme.order.placed", "/shop", "t-1")
    assert one.data == TEMPLATE["data"]


def test_data_is_changed_in_the_form_that_it_has(folder: Path) -> None:
    words = ("order=17", "total=99", "vip=true", "note=why not", "items.0.count=3", "items.0.sku={}")
    assert made(*words).data == {
        "order": "17",
        "total": 99,
        "vip": True,
        "note": "why not",
        "items": [{"sku": "{}", "count": 3}],
        "to": {},
    }
    assert made('to={"city": "Bern"}', "total=null").data["to"] == {"city": "Bern"}
    assert made(subject="s", id="e-1", tenant="t-2").extensions["tenant"] == "t-2"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("total", "PATH=VALUE"),
        ("=1", "PATH=VALUE"),
        ("totl=1", "did you mean 'total'"),
        ("items.1.sku=y", "nothing at '1'"),
        ("order.id=1", "nothing at 'id'"),
        ("to.city=Bern", "nothing at 'city'"),
        ("total=much", "a number there, and this is a text"),
        ("total=NaN", "a number there, and this is a text"),
        ("vip=1", "true or false there, and this is a number"),
        ("items=1", "a list there"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(folder: Path, change: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        made(change)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no JSON"),
        ("[]", "no event"),
        ({"data": 1}, "no event"),
        ({"type": "t", "id": 1, "source": ""}, "source"),
    ],
)
def test_a_file_that_is_no_template_is_refused(folder: Path, content: object, says: str) -> None:
    write(folder, "t", content)
    with pytest.raises(ConfigurationError, match=says):
        made(name="t")


def test_as_a_user_meets_it(folder: Path) -> None:
    url = ("--url", "local:")
    words = ("publish", "orders", "--template")
    done = crossbus(*words, "com.acme.order.placed", "--set", "total=99", "--id", "e-1", *url, cwd=folder)
    assert done.stdout == "published e-1 to orders\n", done.stderr
    done = crossbus(*words, "events/com.acme.order.placed.json", *url, cwd=folder)
    assert done.returncode == 0, done.stderr
    refused(
        crossbus(*words, "com.acme.order.place", *url, cwd=folder), "did you mean 'com.acme.order.placed'?"
    )
    refused(crossbus(*words, "missing.json", *url, cwd=folder), "missing.json")
    refused(crossbus(*words, "t", "--type", "t", *url, cwd=folder), "leave --type out")
    refused(crossbus(*words, "t", "--data", "1", *url, cwd=folder), "--set")
    refused(crossbus(*words, "t", "-", *url, cwd=folder), "--template makes one event")
    refused(crossbus("publish", "orders", "--set", "a=1", *url, cwd=folder), "give its --template")
    # Beside the configuration file, wherever one stands.
    (folder / "crossbus.toml").write_text('default_profile = "p"\n[profiles.p]\nurl = "local:"\n')
    below = folder / "below"
    below.mkdir()
    words = ("publish", "orders", "--config", "../crossbus.toml", "--template", "com.acme.order.placed")
    assert crossbus(*words, cwd=below).returncode == 0
