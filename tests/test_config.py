"""Configuration: what is found where, what wins, and one clear line for each mistake."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.adapter_packages import adapters, packages
from tests.docs_blocks import blocks

from crossbus.config import Configuration, check_profile, load, warn_if_in_memory
from crossbus.errors import AdapterNotInstalled, ConfigurationError, DeclarationError
from crossbus.filters import any_, exact, prefix
from crossbus.profiles import Profile
from crossbus.topology import Breaker, RetryPolicy, Subscription, Topic
from crossbus.urls import is_secret, parse_url

__all__ = ["adapters", "packages"]

pytestmark = pytest.mark.usefixtures("adapters")
CHAIN = (
    "credentials come from the provider's own chain (environment, profile, workload identity; CROSSBUS_KEY for a "
    "server of crossbus), never from crossbus's configuration"
)


def write(folder: Path, text: str, name: str = "crossbus.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def wrong(
    url: Any = None,
    *,
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    **given: Any,
) -> str:
    """Load what is wrong; return the message, which is one line."""
    if toml is not None:
        assert cwd is not None
        write(cwd, toml)
    with pytest.raises(ConfigurationError) as caught:
        load(url, environ=environ or {}, cwd=cwd, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_file(tmp_path: Path, toml: str) -> str:
    """The message of a file that is wrong, without the name of the file."""
    message = wrong("local:", toml=toml, cwd=tmp_path)
    assert message.startswith("crossbus.toml")
    return message.removeprefix("crossbus.toml: ")


# --- which connection ---


PROFILES = """
default_profile = "desk"
[profiles.desk]
url = "local:desk"
[profiles.stage]
url = "local:stage"
[profiles.cloud]
url = "eventbridge:?region=eu-west-1"
"""


@pytest.mark.parametrize(
    ("url", "profile", "environ", "target", "origin"),
    [
        (
            "local:arg",
            None,
            {"CROSSBUS_URL": "local:env", "CROSSBUS_PROFILE": "stage"},
            "arg",
            "the argument url",
        ),
        (None, "stage", {"CROSSBUS_URL": "local:env"}, "stage", "crossbus.toml [profiles.stage]"),
        (None, None, {"CROSSBUS_URL": " local:env\n", "CROSSBUS_PROFILE": "stage"}, "env", "CROSSBUS_URL"),
        (
            None,
            None,
            {"CROSSBUS_URL": "", "CROSSBUS_PROFILE": "stage"},
            "stage",
            "crossbus.toml [profiles.stage]",
        ),
        (None, None, {"CROSSBUS_PROFILE": ""}, "desk", "crossbus.toml [profiles.desk]"),
        (None, None, {}, "desk", "crossbus.toml [profiles.desk]"),
    ],
)
def test_precedence(
    tmp_path: Path, url: str | None, profile: str | None, environ: dict[str, str], target: str, origin: str
) -> None:
    write(tmp_path, PROFILES)
    found = load(url, profile=profile, environ=environ, cwd=tmp_path)
    assert found.default.target == target
    assert found.default.origin == origin
    assert found.profiles[found.default.name] is found.default


def test_the_environment_and_the_current_directory_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PROFILES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CROSSBUS_URL", raising=False)
    monkeypatch.setenv("CROSSBUS_PROFILE", "stage")
    assert load().default.target == "stage"


def test_nothing_configured_says_what_to_set(tmp_path: Path) -> None:
    assert wrong(cwd=tmp_path) == (
        f"no bus is configured: there is no crossbus.toml in {tmp_path}; set CROSSBUS_URL (CROSSBUS_URL=local: to try "
        "it in memory), or write a profile into crossbus.toml and set CROSSBUS_PROFILE"
    )
    assert wrong(cwd=tmp_path, toml="").startswith(
        "no bus is configured: crossbus.toml has no profile; set CROSSBUS_URL"
    )
    assert wrong(config={"topics": {"orders": {}}}).startswith(
        "no bus is configured: the argument config has no profile;"
    )


def test_profiles_without_a_choice_are_not_chosen(tmp_path: Path) -> None:
    assert wrong(cwd=tmp_path, toml="[profiles.b]\nurl='local:'\n[profiles.a]\nurl='local:'") == (
        "no bus is configured: set CROSSBUS_PROFILE, or default_profile in crossbus.toml, to one of its profiles (a, b)"
    )


def test_url_and_profile_together_are_refused() -> None:
    assert wrong("local:", profile="desk") == "give the argument url or the argument profile, not both"


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    assert wrong(profile="desk", cwd=tmp_path) == (
        f"the argument profile names the profile 'desk', but there is no crossbus.toml in {tmp_path}: write one, "
        "or set CROSSBUS_URL"
    )
    write(tmp_path, PROFILES)
    assert wrong(environ={"CROSSBUS_PROFILE": "stag"}, cwd=tmp_path) == (
        "CROSSBUS_PROFILE names the profile 'stag', which is not in crossbus.toml; did you mean 'stage'?"
    )
    assert wrong(profile="x", cwd=tmp_path).endswith("not in crossbus.toml; known: cloud, desk, stage")
    # said even when another one is taken: the file is wrong
    assert in_file(tmp_path, "default_profile = 'dsk'\n[profiles.desk]\nurl = 'local:'") == (
        "default_profile names the profile 'dsk', which is not in crossbus.toml; did you mean 'desk'?"
    )
    assert in_file(tmp_path, "default_profile = true") == (
        "default_profile names the profile true, which is not in crossbus.toml; none are known"
    )


def test_only_the_profiles_in_use_need_their_adapter(tmp_path: Path) -> None:
    toml = "[profiles.desk]\nurl = 'local:'\n[profiles.cloud]\nurl = 'pubsub:p'\nanything = 1"
    write(tmp_path, toml)
    found = load(profile="desk", environ={}, cwd=tmp_path)
    assert found.profiles["cloud"].adapter == "pubsub"
    with pytest.raises(AdapterNotInstalled, match=r"^crossbus\.toml \[profiles\.cloud\]: this version"):
        load(profile="cloud", environ={}, cwd=tmp_path)


# --- which file ---


def test_the_file_is_the_argument_or_the_variable_or_the_one_here(tmp_path: Path) -> None:
    for name in ("argument", "variable", "crossbus"):
        write(tmp_path, f"default_profile = 'p'\n[profiles.p]\nurl = 'local:{name}'", f"{name}.toml")
    environ = {"CROSSBUS_CONFIG": "variable.toml"}
    argument = load(config="argument.toml", environ=environ, cwd=tmp_path)
    assert (argument.default.target, argument.path) == ("argument", tmp_path / "argument.toml")
    assert argument.default.origin == "argument.toml [profiles.p]"
    assert load(config=tmp_path / "argument.toml", environ=environ, cwd="/").default.target == "argument"
    assert load(environ=environ, cwd=tmp_path).default.target == "variable"
    assert load(environ={"CROSSBUS_CONFIG": ""}, cwd=tmp_path).default.target == "crossbus"


def test_parent_directories_are_not_searched(tmp_path: Path) -> None:
    write(tmp_path, PROFILES)
    (tmp_path / "below").mkdir()
    assert wrong(cwd=tmp_path / "below").startswith("no bus is configured: there is no crossbus.toml in ")


def test_a_mapping_instead_of_a_file() -> None:
    found = load(config={"default_profile": "p", "profiles": {"p": {"url": "local:m"}}}, environ={})
    assert (found.default.target, found.path) == ("m", None)
    assert found.default.origin == "the argument config [profiles.p]"
    assert wrong("local:", config={1: 2}) == (
        "the argument config: unknown key 1; known: default_profile, include, profiles, subscriptions, topics"
    )
    assert wrong("local:", config={"topics": {1: {}}}).startswith(
        "the argument config: topics.1 is not allowed: topic name 1"
    )
    assert wrong("local:", config={"profiles": {1: {}}}).startswith(
        "the argument config: profiles.1 is no name"
    )


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        wrong("local:", config="gone.toml", cwd=tmp_path)
        == "the argument config: there is no file 'gone.toml'"
    )
    assert wrong("local:", environ={"CROSSBUS_CONFIG": "gone.toml"}, cwd=tmp_path) == (
        "CROSSBUS_CONFIG: there is no file 'gone.toml'"
    )
    assert wrong("local:", config=".", cwd=tmp_path) == (
        "the argument config: '.' is a directory; name a file, such as crossbus.toml in it"
    )
    assert wrong("local:", config=3) == "the argument config is a path or a mapping, not int"
    (tmp_path / "crossbus.toml").mkdir()
    assert wrong("local:", cwd=tmp_path).startswith("'crossbus.toml' is a directory; name a file")
    write(tmp_path, "", "other.toml")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(
        Path, "read_bytes", refuse
    )  # root may read everything, so permissions cannot be tested for real
    assert wrong("local:", config="other.toml", cwd=tmp_path) == (
        "the argument config: 'other.toml' cannot be read: Permission denied"
    )


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    assert (
        in_file(tmp_path, "[profiles.desk]\nurl = local:") == "crossbus.toml, line 2, column 7: Invalid value"
    )
    assert in_file(tmp_path, "\n[topics\n").startswith("crossbus.toml, line 2, column 8: Expected ']'")
    assert in_file(tmp_path, "\nx = '''\nand so on").startswith("crossbus.toml, line 3: ")
    assert in_file(tmp_path, "[topics.orders]\n[topics.orders]").startswith("crossbus.toml, line 2, column ")
    (tmp_path / "crossbus.toml").write_bytes(b"# one\n# \xff\n")
    assert wrong("local:", cwd=tmp_path) == "crossbus.toml, line 2: not UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "crossbus.toml").write_bytes(b"\xef\xbb\xbf[topics.orders]\n")
    assert list(load("local:", environ={}, cwd=tmp_path).topics) == ["orders"]


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "adapter", "scheme", "target", "parameters"),
    [
        ("local:", "local", "local", "", {}),
        ("local:shop", "local", "local", "shop", {}),
        ("local://shop", "local", "local", "shop", {}),
        ("LOCAL:Shop", "local", "local", "Shop", {}),
        ("local:?history=1000", "local", "local", "", {"history": "1000"}),
        ("local:?", "local", "local", "", {}),
        ("local:?path=/tmp/a%20b+c%3D%26.db", "local", "local", "", {"path": "/tmp/a b+c=&.db"}),
        ("local+http://127.0.0.1:8787", "local", "local+http", "127.0.0.1:8787", {}),
        ("local+http://127.0.0.1:8787/", "local", "local+http", "127.0.0.1:8787", {}),
        ("eventbridge:?region=eu-west-1", "eventbridge", "eventbridge", "", {"region": "eu-west-1"}),
        ("pubsub:my-project", "pubsub", "pubsub", "my-project", {}),
        ("pubsub:example.com:my-project", "pubsub", "pubsub", "example.com:my-project", {}),
        (
            "eventgrid://shop.westeurope-1.eventgrid.azure.net",
            "eventgrid",
            "eventgrid",
            "shop.westeurope-1.eventgrid.azure.net",
            {},
        ),
        (
            "eventgrid:?endpoint=http://127.0.0.1:8787",
            "eventgrid",
            "eventgrid",
            "",
            {"endpoint": "http://127.0.0.1:8787"},
        ),
        ("acme:a?x=1&y=2", "acme", "acme", "a", {"x": "1", "y": "2"}),
    ],
)
def test_urls(url: str, adapter: str, scheme: str, target: str, parameters: dict[str, str]) -> None:
    assert parse_url(url, "CROSSBUS_URL") == Profile(
        name="<url>",
        adapter=adapter,
        scheme=scheme,
        target=target,
        parameters=parameters,
        origin="CROSSBUS_URL",
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (3, "a URL is a string such as 'local:', not int"),
        ("", "the URL is empty; write local: to try crossbus in memory"),
        ("local:a b", "the URL holds a space or a control character; write %20 for a space"),
        ("local:\n", "the URL holds a space or a control character; write %20 for a space"),
        ("local", "'local' is no URL: it begins with an adapter and a colon, such as local:; write local:"),
        ("shop", "'shop' is no URL: it begins with an adapter and a colon, such as local:"),
        ("//shop", "this is no URL: it begins with an adapter and a colon, such as local:"),
        ("locl:", "no adapter is called 'locl'; did you mean 'local'? (known: eventbridge, local)"),
        (
            "pubsub:p",
            "this version of crossbus does not contain the pubsub adapter; it has: eventbridge, local",
        ),
        ("local:shop#1", "the URL has a fragment; write %23 for a # that is meant"),
        ("local:?histroy=1", "local has no parameter 'histroy'; did you mean 'history'?"),
        ("local:?x=1", "local has no parameter 'x'; known: history, path"),
        ("eventbridge:?regoin=1", "eventbridge has no parameter 'regoin'; did you mean 'region'?"),
        ("local:?history", "the parameter 'history' has no value: write history=VALUE"),
        ("local:?history=", "the parameter 'history' has no value: write history=VALUE"),
        ("local:?history=1&history=2", "the parameter 'history' stands twice in the URL; give it once"),
        ("local:?=1", "a parameter of the URL has no proper name: write ?NAME=VALUE&NAME=VALUE"),
        ("local:?history=1&", "a parameter of the URL has no proper name: write ?NAME=VALUE&NAME=VALUE"),
        ("local:?path=%FF", "the value of 'path' is not UTF-8 when percent-decoded"),
        ("local:%00", "the target holds a control character"),
    ],
)
def test_urls_that_are_wrong(tmp_path: Path, url: Any, message: str) -> None:
    assert wrong(url, cwd=tmp_path) == f"the argument url: {message}"


@pytest.mark.parametrize(
    "url",
    [
        "eventgrid://me:s3cr3t@shop.example",
        "eventgrid:me%3As3cr3t%40shop.example",
        "eventgrid://h?key=s3cr3t",
        "eventgrid://h?accessKey=s3cr3t",
        "eventgrid://h?SharedAccessKey=s3cr3t",
        "eventgrid://h?sas_token=s3cr3t",
        "eventgrid://h?client-secret=s3cr3t",
        "eventgrid://h?password=s3cr3t",
        "eventgrid://h?sig=s3cr3t",
        "eventgrid:?endpoint=https://me:s3cr3t@host",
        "eventgrid:?endpoint=https://host/?sig%3Ds3cr3t",
        "eventgrid:?endpoint=SharedAccessKey%3Ds3cr3t",
        "eventbridge:?aws_secret_access_key=s3cr3t",
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    message = wrong(url, cwd=tmp_path)
    assert "s3cr3t" not in message
    assert message.endswith(CHAIN)


@pytest.mark.parametrize(
    "url", ["s3cr3t+/=", "Endpoint=sb://x;SharedAccessKey=s3cr3t", "//s3cr3t", "local:?s3cr3t/+=="]
)
def test_what_may_be_a_credential_in_the_wrong_place_is_not_shown(tmp_path: Path, url: str) -> None:
    assert "s3cr3t" not in wrong(url, cwd=tmp_path)


def test_messages_about_credentials(tmp_path: Path) -> None:
    start = "the argument url: "
    assert wrong("eventgrid://u:p@h", cwd=tmp_path) == (
        f"{start}the URL holds a user name or a password; {CHAIN}"
    )
    assert wrong("local:?key=x", cwd=tmp_path) == f"{start}the parameter 'key' is refused: {CHAIN}"
    assert (
        wrong("local:?path=//u:p@h", cwd=tmp_path)
        == f"{start}the value of 'path' holds a credential: {CHAIN}"
    )


def test_which_names_are_those_of_credentials() -> None:
    for name in (
        "key",
        "Key",
        "api_key",
        "token",
        "passwd",
        "connection_string",
        "credentials_file",
        "pwd",
        "auth",
    ):
        assert is_secret(name), name
    for name in ("keyspace", "region", "partition_key", "path", "history", "monkey", "signal", "author"):
        assert not is_secret(name), name


# --- profiles ---


def test_a_profile_by_adapter_is_that_by_url(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        [profiles.a]
        url = "local:shop%3F%23%25?history=1000"
        [profiles.b]
        adapter = "local"
        target = "shop?#%"
        history = 1000
        [profiles.c]
        url = "local+http://127.0.0.1:8787"
        x = true
        y = 1.5
        """,
    )
    found = load("local:", environ={}, cwd=tmp_path).profiles
    for one in (found["a"], found["b"]):
        assert (one.adapter, one.target, one.parameters) == ("local", "shop?#%", {"history": "1000"})
    assert (found["c"].adapter, found["c"].scheme) == ("local", "local+http")
    assert found["c"].parameters == {"x": "true", "y": "1.5"}


def test_names_and_variables_of_a_profile(tmp_path: Path) -> None:
    write(
        tmp_path,
        "[profiles.p]\nurl = 'local:'\nnames = '{env}-{n}-{name}'\nvariables = { env = 'prod', n = 1 }",
    )
    profile = load(profile="p", environ={}, cwd=tmp_path).default
    assert (profile.names, profile.variables) == ("{env}-{n}-{name}", {"env": "prod", "n": "1"})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "profiles.p must have url or adapter, one of the two"),
        ("url='local:'\nadapter='local'", "profiles.p must have url or adapter, one of the two"),
        ("url='local:'\ntarget='x'", "profiles.p must not have both url and target: the URL says the target"),
        (
            "adapter='local:'",
            "profiles.p.adapter is the name of an adapter, such as 'local', not a URL; write url = ...",
        ),
        ("adapter=''", "profiles.p.adapter must be a text that is not empty, not ''"),
        ("adapter='local'\ntarget=1", "profiles.p.target must be a text that is not empty, not 1"),
        ("url='local:'\nnames=1", "profiles.p.names must be a text that is not empty, not 1"),
        ("url='local:'\nvariables=1", "profiles.p.variables must be a table, not 1"),
        (
            "url='local:'\nvariables={env=[1]}",
            "profiles.p.variables.env must be a text, a number, true or false, not a list",
        ),
        ("url='local:?history=1'\nhistory=2", "profiles.p.history stands in the url too; give it once"),
        (
            "url='local:'\nhistory=[1]",
            "profiles.p.history must be a text, a number, true or false, not a list",
        ),
        ("url='local:'\nhistory=''", "profiles.p.history must be a text, a number, true or false, not ''"),
        (
            "url='local:'\n[profiles.p.variable]\na=1",
            "unknown key profiles.p.variable; did you mean 'variables'?",
        ),
        ("url='local:'\n[profiles.p.topics.orders]\nx=1", "unknown key profiles.p.topics.orders.x; "),
        (
            "url='local:'\n[profiles.p.subscriptions.orders]",
            'profiles.p.subscriptions.orders must be called "TOPIC/NAME"',
        ),
        (
            "url='local:'\n[profiles.p.topics.orders]\nprofile='q'",
            "profiles.p.topics.orders.profile names the profile 'q', ",
        ),
    ],
)
def test_profiles_that_are_wrong(tmp_path: Path, lines: str, message: str) -> None:
    assert in_file(tmp_path, f"[profiles.p]\n{lines}").startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("url=1", "a URL is a string such as 'local:', not int"),
        ("url='local:#'", "the URL has a fragment; write %23 for a # that is meant"),
        ("url='local:'\ntoken='s3cr3t'", f"the parameter 'token' is refused: {CHAIN}"),
        ("url='local:'\nendpoint='//a:s3cr3t@b'", f"the value of 'endpoint' holds a credential: {CHAIN}"),
        ("url='local:'\nnmaes='x'", "local has no parameter 'nmaes'; did you mean 'names'?"),
        ("url='local:'\nhistroy=1", "local has no parameter 'histroy'; did you mean 'history'?"),
        (
            "url='local:'\nnames='{evn}-{name}'\nvariables={env='x'}",
            "the name template '{evn}-{name}' uses {evn}, which is not among the variables; did you mean 'env'?",
        ),
        (
            "adapter='locl'",
            "no adapter is called 'locl'; did you mean 'local'? (known: eventbridge, local)",
        ),
    ],
)
def test_profiles_that_are_wrong_when_they_are_taken(tmp_path: Path, lines: str, message: str) -> None:
    found = wrong(profile="p", toml=f"[profiles.p]\n{lines}", cwd=tmp_path)
    assert found == f"crossbus.toml [profiles.p]: {message}"


# --- topics ---


def topic_settings(tmp_path: Path, toml: str, url: str | None = "local:", **given: Any) -> Configuration:
    write(tmp_path, toml)
    return load(url, environ={}, cwd=tmp_path, **given)


def test_a_topic_is_what_program_and_file_say_and_the_file_wins(tmp_path: Path) -> None:
    found = topic_settings(
        tmp_path,
        """
        [profiles.q]
        url = "local:q"
        [topics.orders]
        profile = "q"
        resource = "arn:orders"
        external = true
        validate = "provider"
        wire = "detail-data"
        options = { a = 1 }
        [topics.invoices]
        external = false
        """,
    )
    program = Topic("orders", profile="x", resource="y", options={"a": 0, "b": 2})
    applied = found.apply_topic(program)
    assert applied == Topic(
        "orders",
        profile="q",
        resource="arn:orders",
        external=True,
        options={"a": 1, "b": 2, "wire": "detail-data"},
    )
    assert found.apply_topic(applied) == applied
    assert found.apply_topic(Topic("invoices", resource="mine", external=True)) == Topic(
        "invoices", resource="mine"
    )
    assert found.apply_topic(Topic("shipping", resource="mine")) == Topic("shipping", resource="mine")
    assert (found.validate_for("orders"), found.validate_for("invoices")) == ("provider", None)
    assert found.validate_for("shipping") is None


def test_a_topic_lives_in_its_profile(tmp_path: Path) -> None:
    found = topic_settings(
        tmp_path,
        "[profiles.q]\nurl='local:q'\n[profiles.r]\nurl='local:r'\n[topics.orders]\nprofile='q'\n[topics.invoices]",
    )
    assert found.profile_for("orders").target == "q"
    assert found.profile_for(Topic("orders", profile="r")).target == "q"
    assert found.profile_for(Topic("invoices", profile="r")).target == "r"
    assert found.profile_for("invoices") is found.default
    dead = Subscription(topic=found.apply_topic(Topic("orders")), name="billing").dead_letter
    assert found.profile_for(dead).target == "q"
    with pytest.raises(ConfigurationError) as caught:
        found.profile_for(Topic("invoices", profile="zzz"))
    assert str(caught.value) == (
        "topic 'invoices' is to live in profile 'zzz', which is not in crossbus.toml; known: <url>, q, r"
    )


def test_the_profiles_of_listed_topics_are_checked_at_once(tmp_path: Path) -> None:
    toml = "[profiles.q]\nurl='local:?histroy=1'\n[topics.orders]\nprofile='q'"
    assert wrong("local:", toml=toml, cwd=tmp_path) == (
        "crossbus.toml [profiles.q]: local has no parameter 'histroy'; did you mean 'history'?"
    )


def test_once_topics_are_listed_others_are_refused(tmp_path: Path) -> None:
    found = topic_settings(tmp_path, "[topics.orders]\n[topics.invoices]")
    found.check_topic("orders")
    with pytest.raises(DeclarationError) as caught:
        found.check_topic("ordrs")
    assert str(caught.value) == (
        "topic 'ordrs' is not among the topics that crossbus.toml lists; did you mean 'orders'?"
    )
    load("local:", config={}, environ={}).check_topic("anything")


# --- subscriptions ---


BILLING = Subscription(topic=Topic("orders"), name="billing")


def test_a_subscription_is_what_program_and_file_say_and_the_file_wins(tmp_path: Path) -> None:
    found = topic_settings(
        tmp_path,
        """
        [topics.orders]
        resource = "arn:orders"
        [subscriptions."orders/billing"]
        filter = { any = [{ exact = { type = "a.b" } }, { prefix = { source = "/shop" } }] }
        ordered = true
        retry = { attempts = "unlimited", max_delay = 60 }
        lease = 30
        retention = 3600.5
        concurrency = 3
        timeout = 5
        batch = 7
        on_invalid = "pause"
        on_unhandled = "drop"
        on_mismatch = "dead_letter"
        breaker = { rejected = 8, of = 10 }
        backstop = 50
        resource = "queue"
        dead_letter_resource = "dead"
        external = true
        native_filter = { eventbridge = { source = ["x"] } }
        options = { a = 1 }
        """,
    )
    program = BILLING.replace(
        retry=RetryPolicy(attempts=3, first_delay=9),
        retention=1.0,
        native_filter={"pubsub": "p", "eventbridge": {}},
        options={"b": 2},
    )
    applied = found.apply_subscription(program)
    assert applied == Subscription(
        topic=Topic("orders", resource="arn:orders"),
        name="billing",
        filter=any_(exact(type="a.b"), prefix(source="/shop")),
        ordered=True,
        retry=RetryPolicy(attempts="unlimited", first_delay=9, max_delay=60),
        lease=30,
        retention=3600.5,
        concurrency=3,
        timeout=5,
        batch=7,
        on_invalid="pause",
        on_unhandled="drop",
        on_mismatch="dead_letter",
        breaker=Breaker(rejected=8, of=10),
        backstop=50,
        resource="queue",
        dead_letter_resource="dead",
        external=True,
        native_filter={"pubsub": "p", "eventbridge": {"source": ["x"]}},
        options={"b": 2, "a": 1},
    )
    assert found.apply_subscription(applied) == applied


def test_a_subscription_that_the_file_does_not_name_has_its_topic_applied(tmp_path: Path) -> None:
    found = topic_settings(
        tmp_path, "[topics.orders]\nresource='arn'\n[subscriptions.'orders/audit']\nlease=1"
    )
    assert found.apply_subscription(BILLING) == BILLING.replace(topic=Topic("orders", resource="arn"))


def test_filters_of_a_mapping_may_be_built_in_python() -> None:
    built = exact(type="a.b")
    for value in (built, {"exact": {"type": "a.b"}}, [{"exact": {"type": "a.b"}}]):
        found = load("local:", config={"subscriptions": {"orders/billing": {"filter": value}}}, environ={})
        assert found.apply_subscription(BILLING).filter == built
        assert found.apply_subscription(BILLING.replace(filter=exact(type="a.b"))).filter == built


def test_what_the_handler_relies_on_is_not_changed_by_the_file(tmp_path: Path) -> None:
    found = topic_settings(
        tmp_path, "[subscriptions.'orders/billing']\nfilter = { exact = { type = 'a.b' } }\nordered = false"
    )
    assert found.apply_subscription(BILLING).ordered is False
    with pytest.raises(ConfigurationError) as caught:
        found.apply_subscription(BILLING.replace(filter=exact(type="a.c")))
    assert str(caught.value) == (
        'crossbus.toml: subscriptions."orders/billing".filter is type = "a.b", but the program says type = "a.c": '
        "say it in one place only"
    )
    with pytest.raises(ConfigurationError) as caught:
        found.apply_subscription(BILLING.replace(ordered=True))
    assert str(caught.value) == (
        'crossbus.toml: subscriptions."orders/billing".ordered is false, but the program says true: '
        "say it in one place only"
    )


# --- inside a profile ---


def test_what_stands_in_the_profile_taken_wins_over_the_top_level(tmp_path: Path) -> None:
    toml = """
        [profiles.desk]
        url = "local:"
        [profiles.cloud]
        url = "eventbridge:"
        [profiles.cloud.topics.orders]
        resource = "arn:orders"
        options = { b = 3 }
        [profiles.cloud.topics.invoices]
        profile = "desk"
        [profiles.cloud.subscriptions."orders/billing"]
        retention = 9
        [profiles.cloud.subscriptions."orders/audit"]
        lease = 9
        [topics.orders]
        external = true
        options = { a = 1, b = 2 }
        [topics.invoices]
        [subscriptions."orders/billing"]
        retention = 1
        lease = 1
        """
    desk = topic_settings(tmp_path, toml, None, profile="desk")
    assert desk.apply_topic(Topic("orders")) == Topic("orders", external=True, options={"a": 1, "b": 2})
    assert desk.profile_for("invoices").name == "desk"
    assert desk.apply_subscription(BILLING).retention == 1
    cloud = topic_settings(tmp_path, toml, None, profile="cloud")
    assert cloud.apply_topic(Topic("orders")) == Topic(
        "orders", resource="arn:orders", external=True, options={"a": 1, "b": 3}
    )
    assert (cloud.profile_for("orders").name, cloud.profile_for("invoices").name) == ("cloud", "desk")
    billing = cloud.apply_subscription(BILLING)
    assert (billing.retention, billing.lease) == (9, 1)
    assert cloud.apply_subscription(BILLING.replace(name="audit")).lease == 9
    by_url = topic_settings(tmp_path, toml, "eventbridge:")
    assert by_url.apply_topic(Topic("orders")).resource is None


# --- keys and types ---


TOPIC_KEYS = "external, options, profile, resource, validate, wire"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("topic = 1", "unknown key topic; did you mean 'topics'?"),
        ("zzz = 1", "unknown key zzz; known: default_profile, include, profiles, subscriptions, topics"),
        ("profiles = 1", "profiles must be a table, not 1"),
        ("[profiles.'a b']", 'profiles."a b" is no name for a profile: letters, digits, _ and - are allowed'),
        ("profiles.p = 1", "profiles.p must be a table, not 1"),
        ("topics = []", "topics must be a table, not a list"),
        ("topics.orders = true", "topics.orders must be a table, not true"),
        (
            "[topics.Orders]",
            "topics.Orders is not allowed: topic name 'Orders' is not allowed: 3 to 40 characters, a-z, 0-9 and single "
            "hyphens, beginning with a letter and not ending with a hyphen",
        ),
        ("[topics.orders]\nexternl = true", "unknown key topics.orders.externl; did you mean 'external'?"),
        ("[topics.orders]\nz = true", f"unknown key topics.orders.z; known: {TOPIC_KEYS}"),
        ("[topics.orders]\nexternal = 'yes'", "topics.orders.external must be true or false, not 'yes'"),
        ("[topics.orders]\nexternal = 1", "topics.orders.external must be true or false, not 1"),
        ("[topics.orders]\nresource = ''", "topics.orders.resource must be a text that is not empty, not ''"),
        (
            "[topics.orders]\nprofile = 1979-05-27",
            "topics.orders.profile must be a text that is not empty, not ",
        ),
        (
            "[topics.orders]\nvalidate = 'strict'",
            "topics.orders.validate must be 'portable' or 'provider', not 'strict'",
        ),
        (
            "[topics.orders]\nvalidate = ['portable']",
            "topics.orders.validate must be 'portable' or 'provider', not a list",
        ),
        ("[topics.orders]\noptions = 1", "topics.orders.options must be a table, not 1"),
        (
            f"[topics.orders]\nvalidate = '{'x' * 99}'",
            f"topics.orders.validate must be 'portable' or 'provider', not '{'x' * 56}...",
        ),
        (
            "[topics.orders]\nprofile = 'q'",
            "topics.orders.profile names the profile 'q', which is not in crossbus.toml; none are known",
        ),
        ("subscriptions = 1", "subscriptions must be a table, not 1"),
        (
            "[subscriptions.orders]\nlease = 1",
            'subscriptions.orders must be called "TOPIC/NAME", such as "orders/billing"',
        ),
        (
            "[subscriptions.'orders/B']",
            "subscriptions.\"orders/B\" is not allowed: subscription name 'B' is not allowed: 3",
        ),
        (
            "[subscriptions.'O/billing']",
            "subscriptions.\"O/billing\" is not allowed: topic name 'O' is not allowed: 3",
        ),
        (
            "[topics.orders]\n[subscriptions.'ordrs/billing']",
            "subscriptions.\"ordrs/billing\" is of a topic that is not listed in [topics]; did you mean 'orders'?",
        ),
        (
            "[topics.orders]\n[profiles.p]\nurl='local:'\n[profiles.p.topics.ordrs]",
            "profiles.p.topics.ordrs is not listed in [topics]; did you mean 'orders'?",
        ),
        (
            "[topics.orders]\n[profiles.p]\nurl='local:'\n[profiles.p.subscriptions.'ordrs/billing']",
            'profiles.p.subscriptions."ordrs/billing" is of a topic that is not listed in [topics]; '
            "did you mean 'orders'?",
        ),
    ],
)
def test_keys_and_types(tmp_path: Path, toml: str, message: str) -> None:
    assert in_file(tmp_path, toml).startswith(message)


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        (
            "filter = 'x'",
            "filter",
            "must be a filter such as { exact = { type = 'com.acme.order.placed' } }, not 'x'",
        ),
        (
            "filter = []",
            "filter",
            "must be a filter such as { exact = { type = 'com.acme.order.placed' } }, not a list",
        ),
        (
            "filter = {}",
            "filter",
            "must be a filter such as { exact = { type = 'com.acme.order.placed' } }, not a table",
        ),
        (
            "filter = { exct = { type = 'x' } }",
            "filter",
            "is no filter: filter: unknown dialect 'exct'; did you mean 'exact'?",
        ),
        ("ordered = 1", "ordered", "must be true or false, not 1"),
        ("retry = 5", "retry", "must be a table, not 5"),
        (
            "retry = { attempts = 0 }",
            "retry.attempts",
            "must be a whole number from 1, or 'unlimited', not 0",
        ),
        (
            "retry = { attempts = true }",
            "retry.attempts",
            "must be a whole number from 1, or 'unlimited', not true",
        ),
        ("retry = { first_delay = -1 }", "retry.first_delay", "must be a number from 0, not -1"),
        ("retry = { factor = 0.5 }", "retry.factor", "must be a number from 1, not 0.5"),
        ("retry = { max_delay = inf }", "retry.max_delay", "must be a number from 0, not inf"),
        ("retry = { jitter = 1 }", "retry.jitter", "must be true or false, not 1"),
        ("lease = 0", "lease", "must be a number of seconds above 0, not 0"),
        ("lease = nan", "lease", "must be a number of seconds above 0, not nan"),
        ("lease = true", "lease", "must be a number of seconds above 0, not true"),
        ("retention = '4 days'", "retention", "must be a number of seconds above 0, not '4 days'"),
        ("timeout = {}", "timeout", "must be a number of seconds above 0, not a table"),
        ("concurrency = 0", "concurrency", "must be a whole number from 1, not 0"),
        ("batch = 1.5", "batch", "must be a whole number from 1, not 1.5"),
        ("backstop = '5'", "backstop", "must be a whole number from 1, not '5'"),
        ("on_invalid = 'drop'", "on_invalid", "must be 'reject', 'retry' or 'pause', not 'drop'"),
        ("on_unhandled = 'retry'", "on_unhandled", "must be 'reject' or 'drop', not 'retry'"),
        ("on_mismatch = 'keep'", "on_mismatch", "must be 'release', 'dead_letter' or 'drop', not 'keep'"),
        ("breaker = 5", "breaker", "must be a table, not 5"),
        ("breaker = { of = 5 }", "breaker", "must have both rejected and of: { rejected = 8, of = 10 }"),
        ("breaker = { rejected = 0, of = 5 }", "breaker.rejected", "must be a whole number from 1, not 0"),
        (
            "breaker = { rejected = 6, of = 5 }",
            "breaker",
            "is not allowed: Breaker(rejected=6, of=5): rejected must be from 1 to `of`",
        ),
        ("native_filter = 'x'", "native_filter", "must be a table, not 'x'"),
        ("external = 'no'", "external", "must be true or false, not 'no'"),
    ],
)
def test_types_of_a_subscription(tmp_path: Path, line: str, key: str, message: str) -> None:
    found = in_file(tmp_path, f"[subscriptions.'orders/billing']\n{line}")
    assert found.startswith(f'subscriptions."orders/billing".{key} {message}')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dead_letter = 'x'", "dead_letter; did you mean 'dead_letter_resource'?"),
        ("concurency = 1", "concurency; did you mean 'concurrency'?"),
        ("retry = { atempts = 1 }", "retry.atempts; did you mean 'attempts'?"),
        ("breaker = { rejections = 1 }", "breaker.rejections; did you mean 'rejected'?"),
    ],
)
def test_unknown_keys_of_a_subscription(tmp_path: Path, line: str, message: str) -> None:
    found = in_file(tmp_path, f"[subscriptions.'orders/billing']\n{line}")
    assert found == f'unknown key subscriptions."orders/billing".{message}'


# --- deployed, but in memory ---


VARIABLES = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "K_SERVICE": "Cloud Run",
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_deployed_program_in_memory_warns_once(variable: str, caplog: pytest.LogCaptureFixture) -> None:
    assert warn_if_in_memory(parse_url("local:shop", "CROSSBUS_URL"), {variable: "x"})
    assert caplog.record_tuples == [
        (
            "crossbus",
            logging.WARNING,
            "CROSSBUS_URL is local:, which keeps events in the memory of this process and loses them with it, but "
            f"{variable} is set ({VARIABLES[variable]}): configure the bus of this deployment with CROSSBUS_URL or "
            "CROSSBUS_PROFILE",
        )
    ]


def test_two_such_variables_give_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_in_memory(Profile(), dict.fromkeys(VARIABLES, "x"))
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("the bus is local:")


@pytest.mark.parametrize("url", ["local:?path=events.db", "local+http://127.0.0.1:1", "eventbridge:"])
def test_a_program_that_does_not_keep_its_events_in_memory_is_not_warned(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not warn_if_in_memory(parse_url(url, "CROSSBUS_URL"), {"K_SERVICE": "x"})
    assert not caplog.records


def test_a_program_on_the_desk_is_not_warned(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert not warn_if_in_memory(Profile())
    assert not warn_if_in_memory(Profile(), {"K_SERVICE": ""})
    assert not caplog.records


# --- what the documentation shows ---


def test_the_file_in_the_reference_is_right(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
    (toml,) = [block.text for block in blocks(page) if block.language == "toml"]
    desk = topic_settings(tmp_path, toml, None)
    assert desk.default.target == "shop"
    assert desk.apply_subscription(BILLING).retry.attempts == 8
    assert desk.profile_for("invoices") is desk.default
    assert desk.profiles["production"].variables == {"env": "prod"}
    with pytest.raises(AdapterNotInstalled, match="pubsub"):  # production moves invoices to it
        load(profile="production", environ={}, cwd=tmp_path)


def test_every_key_is_in_the_reference() -> None:
    from crossbus.config_file import PROFILE_KEYS, TOP_KEYS
    from crossbus.settings import _SUBSCRIPTION, _TOPIC

    page = (Path(__file__).parent.parent / "docs" / "reference" / "configuration.md").read_text(
        encoding="utf-8"
    )
    for key in (*TOP_KEYS, *PROFILE_KEYS, *_TOPIC, *_SUBSCRIPTION, *VARIABLES):
        assert f"`{key}`" in page, key


def test_a_configuration_made_by_hand_checks_nothing() -> None:
    configuration = Configuration(default=Profile())
    configuration.check_topic("orders")
    assert configuration.profile_for("orders") == Profile()
    assert configuration.apply_subscription(BILLING) == BILLING
    check_profile(Profile(parameters={"history": "1"}))


def test_a_misspelt_url_is_said_to_be_that() -> None:
    with pytest.raises(
        ConfigurationError, match=r"profiles\.dev\.ulr is no key of a profile; did you mean 'url'\?"
    ):
        load(config={"profiles": {"dev": {"ulr": "local:"}}, "default_profile": "dev"}, environ={})
