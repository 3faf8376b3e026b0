"""Several files, one configuration: what people write, and what tools write beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.test_cli import crossbus
from tests.test_config import write, wrong

from crossbus.config import load
from crossbus.topology import Subscription, Topic

MAIN = """
include = ["made/one.toml", "two.toml"]

[profiles.production]
url = "local:shop"
names = "{env}-{name}"

[subscriptions."orders/billing"]
concurrency = 20
options = { a = 1 }
"""
ONE = """
[profiles.production.variables]
env = "prod"

[profiles.production.subscriptions."orders/billing".options]
generations = ["x"]
"""
TWO = """
default_profile = "production"

[profiles.finance]
url = "local:finance"

[topics.orders]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    write(tmp_path, MAIN)
    write(tmp_path, ONE, "made/one.toml")
    write(tmp_path, TWO, "two.toml")
    return tmp_path


def test_included_files_are_one_configuration_with_the_file(folder: Path) -> None:
    found = load(environ={}, cwd=folder)
    assert (found.default.name, found.default.names, found.default.variables) == (
        "production",
        "{env}-{name}",
        {"env": "prod"},
    )
    assert found.chosen_by == "two.toml: default_profile"
    assert set(found.profiles) == {"production", "finance"}
    billing = found.apply_subscription(Subscription(topic=Topic("orders"), name="billing"))
    assert (billing.concurrency, billing.options) == (20, {"a": 1, "generations": ["x"]})


def test_a_file_elsewhere_includes_what_lies_beside_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    assert load(config=folder / "crossbus.toml", environ={}, cwd=other).default.variables == {"env": "prod"}
    environ = {"CROSSBUS_CONFIG": str(folder / "crossbus.toml")}
    assert load(environ=environ, cwd=other).default.variables == {"env": "prod"}


def test_config_show_says_which_file(folder: Path) -> None:
    done = crossbus("config", "show", cwd=folder)
    rows = {
        key: (value, origin) for key, value, origin in (line.split("\t") for line in done.stdout.splitlines())
    }
    assert done.returncode == 0, done.stderr
    assert f"included file\t{folder / 'made' / 'one.toml'}\tcrossbus.toml: include" in done.stdout
    assert rows["profile"] == ("production", "two.toml: default_profile")
    assert rows["profiles.production.adapter"] == ("local", "crossbus.toml: profiles.production")
    assert rows["profiles.production.variables.env"] == (
        "prod",
        "made/one.toml: profiles.production.variables.env",
    )
    key = 'subscriptions."orders/billing"'
    assert rows[f"{key}.concurrency"][1] == f"crossbus.toml: {key}.concurrency"
    assert rows[f"{key}.options.generations.0"][1] == (
        f"made/one.toml: profiles.production.{key}.options.generations.0"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[profiles.production]\nnames = "x-{name}"',
            "crossbus.toml and two.toml both say profiles.production.names: say it in one of them",
        ),
        (
            '[profiles.production.variables]\nenv = "test"',
            "made/one.toml and two.toml both say profiles.production.variables.env: say it in one of them",
        ),
        ("profiles = 3", "crossbus.toml and two.toml both say profiles: say it in one of them"),
        (
            "zzz = 1",
            "two.toml: unknown key zzz; known: default_profile, include, profiles, subscriptions, topics",
        ),
        ("[topics.orders]\nexternal = 1", "two.toml: topics.orders.external must be true or false, not 1"),
        ("[topics.orders]\nzzz = 1", "two.toml: unknown key topics.orders.zzz; known: external"),
        ("[profiles.desk]\nurl = 'x'", "two.toml [profiles.desk]: "),
        ("[profiles.production]\nx = ''", "two.toml: profiles.production.x must be a text"),
        (
            "[topics.orders]\nprofile = 'zzz'",
            "two.toml: topics.orders.profile names the profile 'zzz'",
        ),
        ("x = ", "two.toml, line 1"),
        ('include = ["three.toml"]', "two.toml: an included file cannot include others; crossbus.toml does"),
    ],
)
def test_mistakes_name_the_file_that_has_them(folder: Path, text: str, says: str) -> None:
    write(folder, text, "two.toml")
    assert wrong(profile="production", cwd=folder).startswith(says)


@pytest.mark.parametrize(
    ("include", "says"),
    [
        (
            '["made/two.toml"]',
            "crossbus.toml: include names 'made/two.toml', but there is no file 'made/two.toml': make it (an empty "
            "file will do), or take the name out",
        ),
        ('["made"]', "crossbus.toml: include: 'made' is a directory"),
        (
            '"two.toml"',
            "crossbus.toml: include must be a list of files, such as ['crossbus.generated.toml'], not ",
        ),
        ('["two.toml", ""]', "crossbus.toml: include must be a list of files"),
        ('["two.toml", "two.toml"]', "crossbus.toml: include names 'two.toml' twice, or the file itself"),
        ('["crossbus.toml"]', "crossbus.toml: an included file cannot include others; crossbus.toml does"),
    ],
)
def test_what_cannot_be_included(folder: Path, include: str, says: str) -> None:
    assert wrong(toml=MAIN.replace('["made/one.toml", "two.toml"]', include), cwd=folder).startswith(says)


def test_a_mapping_includes_nothing(folder: Path) -> None:
    assert wrong(config={"include": ["two.toml"]}, cwd=folder).startswith(
        "the argument config: include names files, which only a file can do"
    )


def test_a_profile_of_an_included_file_is_found_by_name(folder: Path) -> None:
    assert load(profile="finance", environ={}, cwd=folder).default.origin == "two.toml [profiles.finance]"
